"""Commands that keep house in a bank: names and versions, copies elsewhere, other formats.

Registered on the command line by ``for command in BANK_COMMANDS: commands.add_command(command)``.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from skillbank.bank import Bank

FORMATS = {".h5": "h5", ".safetensors": "safetensors", ".onnx": "onnx", ".md": "card"}
BRIEF = 100  # characters of a value that differs, at most

bank_option = click.option(
    "--bank",
    "bank_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where skills are kept. [default: $SKILLBANK_HOME, or your own data folder]",
)


@click.command()
@click.argument("skill")
@click.argument("label")
@bank_option
def alias(skill: str, label: str, bank_folder: Path | None) -> None:
    """Let NAME@LABEL mean a version: alias walk@2 best."""
    reference = open_bank(bank_folder).alias(skill, label)
    click.echo(f"{reference.partition('@')[0]}@{label} is {reference}")


@click.command()
@click.argument("reference", metavar="NAME@LABEL")
@bank_option
def unalias(reference: str, bank_folder: Path | None) -> None:
    """Drop an alias; the version that it means stays."""
    open_bank(bank_folder).unalias(reference)
    click.echo(f"{reference} is no more")


@click.command()
@click.argument("first")
@click.argument("second")
@bank_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff(first: str, second: str, bank_folder: Path | None, as_json: bool) -> None:
    """Compare two skills, of the bank or files, metadata and parameters."""
    found = open_bank(bank_folder).diff(named(first), named(second))
    if as_json:
        click.echo(json.dumps(found._asdict()))
        return
    for path, (one, other) in found.metadata.items():
        click.echo(f"{path}: {_brief(one)} -> {_brief(other)}")
    for name, how in found.parameters.items():
        click.echo(f"{name}: {how if isinstance(how, str) else f'differs by up to {how:.3g}'}")
    one, other = found.content_hashes
    if one == other:
        click.echo(f"{first} and {second} are the same skill")
    elif not (found.metadata or found.parameters):
        click.echo(
            f"{first} and {second} mean the same, but one leaves to defaults what the other "
            f"writes out: content {one[:12]} -> {other[:12]}"
        )


def _brief(value: object) -> str:
    """A value on its part of a line; ``--json`` has all of it."""
    text = str(value)
    if len(text) <= BRIEF:
        return text
    if isinstance(value, list):
        entries = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"[{entries}, {digest}]"  # as many may yet be others
    return f"{text[:BRIEF]}..."


@click.command()
@click.option("--keep", type=click.IntRange(1), help="Also drop all but the N newest versions.")
@bank_option
def gc(keep: int | None, bank_folder: Path | None) -> None:
    """Sweep what crashes left behind; with --keep also old versions nothing refers to."""
    removed = open_bank(bank_folder).gc(keep)
    click.echo("\n".join(f"removed {what}" for what in removed) or "nothing to remove")


@click.command()
@click.argument("skill")
@click.argument("url")
@bank_option
def push(skill: str, url: str, bank_folder: Path | None) -> None:
    """Copy a skill to a bank elsewhere, such as s3://bucket/skills."""
    from skillbank.remote import RemoteBank

    click.echo(f"{url} has {RemoteBank(url).push(open_bank(bank_folder), skill)}")


@click.command()
@click.argument("skill")
@click.argument("url")
@bank_option
def pull(skill: str, url: str, bank_folder: Path | None) -> None:
    """Copy a skill from a bank elsewhere; its hash is checked on the way."""
    from skillbank.remote import RemoteBank

    bank = open_bank(bank_folder, new=True)
    _say_kept(bank, RemoteBank(url).pull(bank, skill))


@click.command()
@click.argument("skill")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["h5", "safetensors", "onnx", "card"]),
    help="A skill file; safetensors; the networks as two ONNX files (of walk.onnx they are "
    "walk-sampler.onnx and walk-critic.onnx; any other PATH is a folder for them); a model card. "
    "[default: what PATH ends with, .h5, .safetensors, .onnx or .md]",
)
@bank_option
def export(skill: str, path: Path, kind: str | None, bank_folder: Path | None) -> None:
    """Write a skill, of the bank or a file, elsewhere or in another format."""
    from skillbank import durable, storage
    from skillbank.export import model_card, to_safetensors

    kind = kind or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise click.UsageError(
            f"what format should {path} have? Let it end with {', '.join(FORMATS)}, or say --format"
        )
    bank = open_bank(bank_folder)
    reference = named(skill)
    stored = bank.read(reference)
    written = [path]
    if kind == "h5":  # byte for byte, so that it stays the same skill
        durable.replace_file(path, storage.read_bytes(bank.path(reference)))
    elif kind == "safetensors":
        to_safetensors(stored, path)
    elif kind == "onnx":
        from skillbank.export_onnx import to_onnx

        written = to_onnx(stored, path)
    else:
        durable.replace_file(path, model_card(stored).encode())
    click.echo("\n".join(f"wrote {one}" for one in written))


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="In the bank.")
@bank_option
def import_(path: Path, name: str, bank_folder: Path | None) -> None:
    """Keep a skill file, or a .safetensors that was exported, in the bank."""
    from skillbank import storage
    from skillbank.export import from_safetensors

    if path.suffix.lower() == ".safetensors":
        stored = from_safetensors(path)
        image = storage.encode(stored.spec, stored.parameters)
    else:
        storage.read(path)  # whose errors name the file; what is kept is checked again
        image = storage.read_bytes(path)
    bank = open_bank(bank_folder, new=True)
    _say_kept(bank, bank.add(image, name))


BANK_COMMANDS = (alias, unalias, diff, gc, push, pull, export, import_)


def open_bank(folder: Path | None, *, new: bool = False) -> "Bank":
    """A bank for a command; one that should be there and is not is told, but for a new one."""
    from skillbank.bank import Bank

    bank = Bank(folder, shipped=True)
    if not new and folder is not None and not bank.folder.exists():
        click.echo(f"no bank at {folder} yet", err=True)
    return bank


def _say_kept(bank: "Bank", reference: str) -> None:
    own = bank.path(reference).parent == bank.folder
    click.echo(f"kept as {reference}" if own else f"{reference} is that skill: nothing to keep")


def named(skill: str) -> str | Path:
    """What a user means by a skill: the path of a file, or else a reference in the bank."""
    if "/" in skill or skill.endswith(".h5") or Path(skill).is_file():
        return Path(skill)
    return skill

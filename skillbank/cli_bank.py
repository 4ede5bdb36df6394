"""Commands that manage a bank: names and versions, remote copies, other formats.

Registered on the command line by ``for command in BANK_COMMANDS: commands.add_command(command)``.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skillbank import errors
from skillbank.cli_options import FilePath, bank_option, json_option, named, open_bank
from skillbank.cli_printing import print_json, say, score
from skillbank.config import bare_name

if TYPE_CHECKING:
    from skillbank.bank import Bank

FORMATS = {".h5": "h5", ".safetensors": "safetensors", ".onnx": "onnx", ".md": "card"}
BRIEF = 100  # maximum number of characters of a value in a diff


@click.command("list")
@bank_option
@json_option
def list_skills(bank_folder: Path | None, as_json: bool) -> None:
    """List the skills in the bank."""
    listed = open_bank(bank_folder).listing()
    if as_json:
        print_json(
            [
                {
                    "reference": line.reference,
                    "aliases": line.aliases,
                    "shipped": line.shipped,
                    "problem": line.problem,
                }
                | (line.entry.model_dump(mode="json", exclude=_FILE_FACTS) if line.entry else {})
                for line in listed
            ]
        )
        return
    rows = [("SKILL", "TASK", "STEPS", "RETURN", "")]
    for line in listed:
        own = [f"@{label}" for label in line.aliases if label != "latest"]
        note = " ".join([*own, *(["shipped"] if line.shipped else [])])
        if line.entry is None:
            rows.append((line.reference, "-", "-", "-", f"cannot be used: {line.problem}"))
            continue
        found = line.entry.evaluation
        score = "-" if found is None else f"{found.mean_return:.4g}"
        task = bare_name(line.entry.env_id)
        rows.append((line.reference, task, str(line.entry.steps), score, note))
    if len(rows) == 1:
        click.echo("no skills yet; 'skillbank pretrain' makes one")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[4]]).rstrip())


_FILE_FACTS = {"size", "mtime_ns", "body_hash", "offsets"}


@click.command()
@click.argument("name")
@bank_option
@json_option
def show(name: str, bank_folder: Path | None, as_json: bool) -> None:
    """Show the metadata of a skill, from the bank or a file."""
    from skillbank.config import FinetuneConfig
    from skillbank.spec import blocks_text

    bank = open_bank(bank_folder)
    card = bank.show(named(name))
    if as_json:
        print_json(card)
        return
    spec = bank.spec(named(name))
    kind = "pretrained"
    if spec.parents:
        tuned = isinstance(spec.config, FinetuneConfig)
        kind = "fine-tuned" if tuned else "made from other skills"
    lines = {
        "skill": card["reference"],
        "aliases": ", ".join(
            f"{label} (version {number})"
            for label, number in card["aliases"].items()
            if label != "latest"
        ),
        "about": spec.description,
        "task": spec.task,
        "reward": spec.reward,
        "trained": f"{kind}, {spec.steps} steps, {spec.updates} updates, seed {spec.seed}",
        "alpha": f"{spec.temperature:g}",
        "discount": f"{spec.discount:g}",
        "observation": blocks_text(spec.observation_blocks),
        "actions": f"{spec.action_size}, {_bounds(spec.action_low)} to {_bounds(spec.action_high)}",
        "sampler": spec.architecture.sampler
        + (f", {spec.noise_set} fixed noises" if spec.noise_set else ""),
        "made with": ", ".join(f"{key} {value}" for key, value in spec.versions.items()),
        "licence": spec.license,
        "content": card["content_hash"],
        "file": card["path"],
    }
    for label, text in lines.items():
        if text:  # of several lines, the others are indented, so that they forge none of these
            indented = text.replace("\n", "\n" + 13 * " ")
            click.echo(f"{label:<12} {indented}")
    for ancestor in card["lineage"]:
        reference = ancestor["reference"] or "not in this bank"
        deeper = "  " * (ancestor["depth"] - 1)
        click.echo(f"{'made from':<12} {deeper}{reference} ({ancestor['content_hash'][:12]})")
    for record in spec.evaluations:
        click.echo(f"{'scores':<12} {score(record)}")


def _bounds(values: "Sequence[float]") -> str:
    """Format bounds; one number if all are equal."""
    return ", ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))


@click.command()
@click.argument("names", nargs=-1)
@bank_option
@json_option
def verify(names: tuple[str, ...], bank_folder: Path | None, as_json: bool) -> None:
    """Verify the skill files of the bank (all, or the named ones) or any other skill files."""
    bank = open_bank(bank_folder)
    asked = [named(name) for name in names]
    found: dict[str, errors.SkillbankError | None] = {}
    for one in asked:
        known = str(one) if isinstance(one, Path) else bank.resolve(one).reference
        found[known] = _problem(bank.path(one))
    if not names:
        problems = bank.verify()
        found = dict.fromkeys(line.reference for line in bank.listing()) | problems
    if as_json:
        print_json({name: None if bad is None else str(bad) for name, bad in found.items()})
    else:
        for reference, bad in found.items():
            click.echo(f"{reference}: {'good' if bad is None else f'BAD: {bad}'}")
    if any(found.values()):
        click.get_current_context().exit(3)


def _problem(path: Path) -> errors.SkillbankError | None:
    """The problem of a skill file; None if it is valid."""
    from skillbank import storage

    try:
        storage.read(path)
    except errors.SkillbankError as error:
        return error
    return None


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@bank_option
def remove(name: str, yes: bool, bank_folder: Path | None) -> None:
    """Delete a skill, or one version of it (NAME@2), from the bank."""
    bank = open_bank(bank_folder)
    doomed = ", ".join(map(_with_kind, bank.removal(name)))
    try:
        sure = yes or click.confirm(f"delete {doomed} for good?", err=True)
    except click.Abort:
        raise errors.Interrupted("\nnothing was deleted; --yes skips the question") from None
    if not sure:
        say("nothing was deleted")
        return
    for reference in bank.remove(name):
        click.echo(f"{_with_kind(reference)} deleted")


def _with_kind(reference: str) -> str:
    """``walk@2``, or ``alias walk@best``."""
    return reference if reference.rpartition("@")[2].isdigit() else f"alias {reference}"


@click.command()
@click.argument("skill")
@click.argument("label")
@bank_option
def alias(skill: str, label: str, bank_folder: Path | None) -> None:
    """Make NAME@LABEL an alias of a version: alias walk@2 best."""
    reference = open_bank(bank_folder).alias(skill, label)
    click.echo(f"{reference.partition('@')[0]}@{label} is {reference}")


@click.command()
@click.argument("reference", metavar="NAME@LABEL")
@bank_option
def unalias(reference: str, bank_folder: Path | None) -> None:
    """Delete an alias, but not the version it points to."""
    open_bank(bank_folder).unalias(reference)
    click.echo(f"alias {reference} deleted")


@click.command()
@click.argument("first")
@click.argument("second")
@bank_option
@json_option
def diff(first: str, second: str, bank_folder: Path | None, as_json: bool) -> None:
    """Compare metadata and parameters of two skills, from the bank or files."""
    found = open_bank(bank_folder).diff(named(first), named(second))
    if as_json:
        print_json(found._asdict())
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
            f"{first} and {second} are equivalent, but one omits default values that the other "
            f"stores: content {one[:12]} -> {other[:12]}"
        )


def _brief(value: object) -> str:
    """Shorten a value to fit on a line; ``--json`` prints all of it."""
    text = errors.printable(str(value))
    if len(text) <= BRIEF:
        return text
    if isinstance(value, list):
        entries = "1 entry" if len(value) == 1 else f"{len(value)} entries"
        digest = hashlib.sha256(str(value).encode()).hexdigest()[:8]
        return f"[{entries}, {digest}]"  # the digest tells lists of the same length apart
    return f"{text[:BRIEF]}..."


@click.command()
@click.option(
    "--keep", type=click.IntRange(1), help="Newest versions of each skill to keep. [default: all]"
)
@click.option("--dry-run", is_flag=True, help="Only say which versions --keep would remove.")
@bank_option
def gc(keep: int | None, dry_run: bool, bank_folder: Path | None) -> None:
    """Delete what crashes left behind; with --keep also old versions nothing refers to."""
    bank = open_bank(bank_folder)
    if dry_run:
        if keep is None:
            raise click.UsageError("--dry-run needs --keep")
        removed, done = bank.superfluous(keep), "would remove"
    else:
        removed, done = bank.gc(keep), "removed"
    click.echo("\n".join(f"{done} {what}" for what in removed) or "nothing to remove")


@click.command()
@click.argument("skill")
@click.argument("url")
@click.option("--as", "name", metavar="NAME", help="Name in the remote bank. [default: the same]")
@bank_option
def push(skill: str, url: str, name: str | None, bank_folder: Path | None) -> None:
    """Copy a skill to a remote bank, such as s3://bucket/skills."""
    from skillbank.remote import RemoteBank

    click.echo(f"{url} has {RemoteBank(url).push(open_bank(bank_folder), skill, name)}")


@click.command()
@click.argument("skill")
@click.argument("url")
@click.option("--as", "name", metavar="NAME", help="Name in the bank. [default: the same]")
@bank_option
def pull(skill: str, url: str, name: str | None, bank_folder: Path | None) -> None:
    """Copy a skill from a remote bank, and verify it."""
    from skillbank.remote import RemoteBank

    bank = open_bank(bank_folder, new=True)
    _say_kept(bank, RemoteBank(url).pull(bank, skill, name))


@click.command()
@click.argument("skill")
@click.argument("path", type=FilePath())
@click.option(
    "--format",
    "kind",
    type=click.Choice(["h5", "safetensors", "onnx", "card"]),
    help="A skill file; safetensors; the networks as two ONNX files (walk.onnx gives "
    "walk-sampler.onnx and walk-critic.onnx; any other PATH is a folder for them); a model card. "
    "[default: by the ending of PATH: .h5, .safetensors, .onnx or .md]",
)
@bank_option
def export(skill: str, path: Path, kind: str | None, bank_folder: Path | None) -> None:
    """Export a skill, from the bank or a file, as a skill file or in another format."""
    from skillbank import durable, storage
    from skillbank.export import model_card, to_safetensors

    kind = kind or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise click.UsageError(
            f"unknown format of {path}: use one of the endings {', '.join(FORMATS)}, or --format"
        )
    bank = open_bank(bank_folder)
    reference = named(skill)
    written = [path]
    if kind == "h5":  # an exact copy of the file
        durable.replace_file(path, storage.read_verified(bank.path(reference)))
    elif kind == "safetensors":
        to_safetensors(bank.read(reference), path)
    elif kind == "onnx":
        from skillbank.export_onnx import to_onnx

        written = to_onnx(bank.read(reference), path)
    else:
        durable.replace_file(path, model_card(bank.read(reference)).encode())
    click.echo("\n".join(f"wrote {one}" for one in written))


@click.command("import")
@click.argument("path", type=FilePath())
@click.option("--as", "name", required=True, metavar="NAME", help="Name in the bank.")
@bank_option
def import_(path: Path, name: str, bank_folder: Path | None) -> None:
    """Save a skill file, or an exported .safetensors file, in the bank."""
    from skillbank import storage
    from skillbank.export import from_safetensors

    bank = open_bank(bank_folder, new=True)
    if path.suffix.lower() == ".safetensors":
        reference = bank.save(from_safetensors(path), name)
    else:
        image = storage.read_bytes(path)
        with storage.naming(path):
            reference = bank.add(image, name)
    _say_kept(bank, reference)


BANK_COMMANDS = (
    list_skills,
    show,
    verify,
    remove,
    alias,
    unalias,
    diff,
    gc,
    push,
    pull,
    export,
    import_,
)


def _say_kept(bank: "Bank", reference: str) -> None:
    own = bank.path(reference).parent == bank.folder
    click.echo(f"saved as {reference}" if own else f"{reference} is the same skill: nothing saved")

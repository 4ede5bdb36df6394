"""Options that several commands share, and how to interpret them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from skillbank.cli_printing import say

if TYPE_CHECKING:
    from skillbank.bank import Bank

bank_option = click.option(
    "--bank",
    "bank_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the bank. [default: $SKILLBANK_HOME, or the platform's data folder]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of simulation, networks and sampling.",
)


def open_bank(folder: Path | None, *, new: bool = False) -> "Bank":
    """Open the bank of a command; report a missing folder, unless it may be ``new``."""
    from skillbank.bank import Bank

    bank = Bank(folder, shipped=True)
    if not new and folder is not None and not bank.folder.exists():
        say(f"no bank at {folder} yet")
    return bank


def named(skill: str) -> str | Path:
    """Interpret a skill argument: the path of a file, or else a reference in the bank."""
    if "/" in skill or skill.endswith(".h5") or Path(skill).is_file():
        return Path(skill)
    return skill

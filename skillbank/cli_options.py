"""Options that several commands share, and how to interpret them."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from skillbank.bank_folder import means_file
from skillbank.cli_printing import say
from skillbank.cli_settings import imported
from skillbank.durable import as_path
from skillbank.errors import SkillbankError

if TYPE_CHECKING:
    from skillbank.bank import Bank

Function = TypeVar("Function", bound=Callable[..., Any])


class FilePath(click.Path):
    """A path with ``~`` for the home folder; in ``--out=~/x`` the shell does not expand it."""

    def __init__(self, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Expand the path, then check it."""
        return super().convert(as_path(value), param, ctx)


class Steps(click.IntRange):
    """A number of steps, at least ``min``; also as ``2e5``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a number of steps."""
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?[eE]\+?(\d|1[0-2])", value):
            number = Decimal(value)
            value = int(number) if number == int(number) else value
        return super().convert(value, param, ctx)


bank_option = click.option(
    "--bank",
    "bank_folder",
    type=FilePath(),
    metavar="FOLDER",
    help="Folder of the bank. [default: $SKILLBANK_HOME, or the platform's data folder]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
deterministic_option = click.option(
    "--deterministic", is_flag=True, help="Take the best action, not a sampled one."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of simulation, networks and sampling.",
)


def env_option(default: str | None, shown: str) -> Callable[[Function], Function]:
    """The option ``--env``, with its default and the help's words for it."""
    return click.option(
        "--env",
        "env_id",
        default=default,
        callback=imported,
        metavar="TASK",
        help=f"A task of skillbank, any Gymnasium id, or MODULE:ID. [default: {shown}]",
    )


def open_bank(folder: Path | None, *, new: bool = False) -> "Bank":
    """Open the bank of a command; report a missing folder, unless it may be ``new``."""
    from skillbank.bank import Bank

    bank = Bank(folder, shipped=True)
    if not new and folder is not None and not bank.folder.exists():
        say(f"no bank at {folder} yet")
    return bank


def named(skill: str) -> str | Path:
    """Interpret a skill argument: the path of a file, or else a reference in the bank.

    Raises:
        SkillbankError: It is an exported file, which must be imported first.
    """
    if skill.endswith(".safetensors"):
        raise SkillbankError(
            f"{skill} is an exported skill; 'skillbank import {skill} --as NAME' saves it in the "
            "bank, under a name that works here"
        )
    if means_file(skill) or Path(skill).is_file():
        return Path(skill)
    return skill

"""A bank's folder: the file names of versions and aliases.

``x.h5`` is version 1 of skill x, ``x@2.h5`` version 2; ``x@best.alias`` holds the version number of
the alias ``x@best``; ``x@3.gone`` marks version 3 as removed, so that its number is never reused.
Every file is created and deleted atomically. There is no other database.
"""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from skillbank import errors, storage

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
NUMBER = r"[1-9][0-9]{0,8}"
LABEL = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
MAX_ALIAS_BYTES = 16  # a number and a line feed
_FILE = re.compile(rf"({NAME})(?:\.h5|@({NUMBER})\.h5|@({LABEL})\.alias|@({NUMBER})\.gone)")


class Version(NamedTuple):
    """One version of one skill, and the folder that it is in."""

    name: str
    number: int
    folder: Path

    @property
    def reference(self) -> str:
        """Reference to exactly this version, ``name@number``."""
        return f"{self.name}@{self.number}"

    @property
    def path(self) -> Path:
        """The skill file."""
        return self.folder / (f"{self.name}.h5" if self.number == 1 else f"{self.reference}.h5")

    @property
    def gone_path(self) -> Path:
        """The file that marks this version as removed."""
        return self.folder / f"{self.reference}.gone"


class Scan(NamedTuple):
    """Versions and aliases in a folder, by its file names."""

    versions: list[Version]
    labels: list[tuple[str, str]]  # name and alias
    gone: list[Version]  # removed versions


def alias_path(folder: Path, name: str, label: str) -> Path:
    """The file of an alias."""
    return folder / f"{name}@{label}.alias"


def alias_number(text: bytes) -> int:
    """The version number in an alias's file; 0, which is never a version, if it is damaged."""
    return int(text) if re.fullmatch(rb"[1-9][0-9]{0,8}\n", text) else 0


def scan(folder: Path) -> Scan:
    """List a folder; a missing one is empty.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return parse(folder, os.listdir(folder))
    except FileNotFoundError:
        return parse(folder, [])
    except OSError as error:
        raise errors.StorageError(f"cannot read the bank {folder}: {error.strerror}") from error


def parse(folder: Path, files: Iterable[str]) -> Scan:
    """Parse the file names of a folder; names of other files are ignored."""
    found = Scan([], [], [])
    for file in files:
        match = _FILE.fullmatch(file)
        if match is None:
            continue
        name, number, label, gone = match.groups()
        if label:
            found.labels.append((name, label))
        elif gone:
            found.gone.append(Version(name, int(gone), folder))
        elif number != "1":  # x@1.h5 would be a second name for x.h5
            found.versions.append(Version(name, int(number or 1), folder))
    return found


def checked_number(number: int) -> int:
    """Return the number if it is valid for a version.

    Raises:
        StorageError: it is beyond the largest version number.
    """
    if not re.fullmatch(NUMBER, str(number)):
        raise errors.StorageError(f"no version after {number - 1:,}: use another name")
    return number


def checked_name(name: str) -> str:
    """Return the name if it is valid for a skill.

    Raises:
        InvalidName: it is not valid.
    """
    if not re.fullmatch(NAME, name) or name.endswith(".h5"):
        raise errors.InvalidName(
            f"{name!r} cannot be the name of a skill: it must have at most 128 of A-Z, a-z, 0-9, "
            "'_', '-' and '.', begin with a letter or a digit, and not end in '.h5'"
        )
    return name


def means_file(text: str) -> bool:
    """Whether a text is the path of a skill file and cannot be a reference."""
    return "/" in text or text.endswith(".h5")


def read_aliases(folder: Path, labels: list[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Version numbers by name and alias; an unreadable alias has 0, which is never a version."""
    found: dict[str, dict[str, int]] = {}
    for name, label in labels:
        number = 0
        with contextlib.suppress(errors.SkillbankError):
            text = storage.read_bytes(alias_path(folder, name, label), MAX_ALIAS_BYTES)
            number = alias_number(text)
        found.setdefault(name, {})[label] = number
    return found

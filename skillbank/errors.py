"""Every error that a user can cause, and the exit code each one has on the command line."""

import difflib
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path


class SkillbankError(Exception):
    """Base of all errors raised on purpose; the message says what would have worked."""

    exit_code = 2


class SkillFileError(SkillbankError):
    """An invalid skill file: damaged, foreign, hostile or of an unknown format version."""

    exit_code = 3


class SkillNotFound(SkillbankError):
    """A reference that matches no skill, or several; the message lists what exists."""


class IncompatibleSkill(SkillbankError):
    """A skill and a task (or two skills) that do not fit; the message shows both sides."""

    exit_code = 4


class UnsupportedEnvironment(SkillbankError):
    """An environment with unsupported spaces, or that returns invalid values."""

    exit_code = 4


class Interrupted(SkillbankError):
    """The command was stopped by the user or a signal; the message says what was saved."""

    exit_code = 130


class TrainingDiverged(SkillbankError):
    """A training with values that are no longer finite; the last good checkpoint is kept."""


class StorageError(SkillbankError):
    """A file or folder that cannot be written, read or locked: full disk, no permission."""


class Busy(SkillbankError):
    """A folder that another process has locked."""


class InvalidArgument(SkillbankError, ValueError):
    """An argument of the right type with a value that makes no sense."""


class InvalidName(InvalidArgument):
    """An invalid name or alias of a skill."""


class NotASkillFile(SkillFileError):
    """Not a skill file: a folder, a device, another format, or too short to be a skill."""


class UnknownFormatVersion(SkillFileError):
    """A skill file of a format version that this release does not read."""


class FileTooLarge(SkillFileError):
    """A file, a metadata document or a count beyond the caps of the specification."""


class DamagedFile(SkillFileError):
    """Bytes that do not match the file's own hashes: truncated, flipped or extended."""


class ForbiddenStructure(SkillFileError):
    """HDF5 features outside the specification; the subclasses name them."""


class ForbiddenLink(ForbiddenStructure):
    """A soft, external or user-defined link."""


class ForbiddenObject(ForbiddenStructure):
    """An object that the specification does not allow, too many objects, or a cycle."""


class ForbiddenAttribute(ForbiddenStructure):
    """An HDF5 attribute; a skill file has none."""


class ForbiddenType(ForbiddenStructure):
    """A data type other than the one the specification gives."""


class ForbiddenStorage(ForbiddenStructure):
    """Data that is not one plain contiguous run of this file's bytes."""


class InvalidStructure(ForbiddenStructure):
    """Malformed bytes, or bytes that the HDF5 library refuses."""


class ReaderStopped(InvalidStructure):
    """The separate process that opens a file first crashed or hit a limit."""


class InvalidMetadata(SkillFileError):
    """A metadata document that is not strict JSON of the skill's model."""


class MissingParameter(SkillFileError):
    """A parameter that the metadata dictates and the file lacks."""


class UnknownParameter(SkillFileError):
    """A parameter that the metadata does not dictate."""


class WrongShape(SkillFileError):
    """A parameter of another shape or type than the metadata dictates."""


class NonFiniteParameter(SkillFileError):
    """A parameter that holds NaN or infinity."""


def printable(text: str) -> str:
    """Others' text as one line that cannot steer a terminal: escaped, at most 1,000 characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:1000])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the closest known name; empty if none is close."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def raised_at(error: Exception) -> str:
    """``file:line: `` of the innermost of the user's own lines that led to an error; else empty."""
    installed = (str(Path(__file__).parent), *sysconfig.get_paths().values())
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((*installed, "<"))]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn about the line that called the package, from however deep within it."""
    package = f"{Path(__file__).parent}{os.sep}"
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

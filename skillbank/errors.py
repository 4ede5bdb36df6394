"""Every error that a user can cause, and the exit code each one has on the command line."""

import difflib
from collections.abc import Iterable


class SkillbankError(Exception):
    """Base of all errors raised on purpose; its text says what would have worked."""

    exit_code = 2


class SkillFileError(SkillbankError):
    """A skill file that must not be used: damaged, foreign, hostile or of another version."""

    exit_code = 3


class SkillNotFound(SkillbankError):
    """A name that is in no bank; the text lists what is there."""


class IncompatibleSkill(SkillbankError):
    """A skill and a task (or two skills) that do not fit; the text shows both sides."""

    exit_code = 4


class UnsupportedEnvironment(SkillbankError):
    """An environment that cannot be learned on: its spaces, or what it returns."""

    exit_code = 4


class Interrupted(SkillbankError):
    """Training was stopped by a signal after what it had learned was saved."""

    exit_code = 130


class TrainingDiverged(SkillbankError):
    """A training whose figures are no longer finite; the last good checkpoint is kept."""


class StorageError(SkillbankError):
    """A file or folder that cannot be written, read or locked: full disk, no permission."""


class Busy(SkillbankError):
    """A folder in which another process is at work."""


class InvalidName(SkillbankError):
    """A name or alias that no skill can have."""


class NotASkillFile(SkillFileError):
    """Something else: a folder, a device, another format, or too short to be a skill."""


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
    """An object that the specification does not know, too many of them, or a cycle."""


class ForbiddenAttribute(ForbiddenStructure):
    """An HDF5 attribute; a skill file has none."""


class ForbiddenType(ForbiddenStructure):
    """A data type other than the one the specification gives."""


class ForbiddenStorage(ForbiddenStructure):
    """Data that is not one plain contiguous run of this file's bytes."""


class InvalidStructure(ForbiddenStructure):
    """Bytes that the HDF5 library refuses or that its own limits stop."""


class ReaderStopped(InvalidStructure):
    """The separate process that first opens a file crashed or ran into its limits."""


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest of what is known; empty if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""

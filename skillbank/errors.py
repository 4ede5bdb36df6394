"""Every error that a user can cause, and the exit code each one has on the command line."""


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

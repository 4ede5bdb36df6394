"""The bank: skills by name, in a folder of skill files. Lists without importing torch."""

import contextlib
import difflib
import fcntl
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from skillbank import errors, storage
from skillbank.spec import SkillSpec

if TYPE_CHECKING:
    from skillbank.skill import Skill

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Bank:
    """Skills in a folder, with the skills that come with skillbank under the user's own."""

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, shipped: bool | None = None
    ):
        """Open a bank; the folder is created by the first save.

        Args:
            folder: of the bank; by default ``SKILLBANK_HOME`` or the platform's data folder.
            shipped: whether the shipped skills are seen too; by default only in the user's bank.
        """
        home = os.environ.get("SKILLBANK_HOME") or platformdirs.user_data_dir("skillbank")
        self.folder = Path(home if folder is None else folder).expanduser()
        self._shipped = Path(str(resources.files("skillbank.pretrained")))
        self._layers = [self.folder]
        if shipped if shipped is not None else folder is None:
            self._layers.append(self._shipped)

    def names(self) -> list[str]:
        """Names of all skills, sorted."""
        found = set()
        for layer in self._layers:
            if layer.is_dir():
                found |= {path.stem for path in layer.glob("*.h5") if _NAME.fullmatch(path.stem)}
        return sorted(found)

    def path(self, name: str) -> Path:
        """File of a skill.

        Raises:
            SkillNotFound: with the nearest name and all that exist.
        """
        for layer in self._layers:
            path = layer / f"{name}.h5"
            if _NAME.fullmatch(name) and path.is_file():
                return path
        raise self._not_found(name)

    def spec(self, name: str) -> SkillSpec:
        """Metadata of a skill."""
        return storage.read_spec(self.path(name))

    def load(self, name: str) -> "Skill":
        """Load and check a skill.

        Raises:
            SkillNotFound: with the nearest name and all that exist.
            SkillFileError: the file must not be used.
        """
        from skillbank.skill import Skill

        return Skill.from_stored(storage.read(self.path(name)))

    def save(self, skill: "Skill", name: str) -> str:
        """Keep a skill under a name; returns the name once it is safely on disk."""
        if not _NAME.fullmatch(name):
            raise errors.SkillNotFound(
                f"{name!r} cannot be a skill's name: use letters, digits, '_', '-' and '.'"
            )
        spec, parameters = skill.stored()
        with self._lock():
            storage.write(self.folder / f"{name}.h5", spec, parameters)
        return name

    def remove(self, name: str) -> None:
        """Delete a skill from the user's bank; shipped skills stay."""
        path = self.path(name)
        if path.parent == self._shipped:
            raise errors.StorageError(f"{name!r} comes with skillbank and cannot be removed")
        with self._lock():
            try:
                path.unlink()
            except FileNotFoundError:
                raise self._not_found(name) from None
            except OSError as error:
                raise errors.StorageError(f"cannot remove {path}: {error.strerror}") from error

    def verify(self) -> dict[str, errors.SkillFileError | None]:
        """Check every file; the error of each skill, or None where all is well."""
        result: dict[str, errors.SkillFileError | None] = {}
        for name in self.names():
            try:
                storage.read(self.path(name))
            except errors.SkillFileError as error:
                result[name] = error
            else:
                result[name] = None
        return result

    def _not_found(self, name: str) -> errors.SkillNotFound:
        names = self.names()
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return errors.SkillNotFound(
            f"no skill {name!r}.{hint} In the bank: {', '.join(names) or 'nothing yet'}"
        )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process at a time change the folder; the kernel frees the lock of a dead one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise errors.StorageError(
                f"cannot write to the bank {self.folder}: {error.strerror}. "
                "Set SKILLBANK_HOME to a folder that you may write to"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

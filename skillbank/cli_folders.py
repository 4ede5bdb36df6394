"""Choosing and locking the folder of a command: ``runs/NAME``, ``runs/NAME_2``, ..."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from skillbank.doctor import folder_problem
from skillbank.durable import LOCK, alone
from skillbank.errors import Busy, StorageError


def check_writable(folder: Path, otherwise: str) -> None:
    """Raise if a folder is not writable, before hours are spent on what will be written there.

    Args:
        folder: The folder, which need not exist yet.
        otherwise: Advice for the error message.

    Raises:
        StorageError: It cannot be written.
    """
    problem = folder_problem(folder)
    if problem:
        raise StorageError(f"{problem}; {otherwise}")


def numbered(first: Path, checkpoint: str | None = None) -> Path:
    """Choose one of ``runs/NAME``, ``runs/NAME_2``, ``runs/NAME_3``, ...

    It is the one with the newest checkpoint; else the first that another process has locked; else
    the first empty one.

    Args:
        first: ``runs/NAME``.
        checkpoint: Name of the file that unfinished work leaves; None if it leaves none.
    """
    rest = (first.with_name(f"{first.name}_{number}") for number in itertools.count(2))
    used: list[Path] = []
    for folder in itertools.chain([first], rest):
        if not folder.exists() or {path.name for path in folder.iterdir()} <= {LOCK}:
            empty = folder
            break
        used.append(folder)
    if checkpoint is not None:
        unfinished = [folder / checkpoint for folder in used if (folder / checkpoint).is_file()]
        if unfinished:
            return max(unfinished, key=lambda path: path.stat().st_mtime_ns).parent
    return next(filter(_at_work, used), empty)


def _at_work(folder: Path) -> bool:
    if not (folder / LOCK).is_file():
        return False
    try:
        with alone(folder):
            return False
    except Busy:
        return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Create and lock a folder; delete it afterwards if it was created here and is still empty.

    Raises:
        Busy: Another process has locked it.
        StorageError: It cannot be created.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder))
        except Busy as error:
            raise Busy(
                f"another training is at work in {folder}; use --as or --out for this one"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot write to {folder}: {error.strerror or error}; choose another with --out"
            ) from error
        try:
            yield
        finally:
            if made and {path.name for path in folder.iterdir()} == {LOCK}:
                (folder / LOCK).unlink()
                with suppress(OSError):  # another process has started to use one
                    for place in made:
                        place.rmdir()


def saved_at(path: Path) -> int | None:
    """When a file was last written, in ns; None if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else None

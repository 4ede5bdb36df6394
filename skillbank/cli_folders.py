"""The folder in which a command works, one of ``runs/NAME``, ``runs/NAME_2``, ..., and holds."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from skillbank.doctor import folder_problem
from skillbank.durable import LOCK, alone
from skillbank.errors import Busy, StorageError


def check_writable(folder: Path, otherwise: str) -> None:
    """Refuse a folder that cannot be written, before hours are spent on what is to go there.

    Args:
        folder: Which need not exist yet.
        otherwise: What to do then, for the error.

    Raises:
        StorageError: It cannot be written.
    """
    problem = folder_problem(folder)
    if problem:
        raise StorageError(f"{problem}; {otherwise}")


def numbered(first: Path, checkpoint: str | None = None) -> Path:
    """Where to work, of ``runs/NAME``, ``runs/NAME_2``, ``runs/NAME_3``, ...

    The newest one with a checkpoint, or else one where somebody is at work, or else the first that
    is empty.

    Args:
        first: ``runs/NAME``.
        checkpoint: The file that unfinished work leaves; None: it leaves none.
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
    """Hold a folder, which vanishes afterwards if it was made for this and nothing came of it.

    Raises:
        Busy: Somebody else holds it.
        StorageError: It cannot be made.
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
                with suppress(OSError):  # somebody else has begun to use one
                    for place in made:
                        place.rmdir()

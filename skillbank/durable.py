"""Files: paths, atomic and durable replacement, and exclusive locks on files and folders."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from skillbank.errors import Busy, StorageError

LOCK = "lock"  # name of the lock file in a folder
_TEMPORARY = re.compile(r"\..{1,100}\.[0-9a-f]{16}\.tmp", re.DOTALL)
_PARTIAL = re.compile(r"\.[0-9a-f]{64}\.part")


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path that a user gave, with ``~`` for the home folder; an unknown ``~user`` is kept."""
    return Path(os.path.expanduser(path))


def replace_file(path: Path, image: bytes, *, durable: bool = True) -> None:
    """Write a file atomically, and read it back to verify it.

    Args:
        path: path of the file.
        image: the bytes.
        durable: wait until the disk has the data; otherwise a power failure may leave an empty
            file.

    Raises:
        StorageError: a step failed. The previous file is still there, unless only the last step,
            which syncs the folder, failed.
    """
    with _replacement(path, durable) as descriptor:
        rest = memoryview(image)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if os.pread(descriptor, len(image) + 1, 0) != image:
            raise OSError(errno.EIO, "it reads back differently")


@contextmanager
def replace_durably(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``path`` when the block ends without an error.

    Raises:
        StorageError: a step failed. The previous file is still there, unless only the last step,
            which syncs the folder, failed.
    """
    with (
        _replacement(path, durable=True) as descriptor,
        os.fdopen(descriptor, "wb", closefd=False) as file,
    ):
        yield file


@contextmanager
def _replacement(path: Path, durable: bool) -> Iterator[int]:
    """Create a temporary file beside a path for the block to fill; then fsync, rename, fsync."""
    step = "cannot write"
    try:
        make_folder(path.parent)
        sweep(path.parent)
        temporary, descriptor = _temporary(path)
        try:
            yield descriptor
            if durable:
                os.fsync(descriptor)
            os.replace(temporary, path)  # still locked, so that no sweep deletes it
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        if durable:
            step = "wrote, but could not sync to the disk,"
            sync_folder(path.parent)
    except OSError as error:
        raise _failure(step, path, error) from error


def check_replaceable(path: Path) -> None:
    """Raise if no file could be written at a path; nothing is left there.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        make_folder(path.parent)
        temporary, descriptor = _temporary(path)
        os.unlink(temporary)
        os.close(descriptor)
    except OSError as error:
        raise _failure("cannot write", path, error) from error


def _failure(step: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"{step} {path}: {error.strerror or error}. {_remedy(error.errno)}")


def _remedy(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or choose another folder"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to"
    if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return "Name a file in a folder"
    return "Choose another place"


def _temporary(path: Path) -> tuple[Path, int]:
    """Create a temporary file beside a path and lock it, so that a sweep knows it is in use."""
    while True:
        temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(BlockingIOError):  # a sweep is at it
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:  # not swept between creation and lock
                    return temporary, descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock(path: Path, *, wait: bool) -> int:
    """Open or create a file, and lock it until the descriptor is closed.

    Raises:
        OSError: it cannot be opened or locked; BlockingIOError if it is locked and ``wait`` is
            false.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:  # Ctrl-C while waiting, or a disk without locks
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its holder has just deleted it


def open_locked(path: Path) -> int:
    """Open or create a file, and lock it until the descriptor is closed.

    Raises:
        StorageError: it cannot be opened, or another process holds its lock.
    """
    try:
        return lock(path, wait=False)
    except BlockingIOError as error:
        raise StorageError(f"another process is using {path}: wait for it") from error
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def sweep(folder: Path, *, partial: bool = False) -> list[Path]:
    """Delete temporary files that no process has locked, because their writer is dead.

    Args:
        folder: the folder to clean.
        partial: also delete partial downloads that a pull could resume.
    """
    swept = []
    for name in os.listdir(folder):
        if not (_TEMPORARY.fullmatch(name) or (partial and _PARTIAL.fullmatch(name))):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(folder / name)
                swept.append(folder / name)
            finally:
                os.close(descriptor)
    return swept


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # the parent may be writable but not readable
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the file names in a folder durable (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a folder; the operating system releases the lock when the process ends.

    Raises:
        Busy: Another process holds the lock.
    """
    path = folder / LOCK
    try:
        descriptor = lock(path, wait=False)
    except BlockingIOError as error:
        raise Busy(f"process {path.read_text() or '?'} is using {folder}") from error
    with os.fdopen(descriptor, "w") as file:
        os.ftruncate(descriptor, 0)
        file.write(str(os.getpid()))
        file.flush()
        yield

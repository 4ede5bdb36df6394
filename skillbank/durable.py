"""Writing a file so that a crash leaves either the old one or the new one, and holding a folder."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from skillbank.errors import Busy, StorageError

LOCK = "lock"  # the file in a held folder


@contextmanager
def replace_durably(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends without an error.

    A temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        StorageError: It cannot be written; what was at ``path`` is untouched.
    """
    # Not tempfile's, which nobody but the owner could read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was there is untouched"
        ) from error
    finally:
        with suppress(OSError):  # it has been renamed, or could not be made
            temporary.unlink()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder; the operating system gives it free when the process ends, however it ends.

    Raises:
        Busy: Another process holds it.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Busy(f"process {file.read() or '?'} works in {folder}") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield

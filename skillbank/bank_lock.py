"""A bank's lock: writers hold it, readers do not need it."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from skillbank import durable, errors


class FolderLock:
    """An exclusive lock on the ``.lock`` file of a folder, which is created with it.

    A thread may take it again while it holds it. The kernel releases it when its process ends.
    """

    def __init__(self, folder: Path, advice: str) -> None:
        """Name the folder; it is created when the lock is first held.

        Args:
            folder: the bank's folder.
            advice: what to do if the folder cannot be written; it ends the error's message.
        """
        self.folder, self._advice = folder, advice
        self._threads = threading.RLock()
        self._held = False

    @contextlib.contextmanager
    def __call__(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock.

        Raises:
            StorageError: the folder cannot be written, or is locked and ``wait`` is false.
        """
        with self._threads:
            if self._held:  # by this thread
                yield
                return
            descriptor = self._taken(wait)
            self._held = True
            try:
                yield
            finally:
                self._held = False
                os.close(descriptor)

    def _taken(self, wait: bool) -> int:
        """The locked file's descriptor; closing it releases the lock."""
        try:
            durable.make_folder(self.folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.folder / ".lock", flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BaseException:  # Ctrl-C while waiting, or a disk without locks
                os.close(descriptor)
                raise
        except OSError as error:
            raise errors.StorageError(
                f"cannot write to the bank {self.folder}: {error.strerror}. {self._advice}, in a "
                "folder that you may write to"
            ) from error
        return descriptor

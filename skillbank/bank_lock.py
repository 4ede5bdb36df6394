"""A bank's lock: writers hold it, readers do not need it."""

import contextlib
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
        if not self._threads.acquire(blocking=wait):
            raise errors.StorageError(f"the bank {self.folder} is locked by another thread")
        try:
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
        finally:
            self._threads.release()

    def _taken(self, wait: bool) -> int:
        """The locked file's descriptor; closing it releases the lock."""
        try:
            durable.make_folder(self.folder)
            return durable.lock(self.folder / ".lock", wait=wait)
        except OSError as error:
            raise errors.StorageError(
                f"cannot write to the bank {self.folder}: {error.strerror}. {self._advice}, in a "
                "folder that you may write to"
            ) from error

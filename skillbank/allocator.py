"""Configure the C library's allocator to keep the memory that an update frees."""

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the parameters of glibc's mallopt
_KEEP_BYTES = 1 << 30
_LARGEST_KEPT = 32 << 20  # of one block; older versions of glibc refuse more


def keep_freed_blocks() -> None:
    """Let the process keep up to 1 GiB of freed memory instead of giving it back to the kernel.

    Every update allocates and frees the same few megabytes; returning them to the kernel, which
    zeroes them again, made updates 1.3 times slower. Call this before torch allocates anything.
    It has no effect except on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        # Alone, the second would be harmful: it ends glibc's own adaptation of the first.
        if mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT):
            mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)

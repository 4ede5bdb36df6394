"""Reading of NumPy's .npz archives: checkpoints, corrections, and the networks of baselines.

Nothing is unpickled, and an archive takes no more memory than its file has bytes.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Exceptions that opening an archive, or reading an array of it, may raise if it is damaged.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an archive; each array is read when it is accessed.

    Raises:
        OSError, ValueError, ...: One of ``DAMAGE``; likewise when an array is read.
    """
    # Given a path, np.load leaves the file open if it is not an archive, and treats such a file as
    # a pickle. So check for an archive first, and pass an open file.
    with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("its arrays are compressed, or overlap")
        with np.load(raw, allow_pickle=False) as file:
            yield file


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive, by name.

    Raises:
        OSError, ValueError, ...: One of ``DAMAGE``.
    """
    with opened(path) as file:
        return dict(file)

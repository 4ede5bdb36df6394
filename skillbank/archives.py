"""Reading of NumPy's .npz archives: checkpoints, corrections, and the networks of baselines.

Nothing is unpickled, every checksum is compared, and no array is larger than its bytes in the file.
"""

import io
import math
import struct
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# What zipfile and NumPy's headers raise for damage, other than OSError and ValueError.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    RuntimeError,
    SyntaxError,
    TokenError,
    OverflowError,
    MemoryError,
)


def arrays_of(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The named arrays of an archive, or all of them.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such archive, lacks an array, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
            if missing := set(names) - set(members):
                raise ValueError(f"it has no array {', '.join(sorted(missing))}")
            if any(one.compress_type != zipfile.ZIP_STORED for one in members.values()):
                raise ValueError("its arrays are compressed")
            if sum(one.file_size for one in archive.infolist()) > path.stat().st_size:
                raise ValueError("its arrays overlap")
            return {name: _array(archive.read(members[name])) for name in names or members}
    except _DAMAGE as error:
        raise ValueError(f"it is damaged: {error}") from error


def _array(image: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file."""
    file = io.BytesIO(image)
    old = npy.read_magic(file) == (1, 0)
    header = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
    shape, in_columns, dtype = header(file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not dtype.itemsize or size != len(image) - file.tell():
        raise ValueError("an array's header does not match its bytes")
    order: Literal["F", "C"] = "F" if in_columns else "C"
    found: NDArray[Any] = np.ndarray(shape, dtype, image, file.tell(), order=order)
    return found.copy()

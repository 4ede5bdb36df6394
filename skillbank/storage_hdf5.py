"""The HDF5 body of a skill file: encoding it, and listing its data sets.

This is the only module that imports h5py. It imports nothing from skillbank, because bodies from
files are opened only in the separate process of ``storage_reader``. It reports where each data set
lies; the caller takes the data from its own copy of the body.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from h5py import h5d, h5f, h5g, h5i, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

HEADER_BYTES = 512  # the HDF5 user block that precedes the body
MAX_OBJECTS = 512  # groups and data sets in one file
MAX_DEPTH = 3  # /parameters/<part>/<name>
METADATA = "metadata"
PARAMETERS = "parameters/"


class Refused(Exception):
    """A body that violates the specification; holds the name of an error class and a message."""


class Extent(NamedTuple):
    """Where one data set's bytes lie in the body."""

    path: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the body


def encode(metadata: bytes, parameters: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Encode a body in memory; the same arguments always give the same bytes.

    Args:
        metadata: the canonical JSON document.
        parameters: name (``critic/0.weight``) to array.
    """
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_userblock(HEADER_BYTES)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, False)  # in memory, never on disk
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V18)
    plain = h5p.create(h5p.DATASET_CREATE)
    plain.set_layout(h5d.CONTIGUOUS)
    plain.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plain.set_obj_track_times(False)
    file = h5f.create(b"skill", h5f.ACC_TRUNC, creation, access)
    try:
        document = np.frombuffer(metadata, np.uint8)
        _write(file, METADATA, document, h5t.STD_U8LE, plain)
        groups: set[str] = set()
        for name in sorted(parameters):
            path = PARAMETERS + name
            steps = path.split("/")
            for depth in range(1, len(steps)):
                group = "/".join(steps[:depth])
                if group not in groups:
                    h5g.create(file, group.encode())
                    groups.add(group)
            _write(file, path, parameters[name], h5t.IEEE_F32LE, plain)
        h5f.flush(file)
        image: bytes = file.get_file_image()
    finally:
        file.close()
    return image


def _write(file: Any, path: str, array: NDArray[Any], kind: Any, plain: Any) -> None:
    data = h5d.create(file, path.encode(), kind, h5s.create_simple(array.shape), dcpl=plain)
    if array.size:
        data.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array))


def contents(body: bytes) -> list[Extent]:
    """List all data sets of a body, sorted by path.

    Only hard links are followed, one component at a time; no data is read from the data sets.

    Raises:
        Refused: the body violates the specification.
        Exception: whatever h5py raises on a malformed body.
    """
    file = h5f.open_file_image(body)
    try:
        found: list[Extent] = []
        seen: set[object] = set()
        _walk(file, "", found, seen)
    finally:
        file.close()
    found.sort()
    end, previous = 0, "the start"
    for extent in sorted(found, key=lambda extent: extent.offset):
        size = _bytes(extent)
        if extent.offset < end:
            raise Refused("ForbiddenStorage", f"{extent.path!r} shares bytes with {previous!r}")
        if extent.offset + size > len(body):
            raise Refused("ForbiddenStorage", f"{extent.path!r} extends beyond the end of the file")
        if size:
            end, previous = extent.offset + size, extent.path
    return found


def _bytes(extent: Extent) -> int:
    size = 1 if extent.path == METADATA else 4
    for length in extent.shape:
        size *= length
    return size


def _walk(group: Any, path: str, found: list[Extent], seen: set[object]) -> None:
    """Visit the links of one group; ``seen`` holds the addresses of all objects so far."""
    root = h5g.open(group, b"/") if not path else group
    if h5o.get_info(root).num_attrs:
        raise Refused("ForbiddenAttribute", f"{path or '/'!r} has attributes")
    count = root.get_num_objs()
    if not count:
        raise Refused("ForbiddenObject", f"{path or '/'!r} is an empty group")
    if len(seen) + count > MAX_OBJECTS:
        raise Refused("ForbiddenObject", f"more than {MAX_OBJECTS} objects")
    for index in range(count):
        raw = root.get_objname_by_idx(index)
        name = raw.decode("ascii", "backslashreplace")
        here = f"{path}/{name}" if path else name
        if root.links.get_info(raw).type != h5l.TYPE_HARD:
            raise Refused("ForbiddenLink", f"{here!r} is not a hard link")
        child = h5o.open(root, raw)
        info = h5o.get_info(child)
        if (info.fileno, info.addr) in seen or info.rc != 1:
            raise Refused("ForbiddenObject", f"{here!r} is linked more than once")
        seen.add((info.fileno, info.addr))
        kind = h5i.get_type(child)
        if kind == h5i.GROUP:
            if here.count("/") + 1 >= MAX_DEPTH:
                raise Refused("ForbiddenObject", f"{here!r}: groups are nested too deeply")
            _walk(child, here, found, seen)
        elif kind == h5i.DATASET:
            found.append(_extent(child, here))
        else:
            raise Refused("ForbiddenObject", f"{here!r} is neither a group nor a data set")


def _extent(data: Any, path: str) -> Extent:
    """Check that a data set is one contiguous run of the expected type; return its extent."""
    if h5o.get_info(data).num_attrs:
        raise Refused("ForbiddenAttribute", f"{path!r} has attributes")
    expected = h5t.STD_U8LE if path == METADATA else h5t.IEEE_F32LE
    if not data.get_type().equal(expected):
        wanted = "8-bit unsigned" if path == METADATA else "32-bit little-endian floating point"
        raise Refused("ForbiddenType", f"{path!r} is not {wanted}")
    creation = data.get_create_plist()
    if creation.get_layout() != h5d.CONTIGUOUS:
        raise Refused("ForbiddenStorage", f"{path!r} is not stored contiguously")
    if creation.get_external_count():
        raise Refused("ForbiddenStorage", f"{path!r} keeps its data in another file")
    if creation.get_nfilters():
        raise Refused("ForbiddenStorage", f"{path!r} uses a filter")
    space = data.get_space()
    if space.get_simple_extent_type() != h5s.SIMPLE:
        raise Refused("ForbiddenStorage", f"{path!r} is not an array")
    shape = tuple(int(length) for length in space.get_simple_extent_dims())
    extent = Extent(path, shape, int(data.get_offset() or 0))
    if data.get_storage_size() != _bytes(extent) or (_bytes(extent) and not extent.offset):
        raise Refused("ForbiddenStorage", f"{path!r} does not store all {_bytes(extent)} bytes")
    return extent


def answer(body: bytes) -> bytes:
    """Table of contents, or error class and message, as one line of JSON; never raises."""
    said: tuple[object, ...]
    try:
        said = "contents", contents(body)
    except Refused as refusal:
        said = refusal.args
    except MemoryError:
        said = "ReaderStopped", "opening it takes too much memory"
    except Exception as error:  # noqa: BLE001 - whatever h5py raises means "malformed"
        said = "InvalidStructure", f"the HDF5 library refuses it: {str(error)[:200]}"
    return json.dumps(said).encode()

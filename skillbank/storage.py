"""Skill files: the only door between bytes on disk and a skill (docs/skill-file.md).

A file is a 512-byte header, which is HDF5's user block, and an HDF5 body:

    skillbank skill file
    format 1
    content <sha256 of metadata and parameters>
    body <sha256 of everything after the header>
    metadata <offset in the body> <length>

Reading never hands a file to the HDF5 library of this process: a separate one looks and answers
with a table of contents (or the bank already has it), and the bytes are taken from the copy in
memory that was hashed.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from skillbank import durable, errors, storage_sandbox
from skillbank.config import AS_READ
from skillbank.spec import Shape, SkillSpec, parameter_shapes

FORMAT_VERSION = 1
HEADER_BYTES = 512
MAX_FILE_BYTES = 256 << 20
MAX_METADATA_BYTES = 4 << 20
MAX_KEYS = 1024  # of one object of the metadata
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAGIC = b"skillbank skill file\n"
METADATA = "metadata"
PARAMETERS = "parameters/"

Contents = Sequence[tuple[str, tuple[int, ...], int]]  # path, shape, offset in the body
Parameters = dict[str, NDArray[np.float32]]


class Header(NamedTuple):
    """What the first 512 bytes of a skill file say."""

    content_hash: str
    body_hash: str
    metadata_offset: int
    metadata_length: int


class Placement(NamedTuple):
    """Where the parameters lie in a body, for whoever has had it checked before."""

    body_hash: str  # of the body that it describes, and of no other
    offsets: tuple[int, ...]  # bytes from the start of the body, in the order of the names


class StoredSkill(NamedTuple):
    """A skill as it lies in a file: all of it, and nothing that can run."""

    spec: SkillSpec
    parameters: Parameters
    content_hash: str
    placement: Placement


# --------------------------------------------------------------------------------- hashes


def metadata_document(spec: SkillSpec) -> bytes:
    """Canonical metadata: ASCII JSON with sorted keys and no spaces.

    Of a spec that was read it is the document that it was read from, without the keys that were
    not there (see ``Strict``), but for what was changed since.
    """
    document = spec.model_dump(mode="json", exclude_unset=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def content_hash(spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]) -> str:
    """Hash of everything that a skill is; equal for equal skills, wherever they are kept."""
    return hash_of(metadata_document(spec), parameters)


def hash_of(document: bytes, parameters: Mapping[str, NDArray[np.float32]]) -> str:
    """Content hash of a metadata document, byte for byte, and parameters."""
    # The metadata dictates every shape, so the concatenation is unambiguous.
    digest = hashlib.sha256(b"skillbank content 1\n")
    digest.update(len(document).to_bytes(8, "little"))
    digest.update(document)
    for name in sorted(parameters):
        digest.update(np.ascontiguousarray(parameters[name], "<f4").data)
    return digest.hexdigest()


# -------------------------------------------------------------------------------- writing


def encode(spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Turn a skill into the bytes of its file; the same skill always gives the same bytes.

    Raises:
        SkillFileError: the parameters are not those that the spec dictates, or not finite.
    """
    from skillbank import storage_hdf5

    check_shapes({name: array.shape for name, array in parameters.items()}, parameter_shapes(spec))
    for name, array in parameters.items():
        if array.dtype != np.float32:
            raise errors.WrongShape(f"parameter {name!r} is {array.dtype}, expected float32")
    _check_finite(parameters)
    document = metadata_document(spec)
    body = storage_hdf5.encode(document, parameters)
    if len(document) > MAX_METADATA_BYTES or HEADER_BYTES + len(body) > MAX_FILE_BYTES:
        raise errors.FileTooLarge(
            f"the skill takes {len(body):,} bytes, {len(document):,} of them metadata; at most "
            f"{MAX_FILE_BYTES:,} and {MAX_METADATA_BYTES:,} are allowed"
        )
    offset = next(e.offset for e in storage_hdf5.contents(body) if e.path == METADATA)
    return _header(document, parameters, body, offset) + body


def _header(
    document: bytes, parameters: Mapping[str, NDArray[np.float32]], body: bytes, offset: int
) -> bytes:
    text = MAGIC + (
        f"format {FORMAT_VERSION}\n"
        f"content {hash_of(document, parameters)}\n"
        f"body {hashlib.sha256(body).hexdigest()}\n"
        f"metadata {offset} {len(document)}\n"
    ).encode("ascii")
    return text.ljust(HEADER_BYTES, b"\0")


def prepare(
    spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]
) -> tuple[bytes, StoredSkill]:
    """Make the bytes of a skill's file, and read them back.

    Raises:
        SkillFileError: the parameters are not those that the spec dictates, or not finite.
    """
    from skillbank import storage_hdf5

    image = encode(spec, parameters)
    # Our own bytes of a moment ago: the only ones that this process lets the HDF5 library read.
    stored = decode(image, look=storage_hdf5.contents)
    if stored.spec != spec or any(
        stored.parameters[name].tobytes() != array.tobytes() for name, array in parameters.items()
    ):
        raise errors.StorageError("the skill does not survive being written: please report this")
    return image, stored


def write(path: Path, spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]) -> str:
    """Write a skill file, durably and all at once: a crash leaves the old file or the new one.

    Returns:
        The content hash.

    Raises:
        SkillFileError: the parameters are not those that the spec dictates, or not finite.
        StorageError: the folder cannot be written, or the disk is full.
    """
    image, stored = prepare(spec, parameters)
    durable.replace_file(path, image)
    return stored.content_hash


# -------------------------------------------------------------------------------- reading


def read(path: Path, placement: Placement | None = None) -> StoredSkill:
    """Read and check a skill file.

    Args:
        path: the file.
        placement: kept from an earlier read of this file. The HDF5 library is then not asked
            again; the content hash, names, shapes and values are checked just the same.

    Raises:
        SkillFileError: the subclass says what is wrong with the file.
        SkillNotFound: there is no such file.
        StorageError: the file cannot be read.
    """
    image = read_bytes(path)
    with _named(path):
        return decode(image, placement)


def read_spec(path: Path) -> SkillSpec:
    """Read the metadata of a skill file after checking the hash of its bytes; see ``read``."""
    return read_metadata(path)[1]


def read_metadata(path: Path) -> tuple[Header, SkillSpec]:
    """Read header and metadata of a skill file after checking the hash of its bytes.

    The HDF5 library is not asked, so the structure of the body stays unchecked, and with it the
    content hash that the header claims.
    """
    image = read_bytes(path)
    with _named(path):
        header = parse_header(image)
        check_body(image, header)
        return header, parse_metadata(_document(image, header))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Begin the text of a file's error with the file."""
    try:
        yield
    except errors.SkillFileError as error:
        raise type(error)(f"{path}: {error}") from error.__cause__


def read_bytes(path: Path) -> bytes:
    """Read a regular file of bounded size into memory, once."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: a device may react to that
            raise errors.NotASkillFile(f"{path}: not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise errors.NotASkillFile(f"{path}: not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise errors.FileTooLarge(
                    f"{path}: {status.st_size:,} bytes; a skill has at most {MAX_FILE_BYTES:,}"
                )
            return file.read(status.st_size)
    except FileNotFoundError as error:
        raise errors.SkillNotFound(f"no file {path}") from error
    except OSError as error:
        raise errors.StorageError(f"cannot read {path}: {error.strerror or error}") from error


def parse_header(image: bytes) -> Header:
    """Check the form of the header of a file's bytes."""
    if not image.startswith(MAGIC):
        raise errors.NotASkillFile(
            "not a skill file: it does not begin with 'skillbank skill file'"
        )
    text = image[len(MAGIC) : HEADER_BYTES]
    version = re.match(rb"format ([0-9]{1,9})\n", text)
    if version is None:
        raise errors.DamagedFile("the header names no format version")
    if int(version[1]) != FORMAT_VERSION:
        raise errors.UnknownFormatVersion(
            f"format version {int(version[1])}; this release reads version {FORMAT_VERSION}"
        )
    match = re.fullmatch(
        rb"format 1\ncontent ([0-9a-f]{64})\nbody ([0-9a-f]{64})\n"
        rb"metadata (0|[1-9][0-9]{0,9}) (0|[1-9][0-9]{0,9})\n\0+",
        text,
    )
    if match is None or len(image) < HEADER_BYTES:
        raise errors.DamagedFile("the header is damaged")
    return Header(match[1].decode(), match[2].decode(), int(match[3]), int(match[4]))


def check_body(image: bytes, header: Header) -> None:
    """Check that all bytes after the header are those that the header was made for."""
    body = memoryview(image)[HEADER_BYTES:]
    if hashlib.sha256(body).hexdigest() != header.body_hash:
        raise errors.DamagedFile("the bytes do not match the hash in the header")
    if body[: len(SIGNATURE)] != SIGNATURE:
        raise errors.InvalidStructure("the body is not HDF5")


def decode(
    image: bytes,
    placement: Placement | None = None,
    look: Callable[[bytes], Contents] = storage_sandbox.contents,
) -> StoredSkill:
    """Check the bytes of a skill file and take the skill out of them; see ``read``.

    Args:
        image: the bytes.
        placement: kept from an earlier read.
        look: asks the HDF5 library what a body contains.
    """
    header = parse_header(image)
    if placement is not None and placement.body_hash == header.body_hash:
        # Seen before. The content hash covers all that is used; a wrong placement or a damaged
        # file is found by it, and looked at as if nothing were known.
        with contextlib.suppress(errors.SkillFileError, ValidationError):
            document = _document(image, header)
            spec = SkillSpec.model_validate_json(document, context=AS_READ)
            return _taken(image, header, document, spec, placement.offsets)
    check_body(image, header)
    document = _document(image, header)
    spec = parse_metadata(document)
    offsets = _offsets(look(image[HEADER_BYTES:]), header, parameter_shapes(spec))
    return _taken(image, header, document, spec, offsets)


def _taken(
    image: bytes, header: Header, document: bytes, spec: SkillSpec, offsets: Sequence[int]
) -> StoredSkill:
    parameters = _parameters(image, parameter_shapes(spec), offsets)
    if hash_of(document, parameters) != header.content_hash:
        raise errors.DamagedFile("metadata and parameters do not match the content hash")
    placement = Placement(header.body_hash, tuple(offsets))
    return StoredSkill(spec, parameters, header.content_hash, placement)


def _document(image: bytes, header: Header) -> bytes:
    if header.metadata_length > MAX_METADATA_BYTES:
        raise errors.FileTooLarge(
            f"{header.metadata_length:,} bytes of metadata; at most {MAX_METADATA_BYTES:,}"
        )
    start = HEADER_BYTES + header.metadata_offset
    document = image[start : start + header.metadata_length]
    if len(document) != header.metadata_length:
        raise errors.InvalidMetadata("the metadata reaches beyond the file")
    return document


def parse_metadata(document: bytes) -> SkillSpec:
    """Validate a metadata document: strict JSON, the strict model, no key twice."""
    try:
        json.loads(document, object_pairs_hook=unique, parse_constant=_no_constant)
        spec = SkillSpec.model_validate_json(document, context=AS_READ)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ascii(".".join(str(step) for step in first["loc"]))[1:-1] or "document"
        raise errors.InvalidMetadata(f"metadata: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise errors.InvalidMetadata(f"metadata: {error}") from error
    if metadata_document(spec) != document:  # written again it would be another skill
        raise errors.InvalidMetadata(
            "metadata: not written as it must be: ASCII, sorted keys, no spaces, numbers as Python "
            "writes them"
        )
    return spec


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a JSON object of its pairs; a key that is there twice is a ValueError."""
    if len(pairs) > MAX_KEYS:  # each that is wrong has an error of its own
        raise ValueError(f"an object of {len(pairs):,} keys; at most {MAX_KEYS:,}")
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _offsets(contents: Contents, header: Header, shapes: Mapping[str, Shape]) -> list[int]:
    """Check that a body contains what the spec dictates and no more; where each parameter is."""
    table = {path: (shape, offset) for path, shape, offset in contents}
    if table.pop(METADATA, None) != ((header.metadata_length,), header.metadata_offset):
        raise errors.InvalidMetadata("the header and HDF5 place the metadata differently")
    for path in table:
        if not path.startswith(PARAMETERS):
            raise errors.UnknownParameter(f"unknown data set {path!r}")
    found = {path.removeprefix(PARAMETERS): entry for path, entry in table.items()}
    check_shapes({name: shape for name, (shape, _) in found.items()}, shapes)
    return [found[name][1] for name in sorted(shapes)]


def _parameters(image: bytes, shapes: Mapping[str, Shape], offsets: Sequence[int]) -> Parameters:
    """Copy the parameters out of the bytes of a file."""
    if len(offsets) != len(shapes):
        raise errors.InvalidStructure("not as many places as parameters")
    parameters: Parameters = {}
    for name, offset in zip(sorted(shapes), offsets, strict=True):
        shape = shapes[name]
        count, start = math.prod(shape), HEADER_BYTES + offset
        if not HEADER_BYTES <= start <= start + 4 * count <= len(image):
            raise errors.ForbiddenStorage(f"parameter {name!r} reaches beyond the file")
        values = np.frombuffer(image, "<f4", count, start) if count else np.empty(0)
        parameters[name] = values.reshape(shape).astype(np.float32)
    _check_finite(parameters)
    return parameters


def check_shapes(found: Mapping[str, Iterable[int]], expected: Mapping[str, Shape]) -> None:
    """Check that names and shapes are the expected ones, and no others.

    Raises:
        MissingParameter, UnknownParameter, WrongShape: they are not.
    """
    for name in sorted(expected.keys() - found.keys()):
        raise errors.MissingParameter(f"no parameter {name!r} {list(expected[name])}")
    for name in sorted(found.keys() - expected.keys()):
        raise errors.UnknownParameter(f"unknown parameter {name!r}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise errors.WrongShape(
                f"parameter {name!r} has shape {list(found[name])}, expected {list(shape)}"
            )


def _check_finite(parameters: Mapping[str, NDArray[np.float32]]) -> None:
    for name, array in parameters.items():
        if not np.isfinite(array).all():
            raise errors.NonFiniteParameter(f"parameter {name!r} holds NaN or infinity")

"""Reading and writing skill files; all of them pass through this module (docs/skill-file.md).

A file is a 512-byte header, which is HDF5's user block, and an HDF5 body:

    skillbank skill file
    format 1
    content <sha256 of metadata and parameters>
    body <sha256 of everything after the header>
    metadata <offset in the body> <length>

Reading never passes a file to the HDF5 library in this process: a separate process lists the data
sets (unless the bank has the list already), and the parameters are taken from the copy in memory
that was hashed.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from skillbank import durable, errors, storage_sandbox
from skillbank.config import AS_READ, first_problem
from skillbank.spec import Shape, SkillSpec, parameter_shapes

if TYPE_CHECKING:
    from skillbank.skill import Skill

FORMAT_VERSION = 1
HEADER_BYTES = 512
MAX_FILE_BYTES = 256 << 20
MAX_METADATA_BYTES = 4 << 20
MAX_KEYS = 1024  # in one JSON object of the metadata
SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAGIC = b"skillbank skill file\n"
METADATA = "metadata"
PARAMETERS = "parameters/"

Contents = Sequence[tuple[str, tuple[int, ...], int]]  # path, shape, offset in the body
Parameters = dict[str, NDArray[np.float32]]


class Header(NamedTuple):
    """The header of a skill file: its first 512 bytes, parsed."""

    content_hash: str
    body_hash: str
    metadata_offset: int
    metadata_length: int


class Placement(NamedTuple):
    """Offsets of the parameters in a body whose structure was checked before."""

    body_hash: str  # of the only body that the offsets are valid for
    offsets: tuple[int, ...]  # bytes from the start of the body, in the order of the sorted names


class StoredSkill(NamedTuple):
    """The complete content of a skill file: data only, no code and no networks."""

    spec: SkillSpec
    parameters: Parameters
    content_hash: str
    placement: Placement

    def __repr__(self) -> str:
        return f"<StoredSkill {self.spec.name}: {self.content_hash[:8]}>"

    def stored(self) -> tuple[SkillSpec, Parameters]:
        """Spec and parameters, as those of a ``Skill``."""
        return self.spec, self.parameters


# --------------------------------------------------------------------------------- hashes


def metadata_document(spec: SkillSpec) -> bytes:
    """Canonical metadata: ASCII JSON with sorted keys and no spaces.

    For a spec that was read from a file it is the original document: keys that were absent there
    stay absent (see ``Strict``), unless they were changed since.
    """
    document = spec.model_dump(mode="json", exclude_unset=True)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def content_hash(spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]) -> str:
    """Hash of a skill's metadata and parameters; equal for equal skills, in any file."""
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
    """Encode a skill as the bytes of its file; the same skill always gives the same bytes.

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
    """Encode a skill as the bytes of its file, and decode them again to verify them.

    Raises:
        SkillFileError: the parameters are not those that the spec dictates, or not finite.
    """
    from skillbank import storage_hdf5

    image = encode(spec, parameters)
    # These bytes were just made here: only such a body is opened by HDF5 in this process.
    stored = decode(image, look=storage_hdf5.contents)
    if stored.spec != spec or any(
        stored.parameters[name].tobytes() != array.tobytes() for name, array in parameters.items()
    ):
        raise errors.StorageError("the skill is not the same when read back: please report this")
    return image, stored


def spec_and_parameters(skill: "Skill | StoredSkill") -> tuple[SkillSpec, Parameters]:
    """Spec and parameters of a skill, in memory or as read from a file.

    Raises:
        SkillbankError: it is not a skill, but for example a composition, or a name.
    """
    if hasattr(skill, "stored"):
        return skill.stored()
    if isinstance(skill, str | os.PathLike):
        raise errors.SkillbankError(
            f"{str(skill)!r} is only a name: the first argument must be a skill, as bank.load() "
            "and Skill.load() return it"
        )
    advice = ": distill() turns a composition into one" if hasattr(skill, "distill") else ""
    raise errors.SkillbankError(f"{type(skill).__name__} is not a skill{advice}")


def as_stored(skill: "Skill | StoredSkill") -> StoredSkill:
    """What the file of a skill holds, or would hold; raises those of ``spec_and_parameters``."""
    return skill if isinstance(skill, StoredSkill) else prepare(*spec_and_parameters(skill))[1]


def write(path: Path, spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]]) -> str:
    """Write a skill file durably and atomically: a crash leaves the old file or the new one.

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
    """Read and verify a skill file.

    Args:
        path: the file.
        placement: from an earlier read of this file. The HDF5 library is then not needed again;
            the content hash and the values are still checked.

    Raises:
        SkillFileError: the subclass says what is wrong with the file.
        SkillNotFound: there is no such file.
        StorageError: the file cannot be read.
    """
    image = _skill_bytes(path)
    with naming(path):
        return decode(image, placement)


def read_verified(path: Path) -> bytes:
    """Read the bytes of a skill file and verify all of them; raises the errors of ``read``."""
    image = _skill_bytes(path)
    with naming(path):
        decode(image)
    return image


def read_spec(path: Path) -> SkillSpec:
    """Read the metadata of a skill file after checking the hash of its bytes; see ``read``."""
    return read_metadata(path)[1]


def read_metadata(path: Path) -> tuple[Header, SkillSpec]:
    """Read header and metadata of a skill file after checking the hash of its bytes.

    The HDF5 library is not used, so the structure of the body, and with it the content hash in the
    header, is not verified.
    """
    image = _skill_bytes(path)
    with naming(path):
        header = parse_header(image)
        check_body(image, header)
        return header, parse_metadata(_document(image, header))


@contextlib.contextmanager
def naming(place: object) -> Iterator[None]:
    """Prefix the message of a ``SkillFileError`` with the path or the URL of the file."""
    try:
        yield
    except errors.SkillFileError as error:
        raise type(error)(f"{place}: {error}") from error.__cause__


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file of at most this many bytes into memory, once."""
    with _opened(path, most) as (file, size):
        return file.read(size)


def _skill_bytes(path: Path) -> bytes:
    """Read a skill file into memory, once; of a file with a wrong header, nothing else is read."""
    with _opened(path, MAX_FILE_BYTES) as (file, size), naming(path):
        parse_header(file.read(HEADER_BYTES))
        file.seek(0)
        return file.read(size)


@contextlib.contextmanager
def _opened(path: Path, most: int) -> Iterator[tuple[FileIO, int]]:
    """Open a regular file of at most this many bytes; yields it and its size."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening, to which a device may react
            raise errors.NotASkillFile(f"{path}: not a regular file")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise errors.NotASkillFile(f"{path}: not a regular file")
            if status.st_size > most:
                raise errors.FileTooLarge(
                    f"{path}: {status.st_size:,} bytes; at most {most:,} are allowed"
                )
            yield file, status.st_size
    except FileNotFoundError as error:
        raise errors.SkillNotFound(f"no file {path}") from error
    except OSError as error:
        raise errors.StorageError(f"cannot read {path}: {error.strerror or error}") from error


def parse_header(image: bytes) -> Header:
    """Parse and validate the header of a file's bytes."""
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
    """Check all bytes after the header against the hash in the header."""
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
    """Verify and decode the bytes of a skill file; see ``read``.

    Args:
        image: the bytes.
        placement: from an earlier read of the same file.
        look: lists the data sets of a body, by the HDF5 library.
    """
    header = parse_header(image)
    if placement is not None and placement.body_hash == header.body_hash:
        # Seen before: the content hash covers every byte that is used, so it detects a wrong
        # placement or a damaged file, which is then checked from scratch below.
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
    parameters = _parameters(image, header, parameter_shapes(spec), offsets)
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
        raise errors.InvalidMetadata("the metadata extends beyond the end of the file")
    return document


def parse_metadata(document: bytes) -> SkillSpec:
    """Validate a metadata document: strict JSON without duplicate keys, canonical, of the model."""
    try:
        parse_json(document)
        spec = SkillSpec.model_validate_json(document, context=AS_READ)
    except ValidationError as error:
        raise errors.InvalidMetadata(f"metadata: {first_problem(error)}") from error
    except (ValueError, RecursionError) as error:
        raise errors.InvalidMetadata(f"metadata: {error}") from error
    if metadata_document(spec) != document:  # writing it again would change the content hash
        raise errors.InvalidMetadata(
            "metadata: not in canonical form: ASCII, sorted keys, no spaces, numbers as Python "
            "writes them"
        )
    return spec


def parse_json(document: bytes) -> object:
    """Parse JSON in which no object has duplicate or too many keys, and no number is NaN.

    Raises:
        ValueError, RecursionError: it is not such JSON.
    """
    return json.loads(document, object_pairs_hook=unique, parse_constant=_no_constant)


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object from its pairs; a duplicate key or too many keys is a ValueError."""
    if len(pairs) > MAX_KEYS:  # pydantic would report every unknown key
        raise ValueError(f"an object of {len(pairs):,} keys; at most {MAX_KEYS:,}")
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _offsets(contents: Contents, header: Header, shapes: Mapping[str, Shape]) -> list[int]:
    """Check that a body contains exactly what the spec dictates; return the parameters' offsets."""
    table = {path: (shape, offset) for path, shape, offset in contents}
    if table.pop(METADATA, None) != ((header.metadata_length,), header.metadata_offset):
        raise errors.InvalidMetadata("header and HDF5 disagree on the place of the metadata")
    for path in table:
        if not path.startswith(PARAMETERS):
            raise errors.UnknownParameter(f"unknown data set {path!r}")
    found = {path.removeprefix(PARAMETERS): entry for path, entry in table.items()}
    check_shapes({name: shape for name, (shape, _) in found.items()}, shapes)
    return [found[name][1] for name in sorted(shapes)]


def _parameters(
    image: bytes, header: Header, shapes: Mapping[str, Shape], offsets: Sequence[int]
) -> Parameters:
    """Copy the parameters out of the bytes of a file, if they and the metadata share no bytes."""
    if len(offsets) != len(shapes):
        raise errors.InvalidStructure("the number of offsets is not the number of parameters")
    names = sorted(shapes)
    sizes = [4 * math.prod(shapes[name]) for name in names]
    extents = [*zip(offsets, sizes, names, strict=True)]
    end = 0
    for offset, size, name in sorted(
        [*extents, (header.metadata_offset, header.metadata_length, METADATA)]
    ):
        if offset < end:
            raise errors.ForbiddenStorage(f"{name!r} shares bytes with other data")
        end = offset + size
        if HEADER_BYTES + end > len(image):
            raise errors.ForbiddenStorage(f"{name!r} extends beyond the end of the file")
    parameters: Parameters = {}
    for offset, size, name in extents:
        start, count = HEADER_BYTES + offset, size // 4
        values = np.frombuffer(image, "<f4", count, start) if count else np.empty(0)
        parameters[name] = values.reshape(shapes[name]).astype(np.float32)
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

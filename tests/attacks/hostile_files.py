"""Hostile skill files, one small generator per kind, with the error that each must meet.

Unless a generator is about hashes, the header it leaves is right for its body: an attacker can
compute hashes too.
"""

import functools
import hashlib
import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from skill_files import random_parameters, small_spec

from skillbank import errors, storage

HEADER = storage.HEADER_BYTES
FIRST = "critic/0.bias"


class Hostile(NamedTuple):
    """A kind of hostile file."""

    name: str
    expected: type[errors.SkillbankError]
    make: Callable[[Path], object]  # writes the file at the path


KINDS: list[Hostile] = []


def hostile(expected: type[errors.SkillbankError]) -> Callable[[Any], Any]:
    """Register a generator under its function's name."""

    def register(make: Callable[[Path], object]) -> Callable[[Path], object]:
        KINDS.append(Hostile(make.__name__, expected, make))
        return make

    return register


@functools.cache
def good() -> bytes:
    spec = small_spec()
    return storage.encode(spec, random_parameters(spec))


def header(body: bytes, offset: int, length: int, content: str = "0" * 64) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    text = f"skillbank skill file\nformat 1\ncontent {content}\nbody {digest}\n"
    return (text + f"metadata {offset} {length}\n").encode().ljust(HEADER, b"\0")


def with_body(body: bytes) -> bytes:
    """The header of the good file, with the hash of another body."""
    old = storage.parse_header(good())
    return header(body, old.metadata_offset, old.metadata_length, old.content_hash) + body


def patched(old: bytes, new: bytes) -> bytes:
    """The good file with one run of bytes of its body replaced, wherever it occurs."""
    body = good()[HEADER:]
    assert old in body
    assert len(old) == len(new)
    return with_body(body.replace(old, new))


def address(name: str) -> bytes:
    """Address of a parameter's bytes, as it stands in the good file."""
    stored = storage.decode(good())
    offset = stored.placement.offsets[sorted(stored.parameters).index(name)]
    return struct.pack("<Q", offset)


def crafted(
    path: Path,
    change: Callable[[h5py.File], object] = lambda _: None,
    document: bytes | None = None,
    parameters: dict[str, NDArray[Any]] | None = None,
) -> None:
    """Write a good file with h5py, let ``change`` spoil it, and hash whatever came out."""
    spec = small_spec()
    document = storage.metadata_document(spec) if document is None else document
    parameters = random_parameters(spec) if parameters is None else parameters
    with h5py.File(path, "w", userblock_size=HEADER, libver="latest") as file:
        data = file.create_dataset("metadata", data=np.frombuffer(document, np.uint8))
        offset = data.id.get_offset() - HEADER
        for name, array in parameters.items():
            file[f"parameters/{name}"] = array
        change(file)
    body = path.read_bytes()[HEADER:]
    try:
        content = storage.hash_of(document, parameters)
    except (TypeError, ValueError, AttributeError):
        content = "0" * 64
    path.write_bytes(header(body, offset, len(document), content) + body)


def replaced(path: Path, make: Callable[[h5py.Group], object], name: str = FIRST) -> None:
    """A good file in which one parameter is made some other way."""

    def change(file: h5py.File) -> None:
        group, _, leaf = f"parameters/{name}".rpartition("/")
        del file[group][leaf]
        make(file[group])

    crafted(path, change)


def typed(path: Path, dtype: Any, fill: Any = None) -> None:
    """A good file in which one parameter has another type."""
    replaced(path, lambda group: group.create_dataset("0.bias", (1, 1, 3), dtype, data=fill))


def document(**changes: Any) -> bytes:
    values = json.loads(storage.metadata_document(small_spec()))
    return canonical(values | changes)


def canonical(values: object) -> bytes:
    """As it must be written, so that it is not refused for its form."""
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


# Not a skill file at all.


@hostile(errors.NotASkillFile)
def empty(path: Path) -> None:
    path.write_bytes(b"")


@hostile(errors.NotASkillFile)
def plain_text(path: Path) -> None:
    path.write_text("temperature: 0.1\n")


@hostile(errors.NotASkillFile)
def pickle_that_runs_code(path: Path) -> None:
    target = path.parent / "pwned"
    path.write_bytes(f"cos\nmkdir\n(V{target}\ntR.".encode())


@hostile(errors.NotASkillFile)
def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escape", "x")


@hostile(errors.NotASkillFile)
def safetensors(path: Path) -> None:
    text = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)


@hostile(errors.NotASkillFile)
def hdf5_without_header(path: Path) -> None:
    path.write_bytes(good()[HEADER:])


@hostile(errors.NotASkillFile)
def folder(path: Path) -> None:
    path.mkdir()


@hostile(errors.NotASkillFile)
def pipe_that_never_answers(path: Path) -> None:
    os.mkfifo(path)


@hostile(errors.NotASkillFile)
def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@hostile(errors.NotASkillFile)
def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # a socket's path must be short


@hostile(errors.StorageError)
def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@hostile(errors.FileTooLarge)
def sparse_giant(path: Path) -> None:
    path.write_bytes(good())
    os.truncate(path, 1 << 40)


# A wrong header, or hashes that do not match.


@hostile(errors.UnknownFormatVersion)
def next_version(path: Path) -> None:
    path.write_bytes(good().replace(b"format 1\n", b"format 2\n"))


@hostile(errors.UnknownFormatVersion)
def version_zero(path: Path) -> None:
    path.write_bytes(good().replace(b"format 1\n", b"format 0\n"))


@hostile(errors.DamagedFile)
def version_in_words(path: Path) -> None:
    path.write_bytes(good().replace(b"format 1\n", b"format I\n"))


@hostile(errors.DamagedFile)
def header_alone(path: Path) -> None:
    path.write_bytes(good()[:HEADER])


@hostile(errors.DamagedFile)
def half_a_header(path: Path) -> None:
    path.write_bytes(good()[: HEADER // 2])


@hostile(errors.DamagedFile)
def truncated(path: Path) -> None:
    path.write_bytes(good()[:-1])


@hostile(errors.DamagedFile)
def extended(path: Path) -> None:
    path.write_bytes(good() + b"\0")


@hostile(errors.DamagedFile)
def flipped_bit(path: Path) -> None:
    data = bytearray(good())
    data[-9] ^= 4
    path.write_bytes(data)


@hostile(errors.DamagedFile)
def hidden_header_text(path: Path) -> None:
    data = bytearray(good())
    data[HEADER - 3 : HEADER] = b"#!x"
    path.write_bytes(data)


@hostile(errors.DamagedFile)
def header_line_twice(path: Path) -> None:
    data = good()
    line = data[30:103]
    path.write_bytes((data[:103] + line + data[103:])[:HEADER] + data[HEADER:])


@hostile(errors.DamagedFile)
def shouted_hash(path: Path) -> None:
    data = good()
    path.write_bytes(data[:38] + data[38:102].upper() + data[102:])


@hostile(errors.DamagedFile)
def false_content_hash(path: Path) -> None:
    data = good()
    path.write_bytes(data.replace(data[38:102], b"0" * 64))


@hostile(errors.DamagedFile)
def content_of_other_parameters(path: Path) -> None:
    value = storage.decode(good()).parameters["noise"].tobytes()
    path.write_bytes(patched(value, struct.pack("<4f", 1, 2, 3, 4)))


# A body that the HDF5 library should not have to survive.


@hostile(errors.InvalidStructure)
def body_of_zeros(path: Path) -> None:
    path.write_bytes(with_body(b"\0" * 4096))


@hostile(errors.InvalidStructure)
def body_of_another_format(path: Path) -> None:
    path.write_bytes(with_body(b"\x7fELF" + b"\0" * 4096))


@hostile(errors.InvalidStructure)
def signature_and_noise(path: Path) -> None:
    noise = np.random.default_rng(0).bytes(8192)
    body = bytearray(storage.SIGNATURE + noise)
    spec = storage.metadata_document(small_spec())
    body[100 : 100 + len(spec)] = spec
    path.write_bytes(header(bytes(body), 100, len(spec)) + body)


@hostile(errors.InvalidStructure)
def hdf5_cut_short(path: Path) -> None:
    path.write_bytes(with_body(good()[HEADER:-64]))


@hostile(errors.InvalidStructure)
def absurd_superblock(path: Path) -> None:
    body = bytearray(good()[HEADER:])
    body[13:15] = b"\xff\xff"  # sizes of offsets and lengths
    path.write_bytes(with_body(bytes(body)))


@hostile(errors.InvalidStructure)
def root_group_at_infinity(path: Path) -> None:
    body = bytearray(good()[HEADER:])
    body[64:72] = struct.pack("<Q", (1 << 63) - 8)
    path.write_bytes(with_body(bytes(body)))


# Links.


@hostile(errors.ForbiddenLink)
def soft_link(path: Path) -> None:
    replaced(path, lambda group: group.__setitem__("0.bias", h5py.SoftLink("/metadata")))


@hostile(errors.ForbiddenLink)
def soft_link_to_nothing(path: Path) -> None:
    replaced(path, lambda group: group.__setitem__("0.bias", h5py.SoftLink("/nowhere")))


@hostile(errors.ForbiddenLink)
def soft_link_to_itself(path: Path) -> None:
    link = h5py.SoftLink("/parameters/critic/0.bias")
    replaced(path, lambda group: group.__setitem__("0.bias", link))


@hostile(errors.ForbiddenLink)
def soft_link_in_the_middle(path: Path) -> None:
    def change(file: h5py.File) -> None:
        file.move("parameters/critic", "parameters/elsewhere")
        file["parameters/critic"] = h5py.SoftLink("/parameters/elsewhere")

    crafted(path, change)


@hostile(errors.ForbiddenLink)
def external_link(path: Path) -> None:
    other = path.parent / "canary"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((1, 1, 3), np.float32)
    replaced(path, lambda group: group.__setitem__("0.bias", h5py.ExternalLink(str(other), "x")))


@hostile(errors.ForbiddenLink)
def external_link_to_a_group(path: Path) -> None:
    other = path.parent / "canary"
    with h5py.File(other, "w") as file:
        file["critic/0.bias"] = np.zeros((1, 1, 3), np.float32)

    def change(file: h5py.File) -> None:
        del file["parameters/critic"]
        file["parameters/critic"] = h5py.ExternalLink(str(other), "critic")

    crafted(path, change)


@hostile(errors.ForbiddenLink)
def external_link_to_a_pipe(path: Path) -> None:
    other = path.parent / "canary"
    os.mkfifo(other)
    replaced(path, lambda group: group.__setitem__("0.bias", h5py.ExternalLink(str(other), "x")))


# Objects.


@hostile(errors.ForbiddenObject)
def one_array_under_two_names(path: Path) -> None:
    def make(group: h5py.Group) -> None:
        group["0.bias"] = group["out.bias"]

    replaced(path, make)


@hostile(errors.ForbiddenObject)
def group_that_holds_itself(path: Path) -> None:
    crafted(path, lambda file: file["parameters"].__setitem__("again", file["parameters"]))


@hostile(errors.ForbiddenObject)
def group_that_holds_the_root(path: Path) -> None:
    crafted(path, lambda file: file["parameters"].__setitem__("again", file["/"]))


@hostile(errors.ForbiddenObject)
def named_type(path: Path) -> None:
    crafted(path, lambda file: file.__setitem__("type", np.dtype("f4")))


@hostile(errors.ForbiddenObject)
def empty_group(path: Path) -> None:
    crafted(path, lambda file: file.create_group("parameters/extra"))


@hostile(errors.ForbiddenObject)
def ten_thousand_objects(path: Path) -> None:
    def change(file: h5py.File) -> None:
        for number in range(10_000):
            file.create_group(f"parameters/many/{number}")

    crafted(path, change)


@hostile(errors.ForbiddenObject)
def groups_without_end(path: Path) -> None:
    crafted(path, lambda file: file.create_group("parameters/" + "a/" * 2000))


# Attributes.


@hostile(errors.ForbiddenAttribute)
def attribute_on_the_root(path: Path) -> None:
    crafted(path, lambda file: file.attrs.__setitem__("note", "x"))


@hostile(errors.ForbiddenAttribute)
def attribute_on_a_group(path: Path) -> None:
    crafted(path, lambda file: file["parameters"].attrs.__setitem__("note", [1.0]))


@hostile(errors.ForbiddenAttribute)
def attribute_that_refers_to_an_object(path: Path) -> None:
    crafted(path, lambda file: file["metadata"].attrs.__setitem__("to", file["parameters"].ref))


@hostile(errors.ForbiddenAttribute)
def dimension_scale(path: Path) -> None:
    crafted(path, lambda file: file[f"parameters/{FIRST}"].make_scale("x"))


# Types.


@hostile(errors.ForbiddenType)
def strings_of_any_length(path: Path) -> None:
    typed(path, h5py.string_dtype())


@hostile(errors.ForbiddenType)
def arrays_of_any_length(path: Path) -> None:
    typed(path, h5py.vlen_dtype(np.float32))


@hostile(errors.ForbiddenType)
def object_references(path: Path) -> None:
    typed(path, h5py.ref_dtype)


@hostile(errors.ForbiddenType)
def region_references(path: Path) -> None:
    typed(path, h5py.regionref_dtype)


@hostile(errors.ForbiddenType)
def compound(path: Path) -> None:
    typed(path, np.dtype([("x", "f4"), ("y", "f4")]))


@hostile(errors.ForbiddenType)
def enumeration(path: Path) -> None:
    typed(path, h5py.enum_dtype({"a": 0, "b": 1}, basetype="i4"))


@hostile(errors.ForbiddenType)
def opaque(path: Path) -> None:
    typed(path, np.dtype("V4"))


@hostile(errors.ForbiddenType)
def array_type(path: Path) -> None:
    typed(path, np.dtype(("f4", (2,))))


@hostile(errors.ForbiddenType)
def double_precision(path: Path) -> None:
    typed(path, "f8")


@hostile(errors.ForbiddenType)
def half_precision(path: Path) -> None:
    typed(path, "f2")


@hostile(errors.ForbiddenType)
def other_byte_order(path: Path) -> None:
    typed(path, ">f4")


@hostile(errors.ForbiddenType)
def integers(path: Path) -> None:
    typed(path, "i4")


@hostile(errors.ForbiddenType)
def metadata_as_a_string(path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["metadata"]
        file["metadata"] = "{}"

    crafted(path, change)


# Storage.


@hostile(errors.ForbiddenStorage)
def bytes_of_another_file(path: Path) -> None:
    other = path.parent / "canary"
    other.write_bytes(b"\0" * 64)

    def make(group: h5py.Group) -> None:
        group.create_dataset("0.bias", (1, 1, 3), "f4", external=[(str(other), 0, 12)])

    replaced(path, make)


@hostile(errors.ForbiddenStorage)
def virtual_data_set(path: Path) -> None:
    other = path.parent / "canary"
    with h5py.File(other, "w") as file:
        file["x"] = np.zeros((1, 1, 3), np.float32)
    layout = h5py.VirtualLayout((1, 1, 3), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (1, 1, 3))
    replaced(path, lambda group: group.create_virtual_dataset("0.bias", layout))


@hostile(errors.ForbiddenStorage)
def chunks(path: Path) -> None:
    replaced(path, lambda g: g.create_dataset("0.bias", (1, 1, 3), "f4", chunks=(1, 1, 1)))


@hostile(errors.ForbiddenStorage)
def compressed_bomb(path: Path) -> None:
    zeros = np.zeros((1 << 12, 1 << 12), np.float32)  # 64 MiB in 64 KiB
    replaced(path, lambda group: group.create_dataset("0.bias", data=zeros, compression=9))


@hostile(errors.ForbiddenStorage)
def filter_from_a_plug_in(path: Path) -> None:
    def make(group: h5py.Group) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((1, 1, 3))
        creation.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((1, 1, 3))
        h5py.h5d.create(group.id, b"0.bias", h5py.h5t.IEEE_F32LE, space, creation)

    replaced(path, make)


@hostile(errors.ForbiddenStorage)
def compact_data(path: Path) -> None:
    def make(group: h5py.Group) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((1, 1, 3))
        h5py.h5d.create(group.id, b"0.bias", h5py.h5t.IEEE_F32LE, space, creation)

    replaced(path, make)


@hostile(errors.ForbiddenStorage)
def four_tebibytes_that_are_not_there(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", (1 << 20, 1 << 20), "f4"))


@hostile(errors.ForbiddenStorage)
def chunked_four_tebibytes(path: Path) -> None:
    shape = (1 << 20, 1 << 20)
    replaced(path, lambda group: group.create_dataset("0.bias", shape, "f4", chunks=True))


@hostile(errors.ForbiddenStorage)
def a_single_number(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", (), "f4", data=1.0))


@hostile(errors.ForbiddenStorage)
def no_dataspace(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", data=h5py.Empty("f4")))


@hostile(errors.ForbiddenStorage)
def two_arrays_in_one_place(path: Path) -> None:
    path.write_bytes(patched(address("critic/out.bias"), address("critic/0.bias")))


@hostile(errors.ForbiddenStorage)
def array_on_top_of_the_metadata(path: Path) -> None:
    place = struct.pack("<Q", storage.parse_header(good()).metadata_offset)
    path.write_bytes(patched(address("critic/0.bias"), place))


@hostile(errors.SkillFileError)
def array_beyond_the_end(path: Path) -> None:
    path.write_bytes(patched(address("critic/0.bias"), struct.pack("<Q", 1 << 40)))


# Metadata.


@hostile(errors.InvalidMetadata)
def metadata_is_no_json(path: Path) -> None:
    crafted(path, document=b"temperature: 0.1")


@hostile(errors.InvalidMetadata)
def metadata_is_no_object(path: Path) -> None:
    crafted(path, document=b"[]")


@hostile(errors.InvalidMetadata)
def metadata_is_empty(path: Path) -> None:
    data = good()
    old = storage.parse_header(data)
    path.write_bytes(header(data[HEADER:], old.metadata_offset, 0) + data[HEADER:])


@hostile(errors.InvalidMetadata)
def metadata_in_another_encoding(path: Path) -> None:
    crafted(path, document=document().decode().encode("utf-16"))


@hostile(errors.InvalidMetadata)
def key_twice(path: Path) -> None:
    crafted(path, document=document().replace(b"{", b'{"temperature": 9.0, ', 1))


@hostile(errors.InvalidMetadata)
def unknown_key(path: Path) -> None:
    crafted(path, document=document(__reduce__="os.system"))


@hostile(errors.InvalidMetadata)
def missing_key(path: Path) -> None:
    values = json.loads(document())
    del values["temperature"]
    crafted(path, document=canonical(values))


@hostile(errors.InvalidMetadata)
def not_a_number(path: Path) -> None:
    crafted(path, document=document(temperature=float("nan")))


@hostile(errors.InvalidMetadata)
def number_beyond_infinity(path: Path) -> None:
    crafted(path, document=document().replace(b'"temperature":0.1', b'"temperature":1e999'))


@hostile(errors.InvalidMetadata)
def number_of_a_million_digits(path: Path) -> None:
    crafted(path, document=document().replace(b'"seed":0', b'"seed":1' + b"0" * 1_000_000))


@hostile(errors.InvalidMetadata)
def number_as_a_string(path: Path) -> None:
    crafted(path, document=document(temperature="0.1"))


@hostile(errors.InvalidMetadata)
def truth_as_a_number(path: Path) -> None:
    crafted(path, document=document(steps=True))


@hostile(errors.InvalidMetadata)
def zero_temperature(path: Path) -> None:
    crafted(path, document=document(temperature=0.0))


@hostile(errors.InvalidMetadata)
def action_box_inside_out(path: Path) -> None:
    crafted(path, document=document(action_low=[1.0, 1.0], action_high=[-1.0, -1.0]))


@hostile(errors.InvalidMetadata)
def name_that_is_a_path(path: Path) -> None:
    crafted(path, document=document(name="../../etc/passwd"))


@hostile(errors.InvalidMetadata)
def environment_made_from_a_file(path: Path) -> None:
    crafted(path, document=document(env_kwargs={"xml_file": "/etc/passwd"}))


@hostile(errors.InvalidMetadata)
def environment_made_with_an_object(path: Path) -> None:
    crafted(path, document=document(env_kwargs={"wrappers": [{"__reduce__": "os.system"}]}))


@hostile(errors.InvalidMetadata)
def environment_of_a_million_threads(path: Path) -> None:  # the task is one of ours
    crafted(path, document=document(env_kwargs={"num_threads": 1_000_000}))


@hostile(errors.InvalidMetadata)
def environment_without_end(path: Path) -> None:
    crafted(path, document=document(env_kwargs={"max_episode_steps": 1 << 60}))


@hostile(errors.InvalidMetadata)
def half_a_character(path: Path) -> None:
    crafted(path, document=document(description="\ud800"))


@hostile(errors.InvalidMetadata)
def brackets_without_end(path: Path) -> None:
    crafted(path, document=b"[" * 200_000)


@hostile(errors.FileTooLarge)
def metadata_without_end(path: Path) -> None:
    crafted(path, document=document().ljust(storage.MAX_METADATA_BYTES + 1))


@hostile(errors.InvalidMetadata)
def metadata_beyond_the_file(path: Path) -> None:
    body = good()[HEADER:]
    path.write_bytes(header(body, len(body) - 8, 1000) + body)


@hostile(errors.InvalidMetadata)
def second_metadata_for_the_header(path: Path) -> None:
    """The header points at another document than the one HDF5 shows to other readers."""
    body = good()[HEADER:]
    decoy = document(temperature=9.0)
    parameters = storage.decode(good()).parameters
    content = storage.hash_of(decoy, parameters)
    path.write_bytes(header(body + decoy, len(body), len(decoy), content) + body + decoy)


@hostile(errors.MissingParameter)
def no_metadata_in_hdf5_terms(path: Path) -> None:
    """A valid document that asks for another architecture."""
    values = json.loads(document())
    values["architecture"]["critic_hidden"] = [3, 3]
    crafted(path, document=canonical(values))


@hostile(errors.WrongShape)
def a_million_units_in_the_metadata(path: Path) -> None:
    values = json.loads(document())
    values["architecture"]["critic_hidden"] = [2**20]
    crafted(path, document=canonical(values))


@hostile(errors.InvalidMetadata)
def widths_beyond_all_arrays(path: Path) -> None:
    values = json.loads(document())
    values["architecture"] |= {"couplings": 0, "coupling_hidden": 2**61}
    crafted(path, document=canonical(values))


@hostile(errors.InvalidMetadata)
def another_form_of_the_same_document(path: Path) -> None:
    """Written again it would have another content hash."""
    crafted(path, document=json.dumps(json.loads(document()), sort_keys=True).encode())


@hostile(errors.InvalidMetadata)
def a_real_number_without_its_point(path: Path) -> None:
    changed = document().replace(b'"reward_scale":1.0', b'"reward_scale":1', 1)
    assert changed != document()
    crafted(path, document=changed)


@hostile(errors.InvalidMetadata)
def a_seed_that_no_generator_takes(path: Path) -> None:
    crafted(path, document=document(seed=2**64))


@hostile(errors.InvalidMetadata)
def a_million_errors(path: Path) -> None:
    """Each with four alternatives of its own, which took gigabytes to report."""
    crafted(path, document=document(env_kwargs={"a": ["/"] * 1_000_000}))


@hostile(errors.InvalidMetadata)
def a_hundred_thousand_unknown_keys(path: Path) -> None:
    crafted(path, document=document(config={str(i): 1 for i in range(100_000)}))


# Parameters.


@hostile(errors.MissingParameter)
def missing_parameter(path: Path) -> None:
    crafted(path, lambda file: file.__delitem__(f"parameters/{FIRST}"))


@hostile(errors.UnknownParameter)
def unknown_parameter(path: Path) -> None:
    crafted(path, lambda file: file.__setitem__("parameters/critic/9.bias", np.zeros(3, "f4")))


@hostile(errors.UnknownParameter)
def unknown_data_set(path: Path) -> None:
    crafted(path, lambda file: file.__setitem__("extra", np.zeros(3, "f4")))


@hostile(errors.UnknownParameter)
def parameter_that_climbs_out(path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["parameters/noise"].file["parameters/.."] = np.zeros(3, "f4")

    crafted(path, change)


@hostile(errors.UnknownParameter)
def name_in_another_script(path: Path) -> None:
    crafted(path, lambda file: file.__setitem__("parameters/n\u043eise", np.zeros(3, "f4")))


@hostile(errors.WrongShape)
def wrong_shape(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", data=np.zeros((1, 1, 4), "f4")))


@hostile(errors.WrongShape)
def same_size_other_shape(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", data=np.zeros((3, 1, 1), "f4")))


@hostile(errors.WrongShape)
def no_elements(path: Path) -> None:
    replaced(path, lambda group: group.create_dataset("0.bias", data=np.zeros((1, 1, 0), "f4")))


@hostile(errors.NonFiniteParameter)
def parameter_not_a_number(path: Path) -> None:
    crafted(path, parameters=spoiled(np.nan))


@hostile(errors.NonFiniteParameter)
def infinite_parameter(path: Path) -> None:
    crafted(path, parameters=spoiled(-np.inf))


def spoiled(value: float) -> dict[str, NDArray[Any]]:
    parameters = random_parameters(small_spec())
    parameters[FIRST][0, 0, 1] = value
    return parameters

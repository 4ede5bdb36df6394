"""Skill files: what is written comes back bit for bit, or not at all."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skill_files import TINY, random_parameters, small_skill, small_spec

from skillbank import durable, errors, storage, storage_hdf5
from skillbank.config import Architecture, FinetuneConfig
from skillbank.spec import (
    CurvePoint,
    EvaluationRecord,
    SkillSpec,
    parameter_shapes,
)


@pytest.fixture
def image() -> bytes:
    return storage.encode(*small_skill().stored())


SPECS = {
    "flow": {},
    "noise": {"architecture": TINY.model_copy(update={"sampler": "noise"}), "noise_set": 0},
    "anchored": {"anchored": True, "config": FinetuneConfig(), "parents": ("ab" * 32,)},
    "settings": {"env_kwargs": {"a": True, "b": 1, "c": 1.0, "d": "x", "e": (1, 2.5, None)}},
    "no couplings": {"architecture": TINY.model_copy(update={"couplings": 0})},
    "many layers": {"architecture": Architecture(critic_hidden=(3,) * 8, critics=4)},
    "full card": {
        "description": 'says "hello"\n\t\u2603 \U0001f916',
        "learning_curve": tuple(
            CurvePoint(steps=i, updates=i, seconds=i / 3, mean_return=-1e-300 * i, temperature=0.1)
            for i in range(100)
        ),
        "evaluations": (
            EvaluationRecord(
                env_id="x",
                episodes=3,
                seed=0,
                mean_return=-0.0,
                interval=(-1.5, 1e16),
                metrics={"net_distance": 0.1 + 0.2},
            ),
        ),
        "versions": {"mujoco": "3.17.0", "torch": "2.13.0+cpu"},
    },
}


@pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS.keys())
def test_what_is_written_comes_back_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = small_spec(**changes)
    parameters = random_parameters(spec)
    first = next(iter(parameters.values())).ravel()
    first[:3] = [-0.0, np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max]
    written = storage.write(tmp_path / "a.h5", spec, parameters)
    stored = storage.read(tmp_path / "a.h5")
    assert stored.spec == spec
    assert stored.parameters.keys() == parameters.keys()
    for name, array in parameters.items():
        assert stored.parameters[name].dtype == np.float32
        assert stored.parameters[name].shape == array.shape
        assert stored.parameters[name].tobytes() == array.tobytes()
    assert stored.content_hash == written == storage.content_hash(spec, parameters)
    assert storage.read_spec(tmp_path / "a.h5") == spec


def test_the_same_skill_gives_the_same_bytes_in_any_order_and_process(image: bytes) -> None:
    spec, parameters = small_skill().stored()
    backwards = {name: parameters[name] for name in reversed(parameters)}
    assert storage.encode(spec, backwards) == image
    program = (
        "import hashlib; from skill_files import small_skill; from skillbank import storage;"
        "print(hashlib.sha256(storage.encode(*small_skill().stored())).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == hashlib.sha256(image).hexdigest()


def test_arrays_that_are_views_are_written_by_value(image: bytes) -> None:
    spec, parameters = small_skill().stored()
    views = {name: np.asfortranarray(array)[..., ::1] for name, array in parameters.items()}
    assert storage.encode(spec, views) == image


def test_the_content_hash_depends_on_everything() -> None:
    spec, parameters = small_skill().stored()
    hashes = {storage.content_hash(spec, parameters)}
    for change in ({"name": "other"}, {"temperature": 0.2}, {"seed": 1}, {"steps": 101}):
        hashes.add(storage.content_hash(spec.model_copy(update=change), parameters))
    for name, array in parameters.items():
        nudged = array.copy()
        nudged.flat[0] = np.nextafter(nudged.flat[0], np.float32(9), dtype=np.float32)
        hashes.add(storage.content_hash(spec, parameters | {name: nudged}))
    assert len(hashes) == 1 + 4 + len(parameters)


def test_a_reader_written_from_the_specification_agrees(tmp_path: Path) -> None:
    """Docs/skill-file.md, followed with h5py and hashlib alone."""
    path = tmp_path / "a.h5"
    skill = small_skill()
    storage.write(path, *skill.stored())
    data = path.read_bytes()
    lines = data[:512].rstrip(b"\0").decode("ascii").split("\n")
    assert lines[0] == "skillbank skill file"
    fields = dict(line.split(" ", 1) for line in lines[1:-1])
    assert fields["format"] == "1"
    assert fields["body"] == hashlib.sha256(data[512:]).hexdigest()
    offset, length = map(int, fields["metadata"].split())
    with h5py.File(path) as file:
        assert file.userblock_size == 512
        document = file["metadata"][()].tobytes()
        arrays: dict[str, Any] = {}
        file["parameters"].visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    assert document == data[512 + offset : 512 + offset + length]
    content = hashlib.sha256(b"skillbank content 1\n" + len(document).to_bytes(8, "little"))
    content.update(document)
    for name in sorted(arrays):
        content.update(arrays[name].astype("<f4").tobytes())
    assert content.hexdigest() == fields["content"] == skill.content_hash
    assert SkillSpec.model_validate_json(document) == skill.spec
    assert {k: v.shape for k, v in arrays.items()} == parameter_shapes(skill.spec)


# Damage.


def test_every_truncation_is_refused(image: bytes) -> None:
    for length in range(len(image)):
        with pytest.raises((errors.NotASkillFile, errors.DamagedFile)):
            storage.decode(image[:length], look=no_look)


def test_every_flipped_bit_is_refused_and_hdf5_sees_no_damaged_byte(image: bytes) -> None:
    def look(body: bytes) -> storage.Contents:
        assert body == image[512:]  # the flip was in the header
        return whole

    whole = storage_hdf5.contents(image[512:])
    damaged = bytearray(image)
    for index in range(8 * len(image)):
        damaged[index // 8] ^= 1 << index % 8
        with pytest.raises(errors.SkillFileError):
            storage.decode(bytes(damaged), look=look)
        damaged[index // 8] ^= 1 << index % 8


def test_random_flips_in_a_large_file_are_refused(full: bool) -> None:
    spec = small_spec(architecture=Architecture())
    image = storage.encode(spec, random_parameters(spec))
    rng = np.random.default_rng(0)
    for _ in range(10_000 if full else 200):
        damaged = bytearray(image)
        damaged[rng.integers(512, len(image))] ^= 1 << rng.integers(8)
        with pytest.raises(errors.SkillFileError):
            storage.decode(bytes(damaged), look=no_look)


def no_look(_: bytes) -> storage.Contents:
    pytest.fail("the HDF5 library was given damaged bytes")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: p.pop("noise"), errors.MissingParameter),
        (lambda p: p.update(extra=p["noise"]), errors.UnknownParameter),
        (lambda p: p.update(noise=p["noise"].T.copy().reshape(1, 4)), errors.WrongShape),
        (lambda p: p.update(noise=p["noise"].astype(np.float64)), errors.WrongShape),
        (lambda p: p["noise"].fill(np.nan), errors.NonFiniteParameter),
        (lambda p: p["noise"].fill(np.inf), errors.NonFiniteParameter),
    ],
)
def test_a_wrong_skill_is_not_written(
    spoil: Callable[[Any], object], expected: type[errors.SkillbankError], tmp_path: Path
) -> None:
    spec, parameters = small_skill().stored()
    spoil(parameters)
    with pytest.raises(expected):
        storage.write(tmp_path / "a.h5", spec, parameters)
    assert list(tmp_path.iterdir()) == []


def test_metadata_beyond_the_cap_is_not_written(tmp_path: Path) -> None:
    huge = EvaluationRecord(
        env_id="x" * 4096, episodes=1, seed=0, mean_return=0.0, interval=(0.0, 0.0),
        metrics={f"m{i}": 0.1 for i in range(500)},
    )  # fmt: skip
    spec = small_spec(evaluations=(huge,) * 1000)
    with pytest.raises(errors.FileTooLarge, match="at most"):
        storage.write(tmp_path / "a.h5", spec, random_parameters(spec))


def test_no_file_is_not_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(errors.SkillNotFound, match="no file"):
        storage.read(tmp_path / "a.h5")


def test_a_future_version_is_refused_by_its_number(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(image.replace(b"format 1\n", b"format 12\n"))
    with pytest.raises(
        errors.UnknownFormatVersion, match="version 12; this release reads version 1"
    ):
        storage.read(tmp_path / "a.h5")


def test_an_error_names_the_file_and_the_field(tmp_path: Path, image: bytes) -> None:
    path = tmp_path / "a.h5"
    body = image[512:].replace(b'"discount":0.99', b'"discount":1.99')
    digests = (hashlib.sha256(data).hexdigest().encode() for data in (image[512:], body))
    path.write_bytes(image[:512].replace(*digests) + body)
    with pytest.raises(errors.InvalidMetadata) as caught:
        storage.read_spec(path)
    assert str(caught.value) == f"{path}: metadata: discount: Input should be less than 1"


@pytest.mark.parametrize("with_metadata", [False, True])
def test_parameters_that_share_bytes_are_refused(image: bytes, with_metadata: bool) -> None:
    """Else an index, or a reader that was taken over, could make a small file a large skill."""
    parameters = small_skill().parameters
    header = storage.parse_header(image)
    offsets = list(storage.decode(image, look=storage_hdf5.contents).placement.offsets)
    offsets[1] = header.metadata_offset if with_metadata else offsets[0]
    table = [("metadata", (header.metadata_length,), header.metadata_offset)]
    for name, offset in zip(sorted(parameters), offsets, strict=True):
        table.append((f"parameters/{name}", parameters[name].shape, offset))
    with pytest.raises(errors.ForbiddenStorage, match="shares bytes"):
        storage.decode(image, look=lambda _: table)


def test_an_index_cannot_make_a_small_file_a_large_skill(tmp_path: Path) -> None:
    spec = small_spec()
    document = storage.metadata_document(spec)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(spec).items()}
    body = storage.SIGNATURE + document + bytes(max(array.nbytes for array in zeros.values()))
    header = storage._header(document, zeros, body, len(storage.SIGNATURE))
    path = tmp_path / "a.h5"
    path.write_bytes(header + body)
    place = len(storage.SIGNATURE) + len(document)
    placement = storage.Placement(hashlib.sha256(body).hexdigest(), (place,) * len(zeros))
    with pytest.raises(errors.SkillFileError):
        storage.read(path, placement)


def test_of_another_file_no_more_is_read_than_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        for read in (storage.read, storage.read_spec, storage.read_verified):
            with pytest.raises(errors.NotASkillFile, match=str(path)):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Property-based: whatever the bytes, only the named errors.

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_skill_file_or_one_error(data: bytes) -> None:
    for image in (data, storage.MAGIC + data, storage.MAGIC + b"format 1\n" + data):
        with pytest.raises(errors.SkillFileError):
            storage.decode(image, look=no_look)


@given(st.sampled_from(sorted(SkillSpec.model_fields)), JSON)
@settings(max_examples=150, deadline=None)
def test_any_value_in_any_field_is_valid_or_one_error(field: str, value: object) -> None:
    document = json.loads(storage.metadata_document(small_spec())) | {field: value}
    try:
        spec = storage.parse_metadata(json.dumps(document).encode())
    except errors.InvalidMetadata:
        return
    assert storage.parse_metadata(storage.metadata_document(spec)) == spec


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=150, deadline=None)
def test_any_document_is_one_error(document: bytes) -> None:
    with pytest.raises(errors.InvalidMetadata):
        storage.parse_metadata(document)


# Failing disks.

STEPS = ["open", "flock", "write", "fsync", "pread", "replace", "close", "fsync folder"]


def failing(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    """Let one system call of a save fail, once, on its first use."""
    name, _, folder = step.partition(" ")
    module = durable.fcntl if name == "flock" else durable.os
    real = getattr(module, name)
    failed = threading.Event()

    def fail(*args: Any, **kwargs: Any) -> Any:
        is_folder = isinstance(args[0], int) and name == "fsync" and os.path.isdir(fd_path(args[0]))
        if failed.is_set() or bool(folder) != is_folder:
            return real(*args, **kwargs)
        failed.set()
        if name == "close":
            real(*args)  # the descriptor is gone even when close reports an error
        raise error

    monkeypatch.setattr(module, name, fail)


def kept(path: Path) -> str:
    """Content hash of a file that this test has written itself."""
    return storage.decode(path.read_bytes(), look=storage_hdf5.contents).content_hash


def fd_path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_step_that_fails_is_one_error_and_loses_nothing(
    step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    old, new = small_skill(seed=1), small_skill(seed=2)
    storage.write(path, *old.stored())
    with monkeypatch.context() as patch:
        failing(patch, step, OSError(code, os.strerror(code)))
        with pytest.raises(errors.StorageError, match=os.strerror(code)) as caught:
            storage.write(path, *new.stored())
    assert "\n" not in str(caught.value)
    assert ("Free some space" in str(caught.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert ("you may write to" in str(caught.value)) == (code in (errno.EROFS, errno.EACCES))
    after_rename = step in ("close", "fsync folder")  # too late to fail: the new file is there
    assert kept(path) == (new if after_rename else old).content_hash
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_save_loses_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    skills = [small_skill(seed=1), small_skill(seed=2)]
    storage.write(path, *skills[0].stored())
    with monkeypatch.context() as patch:
        failing(patch, step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            storage.write(path, *skills[1].stored())
    assert kept(path) in [skill.content_hash for skill in skills]
    durable.sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_disk_that_writes_a_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(durable.os, "write", lambda fd, data: real(fd, data[:1000]))
    skill = small_skill()
    storage.write(tmp_path / "a.h5", *skill.stored())
    assert storage.read(tmp_path / "a.h5").content_hash == skill.content_hash


def test_a_disk_that_returns_something_else_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    old = small_skill(seed=1)
    storage.write(path, *old.stored())
    real = os.pread
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "pread", lambda *args: real(*args)[:-1] + b"?")
        with pytest.raises(errors.StorageError, match="reads back differently"):
            storage.write(path, *small_skill(seed=2).stored())
    assert kept(path) == old.content_hash


def test_a_real_limit_on_file_size_is_one_error(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from skill_files import small_skill; from skillbank import errors, storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    storage.write(Path(sys.argv[1]), *small_skill().stored())\n"
        "except errors.StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.h5")],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=True,
    )
    assert b"File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []

"""Every hostile file is refused with its own error, and no other file is opened."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from hostile_files import KINDS, Hostile, crafted, filter_from_a_plug_in, good
from skill_files import small_spec

from skillbank import errors, storage, storage_sandbox


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_refused_with_its_own_error(kind: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "skill.h5"
    kind.make(path)
    with Opens(tmp_path) as opens, pytest.raises(kind.expected) as caught:
        storage.read(path)
    if kind.expected is not errors.SkillFileError:
        assert type(caught.value) is kind.expected
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert opens.names - {path.name} == set()
    assert not (tmp_path / "pwned").exists()


def test_there_are_many_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


def test_what_the_generators_spoil_is_good(tmp_path: Path) -> None:
    """Without this, a generator could be refused for a fault of its tools."""
    path = tmp_path / "skill.h5"
    crafted(path)
    assert storage.read(path).parameters.keys() == storage.decode(good()).parameters.keys()


def test_the_audit_sees_an_open(tmp_path: Path) -> None:
    (tmp_path / "canary").write_bytes(b"x")
    with Opens(tmp_path) as opens:
        subprocess.run(["cat", str(tmp_path / "canary")], capture_output=True, check=True)
    assert opens.names == {"canary"}


def test_no_plug_in_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 would load any library in this folder that claims to be the filter a file asks for."""
    plug_ins = tmp_path / "plug-ins"
    plug_ins.mkdir()
    (plug_ins / "libfilter.so").write_bytes(b"\x7fELF")
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(plug_ins))
    path = tmp_path / "skill.h5"
    filter_from_a_plug_in(path)
    with Opens(plug_ins) as opens, pytest.raises(errors.ForbiddenStorage):
        storage.read(path)
    assert opens.names == set()


class Opens:
    """Names of the files in a folder that any process opens meanwhile (Linux inotify)."""

    IN_OPEN = 0x20

    def __init__(self, folder: Path) -> None:
        self.names: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._descriptor >= 0
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(folder), self.IN_OPEN) >= 0

    def __enter__(self) -> "Opens":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            events = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            events = b""
        os.close(self._descriptor)
        while events:
            length = int.from_bytes(events[12:16], sys.byteorder)
            name = events[16 : 16 + length].rstrip(b"\0").decode()
            self.names.add(name) if name else None  # no name: the folder itself
            events = events[16 + length :]


LIMITED = """
import runpy, sys, os, socket
reader = runpy.run_path(sys.argv[1])
reader["give_up_rights"](64 << 20, 1 << 20)
try:
    {attempt}
except (OSError, MemoryError) as error:
    os.write(1, type(error).__name__.encode())
"""


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("open('/etc/passwd')", b"PermissionError"),
        ("open('new', 'w')", b"PermissionError"),
        ("socket.socket()", b"PermissionError"),
        ("os.pipe()", b"PermissionError"),
        ("os.unlink('mine')", b"PermissionError"),
        ("os.rename('mine', 'yours')", b"PermissionError"),
        ("os.chmod('mine', 0)", b"PermissionError"),
        ("os.kill(os.getppid(), 0)", b"PermissionError"),
        ("os.fork()", b"PermissionError"),
        ("os.execv('/bin/true', ['true'])", b"PermissionError"),
        ("bytearray(1 << 30)", b"MemoryError"),
    ],
)
def test_the_reader_has_given_up_its_rights(attempt: str, outcome: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    program = LIMITED.format(attempt=attempt)
    done = subprocess.run(
        [sys.executable, "-c", program, str(storage_sandbox.PROGRAM)],
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout == outcome
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "program",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import sys; sys.exit(1)",
        "print('no answer')",
        "print('[\"contents\", [[1, 2, 3]]]')",
        'print(\'["contents", [["metadata", [-1], 0]]]\')',
        'print(\'["contents", [["metadata", [1.5], 0]]]\')',
        'print(\'["SystemExit", "0"]\')',
        'print(\'["SkillbankError", "0"]\')',
        'print(\'["SkillFileError.__init__", "0"]\')',
        "print('[' * 100000)",
        "import sys; sys.stdout.write('x' * (1 << 24))",
    ],
)
def test_a_reader_that_crashes_or_lies_is_one_clear_error(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "reader.py"
    script.write_text(program)
    monkeypatch.setattr(storage_sandbox, "PROGRAM", script)
    path = tmp_path / "skill.h5"
    path.write_bytes(good())
    with pytest.raises(errors.ReaderStopped, match="opening it"):
        storage.read(path)


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "\x9b31m", "a\rb", "\x07", "\x7f", "\x00", "\u202e", "\u2066"],
    ids=["esc", "csi", *"rb7n", "override", "isolate"],
)
def test_no_text_of_a_file_steers_a_terminal(text: str) -> None:
    spec = json.loads(small_spec().model_dump_json())
    for key in ("description", "license", "reward", "env_id"):
        document = json.dumps(spec | {key: f"x{text}"}).encode()
        with pytest.raises(errors.InvalidMetadata, match=f"metadata: {key}") as refused:
            storage.parse_metadata(document)
        assert text not in str(refused.value)
    for key in ("license", "reward", "env_id"):  # one line each, or it would forge others
        with pytest.raises(errors.InvalidMetadata, match=f"metadata: {key}"):
            storage.parse_metadata(json.dumps(spec | {key: "x\nlicence MIT"}).encode())
    document = json.dumps(spec | {f"key{text}": 1}).encode()
    with pytest.raises(errors.InvalidMetadata) as refused:
        storage.parse_metadata(document)
    assert text not in str(refused.value)
    told = "tabs\tand\nlines, \u00e9\u4e2d\U0001f916"
    kept = storage.metadata_document(small_spec().model_copy(update={"description": told}))
    assert storage.parse_metadata(kept).description == told


def test_a_file_is_read_where_h5py_is_outside_of_the_interpreters_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a user's own site, or on PYTHONPATH: python -I looks into neither."""
    assert Path(h5py.__file__).parents[1] == Path(storage_sandbox._homes()[0])
    script = tmp_path / "reader.py"
    script.write_text(
        "import sys, json; print(json.dumps(['InvalidStructure', str(sys.argv[3:])]))"
    )
    monkeypatch.setattr(storage_sandbox, "PROGRAM", script)
    path = tmp_path / "skill.h5"
    path.write_bytes(good())
    with pytest.raises(errors.InvalidStructure, match=str(Path(h5py.__file__).parents[1])):
        storage.read(path)


def test_a_reader_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "reader.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(storage_sandbox, "PROGRAM", script)
    monkeypatch.setattr(storage_sandbox, "WALL_SECONDS", 0.2)
    path = tmp_path / "skill.h5"
    path.write_bytes(good())
    with pytest.raises(errors.ReaderStopped, match="took more than"):
        storage.read(path)


def test_the_reader_cannot_spin_for_ever() -> None:
    program = (
        "import runpy, sys; give_up = runpy.run_path(sys.argv[1])['give_up_rights']\n"
        "give_up.__globals__['CPU_SECONDS'] = 1\n"
        "give_up(64 << 20, 1 << 20)\n"
        "while True: pass\n"
    )
    command = [sys.executable, "-c", program, str(storage_sandbox.PROGRAM)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert -done.returncode in (signal.SIGXCPU, signal.SIGKILL)

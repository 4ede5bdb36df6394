"""Files that take another's place: a crash leaves the old one or the new one, and no litter.

The steps of a write are failed one by one in test_storage.py.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skillbank import durable, errors
from skillbank.errors import StorageError


def failing(path: Path, error: BaseException) -> None:
    with durable.replace_durably(path) as file:
        file.write(b"new")
        raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), StorageError)],
)
def test_what_fails_in_the_block_leaves_the_old_file(
    error: BaseException, told: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    with durable.replace_durably(path) as file:
        file.write(b"old")
    with pytest.raises(told):
        failing(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_write_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    program = (
        "import os, sys; from pathlib import Path; from skillbank.durable import replace_durably\n"
        "with replace_durably(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"half"
    assert not path.exists()
    with durable.replace_durably(path) as file:
        assert not left.exists()
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_sweep_leaves_files_in_use_and_strangers_alone(tmp_path: Path) -> None:
    temporary, descriptor = durable._temporary(tmp_path / "a.h5")
    stale = tmp_path / ".a.h5.00112233445566ff.tmp"
    stale.write_bytes(b"")
    stranger = tmp_path / ".a.h5.tmp"
    stranger.write_bytes(b"")
    assert durable.sweep(tmp_path) == [stale]
    os.close(descriptor)
    assert durable.sweep(tmp_path) == [temporary]
    assert list(tmp_path.iterdir()) == [stranger]


def deleting_first(monkeypatch):
    """Whoever locks a file for the first time finds that somebody has just deleted it."""
    real, gone = fcntl.flock, []

    def flock(descriptor, how):
        if not gone:
            gone.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            os.unlink(gone[0])
        real(descriptor, how)

    monkeypatch.setattr(durable.fcntl, "flock", flock)
    return gone


def test_a_file_that_was_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    gone = deleting_first(monkeypatch)
    durable.replace_file(tmp_path / "a", b"whole")
    assert len(gone) == 1
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_that_a_sweep_was_looking_at_is_made_again(tmp_path, monkeypatch):
    real, busy = fcntl.flock, []

    def flock(descriptor, how):
        if not busy:
            busy.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR))
            real(busy[0], fcntl.LOCK_EX)  # by a sweep in another process
        real(descriptor, how)

    monkeypatch.setattr(durable.fcntl, "flock", flock)
    durable.replace_file(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    os.close(busy[0])
    durable.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_a_lock_on_a_file_that_was_deleted_is_no_lock(tmp_path, monkeypatch):
    gone = deleting_first(monkeypatch)
    with durable.alone(tmp_path):
        assert len(gone) == 1
        with pytest.raises(errors.Busy, match=f"process {os.getpid()} is using"):
            durable.alone(tmp_path).__enter__()


def test_a_lock_is_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to("../precious")
    with pytest.raises(OSError, match="symbolic links"):
        durable.alone(tmp_path / "run").__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


def test_new_folders_are_durable(tmp_path, synced):
    durable.make_folder(tmp_path / "a" / "b")
    assert synced == [(tmp_path, {"a"}), (tmp_path / "a", {"b"})]

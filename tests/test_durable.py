"""Files that take another's place: a crash leaves the old one or the new one, and no litter.

The steps of a write are failed one by one in test_storage.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skillbank import durable
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

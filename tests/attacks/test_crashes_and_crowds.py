"""A bank survives being killed at any moment, many processes at once, and mutated files."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(program: str, *arguments: object) -> dict[str, int]:
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    outcome: dict[str, int] = json.loads(done.stdout)
    return outcome


def test_kill_9_during_saves_loses_nothing(tmp_path: Path, full: bool) -> None:
    outcome = run("crashes.py", tmp_path, 1000 if full else 50, 0)
    assert outcome["saves"] > outcome["kills"] / 4  # otherwise nothing was tested


def test_a_crowd_loses_no_update(tmp_path: Path, full: bool) -> None:
    processes, operations = (8, 200) if full else (4, 25)
    outcome = run("crowd.py", tmp_path, processes, operations, 0)
    assert outcome["saves"] > processes * operations / 8
    assert outcome["removed"] > 0


def test_mutated_files_meet_only_the_named_errors(full: bool) -> None:
    outcome = run("fuzz.py", 100_000 if full else 500, 0)
    assert outcome["InvalidStructure"] > 0
    assert outcome["accepted"] > 0  # a change where HDF5 does not look

"""The updates of an earlier revision, timed in turns with this one's."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from updates import THEN, THEN_BY_TWO, Gains

ROOT = Path(__file__).resolve().parent.parent.parent

TURNS = 5


def check_out(revision: str, folder: Path) -> Path:
    """Unpack a revision into a folder for PYTHONPATH."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", revision, "skillbank", "envs", "pretrained"],
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive)
    for part in ("envs", "pretrained"):  # where an installed package has them
        (folder / part).rename(folder / "skillbank" / part)
    return folder


def timings_beside(revision: str, seconds: float) -> tuple[dict[str, float], Gains]:
    """Milliseconds of this checkout with one thread, and how many times faster than the revision.

    Medians over turns, each of which times all sides one after the other.
    """
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        now, then = check_out_tree(Path(here)), check_out(revision, Path(there))
        sides = {"": (now, 1), THEN: (then, 1), THEN_BY_TWO: (then, 2)}
        turns = [
            {side: _timings(folder, seconds / TURNS, n) for side, (folder, n) in sides.items()}
            for _ in range(TURNS)
        ]
    ours = [turn[""] for turn in turns]
    found = {name: statistics.median(turn[name] for turn in ours) for name in ours[0]}
    gains = {
        side: {n: statistics.median(turn[side][n] / turn[""][n] for turn in turns) for n in found}
        for side in (THEN, THEN_BY_TWO)
    }
    return found, gains


def check_out_tree(folder: Path) -> Path:
    """This checkout, with uncommitted changes, as a folder for PYTHONPATH."""
    package = folder / "skillbank"
    package.mkdir()
    for source in (ROOT / "skillbank").iterdir():
        (package / source.name).symlink_to(source)
    for part in ("envs", "pretrained"):
        (package / part).symlink_to(ROOT / part)
    return folder


def _timings(folder: Path, seconds: float, threads: int) -> dict[str, float]:
    script = Path(__file__).with_name("updates.py")
    output = subprocess.run(
        [sys.executable, script, str(seconds), str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    ).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found

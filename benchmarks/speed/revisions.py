"""The updates of an earlier revision, timed in turns with this one's."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def check_out(revision: str, folder: Path) -> Path:
    """Unpack a revision so that it can be imported: a folder for PYTHONPATH."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", revision, "skillbank", "envs", "pretrained"],
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive)
    for part in ("envs", "pretrained"):  # where an installed package has them
        (folder / part).rename(folder / "skillbank" / part)
    return folder


def timings_beside(revision: str, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds by name of this checkout and of the revision: medians of three turns."""
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        sides = {"now": check_out_tree(Path(here)), "then": check_out(revision, Path(there))}
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(3):
            for side, folder in sides.items():
                found[side].append(_timings(folder, seconds))
    return _medians(found["now"]), _medians(found["then"])


def check_out_tree(folder: Path) -> Path:
    """This checkout as it lies, uncommitted changes too, in the same form."""
    package = folder / "skillbank"
    package.mkdir()
    for source in (ROOT / "skillbank").iterdir():
        (package / source.name).symlink_to(source)
    for part in ("envs", "pretrained"):
        (package / part).symlink_to(ROOT / part)
    return folder


def _timings(folder: Path, seconds: float) -> dict[str, float]:
    script = Path(__file__).with_name("updates.py")
    output = subprocess.run(
        [sys.executable, script, str(seconds)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
    ).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

"""Memory: the peak of a short default pretraining in a fresh process, and the replay's bytes."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

from measuring import Row
from updates import ACTION, OBSERVATION, TASK

STEPS = 12_000


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage may report the peak of the parent process
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert peak is not None
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure() -> list[Row]:
    """The table's rows."""
    output = subprocess.run(
        [sys.executable, __file__], check=True, capture_output=True, text=True, cwd=Path.cwd()
    ).stdout
    found = json.loads(output.splitlines()[-1])
    data = 4.0 * (2 * OBSERVATION + ACTION + 2)  # bytes of a transition, without its clock
    spent = found["replay_bytes"]
    whole = found["peak"] + (found["total_steps"] - STEPS) * spent
    return [
        Row("memory", "everything imported", found["imported"] / 1e6, "MB"),
        Row("memory", f"peak of {STEPS} steps of default pretraining", found["peak"] / 1e6, "MB"),
        Row("memory", "the whole default pretraining, from these", whole / 1e6, "MB"),
        Row(
            "memory",
            "replay, bytes per transition",
            spent,
            "B",
            data,
            mark="within 10 % of the data's",
            met=spent <= 1.1 * data,
        ),
    ]


def run() -> dict[str, float]:
    """Train in the fresh process, and report its memory."""
    from skillbank.config import recipe
    from skillbank.pretraining import pretrain
    from skillbank.replay import Replay
    from skillbank.task import Task

    Task(TASK, 1).close()
    imported = peak_bytes()
    config = recipe(TASK)
    pretrain(TASK, config.model_copy(update={"total_steps": STEPS}))
    replay = Replay(1000, OBSERVATION, ACTION, 1)
    row = replay.rows
    return {
        "imported": imported,
        "peak": peak_bytes(),
        "total_steps": config.total_steps,
        "replay_bytes": row.element_size() * row.numel() / len(row),
    }


if __name__ == "__main__":
    import torch

    from skillbank.allocator import keep_freed_blocks

    keep_freed_blocks()
    torch.set_num_threads(1)
    print(json.dumps(run()))

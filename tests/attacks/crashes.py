"""Kill a process in the middle of saving, again and again, and look at what is left.

    python tests/attacks/crashes.py FOLDER KILLS SEED

One line of JSON says what was found; the process fails if anything was lost. It forks, so it is
a program of its own and never runs inside a test runner that has threads.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

from skill_files import small_skill

from skillbank import storage_hdf5  # noqa: F401 - load h5py once, before forking
from skillbank.bank import Bank

NAMES = ("run", "hop", "turn")
KEEP = 3  # versions that the children leave of each skill


def save_for_ever(folder: Path, acknowledged: int, seed: int) -> NoReturn:
    """Save and remove in a loop; write a line for every change that the bank acknowledged."""
    rng, bank = random.Random(seed), Bank(folder)
    while True:
        name = rng.choice(NAMES)
        skill = small_skill(seed=rng.randrange(1 << 30))
        reference = bank.save(skill, name)
        os.write(acknowledged, f"+ {reference} {skill.content_hash}\n".encode())
        for number in bank.versions(name)[:-KEEP]:
            os.write(acknowledged, f"? {name}@{number} -\n".encode())  # may or may not be removed
            bank.remove(f"{name}@{number}")
            os.write(acknowledged, f"- {name}@{number} -\n".encode())
        bank.alias(reference, "best")


def kill_once(folder: Path, rng: random.Random) -> list[str]:
    """Start a saving process, kill it at a random moment, return what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException):
            save_for_ever(folder, writing, rng.randrange(1 << 30))
        os._exit(1)  # only a failed save comes here
    os.close(writing)
    lines, wanted, begin = b"", rng.randint(1, 4), time.monotonic()
    while lines.count(b"\n") < wanted and (more := os.read(reading, 4096)):
        lines += more
    time.sleep(rng.uniform(0, 2 * (time.monotonic() - begin) / wanted))  # within the next two
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise AssertionError("a save failed before it was killed")
    with os.fdopen(reading, "rb") as rest:
        return (lines + rest.read()).decode().splitlines()


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    expected: dict[str, str] = {}
    outcome: dict[str, Any] = {"kills": kills, "saves": 0, "lost": 0, "unreadable": 0, "stale": 0}
    for _ in range(kills):
        doubtful = set()
        for line in kill_once(folder, rng):
            sign, reference, content = line.split()
            if sign == "+":
                expected[reference] = content
                outcome["saves"] += 1
            elif sign == "?":
                doubtful.add(reference)
            else:
                expected.pop(reference)
                doubtful.discard(reference)
        bank = Bank(folder)
        found = {line.reference: line for line in bank.listing()}
        for reference in doubtful - found.keys():
            expected.pop(reference, None)
        for reference, content in expected.items():
            line = found.get(reference)
            if line is None:
                outcome["lost"] += 1
            elif line.entry is None or bank.read(reference).content_hash != content:
                outcome["unreadable"] += 1
        for reference in found.keys() - expected.keys():  # killed before it could acknowledge
            expected[reference] = bank.read(reference).content_hash
        bank.gc()
        outcome["stale"] += len(list(folder.glob(".*.tmp")))
    outcome["unreadable"] += len(Bank(folder).verify())
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.exit(bool(outcome["lost"] or outcome["unreadable"] or outcome["stale"]))


if __name__ == "__main__":
    main()

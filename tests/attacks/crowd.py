"""Many processes read, save, alias and remove in one bank at once; then the books must balance.

python tests/attacks/crowd.py FOLDER PROCESSES OPERATIONS SEED
"""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from skill_files import small_skill

from skillbank import errors, storage_hdf5  # noqa: F401 - load h5py before forking
from skillbank.bank import Bank

NAMES = ("run", "hop", "turn")


def work(folder: Path, operations: int, seed: int) -> list[tuple[str, str, str]]:
    """Do mixed operations; return the acknowledged changes as (sign, reference, content)."""
    rng, bank = random.Random(seed), Bank(folder)
    done: list[tuple[str, str, str]] = []
    for _ in range(operations):
        name = rng.choice(NAMES)
        action = rng.choice(("save", "save", "read", "read", "remove", "alias", "list", "gc"))
        try:
            if action == "save":
                skill = small_skill(seed=rng.randrange(1 << 30))
                done.append(("+", bank.save(skill, name), skill.content_hash))
            elif action == "read":
                bank.read(name)
            elif action == "remove":
                victim = rng.choice(bank.versions(name)[:-1] or [0])
                done += [("-", gone, "") for gone in bank.remove(f"{name}@{victim}")]
            elif action == "alias":
                bank.alias(name, "best")
                bank.read(f"{name}@best")
            elif action == "list":
                assert all(line.problem is None for line in bank.listing())
            else:
                bank.gc()
        except errors.SkillNotFound:
            continue  # somebody else was faster
    return done


def main() -> None:
    folder = Path(sys.argv[1])
    processes, operations, seed = map(int, sys.argv[2:])
    readers = []
    for number in range(processes):
        reading, writing = os.pipe()
        if not os.fork():
            os.close(reading)
            with os.fdopen(writing, "w") as answer:
                json.dump(work(folder, operations, seed + number), answer)
            os._exit(0)
        os.close(writing)
        readers.append(reading)
    logs: list[list[list[str]]] = []
    for reading in readers:
        with os.fdopen(reading) as answer:
            logs.append(json.load(answer))  # fails if the process did
    saved = {ref: content for log in logs for sign, ref, content in log if sign == "+"}
    saves = sum(sign == "+" for log in logs for sign, _, _ in log)
    removed = {ref for log in logs for sign, ref, _ in log if sign == "-"}
    bank = Bank(folder)
    found = {line.reference: line for line in bank.listing()}
    index = dict(json.loads((folder / "index.json").read_bytes()))
    outcome: dict[str, Any] = {
        "saves": saves,
        "removed": len(removed),
        "numbers given twice": saves - len(saved),
        "lost or revived": len(found.keys() ^ (saved.keys() - removed)),
        "wrong content": sum(
            line.entry is None or line.entry.content_hash != saved.get(reference)
            for reference, line in found.items()
        ),
        "index disagrees": len(index.keys() ^ {path.name for path in folder.glob("*.h5")}),
        "unreadable": len(bank.verify()) if len(found) < 200 else 0,
        "stale": len(list(folder.glob(".*.tmp"))),
    }
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.exit(any(value for key, value in outcome.items() if key not in ("saves", "removed")))


if __name__ == "__main__":
    main()

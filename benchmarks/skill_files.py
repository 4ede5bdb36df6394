"""Time skill files and banks: ``python benchmarks/skill_files.py``.

Prints the best of many runs, in milliseconds, as the time without disturbance by other load.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from skill_files import FakeSkill, random_parameters, small_spec

from skillbank import durable, storage
from skillbank.bank import Bank
from skillbank.config import Architecture
from skillbank.spec import CurvePoint, ObservationBlock, SkillSpec


def best(work: Callable[[], object], repeats: int = 50) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def as_large_as_run_anywhere() -> SkillSpec:
    point = CurvePoint(steps=1, updates=1, seconds=0.1, mean_return=0.1, temperature=0.1)
    return small_spec(
        architecture=Architecture(),
        observation_blocks=(ObservationBlock(name="body", size=40),),
        action_low=(-1.0,) * 8,
        action_high=(1.0,) * 8,
        learning_curve=(point,) * 200,
        noise_set=0,
    )


def one_skill(folder: Path, skill: str | None) -> None:
    bank = Bank(folder)
    if skill is None:
        spec = as_large_as_run_anywhere()
        bank.save(FakeSkill(spec, random_parameters(spec)), "large")
    else:
        own = Bank().read(skill)
        bank.save(FakeSkill(own.spec, own.parameters), "large")
    path = bank.path("large")
    stored = bank.read("large")
    floor = best(lambda: hashlib.sha256(path.read_bytes()).digest())
    known = best(lambda: bank.read("large"))
    loaded = best(lambda: bank.load("large"))
    rows = {
        "read the bytes and hash them once": floor,
        f"bank.read, a known file ({known / floor:.2f} times that)": known,
        f"bank.load, with its networks ({loaded / floor:.2f} times that)": loaded,
        "storage.read, an unknown file (separate process)": best(lambda: storage.read(path), 5),
        "storage.read_spec": best(lambda: storage.read_spec(path)),
        "storage.encode": best(lambda: storage.encode(stored.spec, stored.parameters), 10),
        "storage.write, durable": best(
            lambda: storage.write(folder / "copy.h5", stored.spec, stored.parameters), 10
        ),
    }
    print(f"One skill of {path.stat().st_size:,} bytes")
    for name, value in rows.items():
        print(f"  {value:9.2f} ms  {name}")


def many_skills(folder: Path, count: int) -> None:
    spec = small_spec()
    for number in range(count):
        image = storage.encode(spec, random_parameters(spec, number))
        durable.replace_file(folder / f"skill{number:04}.h5", image, durable=False)
    bank = Bank(folder)
    lost = best(bank.listing, 1)
    print(f"A bank of {count} skills")
    print(f"  {best(bank.names, 10):9.2f} ms  names()")
    print(f"  {best(bank.listing, 10):9.2f} ms  listing()")
    print(f"  {lost:9.2f} ms  listing() when the index was lost")
    program = (
        "import sys, time; begin = time.perf_counter()\n"
        "from skillbank.bank import Bank; lines = Bank(sys.argv[1]).listing()\n"
        "assert 'torch' not in sys.modules and 'h5py' not in sys.modules\n"
        "print(1e3 * (time.perf_counter() - begin))\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    fresh = min(float(subprocess.check_output(command)) for _ in range(5))
    print(f"  {fresh:9.2f} ms  listing() in a new process, imports included, no torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skill", help="a skill of the user's bank instead of a random one")
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    for measure in (
        lambda folder: one_skill(folder, arguments.skill),
        lambda folder: many_skills(folder, arguments.count),
    ):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))


if __name__ == "__main__":
    main()

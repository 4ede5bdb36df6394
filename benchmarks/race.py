"""Learning to run, against the clock: ours, ours with one thing changed, and Stable-Baselines3.

    python benchmarks/race.py run --workers 2            every unit that has no result yet
    python benchmarks/race.py run --only SAC
    python benchmarks/race.py table                      docs/results/race/README.md

A unit is one learner with one seed on QuadrupedRun, on one thread. From time to time 40 episodes
are run from one start pose; the clock (CPU seconds of the process) stands still meanwhile. A unit
ends where the mean net distance has passed the last mark, or at its learner's limit.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "race"
TASK = "QuadrupedRun"
MARKS = (25.0, 35.0)  # mean net distance in 25 s, m: 1 m/s, and what run_anywhere must reach
EPISODES = 40
LOOK_EVERY = 15.0  # CPU seconds between looks
LIMIT = 420.0  # CPU seconds of ours; the default recipe needs about so many
RIVAL_LIMIT = 1500.0
SEEDS = range(3)

# Fields of the default recipe that a learner changes; of its architecture after "net.".
OURS: dict[str, dict[str, Any]] = {
    "default": {},
    "4 particles": {"particles": 4},
    "4 value samples": {"value_samples": 4},
    "Stein, 16 particles": {"objective": "stein", "particles": 16},
    "noise-fed sampler, Stein, 16 particles": {
        "net.sampler": "noise",
        "objective": "stein",
        "particles": 16,
        "proposals": "uniform",
        "value_samples": 32,
    },
    "update every 4 steps": {"steps_per_update": 4},
    "update every 16 steps": {"steps_per_update": 16},
    "3-step targets": {"n_step": 3},
    "no symmetry": {"symmetry": False},
    "critics not levelled": {"level_critics": False},
    "critics not normalised": {"net.layer_norm": False},
    "one critic": {"net.critics": 1},
    "batch of 128": {"batch_size": 128},
    "batch of 512": {"batch_size": 512},
    "mixed precision": {"precision": "mixed"},
}
RIVALS = ("SAC", "DDPG")  # of Stable-Baselines3, with its defaults


def units() -> dict[str, tuple[str, int]]:
    """Learner and seed by the unit's name, seed by seed."""
    learners = (*OURS, *RIVALS)
    return {f"{_file(one)}-{seed}": (one, seed) for seed in SEEDS for one in learners}


def _file(learner: str) -> str:
    return learner.replace(",", "").replace(" ", "_")


class Clock:
    """CPU seconds of learning; looks at what is learned from time to time."""

    def __init__(self, limit: float) -> None:
        self.limit, self.looking, self.started = limit, 0.0, time.process_time()
        self.next_look = LOOK_EVERY
        self.curve: list[dict[str, float]] = []

    @property
    def seconds(self) -> float:
        """So far, without the looks."""
        return time.process_time() - self.started - self.looking

    @property
    def over(self) -> bool:
        """Whether the race has ended."""
        done = bool(self.curve) and self.curve[-1]["distance"] >= MARKS[-1]
        return done or self.seconds >= self.limit

    def look(self, steps: int, policy: Callable[[], Any]) -> None:
        """Note how far the policy goes, if it is time to."""
        import skillbank

        seconds = self.seconds
        if seconds < self.next_look:
            return
        self.next_look = seconds + LOOK_EVERY
        begun = time.process_time()
        found = skillbank.evaluate(policy(), TASK, episodes=EPISODES, seed=99, nominal_start=True)
        self.curve.append(
            {
                "seconds": round(seconds, 2),
                "steps": steps,
                "distance": round(float(found.metrics["net_distance"].mean()), 2),
                "fallen": float(found.metrics["fallen"].mean()),
                "smallest_sector": float(found.sectors.min()),
            }
        )
        self.looking += time.process_time() - begun


def run_ours(changes: dict[str, Any], seed: int) -> Clock:
    """The default recipe with something changed."""
    import skillbank
    from skillbank.config import recipe
    from skillbank.errors import Interrupted
    from skillbank.pretraining import finished_skill
    from skillbank.training import Hooks

    config = recipe(TASK)
    network = {k.removeprefix("net."): v for k, v in changes.items() if k.startswith("net.")}
    config = config.model_copy(
        update={k: v for k, v in changes.items() if not k.startswith("net.")}
        | {"architecture": config.architecture.model_copy(update=network)}
    )
    clock = Clock(LIMIT)

    def on_step(training: Any, _step: Any) -> None:
        clock.look(training.steps, lambda: finished_skill(training, config, name="race"))

    with contextlib.suppress(Interrupted):
        skillbank.pretrain(
            TASK, config, seed=seed, hooks=Hooks(on_step=on_step, should_stop=lambda: clock.over)
        )
    return clock


def run_rival(name: str, seed: int) -> Clock:
    """Stable-Baselines3 with its defaults."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback

    from skillbank.baselines import StableBaselinesTask

    clock = Clock(RIVAL_LIMIT)

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            clock.look(self.num_timesteps, lambda: self.model)
            return not clock.over

    learner = getattr(stable_baselines3, name)
    model = learner("MlpPolicy", StableBaselinesTask(TASK), seed=seed, device="cpu")
    model.learn(100_000_000, callback=Look())
    return clock


def run_unit(name: str) -> dict[str, Any]:
    """Race, and return what was seen."""
    import torch

    from skillbank.allocator import keep_freed_blocks
    from skillbank.versions import versions

    keep_freed_blocks()
    torch.set_num_threads(1)
    learner, seed = units()[name]
    ours = learner in OURS
    clock = run_ours(OURS[learner], seed) if ours else run_rival(learner, seed)
    return {
        "learner": learner,
        "seed": seed,
        "changes": OURS.get(learner),
        "seconds": round(clock.seconds, 1),
        "curve": clock.curve,
        "versions": versions(),
    }


@click.group()
def main() -> None:
    """Run the race, or print how it ended."""


@main.command()
@click.option("--workers", default=2, show_default=True, help="Processes at once, one thread each.")
@click.option("--only", default="", help="Only units whose name contains this.")
def run(workers: int, only: str) -> None:
    """Run every unit that has no result yet."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    todo = [u for u in units() if only in u and not (RESULTS / f"{u}.json").exists()]

    def work(unit: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "unit", unit]
        code = subprocess.run(command, check=False, env=environment).returncode
        click.echo(f"{unit}: {'done' if code == 0 else f'failed ({code})'}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, todo))


@main.command()
@click.argument("name", type=click.Choice(list(units())))
def unit(name: str) -> None:
    """Run one unit and write its result."""
    result = run_unit(name)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n")


def reached(result: dict[str, Any], mark: float) -> tuple[float, int] | None:
    """CPU seconds and steps until the mean net distance first passed a mark, between two looks."""
    before = {"seconds": 0.0, "steps": 0, "distance": 0.0}
    for point in result["curve"]:
        if point["distance"] >= mark:
            share = (mark - before["distance"]) / (point["distance"] - before["distance"])
            seconds, steps = (
                before[k] + share * (point[k] - before[k]) for k in ("seconds", "steps")
            )
            return seconds, round(steps)
        before = point
    return None


@main.command()
def table() -> None:
    """Write the table of all learners."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        "# Learning to run, against the clock",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        "| learner | seeds | CPU s to 1 m/s | steps | CPU s to 35 m | furthest, m |",
        "|---|---|---|---|---|---|",
    ]
    for learner in (*OURS, *RIVALS):
        results = [r for r in found if r["learner"] == learner]
        if not results:
            continue
        cells = [learner, str(len(results))]
        for mark, with_steps in zip(MARKS, (True, False), strict=True):
            times = [reached(r, mark) for r in results]
            limits = [r["seconds"] for r in results]
            shown = [
                f"{t[0]:.0f}" if t else f"> {s:.0f}" for t, s in zip(times, limits, strict=True)
            ]
            cells.append(", ".join(shown))
            if with_steps:
                steps = [f"{t[1] / 1e3:.0f} k" if t else "-" for t in times]
                cells.append(", ".join(steps))
        furthest = [max(p["distance"] for p in r["curve"]) for r in results]
        cells.append(f"{np.mean(furthest):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "README.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()

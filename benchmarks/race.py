"""Learning to run, against the clock: ours, ours with one setting changed, and Stable-Baselines3.

    python benchmarks/race.py run --workers 2            every unit that has no result yet
    python benchmarks/race.py run --only SAC
    python benchmarks/race.py table                      docs/results/race/README.md

A unit is one learner with one seed, on one thread. Every 15 s the policy is evaluated in 40
episodes, while the clock (CPU seconds of the process) is stopped. The time at which a mark is
passed is interpolated between two evaluations, so differences of a few seconds are not meaningful.
With two threads, the clock is wall-clock time, and nothing else should run on the machine. A unit
ends when it passes the last mark, or at its learner's time limit. On the open floor the marks are
mean net distances in 25 s from one start pose: 25 m (1 m/s), and the 35 m that `run_anywhere` must
reach. In the narrow hallway the mark is 44.7 m, nine tenths of the final progress of fine-tuning by
an earlier recipe.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from running import run_missing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "race"
EPISODES = 40
LOOK_EVERY = 15.0  # seconds between evaluations
SEEDS = range(3)


class Course(NamedTuple):
    """Where a race is run."""

    task: str
    metric: str
    marks: tuple[float, ...]  # m
    nominal: bool  # from one start pose


FLOOR = Course("QuadrupedRun", "net_distance", (25.0, 35.0), True)
HALLWAY = Course("QuadrupedHallwayNarrow", "progress", (44.7,), False)


class Learner(NamedTuple):
    """A learner in the race: ours with fields of its recipe changed, or a rival."""

    changes: dict[str, Any]  # of the recipe; of its architecture if prefixed with "net."
    course: Course = FLOOR
    limit: float = 300.0  # s; the default recipe needs a third of that
    rival: str = ""  # an algorithm of Stable-Baselines3, with its defaults
    threads: int = 1


LEARNERS: dict[str, Learner] = {
    "default": Learner({}),
    "default, two threads": Learner({}, threads=2),
    **{
        name: Learner(changes)
        for name, changes in {
            "alpha 0.1 from the start": {"first_temperature": None},
            "first alpha 0.05": {"first_temperature": 0.05},
            "first alpha 0.01": {"first_temperature": 0.01},
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
            "3-step targets": {"n_step": 3, "n_step_until": 100_000},
            "no symmetry": {"symmetry": False},
            "critics not levelled": {"level_critics": False},
            "critics not normalised": {"net.layer_norm": False},
            "one critic": {"net.critics": 1},
            "batch of 128": {"batch_size": 128},
            "batch of 512": {"batch_size": 512},
            "mixed precision": {"precision": "mixed"},
        }.items()
    },
    "SAC": Learner({}, rival="SAC", limit=1500.0),
    "DDPG": Learner({}, rival="DDPG", limit=600.0),
    "hallway, fine-tuned": Learner({}, HALLWAY),
    "hallway, from scratch": Learner({"total_steps": 500_000}, HALLWAY, limit=900.0),
    "hallway, from scratch, alpha 0.02": Learner(
        {"total_steps": 500_000, "temperature": 0.02, "first_temperature": None},
        HALLWAY,
        limit=900.0,
    ),
}


def units() -> dict[str, tuple[str, int]]:
    """Learner and seed by the unit's name, seed by seed."""
    return {f"{_file(one)}-{seed}": (one, seed) for seed in SEEDS for one in LEARNERS}


def _file(learner: str) -> str:
    return learner.replace(",", "").replace(" ", "_")


class Clock:
    """Counts seconds of learning, and evaluates the policy at intervals."""

    def __init__(self, learner: Learner) -> None:
        self.course, self.limit = learner.course, learner.limit
        self.now = time.process_time if learner.threads == 1 else time.perf_counter
        self.looking, self.started = 0.0, self.now()
        self.next_look = LOOK_EVERY
        self.curve: list[dict[str, float]] = []

    @property
    def seconds(self) -> float:
        """Seconds so far, without the evaluations."""
        return self.now() - self.started - self.looking

    @property
    def over(self) -> bool:
        """Whether the race has ended."""
        done = bool(self.curve) and self.curve[-1]["distance"] >= self.course.marks[-1]
        return done or self.seconds >= self.limit

    def look(self, steps: int, policy: Callable[[], Any]) -> None:
        """Evaluate how far the policy goes, if an evaluation is due."""
        import skillbank

        seconds = self.seconds
        if seconds < self.next_look:
            return
        self.next_look = seconds + LOOK_EVERY
        begun = self.now()
        course = self.course
        found = skillbank.evaluate(
            policy(), course.task, episodes=EPISODES, seed=99, nominal_start=course.nominal
        )
        self.curve.append(
            {
                "seconds": round(seconds, 2),
                "steps": steps,
                "distance": round(float(found.metrics[course.metric].mean()), 2),
                "fallen": float(found.metrics["fallen"].mean()),
                "smallest_sector": float(found.sectors.min()),
            }
        )
        self.looking += self.now() - begun


def run_ours(learner: Learner, name: str, seed: int) -> Clock:
    """Train by a changed recipe, or fine-tune run_anywhere in the hallway."""
    import skillbank
    from skillbank.config import FinetuneConfig, PretrainConfig, finetune_recipe, recipe
    from skillbank.errors import Interrupted
    from skillbank.training import Hooks

    task = learner.course.task
    config: PretrainConfig | FinetuneConfig
    if name == "hallway, fine-tuned":
        config = finetune_recipe(task)
    else:
        config = recipe(task)
        network = {k[4:]: v for k, v in learner.changes.items() if k.startswith("net.")}
        others = {k: v for k, v in learner.changes.items() if not k.startswith("net.")}
        net = config.architecture.model_copy(update=network)
        config = config.model_copy(update=others | {"architecture": net})
    clock = Clock(learner)

    def on_step(training: Any, _step: Any) -> None:
        clock.look(training.steps, lambda: training.skill("race"))

    hooks = Hooks(on_step=on_step, should_stop=lambda: clock.over)
    with contextlib.suppress(Interrupted):
        if isinstance(config, FinetuneConfig):
            parent = skillbank.Bank().load("run_anywhere")
            skillbank.finetune(parent, task, config, seed=seed, hooks=hooks)
        else:
            skillbank.pretrain(task, config, seed=seed, hooks=hooks)
    return clock


def run_rival(learner: Learner, seed: int) -> Clock:
    """Train an algorithm of Stable-Baselines3 with its defaults."""
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback

    from skillbank.baselines import StableBaselinesTask

    clock = Clock(learner)

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            clock.look(self.num_timesteps, lambda: self.model)
            return not clock.over

    kind = getattr(stable_baselines3, learner.rival)
    envs = StableBaselinesTask(learner.course.task)
    kind("MlpPolicy", envs, seed=seed, device="cpu").learn(100_000_000, callback=Look())
    return clock


def run_unit(unit: str) -> dict[str, Any]:
    """Train one unit, and return its result."""
    import torch

    from skillbank.allocator import keep_freed_blocks
    from skillbank.versions import versions

    keep_freed_blocks()
    name, seed = units()[unit]
    learner = LEARNERS[name]
    torch.set_num_threads(learner.threads)
    clock = run_rival(learner, seed) if learner.rival else run_ours(learner, name, seed)
    return {
        "learner": name,
        "seed": seed,
        "changes": learner.changes,
        "seconds": round(clock.seconds, 1),
        "curve": clock.curve,
        "versions": versions(),
    }


@click.group()
def main() -> None:
    """Run the race, or write its table."""


@main.command()
@click.option("--workers", default=2, show_default=True, help="Processes at once, one thread each.")
@click.option("--only", default="", help="Only units whose name contains this.")
def run(workers: int, only: str) -> None:
    """Run every unit that has no result yet."""
    run_missing(__file__, units(), RESULTS, only, workers)


@main.command()
@click.argument("name", type=click.Choice(list(units())))
def unit(name: str) -> None:
    """Run one unit and write its result."""
    result = run_unit(name)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n")


def reached(result: dict[str, Any], mark: float) -> tuple[float, int] | None:
    """Seconds and steps until the mean distance first passed a mark, by interpolation."""
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
    ]
    for course, titles in (
        (FLOOR, "s to 1 m/s | steps | s to 35 m | steps | furthest, m"),
        (HALLWAY, "s to 44.7 m | steps | furthest, m"),
    ):
        rule = "|---" * (3 + titles.count("|")) + "|"
        lines += ["", f"## {course.task}", "", f"| learner | seeds | {titles} |", rule]
        for name, learner in LEARNERS.items():
            results = [r for r in found if r["learner"] == name]
            if learner.course is course and results:
                lines.append("| " + " | ".join(_cells(name, course, results)) + " |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "README.md").write_text(text)
    click.echo(text)


def _cells(name: str, course: Course, results: list[dict[str, Any]]) -> list[str]:
    cells = [name, str(len(results))]
    for mark in course.marks:
        times = [reached(r, mark) for r in results]
        both = zip(times, [r["seconds"] for r in results], strict=True)
        cells.append(", ".join(f"{t[0]:.0f}" if t else f"> {s:.0f}" for t, s in both))
        cells.append(", ".join(f"{t[1] / 1e3:.0f} k" if t else "-" for t in times))
    furthest = [max(point["distance"] for point in r["curve"]) for r in results]
    return [*cells, f"{np.mean(furthest):.0f}"]


if __name__ == "__main__":
    main()

"""Whole loops: our training and acting compared with Stable-Baselines3's, on one environment."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import Row, medians
from updates import OBSERVATION, TASK

import skillbank
from skillbank.config import PretrainConfig, recipe
from skillbank.training import Hooks, Progress

UPDATES = 400  # of our training; the same number of steps for the rivals
WARM_UP = 1_000  # random steps before the first update


def our_loop(changes: dict[str, Any] | None = None) -> tuple[float, float, float]:
    """Default pretraining: steps, CPU seconds and wall seconds of its learning part."""
    config: PretrainConfig = recipe(TASK)
    config = config.model_copy(
        update={
            "learning_starts": WARM_UP,
            "total_steps": WARM_UP + UPDATES * config.steps_per_update,
            **(changes or {}),
        }
    )
    marks: list[tuple[float, float, float]] = []

    def on_progress(progress: Progress) -> None:
        if progress.updates > 0:
            marks.append((progress.steps, time.process_time(), time.perf_counter()))

    skillbank.pretrain(TASK, config, seed=0, hooks=Hooks(on_progress=on_progress))
    first, last = marks[0], marks[-1]
    steps, cpu, wall = (b - a for a, b in zip(first, last, strict=True))
    return steps, cpu, wall


def rival(name: str) -> tuple[Any, Callable[[], object]]:
    """A Stable-Baselines3 learner with its defaults, past its warm-up; a call trains it further."""
    import stable_baselines3

    from skillbank.baselines import StableBaselinesTask

    model = getattr(stable_baselines3, name)(
        "MlpPolicy", StableBaselinesTask(TASK), seed=0, device="cpu"
    )
    model.learn(200)  # its defaults begin to learn after 100 steps
    return model, lambda: model.learn(50, reset_num_timesteps=False)


def measure() -> list[Row]:
    """Steps per second, and how long an action takes."""
    loops = [our_loop() for _ in range(3)]
    mine = float(np.median([steps / cpu for steps, cpu, _ in loops]))
    models = {name: rival(name) for name in ("SAC", "DDPG")}
    learning = medians({name: call for name, (_, call) in models.items()}, seconds=4.0, rounds=3)
    rows = [Row("loop", "default pretraining, one CPU second", mine, "steps")]
    for name, took in learning.items():
        theirs = 50.0 / took
        rows.append(
            Row(
                "loop",
                f"Stable-Baselines3 {name} with its defaults",
                theirs,
                "steps",
                rival="ours",
                ratio=mine / theirs,
            )
        )
    skill = skillbank.Bank().load("run_anywhere")
    obs = np.random.default_rng(0).standard_normal((1, OBSERVATION)).astype(np.float32)
    calls: dict[str, Callable[[], object]] = {"ours": lambda: skill.predict(obs)}
    for name, (model, _) in models.items():
        calls[name] = lambda model=model: model.predict(obs)
    acting = medians(calls, seconds=1.0)
    for name, took in acting.items():
        ratio = None if name == "ours" else took / acting["ours"]
        rows.append(
            Row(
                "acting",
                f"{name}: one action for one observation",
                1e6 * took,
                "us",
                rival="" if ratio is None else "ours",
                ratio=ratio,
            )
        )
    return rows

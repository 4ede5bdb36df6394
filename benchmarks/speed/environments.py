"""The environment's step compared with Gymnasium's Ant-v5 and dm_control composer's Ant."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
from measuring import Row, medians
from mujoco.batch import Batch
from skillbank.envs.simulation import SUBSTEPS

COPIES = 64


def ours(num_threads: int = 1, copies: int = COPIES) -> tuple[Any, Callable[[], object]]:
    """Our quadruped, and a call that steps all its copies."""
    envs = gymnasium.make_vec("skillbank/QuadrupedRun-v0", copies, num_threads=num_threads)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)

    def step() -> object:
        return envs.step(generator.uniform(-1.0, 1.0, envs.action_space.shape))

    return envs, step


def physics_alone(model: mujoco.MjModel) -> Callable[[], object]:
    """The simulator without observation, reward or reset: the floor of a step."""
    batch = Batch(model, COPIES, 1, persistent=True)
    generator = np.random.default_rng(0)
    controls = batch.bind("ctrl")

    def step() -> object:
        controls[:] = generator.uniform(-1.0, 1.0, controls.shape)
        return batch.step(nstep=SUBSTEPS, stage=mujoco.mjtStage.mjSTAGE_VEL.value)

    return step


def ant_v5() -> Callable[[], object]:
    """Gymnasium's Ant-v5 in its SyncVectorEnv, 16 copies."""
    envs = gymnasium.make_vec("Ant-v5", 16, vectorization_mode="sync")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    return lambda: envs.step(envs.action_space.sample())


def composer_ant() -> Callable[[], object]:
    """dm_control's Ant in a composer task on an open floor."""
    from dm_control import composer
    from dm_control.locomotion import arenas, tasks, walkers

    task = tasks.GoToTarget(walkers.Ant(), arenas.Floor())
    env = composer.Environment(task, random_state=0, strip_singleton_obs_buffer_dim=True)
    env.reset()
    spec = env.action_spec()
    generator = np.random.default_rng(0)

    def step() -> object:
        return env.step(generator.uniform(spec.minimum, spec.maximum))

    return step


def measure(seconds: float) -> list[Row]:
    """Microseconds of one thread per control step of one copy, and the gain of a second thread."""
    envs, step = ours()
    source = envs.unwrapped.simulation
    cost = medians(
        {
            "ours": step,
            "physics": physics_alone(source.model),
            "Ant-v5": ant_v5(),
            "composer": composer_ant(),
        },
        seconds=seconds,
    )
    share = 1e6 / COPIES
    mine, floor = cost["ours"] * share, cost["physics"] * share
    gym, composer = cost["Ant-v5"] * 1e6 / 16, cost["composer"] * 1e6
    threads = medians(
        {"one": step, "two": ours(num_threads=2)[1]}, seconds=seconds, clock=time.perf_counter
    )
    gain = threads["one"] / threads["two"]
    name = "control step of one copy"
    return [
        Row("environment", name, mine, "us", floor),
        Row(
            "environment",
            "Gymnasium Ant-v5 (SyncVectorEnv)",
            gym,
            "us",
            rival="ours",
            ratio=gym / mine,
            mark=">= 4",
            met=gym / mine >= 4.0,
        ),
        Row(
            "environment",
            "dm_control composer Ant",
            composer,
            "us",
            rival="ours",
            ratio=composer / mine,
            mark=">= 5",
            met=composer / mine >= 5.0,
        ),
        Row(
            "environment",
            "the same by two threads (wall clock)",
            threads["two"] * share,
            "us",
            rival="one thread",
            ratio=gain,
            mark=">= 1.7",
            met=gain >= 1.7,
        ),
    ]

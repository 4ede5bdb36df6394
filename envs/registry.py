"""The table of tasks: one line each."""

from typing import NamedTuple

import gymnasium

_PACKAGE = __package__


class _Task(NamedTuple):
    """One row: the id's name, where its classes live, and an episode's length in control steps."""

    name: str
    module: str
    max_episode_steps: int


# Every module defines `<name>` (one copy, a gymnasium.Env) and `<name>Vector` (many copies).
_TASKS = (
    _Task("MultiGoal", "multi_goal", 20),
    _Task("SwimmerFinishLine", "swimmer", 500),
    _Task("QuadrupedRun", "quadruped", 500),
    _Task("QuadrupedRunToward", "quadruped", 500),
    _Task("QuadrupedHallwayWide", "quadruped", 500),
    _Task("QuadrupedHallwayNarrow", "quadruped", 500),
    _Task("QuadrupedUMaze", "quadruped", 500),
    _Task("QuadrupedMaze", "quadruped", 500),
    _Task("PointMassRun", "point_mass", 100),
    _Task("PointMassRunToward", "point_mass", 100),
    _Task("PointMassHallway", "point_mass", 100),
    _Task("PointMassUMaze", "point_mass", 100),
    _Task("PointMassMaze", "point_mass", 100),
    _Task("PointMassReach", "point_mass", 100),
)

ENV_IDS: tuple[str, ...] = tuple(f"skillbank/{task.name}-v0" for task in _TASKS)
"""Every id that `register` makes known to Gymnasium, in a fixed order."""


def register() -> None:
    """Registers every task with Gymnasium; a second call changes nothing."""
    for env_id, task in zip(ENV_IDS, _TASKS, strict=True):
        if env_id in gymnasium.registry:
            continue
        gymnasium.register(
            id=env_id,
            entry_point=f"{_PACKAGE}.{task.module}:{task.name}",
            vector_entry_point=f"{_PACKAGE}.{task.module}:{task.name}Vector",
            max_episode_steps=task.max_episode_steps,
        )

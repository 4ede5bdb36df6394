"""A sphere that slides on the floor, for tests and demonstrations that take seconds.

The arenas are the quadruped's at a quarter of the size, the episodes a fifth as long.
"""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arenas import HALLWAY_NARROW, MAZE, OPEN_FLOOR, U_MAZE, Arena, add_arena, scaled
from .engine import Bool, Float, Index, Observation
from .navigation import FollowHallway, SeekTarget, goal_at, squared_distances, unit_vector
from .physics_task import PhysicsTask
from .rendering import add_scenery
from .simulation import load_mjcf, set_options
from .single import one_copy
from .symmetry import (
    EAST_WEST,
    NORTH_SOUTH,
    SQUARE,
    SignedPermutation,
    Symmetry,
    plane_symmetries,
)

SCALE = 0.25
"""Size of the point mass's arenas in units of the quadruped's."""

RADIUS = 0.15
"""Metres."""

MASS = 1.0
"""Kilograms."""

MAX_SPEED = 2.0
"""Speed at which drag balances the strongest push, m/s."""

RISE_TIME = 0.25
"""Seconds in which the sphere reaches 63 percent of its final speed."""

START_SPREAD = 0.05
"""Half the side of the square of starts, metres."""

START_SPEED = 0.1
"""Each velocity at a start is uniform within plus or minus this, m/s."""

CAMERA_DISTANCE = 4.0
"""Metres."""

REACH_GOALS: dict[str, tuple[float, float]] = {
    "right": (1.5, 0.0),
    "up": (0.0, 1.5),
    "left": (-1.5, 0.0),
    "down": (0.0, -1.5),
}
"""The absorbing places of `PointMassReach`, metres."""

REACH_RADIUS = 0.3
"""A sphere whose centre is nearer than this to a goal has reached it, metres."""

REACH_REWARD = 10.0
"""Paid once, on reaching a wanted goal."""

REACH_TIME_COST = 0.25
"""Cost of every step, whichever goals are wanted."""


@functools.cache
def model(arena: Arena) -> mujoco.MjModel:
    """The sphere in an arena, compiled. Shared within the process: never write to it."""
    root = load_mjcf().RootElement(model="point_mass")
    set_options(root)
    # No friction: the sphere floats just above the floor and slides along walls.
    root.default.geom.condim = 1
    root.worldbody.add("geom", name="floor", type="plane", size=[50.0, 50.0, 1.0], material="floor")
    add_arena(arena, root.worldbody)
    add_scenery(root)
    body = root.worldbody.add("body", name="mass", pos=[0.0, 0.0, 1.05 * RADIUS])
    damping = MASS / RISE_TIME
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        body.add("joint", name=axis, type="slide", axis=direction, damping=damping)
    body.add("geom", name="mass", type="sphere", size=[RADIUS], mass=MASS, rgba=[0.9, 0.5, 0.2, 1])
    for axis in "xy":
        root.actuator.add("motor", name=axis, joint=axis, gear=[damping * MAX_SPEED])
    return mujoco.MjModel.from_xml_string(root.to_xml_string())


class PointMassTask(PhysicsTask):
    """A sphere pushed by a force in the plane, rewarded for its speed in any direction.

    Observation blocks are `velocity` (m/s, world frame) and, in arenas, `position` (m). An action
    longer than 1 counts as one of length 1, so that no direction is faster than another. `info`
    has `position` [N, 2] m.
    """

    arena: Arena = OPEN_FLOOR._replace(open_half_side=12.0)  # an episode goes up to 10 m
    observation_blocks: tuple[tuple[str, int], ...] = (("velocity", 2),)
    mirrors: ClassVar[tuple[tuple[str, SignedPermutation], ...]] = ()
    """Generators of the task's symmetries, as transformations of plane vectors."""

    def __init__(
        self,
        *,
        max_episode_steps: int | None = 100,
        **kwargs: Any,
    ) -> None:
        """Makes the copies.

        Args:
            max_episode_steps: control steps of 0.05 s until truncation; None for never.
            **kwargs: as for every physics task: copies, threads, pictures.
        """
        super().__init__(
            model=model(self.arena),
            followed_body="mass",
            camera_distance=CAMERA_DISTANCE,
            max_episode_steps=max_episode_steps,
            **kwargs,
        )

    def _draw(self, generator: np.random.Generator) -> Float:
        return generator.uniform(-1.0, 1.0, 4)

    def _start(self, copies: Index, draws: Float | None) -> None:
        if draws is None:
            draws = np.zeros((len(copies), 4))
        place = np.array(self.arena.start) + START_SPREAD * draws[:, :2]
        self.simulation.start(copies, place, START_SPEED * draws[:, 2:])

    def _advance(self, actions: Float) -> None:
        actions = np.clip(actions, -1.0, 1.0)
        length = np.hypot(actions[:, 0], actions[:, 1])
        self.simulation.step(actions / np.maximum(1.0, length)[:, np.newaxis])

    @property
    def position(self) -> Float:
        """Where the sphere's centre is, [N, 2] m."""
        return self.simulation.qpos.copy()

    @property
    def velocity(self) -> Float:
        """[N, 2] m/s."""
        return self.simulation.qvel.copy()

    def _observe(self) -> Observation:
        parts = {"velocity": self.simulation.qvel, "position": self.simulation.qpos}
        columns = [parts[name] for name, _ in self.observation_blocks]
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def _reward_terms(self) -> dict[str, Float]:
        return {"speed": np.hypot(*self.velocity.T)}

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The square's symmetries that walls and reward preserve."""
        return plane_symmetries(len(self.observation_blocks), self.mirrors)


class PointMassRunVector(PointMassTask):
    """Move fast, anywhere, on an open floor."""

    mirrors = SQUARE


class PointMassRunTowardVector(PointMassTask):
    """Move fast in one direction of the world."""

    def __init__(self, *, direction: float = 0.0, **kwargs: Any) -> None:
        """Makes the copies.

        Args:
            direction: radians counter-clockwise from east.
            **kwargs: as for every point mass task.

        Raises:
            ValueError: if the direction is not a finite number.
        """
        self._toward = unit_vector(direction)
        self.direction = float(direction)
        super().__init__(**kwargs)

    def _reward_terms(self) -> dict[str, Float]:
        along: Float = self.velocity @ self._toward
        return {"speed_toward": along}


class PointMassArenaTask(PointMassTask):
    """A sphere that observes its position."""

    observation_blocks = (("velocity", 2), ("position", 2))


class PointMassHallwayVector(FollowHallway, PointMassArenaTask):
    """Move fast in a hallway 1 m wide."""

    arena = scaled(HALLWAY_NARROW, SCALE)
    mirrors = (("mirrored north to south", NORTH_SOUTH), ("mirrored east to west", EAST_WEST))


class PointMassUMazeVector(SeekTarget, PointMassArenaTask):
    """Reach a target around two corners."""

    arena = scaled(U_MAZE, SCALE)


class PointMassMazeVector(SeekTarget, PointMassArenaTask):
    """Reach a target through one of two passages; the upper one is blocked inside."""

    arena = scaled(MAZE, SCALE)


class PointMassReachVector(PointMassArenaTask):
    """Reach one of the wanted goals; every goal, wanted or not, ends the episode.

    Tasks with different wanted goals have the same dynamics and differ in reward only at shared
    absorbing goals, as a soft-OR of two skills requires. `info` has `goal` [N] (index in
    `REACH_GOALS`, -1 before one is reached) and `success` [N] (at a wanted one).
    """

    arena = OPEN_FLOOR._replace(open_half_side=2.5, success_radius=REACH_RADIUS)

    def __init__(self, *, goals: Sequence[str] = ("left",), **kwargs: Any) -> None:
        """Makes the copies.

        Args:
            goals: names of the wanted goals, from `REACH_GOALS`.
            **kwargs: as for every point mass task.

        Raises:
            ValueError: for an unknown name, or no name at all.
        """
        wanted = (goals,) if isinstance(goals, str) else tuple(goals)
        unknown = [name for name in wanted if name not in REACH_GOALS]
        if unknown or not wanted:
            raise ValueError(f"goals must name some of {', '.join(REACH_GOALS)}; got {goals!r}")
        self.goals = wanted
        self.arena = self.arena._replace(targets=tuple(REACH_GOALS[name] for name in wanted))
        self._places = np.array(list(REACH_GOALS.values()))
        self._wanted = np.array([*(name in wanted for name in REACH_GOALS), False])  # last: nowhere
        super().__init__(**kwargs)

    @property
    def goal(self) -> Index:
        """The goal each copy is at, -1 for none, [N]."""
        return goal_at(squared_distances(self.simulation.qpos, self._places), REACH_RADIUS)

    def _reward_terms(self) -> dict[str, Float]:
        return {
            "goal": REACH_REWARD * self._wanted[self.goal],
            "time": np.full(self.num_envs, -REACH_TIME_COST),
        }

    def _terminated(self) -> Bool:
        return self.goal >= 0

    def _facts(self) -> dict[str, NDArray[Any]]:
        goal = self.goal
        return super()._facts() | {"goal": goal, "success": self._wanted[goal]}


PointMassRun = one_copy(PointMassRunVector)
PointMassRunToward = one_copy(PointMassRunTowardVector)
PointMassHallway = one_copy(PointMassHallwayVector)
PointMassUMaze = one_copy(PointMassUMazeVector)
PointMassMaze = one_copy(PointMassMazeVector)
PointMassReach = one_copy(PointMassReachVector)

"""The quadruped's tasks: run anywhere, run one way, run in arenas.

The reward is the speed of the body's centre of mass, smoothed over about half a second: rewarding
the instantaneous speed would pay for shaking on the spot. The smoothed velocity is part of the
observation, so that the task stays Markov.
"""

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import ant
from .arenas import HALLWAY_NARROW, HALLWAY_WIDE, MAZE, U_MAZE
from .engine import Bool, Float, Index, Observation
from .navigation import FollowHallway, SeekTarget, unit_vector
from .physics_task import SmoothedVelocityTask
from .single import one_copy
from .symmetry import Symmetry, group

FALLEN_UPRIGHTNESS = 0.1
"""The quadruped has fallen when its up axis makes more than 84 degrees with the vertical."""

ANGULAR_VELOCITY_UNIT = 5.0
"""rad/s that count as 1 in the observation."""

JOINT_VELOCITY_UNIT = 5.0
"""rad/s that count as 1 in the observation."""

HALLWAY_UNIT, MAZE_UNIT = 10.0, 2.0
"""Metres that count as 1 in the observation."""

START_JOINT_ANGLE = 0.1
"""Joint angles at a start are uniform within this, radians."""

START_SPEED = 0.1
"""Every velocity at a start, linear and angular, is uniform within this, m/s and rad/s."""

CAMERA_DISTANCE = 6.0
"""Metres."""

BODY_BLOCKS: tuple[tuple[str, int], ...] = (
    ("height", 1),
    ("gravity", 3),
    ("velocity", 3),
    ("angular_velocity", 3),
    ("joint_positions", ant.JOINTS),
    ("joint_velocities", ant.JOINTS),
    ("average_velocity", 3),
)
"""The observation of the body itself, in its own frame."""

BODY_SIZE = sum(width for _, width in BODY_BLOCKS)
"""29 numbers."""

# Random numbers of one start: yaw, eight joint angles, 14 velocities, two for the place.
_DRAWS = 1 + ant.JOINTS + 6 + ant.JOINTS + 2


class QuadrupedTask(SmoothedVelocityTask):
    """A quadruped in an arena, rewarded for the speed of its centre of mass in any direction.

    Observation blocks are `BODY_BLOCKS`, then what the task adds. `info` has `position` [N, 2] m
    (of the torso's centre), `heading` [N] rad (the torso's yaw) and `fallen` [N] bool. Falling
    over ends an episode.
    """

    extra_blocks: tuple[tuple[str, int], ...] = ()
    start_spread: ClassVar[float] = 0.0
    """Half the side of the square of starts around the arena's start, metres."""

    def __init__(
        self,
        *,
        max_episode_steps: int | None = 500,
        **kwargs: Any,
    ) -> None:
        """Makes the copies.

        Args:
            max_episode_steps: control steps of 0.05 s until truncation; None for never.
            **kwargs: as for every physics task: copies, threads, pictures.
        """
        self.observation_blocks = BODY_BLOCKS + self.extra_blocks
        super().__init__(
            model=ant.model(self.arena),
            centre=slice(12, 15),
            followed_body=ant.TORSO,
            camera_distance=CAMERA_DISTANCE,
            max_episode_steps=max_episode_steps,
            **kwargs,
        )
        sensors = self.simulation.sensors
        self._axes = sensors[:, :9].reshape(self.num_envs, 3, 3)  # rows: torso's axes in the world
        self._velocity = sensors[:, 9:12]

    # Starting and moving.

    def _draw(self, generator: np.random.Generator) -> Float:
        return generator.uniform(-1.0, 1.0, _DRAWS)

    def _start(self, copies: Index, draws: Float | None) -> None:
        if draws is None:
            draws = np.zeros((len(copies), _DRAWS))
        half_yaw = math.pi / 2 * draws[:, 0]
        joint_angles, velocities, place = np.split(draws[:, 1:], [ant.JOINTS, _DRAWS - 3], axis=1)
        qpos = np.zeros((len(copies), 7 + ant.JOINTS))
        qpos[:, :2] = np.array(self.arena.start) + self.start_spread * place
        qpos[:, 2] = ant.STANDING_HEIGHT
        qpos[:, 3] = np.cos(half_yaw)
        qpos[:, 6] = np.sin(half_yaw)
        qpos[:, 7:] = START_JOINT_ANGLE * joint_angles
        self.simulation.start(copies, qpos, START_SPEED * velocities)
        self._rest(copies)

    # Named queries.

    @property
    def position(self) -> Float:
        """Where the torso's centre is, [N, 2] m."""
        return self.simulation.qpos[:, :2].copy()

    @property
    def heading(self) -> Float:
        """Yaw of the torso, [N] rad: its rotation about the vertical, before any tilt.

        Unlike the direction of a leg seen from above, it changes by exactly 90 degrees when the
        body is relabelled by a quarter turn, however tilted it is.
        """
        axes = self._axes
        return np.arctan2(axes[:, 0, 1] - axes[:, 1, 0], axes[:, 0, 0] + axes[:, 1, 1])

    @property
    def fallen(self) -> Bool:
        """Which copies lie on their side or back, [N]."""
        up: Bool = self._axes[:, 2, 2] < FALLEN_UPRIGHTNESS
        return up

    @property
    def speed(self) -> Float:
        """Horizontal speed of the smoothed velocity, [N] m/s."""
        return np.hypot(self._average_velocity[:, 0], self._average_velocity[:, 1])

    # What the engine asks.

    def _observe(self) -> Observation:
        simulation = self.simulation
        world = np.stack([self._velocity, self._average_velocity], axis=2)
        body = self._axes @ world  # [N, 3, 2] in the torso's frame
        observations = np.empty((self.num_envs, sum(n for _, n in self.observation_blocks)), "f4")
        observations[:, 0] = simulation.qpos[:, 2]
        observations[:, 1:4] = -self._axes[:, :, 2]  # world down, in the torso's frame
        observations[:, 4:7] = body[:, :, 0]
        observations[:, 7:10] = simulation.qvel[:, 3:6] / ANGULAR_VELOCITY_UNIT
        observations[:, 10:18] = simulation.qpos[:, 7:]
        observations[:, 18:26] = simulation.qvel[:, 6:] / JOINT_VELOCITY_UNIT
        observations[:, 26:29] = body[:, :, 1]
        if self.extra_blocks:
            observations[:, BODY_SIZE:] = self._observe_extra()
        return observations

    def _observe_extra(self) -> Float:
        """What the task adds to the body's own observation, [N, E]."""
        raise NotImplementedError

    def _reward_terms(self) -> dict[str, Float]:
        return {"speed": self.speed}

    def _terminated(self) -> Bool:
        return self.fallen

    def _facts(self) -> dict[str, NDArray[Any]]:
        return super()._facts() | {"heading": self.heading, "fallen": self.fallen}

    @property
    def mirrors(self) -> tuple[ant.Relabelling, ...]:
        """The mirrors in which the task looks the same."""
        return ()

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The quarter turns of the body, which hold in any surroundings, and the task's mirrors.

        Mirrors hold exactly along the world's axes and diagonals only: the simulator's friction
        cones are pyramids with edges along the axes.
        """
        relabellings = (ant.QUARTER_TURN, *self.mirrors)
        generators = [each.generator(self.observation_blocks) for each in relabellings]
        return group(generators, (len(generators[0].observation.source), ant.JOINTS))


def _direction_columns(angle: Float) -> Float:
    """Cos and sin side by side, [N, 2]."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


class QuadrupedRunVector(QuadrupedTask):
    """Run anywhere: the speed of the smoothed velocity of the centre of mass, on an open floor."""

    @property
    def mirrors(self) -> tuple[ant.Relabelling, ...]:
        """One mirror; which one makes no difference to a body that does not see its heading."""
        return (ant.MIRROR_NORTH_SOUTH,)


class QuadrupedRunTowardVector(QuadrupedTask):
    """Run one way: the component of the smoothed velocity along a direction of the world.

    The last block holds cos and sin of the torso's yaw *relative to that direction*, so that the
    same policy runs any way once that block is turned. Towards east it is the `heading` of every
    arena; towards any other direction its values differ and it is called `bearing`, so that skills
    for different directions are not composed as if they observed the same.
    """

    def __init__(self, *, direction: float = 0.0, **kwargs: Any) -> None:
        """Makes the copies.

        Args:
            direction: radians counter-clockwise from east.
            **kwargs: as for every quadruped task.

        Raises:
            ValueError: if the direction is not a finite number.
        """
        self._toward = unit_vector(direction)
        self.direction = float(direction)
        self.extra_blocks = (("bearing" if self.direction else "heading", 2),)
        super().__init__(**kwargs)

    def _observe_extra(self) -> Float:
        return _direction_columns(self.heading - self.direction)

    def _reward_terms(self) -> dict[str, Float]:
        along: Float = self._average_velocity[:, :2] @ self._toward
        return {"speed_toward": along}

    @property
    def mirrors(self) -> tuple[ant.Relabelling, ...]:
        """The mirror along the direction, if that is an axis or a diagonal of the world."""
        eighths = self.direction / (math.pi / 4)
        if abs(eighths - round(eighths)) > 1e-9:
            return ()
        return (ant.MIRROR_NORTH_SOUTH._replace(name="mirrored along the direction"),)


class QuadrupedArenaTask(QuadrupedTask):
    """A quadruped that observes where it is: `position` (in `position_unit`) and `heading`."""

    position_unit: ClassVar[float]
    extra_blocks = (("position", 2), ("heading", 2))
    start_spread = 0.3

    def _observe_extra(self) -> Float:
        place = self.position / self.position_unit
        return np.concatenate([place, _direction_columns(self.heading)], axis=1)


class QuadrupedHallwayTask(FollowHallway, QuadrupedArenaTask):
    """Run in a hallway; the reward is that of `QuadrupedRun`, and the walls limit the direction."""

    position_unit = HALLWAY_UNIT

    @property
    def mirrors(self) -> tuple[ant.Relabelling, ...]:
        """A hallway looks the same from both ends and from both sides."""
        return ant.MIRROR_NORTH_SOUTH, ant.MIRROR_EAST_WEST


class QuadrupedHallwayWideVector(QuadrupedHallwayTask):
    """Run in a hallway 8 m wide."""

    arena = HALLWAY_WIDE


class QuadrupedHallwayNarrowVector(QuadrupedHallwayTask):
    """Run in a hallway 4 m wide."""

    arena = HALLWAY_NARROW


class QuadrupedUMazeVector(SeekTarget, QuadrupedArenaTask):
    """Reach a target around two corners; the reward is a Gaussian bump at the target."""

    arena = U_MAZE
    position_unit = MAZE_UNIT


class QuadrupedMazeVector(SeekTarget, QuadrupedArenaTask):
    """Reach a target through one of two passages; the upper one is blocked inside."""

    arena = MAZE
    position_unit = MAZE_UNIT


QuadrupedRun = one_copy(QuadrupedRunVector)
QuadrupedRunToward = one_copy(QuadrupedRunTowardVector)
QuadrupedHallwayWide = one_copy(QuadrupedHallwayWideVector)
QuadrupedHallwayNarrow = one_copy(QuadrupedHallwayNarrowVector)
QuadrupedUMaze = one_copy(QuadrupedUMazeVector)
QuadrupedMaze = one_copy(QuadrupedMazeVector)

"""A point in the plane with four equally good goals: the paper's figure 1.

The setting is that of the authors' released code; the paper's text leaves most of it open.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arenas import Arena
from .engine import Bool, Float, Index, Observation, VectorTask
from .navigation import goal_at, squared_distances
from .rendering import Camera, Frame, check_render_arguments
from .single import one_copy
from .symmetry import SQUARE, Symmetry, plane_symmetries

GOALS = ((5.0, 0.0), (-5.0, 0.0), (0.0, 5.0), (0.0, -5.0))
"""Where the goals are; their order is that of `info["goal"]`."""

GOAL_RADIUS = 1.0
"""A point nearer than this to a goal has reached it."""

GOAL_REWARD = 10.0
"""Paid once, on arrival."""

ACTION_COST = 30.0
"""Paid per unit of |action|^2."""

HALF_SIDE = 7.0
"""The plane ends here, in both directions."""

START_DEVIATION = 0.1
"""Standard deviation of the start around the origin."""

GOAL_COLOUR = (214, 90, 80)
POINT_COLOUR = (40, 80, 160)
FPS = 4  # steps shown in a second: an episode has 20 at most
POINT_RADIUS = 0.25  # as drawn; the point itself has none


class MultiGoalVector(VectorTask):
    """The point moves by its action; action and squared distance to the nearest goal cost reward.

    Reaching a goal pays a reward and ends the episode. `info` has `position` [N, 2], `goal` [N]
    (index in `GOALS`, -1 before a goal is reached) and `success` [N].
    """

    metadata = VectorTask.metadata | {"render_fps": FPS}  # type: ignore[misc]
    observation_blocks = (("position", 2),)
    control_timestep = 1.0
    arena = Arena(
        "multi-goal",
        (-HALF_SIDE, -HALF_SIDE, HALF_SIDE, HALF_SIDE),
        blocks=(),
        start=(0.0, 0.0),
        targets=GOALS,
        wall_height=0.0,
        wall_thickness=0.0,
        success_radius=GOAL_RADIUS,
    )

    def __init__(
        self,
        *,
        num_envs: int = 1,
        max_episode_steps: int | None = 20,
        num_threads: int = 1,
        render_mode: str | None = None,
        camera: Camera = "overhead",
        width: int = 320,
        height: int = 320,
    ) -> None:
        """Makes the copies.

        Args:
            num_envs: number of copies, N.
            max_episode_steps: steps until truncation; None for never.
            num_threads: ignored; accepted so that every task has the same arguments.
            render_mode: None or "rgb_array".
            camera: ignored likewise; the plane is always seen from overhead.
            width: of a picture, pixels.
            height: of a picture, pixels.

        Raises:
            ValueError: for an invalid number of copies, picture size or render mode.
        """
        check_render_arguments(render_mode, camera, width, height)
        bound = np.ones(2, np.float32)
        super().__init__(
            num_envs=num_envs,
            action_low=-bound,
            action_high=bound,
            max_episode_steps=max_episode_steps,
        )
        self.render_mode = render_mode
        self._width, self._height = width, height
        self._position = np.zeros((num_envs, 2))
        self._cost = np.zeros(num_envs)
        self._goals = np.array(GOALS)

    def _draw(self, generator: np.random.Generator) -> Float:
        return START_DEVIATION * generator.standard_normal(2)

    def _start(self, copies: Index, draws: Float | None) -> None:
        self._position[copies] = 0.0 if draws is None else draws
        self._cost[copies] = 0.0

    def _advance(self, actions: Float) -> None:
        actions = np.clip(actions, -1.0, 1.0)
        np.clip(self._position + actions, -HALF_SIDE, HALF_SIDE, out=self._position)
        self._cost = ACTION_COST * np.sum(actions**2, axis=1)

    @property
    def position(self) -> Float:
        """Where each point is, [N, 2]."""
        return self._position.copy()

    @property
    def squared_distances(self) -> Float:
        """Squared distance from each copy to each goal, [N, 4]."""
        return squared_distances(self._position, self._goals)

    @property
    def goal(self) -> Index:
        """The goal each copy is at, -1 for none, [N]."""
        return goal_at(self.squared_distances, GOAL_RADIUS)

    def _observe(self) -> Observation:
        return self._position.astype(np.float32)

    def _reward_terms(self) -> dict[str, Float]:
        return {
            "action": -self._cost,
            "distance": -self.squared_distances.min(axis=1),
            "goal": np.where(self.goal >= 0, GOAL_REWARD, 0.0),
        }

    @property
    def goal_places(self) -> Float:
        """Where the goals are, [4, 2]."""
        return self._goals.copy()

    @property
    def goal_radius(self) -> float:
        """The distance within which a goal is reached."""
        return GOAL_RADIUS

    def place_reward(self, places: Float) -> Float:
        """The reward for being at places [M, 2], without the cost of actions, [M]."""
        squared: Float = squared_distances(np.asarray(places), self._goals).min(axis=1)
        reward: Float = GOAL_REWARD * (squared < GOAL_RADIUS**2) - squared
        return reward

    def _terminated(self) -> Bool:
        return self.goal >= 0

    def _facts(self) -> dict[str, NDArray[Any]]:
        goal = self.goal
        return super()._facts() | {"goal": goal, "success": goal >= 0}

    def _frames(self) -> tuple[Frame, ...]:
        # World coordinates of the pixels' centres; the plane fills the shorter side.
        unit = 2 * HALF_SIDE / min(self._width, self._height)
        x = unit * (np.arange(self._width) + 0.5 - self._width / 2)
        y = unit * (self._height / 2 - 0.5 - np.arange(self._height))
        paper = np.full((self._height, self._width, 3), 245, np.uint8)
        for goal in GOALS:
            paper[_disc(x, y, goal, GOAL_RADIUS)] = GOAL_COLOUR
        frames = []
        for place in self._position:
            frame = paper.copy()
            frame[_disc(x, y, place, POINT_RADIUS)] = POINT_COLOUR
            frames.append(frame)
        return tuple(frames)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The square's: four quarter turns of the plane, each also mirrored."""
        return plane_symmetries(1, SQUARE)


def _disc(x: NDArray[Any], y: NDArray[Any], centre: Sequence[float] | Float, radius: float) -> Bool:
    """Which pixels [H, W] at columns x [W] and rows y [H] lie in a disc."""
    inside: Bool = np.add.outer((y - centre[1]) ** 2, (x - centre[0]) ** 2) < radius**2
    return inside


MultiGoal = one_copy(MultiGoalVector)

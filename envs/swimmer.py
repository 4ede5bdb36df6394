"""A swimming snake with two equally good directions, one of which leads to a larger reward.

The paper's task: swimming along x pays its speed, forward or backward alike, but far enough forward
there is a finish line with a larger reward behind it. The paper gives no dimensions; ours follow
from what the swimmer can do: an undulation found by search swims 0.07 m/s either way, 1.7 m in an
episode of 25 s, and random actions end within 0.22 m of the start.
"""

import functools
import importlib
import math
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arenas import Arena
from .engine import Bool, Float, Index, Observation
from .physics_task import SmoothedVelocityTask
from .rendering import add_scenery
from .simulation import load_mjcf, set_options
from .single import one_copy
from .symmetry import Generator, SignedPermutation, Symmetry, concatenate, group, identity

LINKS = 3
"""Each is 0.1 m long."""

JOINTS = LINKS - 1

FINISH_LINE = 0.8
"""Metres forward (east) of the start."""

FINISH_REWARD = 3.0
"""Paid every step beyond the finish line, twice what the best swimming pays."""

SPEED_UNIT = 0.05
"""m/s along x that pay 1 per step."""

VELOCITY_UNIT = 0.1
"""m/s that count as 1 in the observation."""

ANGULAR_VELOCITY_UNIT = 5.0
"""rad/s that count as 1 in the observation, of the head and of the joints."""

START_ANGLE = 0.1
"""The head's direction and the joints' angles at a start are uniform within this, radians."""

NOMINAL_ROOT = (0.15, 0.05, math.pi / 2)
"""The root joints (m, m, rad) of a straight swimmer, nose east, centre of mass at the origin."""

CAMERA_DISTANCE = 1.2
"""Metres."""

OBSERVATION_BLOCKS: tuple[tuple[str, int], ...] = (
    ("joint_positions", JOINTS),
    ("velocity", 2),
    ("angular_velocity", 1),
    ("joint_velocities", JOINTS),
    ("average_velocity", 2),
    ("position", 1),
    ("heading", 2),
)
"""Velocities of the centre of mass in the head's frame; `position` is x in units of the finish."""

POOL = Arena("pool", None, (), (0.0, 0.0), (), open_half_side=2.0)


@functools.cache
def model() -> mujoco.MjModel:
    """The suite's three-link swimmer in still water. Shared within the process: never write to it.

    Its sensors are velocity (3) and position (3) of the whole body's centre of mass.
    """
    mjcf = load_mjcf()
    suite = importlib.import_module("dm_control.suite.swimmer")
    source, assets = suite.get_model_and_assets(LINKS)
    root = mjcf.from_xml_string(source.decode(), assets=assets)
    set_options(
        root
    )  # the suite's own time step of 0.002 s gives the same swim within a few percent
    for kind in ("sensor", "camera", "light", "texture"):
        for unused in root.find_all(kind):
            unused.remove()
    for name in ("ground", "target"):
        root.find("geom", name).remove()
    root.worldbody.add("geom", name="floor", type="plane", size=[20.0, 20.0, 1.0], material="floor")
    root.worldbody.add(
        "site",
        name="finish_line",
        type="box",
        pos=[FINISH_LINE, 0.0, 0.001],
        size=[0.005, 20.0, 0.001],
        rgba=[0.85, 0.25, 0.25, 0.8],
    )
    add_scenery(root)
    head = root.find("body", "head")
    root.sensor.add("subtreelinvel", body=head)
    root.sensor.add("subtreecom", body=head)
    return mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())


class SwimmerFinishLineVector(SmoothedVelocityTask):
    """Swim fast along x, either way; beyond the finish line every step pays more.

    `info` has `position` [N, 2] m (of the centre of mass), `heading` [N] rad (of the nose),
    `progress` [N] m (forward of the start, negative backward) and `success` [N] (has this episode
    ever crossed the line?). Nothing ends an episode early.
    """

    arena = POOL
    observation_blocks = OBSERVATION_BLOCKS

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
        super().__init__(
            model=model(),
            centre=slice(3, 5),
            followed_body="head",
            camera_distance=CAMERA_DISTANCE,
            max_episode_steps=max_episode_steps,
            **kwargs,
        )
        self._velocity = self.simulation.sensors[:, :2]
        self._crossed: Bool = np.zeros(self.num_envs, np.bool_)

    def _draw(self, generator: np.random.Generator) -> Float:
        return generator.uniform(-1.0, 1.0, 1 + JOINTS)

    def _start(self, copies: Index, draws: Float | None) -> None:
        qpos = np.zeros((len(copies), 3 + JOINTS))
        qpos[:, :3] = NOMINAL_ROOT
        if draws is not None:
            qpos[:, 2:] += START_ANGLE * draws
        self.simulation.start(copies, qpos, 0.0)
        self._rest(copies)
        self._crossed[copies] = False

    def _advance(self, actions: Float) -> None:
        super()._advance(actions)
        self._crossed |= self.progress > FINISH_LINE

    @property
    def position(self) -> Float:
        """Where the centre of mass is, [N, 2] m."""
        return self._centre.copy()

    @property
    def progress(self) -> Float:
        """How far forward of the start the centre of mass is, [N] m."""
        return self._centre[:, 0].copy()

    @property
    def heading(self) -> Float:
        """Where the nose points, [N] rad from east."""
        yaw: Float = self.simulation.qpos[:, 2] - NOMINAL_ROOT[2]
        return yaw

    def _observe(self) -> Observation:
        qpos, qvel = self.simulation.qpos, self.simulation.qvel
        cos, sin = np.cos(self.heading), np.sin(self.heading)

        def in_head_frame(vector: NDArray[Any]) -> Float:
            x, y = vector[:, 0], vector[:, 1]
            return np.stack([cos * x + sin * y, cos * y - sin * x], axis=1)

        return np.concatenate(
            [
                qpos[:, 3:],
                in_head_frame(self._velocity) / VELOCITY_UNIT,
                qvel[:, 2:3] / ANGULAR_VELOCITY_UNIT,
                qvel[:, 3:] / ANGULAR_VELOCITY_UNIT,
                in_head_frame(self._average_velocity) / VELOCITY_UNIT,
                self._centre[:, :1] / FINISH_LINE,
                cos[:, np.newaxis],
                sin[:, np.newaxis],
            ],
            axis=1,
            dtype=np.float32,
        )

    def _reward_terms(self) -> dict[str, Float]:
        return {
            "speed": np.abs(self._average_velocity[:, 0]) / SPEED_UNIT,
            "finish": np.where(self.progress > FINISH_LINE, FINISH_REWARD, 0.0),
        }

    def _facts(self) -> dict[str, NDArray[Any]]:
        return super()._facts() | {
            "heading": np.remainder(self.heading + math.pi, 2 * math.pi) - math.pi,
            "progress": self.progress,
            "success": self._crossed.copy(),
        }

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The mirror along the pool: every bend to the left becomes one to the right."""
        bends = SignedPermutation(tuple(range(JOINTS)), (-1,) * JOINTS)
        sideways = SignedPermutation((0, 1), (1, -1))  # head frame, and (cos, sin) of the heading
        acts = {
            "joint_positions": bends,
            "velocity": sideways,
            "angular_velocity": SignedPermutation((0,), (-1,)),
            "joint_velocities": bends,
            "average_velocity": sideways,
            "position": identity(1),
            "heading": sideways,
        }
        observation = concatenate([acts[name] for name, _ in self.observation_blocks])
        mirror = Generator("mirrored north to south", observation, bends)
        return group([mirror], (len(observation.source), JOINTS))


SwimmerFinishLine = one_copy(SwimmerFinishLineVector)

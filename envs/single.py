"""One copy of a task as a plain `gymnasium.Env`, run by the same code as many copies."""

from typing import Any, ClassVar

import gymnasium
import numpy as np

from .engine import Float, Observation, VectorTask
from .symmetry import Symmetry


class SingleTask(gymnasium.Env[Observation, Any]):
    """The first and only copy of a `VectorTask`, without automatic resets."""

    vector_class: ClassVar[type[VectorTask]]

    def __init__(self, *, max_episode_steps: int | None = None, **kwargs: Any) -> None:
        """Makes the copy.

        Args:
            max_episode_steps: control steps until truncation. None leaves it to Gymnasium, whose
                `make` adds a time limit of the task's own length.
            **kwargs: as for the vectorised task.
        """
        self._tasks = self.vector_class(num_envs=1, max_episode_steps=max_episode_steps, **kwargs)
        self.observation_space = self._tasks.single_observation_space
        self.action_space = self._tasks.single_action_space
        self.render_mode = self._tasks.render_mode
        self.observation_blocks = self._tasks.observation_blocks
        self.control_timestep = self._tasks.control_timestep
        self.model_hash = self._tasks.model_hash
        self.arena = self._tasks.arena

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """Relabellings that leave dynamics and reward unchanged, identity first."""
        return self._tasks.symmetries

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a new episode; `options={"randomize": False}` from the nominal pose."""
        super().reset(seed=seed)
        self._tasks.use_generator(0, self.np_random)
        observations, info = self._tasks.reset(options=options)
        return observations[0], _of_one(info)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step; action [A] in the task's own units."""
        observation, reward, terminated, truncated, info = self._tasks.step_without_reset(
            np.asarray(action)[np.newaxis]
        )
        return (
            observation[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _of_one(info),
        )

    def render(self) -> Any:
        """The present frame, [H, W, 3] uint8, or None without a render mode."""
        frames = self._tasks.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Releases OpenGL; the simulation's threads end with this object."""
        self._tasks.close()


def one_copy(vector_class: type[VectorTask]) -> type[SingleTask]:
    """The class `QuadrupedRun` of a vectorised task `QuadrupedRunVector`."""
    own = {
        "vector_class": vector_class,
        "metadata": {key: vector_class.metadata[key] for key in ("render_modes", "render_fps")},
        "__module__": vector_class.__module__,
        "__doc__": f"One copy of `{vector_class.__name__}`.",
    }
    return type(vector_class.__name__.removesuffix("Vector"), (SingleTask,), own)


def _of_one(info: dict[str, Any]) -> dict[str, Any]:
    """The info of the only copy: scalars as Python numbers, masks left out."""
    one: dict[str, Any] = {}
    for key, values in info.items():
        if key.startswith("_"):
            continue
        value: Float = values[0]
        one[key] = value if np.ndim(value) else value.item()
    return one

"""What all tasks simulated by MuJoCo share: the batch, the model's hash, and pictures."""

from __future__ import annotations

import mujoco
import numpy as np

from .arenas import OPEN_FLOOR, Arena
from .engine import VectorTask
from .rendering import Camera, Frame, SceneRenderer, check_render_arguments
from .simulation import Simulation, model_hash


class PhysicsTask(VectorTask):
    """Copies of one MuJoCo model, driven by actions in [-1, 1]^A.

    Attributes:
        simulation: the copies' physics.
    """

    arena: Arena = OPEN_FLOOR

    def __init__(
        self,
        *,
        model: mujoco.MjModel,
        substeps: int,
        followed_body: str,
        camera_distance: float,
        max_episode_steps: int | None,
        num_envs: int = 1,
        num_threads: int = 1,
        render_mode: str | None = None,
        camera: Camera = "follow",
        width: int = 480,
        height: int = 320,
    ) -> None:
        """Makes the copies.

        Args:
            model: the compiled model.
            substeps: physics steps per control step.
            followed_body: the body that the following camera keeps in view.
            camera_distance: of that camera from the body, metres.
            num_envs: number of copies, N.
            num_threads: threads that step them.
            max_episode_steps: control steps until truncation; None for never.
            render_mode: None or "rgb_array".
            camera: "follow" or "overhead".
            width: of a picture, pixels.
            height: of a picture, pixels.

        Raises:
            ValueError: for an invalid number of copies or threads, picture size, render mode or
                camera.
        """
        check_render_arguments(render_mode, camera, width, height)
        bound = np.ones(model.nu, np.float32)
        super().__init__(
            num_envs=num_envs,
            action_low=-bound,
            action_high=bound,
            max_episode_steps=max_episode_steps,
        )
        self.simulation = Simulation(model, num_envs, substeps=substeps, num_threads=num_threads)
        self.control_timestep = self.simulation.control_timestep
        self.model_hash = model_hash(model)
        self.render_mode = render_mode
        self._view = followed_body, camera, camera_distance, width, height
        self._renderer: SceneRenderer | None = None

    def _frames(self) -> tuple[Frame, ...]:
        if self._renderer is None:
            body, camera, distance, width, height = self._view
            self._renderer = SceneRenderer(
                self.simulation,
                self.arena,
                body=body,
                camera=camera,
                distance=distance,
                width=width,
                height=height,
            )
        return tuple(self._renderer.draw(copy) for copy in range(self.num_envs))

    def close_extras(self) -> None:
        """Releases OpenGL, if it was ever opened."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

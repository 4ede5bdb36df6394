"""What tasks simulated by MuJoCo share: the copies' physics, pictures, and a smoothed velocity."""

from typing import Any

import mujoco
import numpy as np

from .arenas import OPEN_FLOOR, Arena
from .engine import Float, Index, VectorTask
from .rendering import Camera, Frame, SceneRenderer, check_render_arguments
from .simulation import Simulation, model_hash

SMOOTHING = 0.1
"""Share of the newest velocity in the smoothed one, per control step of 0.05 s."""


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
        self.simulation = Simulation(model, num_envs, num_threads=num_threads)
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


class SmoothedVelocityTask(PhysicsTask):
    """A task about the velocity of a body's centre of mass, smoothed over about half a second."""

    def __init__(self, *, centre: slice, **kwargs: Any) -> None:
        """Makes the copies.

        Args:
            centre: the sensors that hold the position of the centre of mass, metres.
            **kwargs: as for every physics task.
        """
        super().__init__(**kwargs)
        self._centre = self.simulation.sensors[:, centre]
        self._last_centre = np.zeros(self._centre.shape)
        self._average_velocity = np.zeros(self._centre.shape)  # world frame, m/s

    def _rest(self, copies: Index) -> None:
        """Sets the smoothed velocity of copies [n], which have just been placed, to zero."""
        self._last_centre[copies] = self._centre[copies]
        self._average_velocity[copies] = 0.0

    def _advance(self, actions: Float) -> None:
        self.simulation.step(actions)
        velocity = (self._centre - self._last_centre) / self.control_timestep
        self._average_velocity += SMOOTHING * (velocity - self._average_velocity)
        self._last_centre[:] = self._centre

"""Pictures of simulated copies, drawn off screen.

OpenGL is loaded when the first picture is drawn and not before: training needs none. On Linux the
backend is EGL, which needs neither a display nor a GPU, unless MUJOCO_GL says otherwise.
"""

import importlib
import math
import os
import sys
from typing import Any, Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arenas import Arena
from .simulation import Simulation

Camera = Literal["follow", "overhead"]
"""`follow` keeps a body in view; `overhead` shows the whole arena from above, north up."""

Frame = NDArray[np.uint8]

DEBIAN_PACKAGES = "libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libopengl0"

_FIELD_OF_VIEW = 45.0  # degrees, top to bottom: MuJoCo's default for its free camera


class RenderingUnavailableError(RuntimeError):
    """No OpenGL to draw with."""


def check_render_arguments(render_mode: str | None, camera: str, width: int, height: int) -> None:
    """Raises ValueError for a render mode, camera or size that does not exist."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
    if camera not in get_args(Camera):
        raise ValueError(f"camera must be 'follow' or 'overhead', got {camera!r}")
    if not (1 <= width <= MAX_WIDTH and 1 <= height <= MAX_HEIGHT):
        raise ValueError(
            f"frames can be up to {MAX_WIDTH} x {MAX_HEIGHT} pixels, got {width} x {height}"
        )


MAX_WIDTH = 1920
"""Pixels: the size of the buffer that models reserve for drawing."""

MAX_HEIGHT = 1080
"""Pixels."""


SCENE_EXTENT = 12.0
"""Metres around a camera's centre within which shadows are sharp."""


def add_scenery(root: Any) -> None:
    """Adds a floor's chequer, a sky and a light to a dm_control.mjcf model; nothing that moves."""
    getattr(root.visual, "global").offwidth = MAX_WIDTH
    getattr(root.visual, "global").offheight = MAX_HEIGHT
    root.visual.quality.shadowsize = 4096
    root.visual.headlight.ambient = [0.35, 0.35, 0.35]
    root.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    root.visual.headlight.specular = [0.0, 0.0, 0.0]
    root.statistic.extent = SCENE_EXTENT
    root.asset.add(
        "texture",
        name="sky",
        type="skybox",
        builtin="gradient",
        rgb1=[0.75, 0.85, 0.95],
        rgb2=[0.35, 0.50, 0.70],
        width=256,
        height=256,
    )
    root.asset.add(
        "texture",
        name="chequer",
        type="2d",
        builtin="checker",
        rgb1=[0.86, 0.87, 0.88],
        rgb2=[0.74, 0.76, 0.79],
        width=256,
        height=256,
    )
    # One repeat is two squares a side: squares of one metre.
    root.asset.add(
        "material",
        name="floor",
        texture="chequer",
        texuniform=True,
        texrepeat=[0.5, 0.5],
    )
    root.worldbody.add(
        "light",
        name="sun",
        directional=True,
        pos=[0.0, 0.0, 20.0],
        dir=[0.0, 0.0, -1.0],  # slanting light speckles the floor with its own shadow
        diffuse=[0.4, 0.4, 0.4],
        specular=[0.0, 0.0, 0.0],
    )


class SceneRenderer:
    """Draws the copies of a simulation, one at a time."""

    def __init__(
        self,
        simulation: Simulation,
        arena: Arena,
        *,
        body: str,
        camera: Camera,
        distance: float,
        width: int,
        height: int,
    ) -> None:
        """Opens OpenGL.

        Args:
            simulation: whose copies to draw.
            arena: its surroundings.
            body: the body that the following camera keeps in view.
            camera: which camera.
            distance: of the following camera from the body, metres.
            width: of a frame, pixels.
            height: of a frame, pixels.

        Raises:
            RenderingUnavailableError: if there is no OpenGL to draw with.
        """
        self._simulation = simulation
        model = simulation.model
        self._context, self._drawer = _open_gl(model, width, height)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._drawer)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._option = mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._data = mujoco.MjData(model)
        if camera == "follow":
            self._camera = _following(model, body, distance, walls=arena.room is not None)
        else:
            self._camera = _overhead(arena, width / height)

    def draw(self, copy: int) -> Frame:
        """Copy `copy` at its present state, [height, width, 3]."""
        self._simulation.batch.get_data(copy, self._data)
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._simulation.model,
            self._data,
            self._option,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        # Shadows are only drawn around a light's position, so the sun follows the camera's target.
        tracked = self._camera.trackbodyid
        middle = self._camera.lookat if tracked < 0 else self._data.xpos[tracked]
        for light in self._scene.lights[: self._scene.nlight]:
            light.pos[:2] = middle[:2]
        mujoco.mjr_render(self._viewport, self._scene, self._drawer)
        frame = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, self._viewport, self._drawer)
        return frame[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Releases OpenGL's memory."""
        self._context.make_current()
        self._drawer.free()
        self._context.free()


def _following(model: mujoco.MjModel, body: str, distance: float, *, walls: bool) -> Any:
    """A camera south of the body; with walls around, it looks down steeply to see past them."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING.value
    camera.trackbodyid = model.body(body).id
    camera.fixedcamid = -1
    camera.distance = distance
    camera.azimuth = 90.0
    camera.elevation = -80.0 if walls else -25.0
    return camera


def _overhead(arena: Arena, aspect: float) -> Any:
    """A camera high above the middle of the arena, north up, that just sees all of it."""
    x_min, y_min, x_max, y_max = arena.bounds
    half_height = max(y_max - y_min, (x_max - x_min) / aspect) / 2
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE.value
    camera.lookat[:] = (x_min + x_max) / 2, (y_min + y_max) / 2, 0.0
    # The tops of the walls are nearer to the camera than the floor and must fit too.
    camera.distance = arena.wall_height + half_height / math.tan(math.radians(_FIELD_OF_VIEW / 2))
    camera.azimuth = 90.0
    camera.elevation = -90.0
    return camera


def _open_gl(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """An OpenGL context for pictures of this size, made current, and MuJoCo's drawer in it."""
    module = "mujoco.gl_context"
    if sys.platform == "linux" and not os.environ.get("MUJOCO_GL"):
        module = "mujoco.egl"
    try:
        context = importlib.import_module(module).GLContext(width, height)
        context.make_current()
        drawer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        # A missing library raises one of these, depending on which one it is.
        raise RenderingUnavailableError(
            f"cannot draw: OpenGL did not start ({type(error).__name__}: {error}). On Debian or "
            f"Ubuntu, install {DEBIAN_PACKAGES}; training and evaluation work without them"
        ) from error
    return context, drawer

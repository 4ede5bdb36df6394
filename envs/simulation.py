"""MuJoCo: how a model is integrated, its hash, and a batch that steps copies of it."""

import functools
import hashlib
import importlib
import os
from types import ModuleType
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from .engine import Float, Index

# Physics without appearance: a change of colour or camera keeps the hash.
_PHYSICS = ("body_", "jnt_", "dof_", "geom_", "tendon_", "actuator_", "eq_", "pair_", "exclude_")
_LOOKS = ("_rgba", "_matid", "_group", "_user", "_dataid", "bvh", "aabb")


PHYSICS_TIMESTEP = 0.01
"""Seconds."""

SUBSTEPS = 5
"""Physics steps per control step."""


class UnstableSimulationError(RuntimeError):
    """The physics of some copies diverged.

    Attributes:
        copies: [n] indices of these copies.
    """

    def __init__(self, copies: Index, reason: str) -> None:
        """Names the copies and MuJoCo's reason."""
        self.copies = copies
        super().__init__(
            f"the simulation of copy {copies[0]} became unstable ({reason}); "
            f"{len(copies)} in all. Such a state cannot be learned from: reset, and check that "
            "actions stay within the action space"
        )


@functools.cache
def load_mjcf() -> ModuleType:
    """dm_control.mjcf, imported without needing a display.

    dm_control opens OpenGL on import. Training needs none, so unless the user has chosen a backend
    by MUJOCO_GL, it is imported with rendering off (our rendering does not use dm_control's).
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen is None:
        os.environ["MUJOCO_GL"] = "disable"
    try:
        return importlib.import_module("dm_control.mjcf")
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]


def set_options(root: Any) -> None:
    """Sets how a dm_control.mjcf model is integrated in time."""
    root.option.timestep = PHYSICS_TIMESTEP
    root.option.integrator = "implicitfast"
    root.option.flag.island = "disable"  # one body is one island: looking for more costs 4 percent


def model_hash(model: mujoco.MjModel) -> str:
    """sha256 (hex) over everything in a compiled model that affects its motion.

    The rest poses of springs are left out, as in the hashes of the shipped skills.
    """
    digest = hashlib.sha256()
    names = [n for n in dir(model) if n.startswith(_PHYSICS) and not n.endswith(_LOOKS)]
    for owner, name in [(model, n) for n in sorted(names)] + [
        (model.opt, n) for n in sorted(dir(model.opt)) if not n.startswith("_")
    ]:
        value = getattr(owner, name)
        if callable(value):
            continue
        array = np.ascontiguousarray(value)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Simulation:
    """N copies of a model on a C++ thread pool, with live views of their state.

    Attributes:
        model: the compiled model.
        qpos: [N, nq] view of the joint positions.
        qvel: [N, nv] view of the joint velocities.
        ctrl: [N, nu] view of the controls.
        sensors: [N, ns] view of the sensors, at the present state (not a substep behind).
    """

    def __init__(self, model: mujoco.MjModel, copies: int, *, num_threads: int) -> None:
        """Makes the batch.

        Args:
            model: the compiled model, shared and never written.
            copies: N.
            num_threads: threads that step the copies.

        Raises:
            ValueError: if there is not at least one thread.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self.model = model
        # One MjData per copy: the sensors at the new state are then the next step's first stage,
        # computed once instead of twice.
        self.batch = Batch(model, copies, num_threads, persistent=True)
        self.qpos: Float = self.batch.bind("qpos")
        self.qvel: Float = self.batch.bind("qvel")
        self.ctrl: Float = self.batch.bind("ctrl")
        self.sensors: Float = self.batch.bind("sensordata")

    @property
    def control_timestep(self) -> float:
        """Seconds per control step."""
        return float(self.model.opt.timestep) * SUBSTEPS

    def start(
        self, copies: Index, qpos: NDArray[np.float64], qvel: NDArray[np.float64] | float
    ) -> None:
        """Puts the copies [n] at qpos [n, nq] and qvel [n, nv], and clears all other state."""
        self.batch.reset(copies, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self.batch.warning[copies] = 0
        self.qpos[copies] = qpos
        self.qvel[copies] = qvel
        self.batch.forward(copies, stage=mujoco.mjtStage.mjSTAGE_VEL.value)

    def step(self, controls: Float) -> None:
        """One control step of every copy under controls [N, nu].

        Raises:
            UnstableSimulationError: if the state of a copy is no longer finite.
        """
        self.ctrl[:] = controls
        self.batch.step(nstep=SUBSTEPS, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
        if self.batch.warning.any():
            self._raise_if_unstable()

    def _raise_if_unstable(self) -> None:
        kinds: dict[str, Any] = {
            "position": mujoco.mjtWarning.mjWARN_BADQPOS,
            "velocity": mujoco.mjtWarning.mjWARN_BADQVEL,
            "acceleration": mujoco.mjtWarning.mjWARN_BADQACC,
        }
        for name, kind in kinds.items():
            copies = np.flatnonzero(self.batch.warning[:, int(kind), 1])
            if len(copies):
                raise UnstableSimulationError(copies, f"{name} huge or not a number")

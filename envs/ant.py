"""dm_control's Ant on a floor, compiled once per arena; its dimensions and its symmetries.

The Ant is a sphere with four two-jointed legs at 90 degrees, driven by eight motors without inner
state (torque = 75 Nm x action), so that positions and velocities are the whole state. Its sensors,
such as touch and range finders, are removed: they are unused and cost a fifth of a step.
"""

import functools
from typing import NamedTuple

import mujoco

from .arenas import Arena, add_arena
from .rendering import add_scenery
from .simulation import load_mjcf, set_options
from .symmetry import (
    EAST_WEST,
    NORTH_SOUTH,
    Generator,
    SignedPermutation,
    concatenate,
    identity,
)

STANDING_HEIGHT = 0.522
"""Height of the torso's centre with straight legs on the floor, metres."""

TORSO = "walker/torso"
"""Name of the torso's body in the compiled model."""

JOINTS = 8
"""Hip and ankle of the front left, front right, back right and back left leg, in this order."""

FLOOR_HALF_SIDE = 200.0
"""Half the side of the floor as drawn, metres; physically it is an infinite plane."""


@functools.cache
def model(arena: Arena) -> mujoco.MjModel:
    """The Ant in an arena, compiled. Shared within the process: never write to it.

    Its sensors are, in order: the torso's x, y and z axes in the world (9 numbers), velocity (3)
    and position (3) of the whole body's centre of mass in the world.
    """
    mjcf = load_mjcf()
    from dm_control.locomotion.walkers import Ant  # after load_mjcf: see there

    root = mjcf.RootElement(model="quadruped")
    set_options(root)
    root.worldbody.add(
        "geom",
        name="floor",
        type="plane",
        size=[FLOOR_HALF_SIDE, FLOOR_HALF_SIDE, 1.0],
        material="floor",
    )
    add_arena(arena, root.worldbody)
    add_scenery(root)
    ant = Ant()
    for unused in ant.mjcf_model.find_all("sensor") + ant.mjcf_model.find_all("site"):
        unused.remove()
    torso = ant.root_body
    torso.pos = [0.0, 0.0, 0.0]  # so that the free joint's position is the torso's centre
    frame = root.worldbody.attach(ant.mjcf_model)
    frame.pos = [arena.start[0], arena.start[1], STANDING_HEIGHT]
    frame.add("freejoint", name="torso")
    for axis in ("framexaxis", "frameyaxis", "framezaxis"):
        root.sensor.add(axis, objtype="xbody", objname=torso)
    root.sensor.add("subtreelinvel", body=torso)
    root.sensor.add("subtreecom", body=torso)
    return mujoco.MjModel.from_xml_string(root.to_xml_string())


# The body's symmetries.


class Relabelling(NamedTuple):
    """How the parts of an observation change under a symmetry.

    Attributes:
        name: what it does.
        vector: body-frame coordinates of an ordinary vector, such as velocity and gravity.
        axial: those of an axial vector, such as angular velocity.
        joints: angles and velocities of the joints, and the actions of their motors.
        heading: cosine and sine of the torso's yaw, in the world or from a wanted direction.
        position: place on the floor.
    """

    name: str
    vector: SignedPermutation
    axial: SignedPermutation
    joints: SignedPermutation
    heading: SignedPermutation
    position: SignedPermutation

    def generator(self, blocks: tuple[tuple[str, int], ...]) -> Generator:
        """This symmetry for observations made of the quadruped's blocks, in their order."""
        acts = {
            "height": identity(1),
            "gravity": self.vector,
            "velocity": self.vector,
            "angular_velocity": self.axial,
            "joint_positions": self.joints,
            "joint_velocities": self.joints,
            "average_velocity": self.vector,
            "heading": self.heading,
            "bearing": self.heading,
            "position": self.position,
        }
        return Generator(self.name, concatenate([acts[name] for name, _ in blocks]), self.joints)


# The quarter turn only renames: the torso's frame turns clockwise by 90 degrees while the body
# stays as it is. A fixed vector's coordinates turn the other way (x' = -y, y' = x), and the front
# left leg is now called the back left one. All hips turn about +z and all ankles the same way, so
# no joint changes sign.
_TURN_VECTOR = SignedPermutation((1, 0, 2), (-1, 1, 1))
QUARTER_TURN = Relabelling(
    "body turned by 90 degrees",
    vector=_TURN_VECTOR,
    axial=_TURN_VECTOR,
    joints=SignedPermutation((2, 3, 4, 5, 6, 7, 0, 1), (1,) * JOINTS),
    heading=SignedPermutation((1, 0), (1, -1)),
    position=identity(2),
)


def _mirror(name: str, world: SignedPermutation) -> Relabelling:
    """The mirrored world, with left and right legs swapped: hips change sign, ankles do not."""
    return Relabelling(
        name,
        vector=SignedPermutation((0, 1, 2), (1, -1, 1)),
        axial=SignedPermutation((0, 1, 2), (-1, 1, -1)),
        joints=SignedPermutation((2, 3, 0, 1, 6, 7, 4, 5), (-1, 1) * (JOINTS // 2)),
        heading=world,
        position=world,
    )


MIRROR_NORTH_SOUTH = _mirror("mirrored north to south", NORTH_SOUTH)
MIRROR_EAST_WEST = _mirror("mirrored east to west", EAST_WEST)

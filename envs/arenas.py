"""The arenas: where walls, start and target are. Every dimension of every arena is in this file.

The paper publishes none, so these are ours. All lengths are metres, x is east and y is north. Every
arena with walls is a rectangular room with blocks standing in it. Blocks are at least 1 m thick,
more than a running robot covers in ten physics steps, and too tall to climb. The room's own walls
are drawn 1 m thick, but are half-spaces in the simulation: nothing passes them, and they cost less
time to simulate than boxes.

Arenas for the quadruped are made for a body whose legs span 2.3 m. A point mass of 0.15 m radius
runs in the same shapes, scaled down.
"""

import math
from typing import Any, NamedTuple

Rectangle = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max, in metres."""

WALL_THICKNESS = 1.0
"""Metres; scaled with the arena for the point mass."""

WALL_HEIGHT = 3.0
"""Metres; scaled likewise."""


class Arena(NamedTuple):
    """An arena as seen from above.

    Attributes:
        name: what to call it on a picture.
        room: the inside of the outer walls, or None on an open floor.
        blocks: what stands in the room.
        start: where episodes begin, (x, y).
        targets: where the reward is, (x, y) each; none on an open floor.
        wall_height: metres, of walls and blocks.
        wall_thickness: metres, of the room's walls.
        reward_width: standard deviation of the Gaussian reward around the target, metres.
        success_radius: a robot this close to the target has reached it, metres.
        open_half_side: without a room, how far from the start is worth drawing, metres.
        threshold: in an arena with a trap, how near the target one can come inside it, metres.
    """

    name: str
    room: Rectangle | None
    blocks: tuple[Rectangle, ...]
    start: tuple[float, float]
    targets: tuple[tuple[float, float], ...]
    wall_height: float = WALL_HEIGHT
    wall_thickness: float = WALL_THICKNESS
    reward_width: float = 0.0
    success_radius: float = 0.0
    threshold: float | None = None
    open_half_side: float = 60.0

    @property
    def walls(self) -> tuple[Rectangle, ...]:
        """Every rectangle that nothing can enter: the room's four walls, then its blocks."""
        if self.room is None:
            return self.blocks
        x_min, y_min, x_max, y_max = self.room
        t = self.wall_thickness
        return (
            (x_min - t, y_max, x_max + t, y_max + t),
            (x_min - t, y_min - t, x_max + t, y_min),
            (x_min - t, y_min, x_min, y_max),
            (x_max, y_min, x_max + t, y_max),
            *self.blocks,
        )

    @property
    def bounds(self) -> Rectangle:
        """The rectangle worth drawing: the room with its walls, or a square of open floor."""
        if self.room is None:
            (x, y), half = self.start, self.open_half_side
            return x - half, y - half, x + half, y + half
        x_min, y_min, x_max, y_max = self.room
        t = self.wall_thickness
        return x_min - t, y_min - t, x_max + t, y_max + t


OPEN_FLOOR = Arena("open floor", None, (), (0.0, 0.0), ())


def _hallway(name: str, width: float) -> Arena:
    """A straight hallway along x, `width` wide, closed 80 m to either side of the start.

    80 m is further than the quadruped runs in an episode of 25 s.
    """
    return Arena(name, (-80.0, -width / 2, 80.0, width / 2), (), (0.0, 0.0), ())


HALLWAY_WIDE = _hallway("wide hallway", 8.0)
HALLWAY_NARROW = _hallway("narrow hallway", 4.0)

# A U on its side, of 4 m corridors. It starts in the closed end of the lower leg and has its target
# in the closed end of the upper one: 8 m east, 6 m north, 8 m back. The legs lie 2 m apart, so that
# the Gaussian reward that reaches through the wall stays under 0.11 (0.011 at the start).
U_MAZE = Arena(
    "U-maze",
    room=(0.0, -5.0, 12.0, 5.0),
    blocks=((0.0, -1.0, 8.0, 1.0),),
    start=(2.0, -3.0),
    targets=((2.0, 3.0),),
    reward_width=2.0,
    success_radius=1.0,
)

# Two 4 m passages side by side, which look the same from the start; behind them the target. The
# upper one has a barrier inside, 4 m in. The reward is wide enough to be noticeable at the start
# (0.06); the dead end pays at most 0.49.
_MAZE_TARGET = (14.0, 0.0)
_MAZE_BARRIER_X = 8.0
_MAZE_DIVIDER_Y = 0.5
MAZE = Arena(
    "maze",
    room=(0.0, -4.5, 16.0, 4.5),
    blocks=(
        (4.0, -_MAZE_DIVIDER_Y, 12.0, _MAZE_DIVIDER_Y),
        (_MAZE_BARRIER_X, _MAZE_DIVIDER_Y, _MAZE_BARRIER_X + WALL_THICKNESS, 4.5),
    ),
    start=(2.0, 0.0),
    targets=(_MAZE_TARGET,),
    reward_width=5.0,
    success_radius=1.0,
    threshold=math.hypot(_MAZE_TARGET[0] - _MAZE_BARRIER_X, _MAZE_TARGET[1] - _MAZE_DIVIDER_Y),
)


def scaled(arena: Arena, factor: float) -> Arena:
    """The same arena with every length multiplied by `factor`."""

    def rectangle(r: Rectangle) -> Rectangle:
        return r[0] * factor, r[1] * factor, r[2] * factor, r[3] * factor

    def point(p: tuple[float, float]) -> tuple[float, float]:
        return p[0] * factor, p[1] * factor

    return Arena(
        arena.name,
        None if arena.room is None else rectangle(arena.room),
        tuple(rectangle(block) for block in arena.blocks),
        point(arena.start),
        tuple(point(target) for target in arena.targets),
        arena.wall_height * factor,
        arena.wall_thickness * factor,
        arena.reward_width * factor,
        arena.success_radius * factor,
        None if arena.threshold is None else arena.threshold * factor,
        arena.open_half_side * factor,
    )


def add_arena(arena: Arena, worldbody: Any) -> None:
    """Adds walls, blocks and a mark at each target to the worldbody of a dm_control.mjcf model."""
    if arena.room is not None:
        x_min, y_min, x_max, y_max = arena.room
        x, y = (x_min + x_max) / 2, (y_min + y_max) / 2
        for name, place, inward in (
            ("west", (x_min, y), (1, 0, 0)),
            ("east", (x_max, y), (-1, 0, 0)),
            ("south", (x, y_min), (0, 1, 0)),
            ("north", (x, y_max), (0, -1, 0)),
        ):
            worldbody.add(
                "geom",
                name=f"{name}_side",
                type="plane",
                pos=[*place, 0.0],
                zaxis=inward,
                size=[1.0, 1.0, 1.0],
                rgba=[0.0, 0.0, 0.0, 0.0],
            )
    for number, rectangle in enumerate(arena.walls):
        x_min, y_min, x_max, y_max = rectangle
        solid = int(rectangle in arena.blocks)
        worldbody.add(
            "geom",
            name=f"wall_{number}",
            type="box",
            pos=[(x_min + x_max) / 2, (y_min + y_max) / 2, arena.wall_height / 2],
            size=[(x_max - x_min) / 2, (y_max - y_min) / 2, arena.wall_height / 2],
            contype=solid,
            conaffinity=solid,
            rgba=[0.45, 0.52, 0.62, 1.0],
        )
    for number, target in enumerate(arena.targets):
        worldbody.add(
            "site",
            name=f"target_{number}",
            type="cylinder",
            pos=[*target, 0.01],
            size=[arena.success_radius, 0.01],
            rgba=[0.85, 0.25, 0.25, 0.6],
        )

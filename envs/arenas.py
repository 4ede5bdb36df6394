"""The arenas: where walls, start and target are. Every dimension of every arena is in this file.

The paper publishes none, so these are ours. All lengths are metres, x is east and y is north. Walls
are 1 m thick, thick enough that a running robot cannot pass through one between two physics steps,
and as tall as `WALL_HEIGHT`, too tall to climb.

Arenas for the quadruped are made for a body whose legs span 2.3 m. A point mass of 0.15 m radius
runs in the same shapes, scaled down.
"""

from __future__ import annotations

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
        walls: rectangles that nothing can enter.
        start: where episodes begin, (x, y).
        target: where the reward is, (x, y), or None.
        bounds: the rectangle worth drawing.
        wall_height: metres.
        reward_width: standard deviation of the Gaussian reward around the target, metres.
        success_radius: a robot this close to the target has reached it, metres.
        threshold: in an arena with a trap, how near the target one can come inside it, metres.
    """

    name: str
    walls: tuple[Rectangle, ...]
    start: tuple[float, float]
    target: tuple[float, float] | None
    bounds: Rectangle
    wall_height: float = WALL_HEIGHT
    reward_width: float = 0.0
    success_radius: float = 0.0
    threshold: float | None = None


OPEN_FLOOR = Arena("open floor", (), (0.0, 0.0), None, (-60.0, -60.0, 60.0, 60.0))


def add_walls(arena: Arena, worldbody: Any) -> None:
    """Adds the arena's walls, as boxes, to the worldbody of a dm_control.mjcf model."""
    for number, (x_min, y_min, x_max, y_max) in enumerate(arena.walls):
        worldbody.add(
            "geom",
            name=f"wall_{number}",
            type="box",
            pos=[(x_min + x_max) / 2, (y_min + y_max) / 2, arena.wall_height / 2],
            size=[(x_max - x_min) / 2, (y_max - y_min) / 2, arena.wall_height / 2],
            rgba=[0.62, 0.66, 0.72, 1.0],
        )

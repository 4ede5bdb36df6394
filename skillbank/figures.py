"""Figures: learning curves, traces seen from above, and the paper's figure 1.

matplotlib is imported when a figure is drawn. No display is needed.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skillbank.durable import as_path, replace_durably
from skillbank.errors import InvalidArgument
from skillbank.spec import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from skillbank.evaluation import Evaluation
    from skillbank.skill import Skill

Array = NDArray[Any]
DPI = 150
WALL, TARGET, START = "0.55", "tab:red", "black"
# The states of figure 1 at which sampled actions are shown.
FIGURE_1_STATES = ((-2.0, 0.0), (0.0, 0.0), (2.5, 2.5))
FIGURE_1_ACTIONS = 200  # sampled actions at each of them
HALLWAY = 4.0  # ratio of length to width above which an arena counts as a hallway
GRID = 81  # points along each side of a level-curve plot


def learning_curve(
    curve: Sequence[CurvePoint],
    path: str | Path,
    *,
    title: str,
    marks: dict[str, float] | None = None,
) -> None:
    """Plot the return against environment steps, and alpha if it changes.

    Args:
        curve: Points of the learning curve.
        path: Path of the image; its suffix selects the format.
        title: Title of the figure.
        marks: Reference levels by their label, such as the return before fine-tuning.

    Raises:
        StorageError: The image cannot be written.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    steps = [point.steps for point in curve]
    axes.plot(
        steps,
        [point.mean_return for point in curve],
        marker="o" if len(curve) == 1 else None,
        label="in training",
    )
    for number, (label, level) in enumerate((marks or {}).items()):
        axes.axhline(level, linestyle="--", linewidth=1.0, color=f"C{number + 1}", label=label)
    alpha = [point.temperature for point in curve]
    if alpha and min(alpha) < max(alpha):
        second = axes.twinx()
        second.plot(steps, alpha, color="0.7", linewidth=1.0)
        second.set_yscale("log")
        second.set_ylabel("alpha", color="0.5")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of recent episodes")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if marks:
        axes.legend(loc="best", fontsize="small")
    _save(figure, path)


def traces(panels: "Sequence[tuple[str, Evaluation]]", arena: Any, path: str | Path) -> None:
    """Plot the trace of each episode, seen from above, as in the paper's figures 4 and 7.

    Args:
        panels: A title and an evaluation with traces for each panel.
        arena: An object with ``walls`` (rectangles x_min, y_min, x_max, y_max in m), ``targets``,
            ``success_radius`` and ``bounds``; None for an open floor.
        path: Path of the image.

    Raises:
        InvalidArgument: An evaluation has no traces.
        StorageError: The image cannot be written.
    """
    if not all(evaluation.traces for _, evaluation in panels):
        raise InvalidArgument("the task reports no positions, so there are no traces to draw")
    x_min, y_min, x_max, y_max = _seen((e for _, e in panels), arena)
    width, height = x_max - x_min, y_max - y_min
    # Stack the panels of wide arenas; place others side by side.
    rows, columns = (len(panels), 1) if width > 1.5 * height else (1, len(panels))
    scale = min(8.0 / width, 5.0 / height)  # inches per metre
    figure = new_figure(columns * scale * width + 0.8, rows * (scale * height + 0.8))
    axes_of = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, evaluation) in zip(axes_of.flat, panels, strict=True):
        _draw_arena(axes, arena)
        _draw_traces(axes, evaluation.traces)
        axes.set_xlim(x_min, x_max)
        axes.set_ylim(y_min, y_max)
        axes.set_aspect("equal")
        axes.set_title(title, fontsize="medium")
    for axes in axes_of[-1]:
        axes.set_xlabel("x (m)")
    for axes in axes_of[:, 0]:
        axes.set_ylabel("y (m)")
    _save(figure, path)


def multi_goal(
    skill: "Skill",
    evaluation: "Evaluation",
    reward: Callable[[Array], Array],
    goals: Array,
    path: str | Path,
) -> None:
    """Plot the paper's figure 1.

    The left panel shows traces on the level curves of the reward; the other three show level curves
    of Q over the actions at one state each, with actions sampled by the skill.

    Args:
        skill: A skill whose state is a position in the plane and whose action is a displacement.
        evaluation: An evaluation of the skill, with traces.
        reward: Maps positions [M, 2] to rewards [M], without the action cost.
        goals: Positions of the goals [G, 2].
        path: Path of the image.

    Raises:
        StorageError: The image cannot be written.
    """
    figure = new_figure(13.0, 3.6)
    left, *others = figure.subplots(1, 1 + len(FIGURE_1_STATES))
    side = 7.0
    x, y, places = _grid((-side, -side), (side, side))
    left.contour(
        x, y, reward(places).reshape(GRID, GRID), levels=15, linewidths=0.6, cmap="Greys_r"
    )
    _draw_traces(left, evaluation.traces)
    left.plot(*np.asarray(goals).T, "o", color=TARGET, markersize=8, zorder=4)
    left.set_title("traces and reward")
    low, high = skill.spec.action_low, skill.spec.action_high
    x, y, actions = _grid((low[0], low[1]), (high[0], high[1]))
    for axes, state in zip(others, FIGURE_1_STATES, strict=True):
        obs = np.array([state], np.float32)
        q = skill.q(obs, actions[np.newaxis])[0].reshape(GRID, GRID)
        axes.contour(x, y, q, levels=15, linewidths=0.6)
        sampled = skill.sample(obs, FIGURE_1_ACTIONS, seed=0)[0]
        axes.plot(*sampled.T, "x", color="tab:blue", markersize=3)
        axes.set_title(f"Q and actions at ({state[0]:g}, {state[1]:g})")
    for axes in (left, *others):
        axes.set_aspect("equal")
    _save(figure, path)


def _seen(evaluations: "Iterable[Evaluation]", arena: Any) -> tuple[float, float, float, float]:
    """The rectangle to show: the arena's bounds, or all visited positions if it has no walls."""
    visited = np.concatenate([trace for e in evaluations for trace in e.traces])
    visited = visited[np.isfinite(visited).all(1)]
    visited = visited if len(visited) else np.zeros((1, 2))
    (x_min, y_min), (x_max, y_max) = visited.min(0), visited.max(0)
    margin = 0.05 * max(x_max - x_min, y_max - y_min, 1e-3) + 1e-6
    x_min, y_min, x_max, y_max = x_min - margin, y_min - margin, x_max + margin, y_max + margin
    walls = () if arena is None else arena.walls
    if not walls:
        return float(x_min), float(y_min), float(x_max), float(y_max)
    a, b, c, d = arena.bounds
    if c - a > HALLWAY * (d - b):  # crop a hallway to the visited part
        a, c = max(a, x_min), min(c, x_max)
    return float(a), float(b), float(c), float(d)


def _draw_arena(axes: "Axes", arena: Any) -> None:
    if arena is None:
        return
    from matplotlib.patches import Circle, Rectangle

    for x_min, y_min, x_max, y_max in arena.walls:
        size = (x_max - x_min, y_max - y_min)
        axes.add_patch(Rectangle((x_min, y_min), *size, facecolor=WALL, edgecolor="none"))
    for target in arena.targets:
        radius = arena.success_radius
        axes.add_patch(Circle(target, radius, color=TARGET, alpha=0.5, linewidth=0))


def _draw_traces(axes: "Axes", paths: Sequence[Array]) -> None:
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(paths)))
    width = 1.2 if len(paths) <= 20 else 0.7
    for trace, colour in zip(paths, colours, strict=True):
        axes.plot(trace[:, 0], trace[:, 1], color=colour, linewidth=width, alpha=0.8, zorder=2)
    starts = np.array([trace[0] for trace in paths])
    axes.plot(*starts.T, ".", color=START, markersize=3, zorder=3)


def _grid(low: Sequence[float], high: Sequence[float]) -> tuple[Array, Array, Array]:
    """Coordinates [GRID] along each axis, and all points of the grid [GRID * GRID, 2]."""
    x, y = np.linspace(low[0], high[0], GRID), np.linspace(low[1], high[1], GRID)
    return x, y, np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    # Unlike pyplot, a bare Figure opens no display and is not kept in a global registry.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: str | Path) -> None:
    """Write an image atomically."""
    path = as_path(path)
    with replace_durably(path) as file:
        figure.savefig(
            file, dpi=DPI, format=path.suffix.removeprefix(".") or "png", bbox_inches="tight"
        )

"""The paper's figures, in its layout, drawn from result files alone."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skillbank.durable import replace_durably
from skillbank.figures import new_figure
from skillbank.studies import plan
from skillbank.studies.gathering import Group, gathered
from skillbank.studies.statistics import interquartile_means
from skillbank.studies.unit import Budget, Json, Places
from skillbank.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
COLOURS = {
    "anchored": "tab:blue",
    "paper": "black",
    "default": "tab:green",
    "map": "tab:olive",
    "ddpg": "tab:red",
    "ddpg_pretrained": "tab:orange",
    "ddpg_soft": "tab:red",
    "ddpg_soft_pretrained": "tab:orange",
    "sac": "tab:purple",
}
HARD = ("ddpg", "ddpg_pretrained")  # drawn dotted in figure 5
TASK_TITLES = {
    "QuadrupedHallwayWide": "wide hallway",
    "QuadrupedHallwayNarrow": "narrow hallway",
    "QuadrupedUMaze": "U-shaped maze",
}
SIDE = 7.0  # half the side of the multi-goal plane, as drawn


def draw(figures: Iterable[str], budget: Budget, places: Places) -> list[Path]:
    """Draw every figure that has results, and delete the pictures of others.

    Returns:
        The pictures' paths.

    Raises:
        StorageError: A picture cannot be written.
    """
    makers = {
        "1": _figure_1,
        "3a": _figure_3a,
        "3b": _figure_3b,
        "5": _figure_5,
        "6": _figure_6,
        "7": _figure_7,
    }
    paths = []
    for name in figures:
        if name not in makers:
            continue
        path = picture(name, budget, places)
        groups = [group for group in gathered(name, budget, places) if len(group)]
        figure = makers[name](groups) if groups else None
        if figure is None:  # the results of an earlier picture are now of another definition, say
            path.unlink(missing_ok=True)
            continue
        with replace_durably(path) as file:
            figure.savefig(file, dpi=DPI, format="png")
        paths.append(path)
    return paths


def picture(figure: str, budget: Budget, places: Places) -> Path:
    """The path of a figure's picture."""
    return places.results / budget / f"figure_{figure}.png"


def _figure_1(groups: list[Group]) -> "Figure | None":
    """Traces on the reward's level curves; for ours also Q over the actions at three states."""
    shown = [(g, g.results[0]["measured"]) for g in groups if 0 in g.results]
    if not shown:  # the figure shows seed 0
        return None
    columns = 4 if any("action_values" in m for _, m in shown) else 1
    figure = new_figure(3.0 * columns, 3.0 * len(shown))
    axes = figure.subplots(len(shown), columns, squeeze=False)
    source: Any = Task("MultiGoal", 1).envs.unwrapped
    for row, (group, measured) in zip(axes, shown, strict=True):
        _level_curves(row[0], source)
        for trace in measured.get("traces", ()):
            row[0].plot(*np.array(trace).T, color="tab:blue", linewidth=0.8, alpha=0.6)
        _goals(row[0], source)
        row[0].set_title(group.label)
        row[0].set(xlabel="x", ylabel="y")
        values: Json = measured.get("action_values", {})
        for number, one in enumerate(row[1:]):
            if not values:
                one.set_axis_off()
                continue
            q = np.array(values["q"][number])
            grid = np.linspace(-1.0, 1.0, len(q))
            one.contour(grid, grid, q, levels=15, linewidths=0.6, cmap="coolwarm")
            one.plot(*np.array(values["actions"][number]).T, "*", color="tab:blue", markersize=3)
            x, y = values["states"][number]
            one.set_title(f"Q and actions at ({x:g}, {y:g})", fontsize="small")
            one.set(xlabel="action along x", ylabel="along y", aspect="equal")
    return figure


def _goals(axes: "Axes", source: Any) -> None:
    from matplotlib.patches import Circle

    for place in np.asarray(source.goal_places):
        axes.plot(*place, ".", color="tab:red")
        axes.add_patch(Circle(place, source.goal_radius, fill=False, color="tab:red"))


def _level_curves(axes: "Axes", source: Any) -> None:
    grid = np.linspace(-SIDE, SIDE, 81)
    places = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    reward = source.place_reward(places).reshape(81, 81)
    axes.contour(grid, grid, reward, levels=15, linewidths=0.6, colors="0.75", linestyles="-")
    axes.set_aspect("equal")


def _figure_3a(groups: list[Group]) -> "Figure":
    """The furthest forward position so far in training, one line per seed."""
    figure, axes = _one("environment steps (thousands)", "furthest forward so far (m)")
    for group in groups:
        _seed_lines(axes, group, np.fmax.accumulate(group.watched("most"), axis=1))
    _line_at(axes, plan.FINISH_LINE, f"finish line, {plan.FINISH_LINE:g} m")
    axes.legend(frameon=False)
    return figure


def _figure_3b(groups: list[Group]) -> "Figure":
    """The smallest distance to the target so far in training, one line per seed."""
    figure, axes = _one("environment steps (thousands)", "nearest to the target so far (m)")
    for group in groups:
        _seed_lines(axes, group, np.fmin.accumulate(group.watched("least"), axis=1))
    threshold = float(Task(groups[0].experiment, 1).arena.threshold)
    _line_at(axes, threshold, f"nearest in the dead end, {threshold:.1f} m")
    axes.legend(frameon=False)
    return figure


def _line_at(axes: "Axes", height: float, label: str) -> None:
    axes.axhline(height, color="black", linestyle="--", linewidth=1.0, label=label)


def _seed_lines(axes: "Axes", group: Group, lines: Any) -> None:
    steps = group.steps * np.arange(1, lines.shape[1] + 1) / lines.shape[1] / 1000
    for number, line in enumerate(lines):
        axes.plot(
            steps,
            line,
            color=COLOURS.get(group.algorithm, "0.5"),
            linewidth=1.0,
            alpha=0.8,
            label=group.label if number == 0 else None,
        )


def _figure_5(groups: list[Group]) -> "Figure":
    """Returns of the evaluations against steps: interquartile means over seeds, with bands."""
    tasks = list(dict.fromkeys(group.experiment for group in groups))
    figure = new_figure(4.4 * len(tasks), 3.8)
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    hallways = [one for one, task in zip(axes, tasks, strict=True) if "Hallway" in task]
    for one in hallways[1:]:
        one.sharey(hallways[0])
    named: dict[str, Any] = {}
    for one, task in zip(axes, tasks, strict=True):
        for group in (g for g in groups if g.experiment == task):
            steps, curves = group.curves()
            middle, low, high = interquartile_means(curves)
            colour = COLOURS.get(group.algorithm, "0.5")
            style = ":" if group.algorithm in HARD else "-"
            (named[group.label],) = one.plot(steps / 1000, middle, style, color=colour)
            one.fill_between(steps / 1000, low, high, color=colour, alpha=0.2, linewidth=0)
        one.set(title=TASK_TITLES.get(task, task), xlabel="environment steps (thousands)")
        one.grid(alpha=0.3)
        if one not in hallways:  # far apart, and low ones close together
            one.set_yscale("symlog", linthresh=50.0)
            one.set_yticks((0, 10, 20, 30, 40, 50, 100, 200, 300))
            one.yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("return")
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    return figure


def _figure_6(groups: list[Group]) -> "Figure":
    """How far the policy swims at each point of training: a row of panels for each algorithm."""
    groups = sorted(groups, key=lambda group: group.algorithm != "ddpg")
    seeds = _seeds(groups)
    columns = min(5, len(seeds))
    rows = -(-len(seeds) // columns)
    figure = new_figure(2.3 * columns, 1.5 * rows * len(groups) + 0.8)
    bottom = min(group.watched("evaluated_least").min() for group in groups)
    top = max(group.watched("evaluated_most").max() for group in groups)
    parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for part, group in zip(parts, groups, strict=True):
        part.suptitle(group.label)
        axes = part.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        steps, _ = group.curves()
        low, high = group.watched("evaluated_least"), group.watched("evaluated_most")
        lines = dict(zip(sorted(group.results), zip(low, high, strict=True), strict=True))
        axes[0].set_ylim(bottom - 0.1, top + 0.1)
        for one, seed in itertools.zip_longest(axes, seeds):
            if seed not in lines:
                one.set_axis_off()
                continue
            least, most = lines[seed]
            one.fill_between(steps / 1000, least, most, color="tab:blue", alpha=0.4, linewidth=0)
            one.plot(steps / 1000, most, color="tab:blue", linewidth=0.8)
            one.plot(steps / 1000, least, color="tab:blue", linewidth=0.8)
            one.axhline(plan.FINISH_LINE, color="tab:red", linewidth=0.8)
            one.axhline(0.0, color="0.7", linewidth=0.5)
            one.set_title(f"seed {seed}", fontsize="small")
    figure.supxlabel("environment steps (thousands); red: the finish line", fontsize="medium")
    figure.supylabel("forward distance (m)", fontsize="medium")
    return figure


def _figure_7(groups: list[Group]) -> "Figure | None":
    """Traces from above: a column for each temperature, a row for each seed that has traces."""
    groups = [group for group in groups if set(group.results) & set(plan.FEW_SEEDS)]
    seeds = [seed for seed in _seeds(groups) if seed in plan.FEW_SEEDS]
    if not seeds:
        return None
    figure = new_figure(2.6 * len(groups), 2.6 * len(seeds) + 0.4)
    axes = figure.subplots(len(seeds), len(groups), squeeze=False, sharex="col", sharey="col")
    for column, group in enumerate(groups):
        alpha = group.algorithm.removeprefix("alpha_")
        axes[0, column].set_title(f"alpha = {alpha}")
        reach = 0.0
        for one, seed in zip(axes[:, column], seeds, strict=True):
            measured = group.results[seed]["measured"] if seed in group.results else {}
            for trace in map(np.array, measured.get("traces", ())):
                one.plot(*trace.T, color="tab:blue", linewidth=0.8, alpha=0.6)
                reach = max(reach, 1.05 * float(np.abs(trace).max()))
            one.plot(0.0, 0.0, ".", color="black")
            one.set_aspect("equal")
        if reach:  # a square around the start, shared by the column
            axes[0, column].set(xlim=(-reach, reach), ylim=(-reach, reach))
    for one, seed in zip(axes[:, 0], seeds, strict=True):
        one.set_ylabel(f"seed {seed}")
    figure.supxlabel("x (m)")
    figure.supylabel("y (m)")
    return figure


def _seeds(groups: list[Group]) -> list[int]:
    """Every seed that any of the groups has; each gets a panel or a row."""
    return sorted({seed for group in groups for seed in group.results})


def _one(xlabel: str, ylabel: str) -> "tuple[Figure, Axes]":
    figure = new_figure(5.5, 3.6)
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return figure, axes

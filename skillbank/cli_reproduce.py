"""``skillbank reproduce``: the paper's experiments over seeds, on this machine or on a Ray cluster.

Registered on the command line by ``commands.add_command(reproduce)``.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from skillbank.cli_folders import check_writable
from skillbank.cli_options import FilePath
from skillbank.cli_progress import duration
from skillbank.doctor import cores
from skillbank.errors import SkillbankError

if TYPE_CHECKING:
    from skillbank.studies.scheduler import Executor, Standing
    from skillbank.studies.unit import Places, Unit

PLAIN_SECONDS = 60.0  # between lines if stderr is not a terminal
FIGURES = ("1", "3a", "3b", "5", "6", "7", "beyond", "smoke", "all")


class SeedRange(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Seeds as ``0-9``, ``3`` or ``0-2,7``."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse seeds; sorted, without duplicates."""
        if isinstance(value, tuple):
            return value
        seeds: set[int] = set()
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                self.fail(f"'{value}' is not a range of seeds such as 0-9 or 0,3,5", param, ctx)
            begin, end = int(first), int(last if dash else first)
            if not begin <= end < 2**31 or end - begin >= 10_000:
                self.fail(f"'{part}' must ascend, over at most 10000 seeds below 2**31", param, ctx)
            seeds.update(range(begin, end + 1))
        return tuple(sorted(seeds))


@click.command(
    epilog="\b\n"
    "skillbank reproduce smoke                     check in minutes that everything works\n"
    "skillbank reproduce 5 --plan                  show what would run, and for how long\n"
    "skillbank reproduce 5 --budget full           hours; can be stopped and restarted\n"
    "skillbank reproduce all --budget full --draw  draw pictures and page of existing results",
)
@click.argument("figure", type=click.Choice(FIGURES))
@click.option("--seeds", type=SeedRange(), help="Such as 0-9. [default: the figure's own]")
@click.option(
    "--budget",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="Minutes per unit, or the full trainings of the results page.",
)
@click.option("--only", help="Run only these algorithms and those they start from: ddpg,sac")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Units to run in parallel, with one thread each. [default: one per core]",
)
@click.option(
    "--ray",
    "cluster",
    metavar="auto|ADDRESS",
    help="Run on a Ray cluster instead of this machine (see docs/studies.md).",
)
@click.option(
    "--results",
    type=FilePath(),
    default=Path("docs/results"),
    show_default=True,
    help="Folder for the small result files and the pictures.",
)
@click.option(
    "--work",
    type=FilePath(),
    default=Path("runs/studies"),
    show_default=True,
    help="Folder for checkpoints, skills and logs.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would run; run nothing.")
@click.option("--draw", "only_draw", is_flag=True, help="Draw existing results; run nothing.")
def reproduce(
    figure: str,
    seeds: tuple[int, ...] | None,
    budget: Any,
    only: str | None,
    workers: int | None,
    cluster: str | None,
    results: Path,
    work: Path,
    only_plan: bool,
    only_draw: bool,
) -> None:
    """Run one of the paper's experiments over seeds, together with its baselines.

    Units that have a result are skipped, stopped units resume from their last checkpoint, and units
    whose process dies are retried: repeat the same command until all units are done.
    """
    from skillbank.studies import plan
    from skillbank.studies.unit import Places

    places = Places(results, work)
    figures = plan.PAPER if figure == "all" else (figure,)
    units = plan.units(figures, budget, seeds, _algorithms(figures, only))
    if only_plan:
        _print_plan(units, places, workers or cores())
        return
    standing = None
    if not only_draw:
        _check_rivals(units, places)
        from skillbank.studies import scheduler

        check_writable(places.results, "choose another with --results FOLDER")
        check_writable(places.work, "choose another with --work FOLDER")
        executor = _executor(places, workers, cluster)
        with Board(f"figure {figure}, {budget}" if figure[0].isdigit() else figure) as board:
            standing = scheduler.run(units, places, executor, board)
    _draw(budget, places)
    if standing is not None:
        _report(standing)


def _algorithms(figures: tuple[str, ...], only: str | None) -> tuple[str, ...] | None:
    """The algorithms that were named, or None for all."""
    from skillbank.studies import plan

    if only is None:
        return None
    known = {a for name in figures for _, algorithms in plan.FIGURES[name].runs for a in algorithms}
    named = tuple(word.strip() for word in only.split(","))
    for word in named:
        if word not in known:
            raise click.BadParameter(f"no algorithm '{word}'; there is: {', '.join(sorted(known))}")
    return named


class Board:
    """Progress display of a study: a live line in a terminal, periodic lines elsewhere.

    Args:
        label: Label of the lines.
    """

    def __init__(self, label: str) -> None:
        self._label, self._live = label, sys.stderr.isatty()
        self._bar: Any = None
        self._begin: tuple[float, float] | None = None  # time, share done
        self._last = float("-inf")

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if isinstance(error, KeyboardInterrupt):
            click.echo("stopped; run the same command to continue", err=True)

    def __call__(self, standing: "Standing") -> None:
        """Show the state of a study."""
        share = share_done(standing)
        now = time.monotonic()
        if self._begin is None:
            self._begin = (now, share)
        if self._live:
            self._draw(standing, share)
        elif now - self._last >= PLAIN_SECONDS:
            self._last = now
            click.echo(f"{self._label}: {share:.0%}, {self._state(standing, share)}", err=True)

    def _draw(self, standing: "Standing", share: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f} %|{bar:20}| {postfix}"
            self._bar = tqdm(
                desc=self._label, total=1.0, bar_format=form, dynamic_ncols=True, mininterval=0.0
            )
        self._bar.set_postfix_str(self._state(standing, share), refresh=False)
        self._bar.update(share - self._bar.n)
        self._bar.refresh()

    def _state(self, standing: "Standing", share: float) -> str:
        assert self._begin is not None
        began, before = self._begin
        words = [f"{len(standing.done)} of {len(standing.units)} done"]
        if standing.failed:
            words.append(f"{len(standing.failed)} failed")
        if standing.retries:
            words.append(f"{standing.retries} tried again")
        if share > before:
            left = (time.monotonic() - began) * (1.0 - share) / (share - before)
            words.append(f"{duration(left)} left")
        steps = {unit.name: unit.total_steps for unit in standing.units}
        running = [
            f"{name} {event.steps / steps[name]:.0%}" for name, event in standing.running.items()
        ]
        return ", ".join(words) + (f" | {', '.join(running)}" if running else "")


def share_done(standing: "Standing") -> float:
    """Fraction of a study's work that is done, weighted by the estimated time of each unit."""
    from skillbank.studies.plan import estimated_seconds

    total = done = 0.0
    for unit in standing.units:
        cost = estimated_seconds(unit)
        total += cost
        if unit.name in standing.done:
            done += cost
        elif unit.name in standing.running:
            done += cost * min(1.0, standing.running[unit.name].steps / unit.total_steps)
    return done / total if total else 1.0


def _executor(places: "Places", workers: int | None, cluster: str | None) -> "Executor":
    if cluster is not None:
        from skillbank.studies.cluster import RayCluster

        return RayCluster(places, cluster, workers)
    from skillbank.studies.local import LocalProcesses

    return LocalProcesses(places, workers or cores())


def _check_rivals(units: "tuple[Unit, ...]", places: "Places") -> None:
    """Raise before hours are spent on a study whose baselines cannot run.

    Raises:
        SkillbankError: Baselines are requested but not installed.
    """
    from skillbank.studies.scheduler import unfinished
    from skillbank.studies.unit import RivalConfig

    todo = unfinished(units, places)
    lacking = [one.name for one in todo if isinstance(one.learning, RivalConfig)]
    if lacking and find_spec("stable_baselines3") is None:
        raise SkillbankError(
            f"{len(lacking)} units, such as {lacking[0]}, need Stable-Baselines3: "
            "pip install 'skillbank[baselines]', or choose other algorithms with --only"
        )


def _print_plan(units: "tuple[Unit, ...]", places: "Places", workers: int) -> None:
    from skillbank.studies import plan, scheduler

    todo = {unit.name for unit in scheduler.unfinished(units, places)}
    kinds: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        kinds.setdefault((unit.experiment, unit.algorithm), []).append(unit)
    rows = [("experiment", "algorithm", "steps", "seeds", "done", "hours left")]
    for (experiment, algorithm), found in kinds.items():
        left = [unit for unit in found if unit.name in todo]
        hours = sum(map(plan.estimated_seconds, left)) / 3600
        counts = (f"{found[0].total_steps}", f"{len(found)}", f"{len(found) - len(left)}")
        rows.append((experiment, algorithm, *counts, f"{hours:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        words = [row[i].ljust(widths[i]) if i < 2 else row[i].rjust(widths[i]) for i in range(6)]
        click.echo("  ".join(words))
    seconds = sum(plan.estimated_seconds(unit) for unit in units if unit.name in todo)
    click.echo(
        f"{len(todo)} of {len(units)} units to run: about {seconds / 3600:.1f} hours of one core, "
        f"{duration(seconds / workers)} with {workers} workers"
    )


def _report(standing: "Standing") -> None:
    """Print a summary.

    Raises:
        SkillbankError: Some units failed.
    """
    click.echo(
        f"{len(standing.done)} of {len(standing.units)} units done, "
        f"{standing.skipped} of them before, {standing.retries} retries",
        err=True,
    )
    if standing.failed:
        lines = [f"  {name}: {why}" for name, why in standing.failed.items()]
        raise SkillbankError(
            f"{len(lines)} units failed; run the same command to retry:\n" + "\n".join(lines)
        )


def _draw(budget: Any, places: "Places") -> None:
    from skillbank.studies import drawing, page, plan

    for path in drawing.draw(plan.PAPER, budget, places):  # everything on the page
        click.echo(str(path))
    click.echo(str(page.write(budget, places)))

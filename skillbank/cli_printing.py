"""Printing: results as text or JSON to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from skillbank.evaluation import Evaluation
    from skillbank.spec import EvaluationRecord

# Metrics of an evaluation that are printed: (unit, factor).
UNITS = {
    "distance": ("m", 1.0),
    "net_distance": ("m", 1.0),
    "progress": ("m", 1.0),
    "success": ("%", 100.0),
    "fallen": ("%", 100.0),
}
SHOWN_OTHERWISE = {"direction", "goal"}  # whose means say nothing
MANY = 8  # other metrics that are printed


def say(text: str) -> None:
    """Print a message that is not part of the result, to stderr, above a progress bar if any."""
    tqdm: Any = sys.modules.get("tqdm")
    with tqdm.tqdm.external_write_mode() if tqdm else nullcontext():
        click.echo(text, err=True)


def counted(number: int, what: str) -> str:
    """A number of things: ``1 episode``, ``2 episodes``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def roams(evaluation: "Evaluation") -> bool:
    """Whether the final directions of the episodes are of interest: the task has no goal."""
    return "direction" in evaluation.metrics and not {"progress", "distance"} & set(
        evaluation.metrics
    )


def print_evaluation(label: str, evaluation: "Evaluation") -> None:
    """Print the scores of an evaluation, and the directions if they are of interest."""
    record = evaluation.record()
    click.echo(f"{label:<8} {score(record)}".strip())
    others = [name for name in record.metrics if name not in UNITS and name not in SHOWN_OTHERWISE]
    if others:
        told = ", ".join(f"{name} {record.metrics[name]:.4g}" for name in others[:MANY])
        more = f", and {len(others) - MANY} more (--json)" if len(others) > MANY else ""
        click.echo(f"{'':<{len(label) and 9}}{told}{more}")
    if roams(evaluation) and len(evaluation.returns) >= 8:
        shares = " ".join(f"{share:.0%}" for share in evaluation.sectors)
        click.echo(f"         directions, counter-clockwise from east: {shares}".rstrip())


def score(record: "EvaluationRecord") -> str:
    """Format an evaluation as one line."""
    low, high = record.interval
    interval = f" [{low:.4g}, {high:.4g}]" if record.episodes > 1 else ""  # none for one episode
    parts = [f"return {record.mean_return:.4g}{interval}"]
    for name, (unit, factor) in UNITS.items():
        if name in record.metrics:
            parts.append(f"{name.replace('_', ' ')} {factor * record.metrics[name]:.3g} {unit}")
    return f"{', '.join(parts)} ({counted(record.episodes, 'episode')}, seed {record.seed})"


def print_files(paths: Sequence[str]) -> None:
    """Print the paths of written files."""
    for path in paths:
        click.echo(path)


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(value, indent=2, default=str))

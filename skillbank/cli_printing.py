"""How commands print: figures for people, JSON for programs, and what is neither to stderr."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from skillbank.evaluation import Evaluation
    from skillbank.spec import EvaluationRecord

# How the metrics of an evaluation are written: (unit, factor).
UNITS = {
    "distance": ("m", 1.0),
    "net_distance": ("m", 1.0),
    "progress": ("m", 1.0),
    "success": ("%", 100.0),
    "fallen": ("%", 100.0),
}


def say(text: str) -> None:
    """Print what is not the result to stderr."""
    click.echo(text, err=True)


def roams(evaluation: "Evaluation") -> bool:
    """Whether the directions in which episodes ended say something."""
    return "direction" in evaluation.metrics and not {"progress", "distance"} & set(
        evaluation.metrics
    )


def print_evaluation(label: str, evaluation: "Evaluation") -> None:
    """Print the figures of an evaluation, and the directions where they say something."""
    click.echo(f"{label:<8} {score(evaluation.record())}".strip())
    if roams(evaluation) and len(evaluation.returns) >= 8:
        shares = " ".join(f"{share:.0%}" for share in evaluation.sectors)
        click.echo(f"         directions, from east turning left: {shares}".rstrip())


def score(record: "EvaluationRecord") -> str:
    """An evaluation in one line."""
    low, high = record.interval
    interval = f" [{low:.4g}, {high:.4g}]" if record.episodes > 1 else ""  # one has none
    parts = [f"return {record.mean_return:.4g}{interval}"]
    for name, (unit, factor) in UNITS.items():
        if name in record.metrics:
            parts.append(f"{name.replace('_', ' ')} {factor * record.metrics[name]:.3g} {unit}")
    return f"{', '.join(parts)} ({record.episodes} episodes, seed {record.seed})"


def print_files(paths: Sequence[str]) -> None:
    """Print where files were written."""
    for path in paths:
        click.echo(path)


def print_json(value: Any) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(value, indent=2, default=str))

"""The benchmark suite: ``python benchmarks/speed`` prints a table and writes table, JSON and plot.

Both sides of a ratio are measured in the same run, in turns, as medians of CPU time (wall-clock
time where threads are compared). Floors are computed in the same run: the floating-point operations
of the mathematics, divided by the measured rate of a large product.
"""

from pathlib import Path
from typing import Any

import click

SECTIONS = ("environment", "update", "growth", "loop", "memory")
RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "results" / "speed"

INTRODUCTION = """# Speed

Written by `python benchmarks/speed` from one run on one machine, so only the ratios carry over to
other machines. *Floor* is what arithmetic or memory traffic alone would take at the rates of the
first rows, and *in floors* is the median divided by it. *Times better* is how many times better
ours is than the rival beside it (below 1: worse), and *asked* is the target. See
[performance](../../performance.md) for conclusions.
"""


@click.command()
@click.option(
    "--only", type=click.Choice(SECTIONS), multiple=True, help="Sections; all by default."
)
@click.option("--seconds", default=3.0, show_default=True, help="Seconds per measurement.")
@click.option("--against", default="", help="A git revision to compare update times with.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default="docs")
def main(only: tuple[str, ...], seconds: float, against: str, out: Path) -> None:
    """Measure, print a table, write it with its JSON and the plot of growth."""
    import torch

    from skillbank.allocator import keep_freed_blocks

    keep_freed_blocks()
    torch.set_num_threads(1)

    import environments
    import loops
    import measuring
    import memory
    import revisions
    import updates

    chosen = only or SECTIONS
    rate = measuring.product_rate()
    rows = [
        measuring.Row("machine", "a large product, 32 bit", rate / 1e9, "GFLOP/s"),
        measuring.Row(
            "machine",
            "a large product, bfloat16",
            measuring.product_rate(torch.bfloat16) / 1e9,
            "GFLOP/s",
        ),
        measuring.Row("machine", "a large copy", measuring.bandwidth() / 1e9, "GB/s"),
    ]
    extra: dict[str, Any] = {}
    out.mkdir(parents=True, exist_ok=True)
    if "environment" in chosen:
        rows += environments.measure(seconds)
    if "update" in chosen:
        if against:
            now, gains = revisions.timings_beside(against, seconds)
        else:
            now, gains = updates.timings(seconds), None
        rows += updates.rows(now, gains)
        rows += updates.side_by_side_rows(seconds, gains)
        extra["against"] = against or None
    if "growth" in chosen:
        extra["growth"] = updates.growth(seconds / 3.0)
        updates.draw_growth(extra["growth"], rate, out / "growth.png")
    if "loop" in chosen:
        rows += loops.measure()
    if "memory" in chosen:
        rows += memory.measure()
    text = measuring.table(rows)
    click.echo(text)
    (out / "speed.md").write_text(f"{INTRODUCTION}\n{text}\n")
    (out / "speed.json").write_text(measuring.as_json(rows, extra))


if __name__ == "__main__":
    main()

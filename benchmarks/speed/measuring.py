"""How the suite measures: rivals in turns, medians, and floors from rates of the same run."""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Clock = Callable[[], float]
BLOCK_SECONDS = 0.02  # the shortest stretch that is timed as one


@dataclass
class Row:
    """One line of the table.

    Attributes:
        section: The section it belongs to.
        name: What was measured.
        value: The median.
        unit: The value's unit.
        floor: What the arithmetic or the memory traffic alone needs, in the same unit.
        rival: What it is compared with.
        ratio: How many times better ours is than the rival, measured in the same run.
        mark: The target.
        met: Whether the target is met; None without a target.
    """

    section: str
    name: str
    value: float
    unit: str
    floor: float | None = None
    rival: str = ""
    ratio: float | None = None
    mark: str = ""
    met: bool | None = None

    @property
    def times_floor(self) -> float | None:
        """The value in floors."""
        return None if self.floor is None else self.value / self.floor


def medians(
    rivals: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    clock: Clock = time.process_time,
    rounds: int = 5,
) -> dict[str, float]:
    """Median seconds per call of each rival, all measured in turns.

    Each turn times a block of calls that lasts about ``BLOCK_SECONDS``, so that other load on the
    machine affects all rivals alike.

    Args:
        rivals: What to call, by name.
        seconds: Seconds to spend on each.
        clock: CPU seconds of this process, or wall-clock time where threads are compared.
        rounds: Minimum number of turns of each.
    """
    calls: dict[str, int] = {}
    for name, call in rivals.items():
        call()  # warm up
        started = clock()
        call()
        calls[name] = max(1, round(BLOCK_SECONDS / max(1e-7, clock() - started)))
    times: dict[str, list[float]] = {name: [] for name in rivals}
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds * len(rivals)
        while time.perf_counter() < end or len(next(iter(times.values()))) < rounds:
            for name, call in rivals.items():
                started = clock()
                for _ in range(calls[name]):
                    call()
                times[name].append((clock() - started) / calls[name])
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


PRODUCT = 768  # rows and columns of a large product
OF_PRODUCT = 2.0 * PRODUCT**3  # its operations


def large_product(dtype: torch.dtype = torch.float32) -> Callable[[], torch.Tensor]:
    """A call that computes a large matrix product, to be timed."""
    a, b = (torch.rand(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
    out = torch.empty(PRODUCT, PRODUCT, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def product_rate(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large product, on one thread."""
    return OF_PRODUCT / medians({"product": large_product(dtype)}, seconds=0.5)["product"]


def bandwidth() -> float:
    """Bytes per second that a copy far larger than the caches reads and writes."""
    source = torch.zeros(64 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = medians({"copy": lambda: target.copy_(source)}, seconds=0.5)["copy"]
    return 2.0 * len(source) / best


def machine() -> dict[str, Any]:
    """A description of this machine."""
    model = "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| | what | median | floor | in floors | rival | times better | asked | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        floor = "" if row.floor is None else f"{figure(row.floor)} {row.unit}"
        times = "" if row.times_floor is None else f"{row.times_floor:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        lines.append(
            f"| {row.section} | {row.name} | {figure(row.value)} {row.unit} | {floor} | {times} "
            f"| {row.rival} | {ratio} | {row.mark} | {met} |"
        )
    return "\n".join(lines)


def figure(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(rows: list[Row], extra: Mapping[str, Any]) -> str:
    """All rows, and the machine, as JSON."""
    measured = [asdict(row) | {"times_floor": row.times_floor} for row in rows]
    return json.dumps({"machine": machine(), **extra, "rows": measured}, indent=1) + "\n"

"""The update of the networks, its two steps, acting, and how the time grows."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from arithmetic import Needed
from measuring import OF_PRODUCT, Row, large_product, medians

from skillbank.agent import Agent
from skillbank.config import Architecture, Learning, PretrainConfig, recipe
from skillbank.replay import Batch, Replay, Transitions

TASK = "QuadrupedRun"
OBSERVATION, ACTION = 29, 8
WAYS = ("default", "paper")
PRODUCT = "large product"
Gains = dict[str, dict[str, float]]  # times faster than a rival, by what is timed
THEN, THEN_BY_TWO = ", one thread, as it ran", ", two threads of torch"


def make(
    config: PretrainConfig, *, observation: int = OBSERVATION, action: int = ACTION
) -> tuple[Agent, Batch]:
    """An agent, and a batch of random transitions."""
    symmetries: tuple[Any, ...] = ()
    if config.symmetry and (observation, action) == (OBSERVATION, ACTION):
        from skillbank.task import Task

        symmetries = Task(TASK, 1).symmetries
    alpha = config.temperature
    agent = Agent(config.architecture, config, observation, action, alpha, 0, "cpu", symmetries)
    generator = torch.Generator().manual_seed(0)
    size = config.batch_size
    replay = Replay(4 * size, observation, action, size)
    for _ in range(4):
        replay.add(
            Transitions(
                torch.randn(size, observation, generator=generator),
                torch.rand(size, action, generator=generator) * 2.0 - 1.0,
                torch.randn(size, generator=generator),
                torch.zeros(size),
                torch.zeros(size),
                torch.randn(size, observation, generator=generator),
            )
        )
    return agent, replay.sample(size, generator, config.discount)


def steps(way: str) -> dict[str, Callable[[], object]]:
    """The update of a preset, its two steps, and acting, as calls."""
    agent, batch = make(recipe(TASK, "paper" if way == "paper" else "default"))
    return {
        f"{way} update": lambda: agent.update(batch),
        f"{way} critic step": lambda: agent.update_critic(batch),
        f"{way} sampler step": lambda: agent.update_sampler(batch.obs),
        f"{way} acting": lambda: agent.act(batch.obs[:16]),
    }


def needed(way: str) -> dict[str, float]:
    """Floating-point operations of each call of ``steps``."""
    config = recipe(TASK, "paper" if way == "paper" else "default")
    least = Needed(config.architecture, config, OBSERVATION, ACTION)
    return {
        f"{way} update": least.update(),
        f"{way} critic step": least.critic_step(),
        f"{way} sampler step": least.sampler_step(),
        f"{way} acting": least.sampler(16, 16, gradient=False),
    }


def timings(seconds: float) -> dict[str, float]:
    """Milliseconds of every call, timed in turns with a large product."""
    calls = {name: call for way in WAYS for name, call in steps(way).items()}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found = medians({PRODUCT: large_product()} | calls, seconds=seconds, clock=clock)
    return {name: 1e3 * value for name, value in found.items()}


def rows(found: dict[str, float], gains: Gains | None) -> list[Row]:
    """The table's rows: compared with the arithmetic, and with an earlier revision."""
    rate = OF_PRODUCT / found[PRODUCT]  # operations per ms
    least = {name: value / rate for way in WAYS for name, value in needed(way).items()}
    out = []
    for name, floor in least.items():
        row = Row("update", name, found[name], "ms", floor)
        if gains is not None:
            row = replace(row, rival="earlier revision", ratio=gains[THEN][name])
        if name == "paper update":
            row = replace(row, mark="<= 2 floors", met=found[name] <= 2.0 * floor)
        out.append(row)
    return out


def side_by_side_rows(seconds: float, gains: Gains | None) -> list[Row]:
    """The gain of a second thread: critics and sampling network in parallel, wall-clock time."""
    from skillbank.side_by_side import InTurn, side_by_side

    out = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with side_by_side() as pool:
            for way in WAYS:
                agent, batch = make(recipe(TASK, "paper" if way == "paper" else "default"))

                def call(beside: Any, agent: Agent = agent, batch: Batch = batch) -> object:
                    agent.beside = beside
                    return agent.update(batch)

                rivals = {
                    "one": lambda call=call: call(InTurn()),
                    "two": lambda call=call: call(pool),
                }
                found = medians(rivals, seconds=seconds, clock=time.perf_counter)
                gain, name = found["one"] / found["two"], f"{way} update by two threads"
                row = Row("update", f"{name} (wall clock)", 1e3 * found["two"], "ms")
                out.append(replace(row, rival="one thread", ratio=gain))
                for rival, of in (gains or {}).items():
                    # Both were measured beside ours on one thread.
                    ratio = gain * of[f"{way} update"]
                    compared = replace(row, rival=f"earlier revision{rival}", ratio=ratio)
                    if (way, rival) == ("paper", THEN):
                        compared = replace(compared, mark=">= 2", met=ratio >= 2.0)
                    out.append(compared)
    finally:
        torch.set_num_threads(threads)
    return out


# How the time of an update grows: one setting changed at a time.

GROWTH: dict[str, tuple[int, ...]] = {
    "batch": (16, 32, 64, 128, 256, 512, 1024),
    "particles": (1, 2, 4, 8, 16, 32, 64),
    "action dimension": (2, 4, 8, 16, 32, 64),
    "width": (50, 100, 200, 400, 800),
}


def changed(what: str, value: int, way: str) -> tuple[PretrainConfig, int]:
    """A configuration with one setting changed, and its action size."""
    config = recipe(TASK, "paper" if way == "paper" else "default")
    changes: dict[str, Any] = {
        "batch": {"batch_size": value},
        "particles": {"particles": value, "objective": "stein"},
        "action dimension": {},
        "width": {
            "architecture": config.architecture.model_copy(
                update={"critic_hidden": (value, value), "sampler_hidden": (value, value)}
            )
        },
    }[what]
    config = config.model_copy(update={"symmetry": False, **changes})
    return config, value if what == "action dimension" else ACTION


def growth(seconds: float) -> dict[str, dict[str, list[list[float]]]]:
    """Per setting and preset: [value, milliseconds, operations] in order."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for what, values in GROWTH.items():
        found[what] = {}
        for way in WAYS:
            points = []
            for value in values:
                config, action = changed(what, value, way)
                agent, batch = make(config, action=action)
                least = least_of(config.architecture, config, action)

                def call(agent: Agent = agent, batch: Batch = batch) -> object:
                    return agent.update(batch)

                took = medians({"update": call}, seconds=seconds, rounds=3)["update"]
                points.append([float(value), 1e3 * took, least])
            found[what][way] = points
    return found


def least_of(architecture: Architecture, learning: Learning, action: int) -> float:
    """Operations of one update."""
    return Needed(architecture, learning, OBSERVATION, action).update()


def draw_growth(found: dict[str, dict[str, list[list[float]]]], rate: float, path: Any) -> None:
    """Plot measured time and arithmetic floor against each setting, on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.4 * len(found), 3.2), sharey=True)
    for axis, (what, ways) in zip(axes, found.items(), strict=True):
        for way, colour in zip(WAYS, ("tab:blue", "tab:orange"), strict=True):
            value, took, least = zip(*ways[way], strict=True)
            axis.loglog(value, took, "o-", color=colour, label=f"{way}", markersize=4)
            axis.loglog(value, [1e3 * x / rate for x in least], "--", color=colour, alpha=0.6)
        axis.set_xlabel(what)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("ms per update (dashed: products alone)")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":  # one revision's timings, as JSON, for a comparison of revisions
    import json

    from skillbank.allocator import keep_freed_blocks

    keep_freed_blocks()
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(timings(float(sys.argv[1]))))

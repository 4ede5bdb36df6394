"""Composition on the quadruped: every way to compose run_east and run_north into run_northeast.

    skillbank pretrain --env QuadrupedRunToward --as run_east       the one training it needs
    python benchmarks/composition_quadruped.py measure run_east     zero-shot, then each way
    python benchmarks/composition_quadruped.py speed run_east       one composed action, one core
    python benchmarks/composition_quadruped.py ship run_east        writes both shipped skills

run_north is exactly run_east with its heading block turned. Likewise run_east turned by 45 degrees
is what a training on the composed reward would give, because only the heading block depends on the
direction. The composed reward (east + north) / 2 is cos(45 degrees) times the speed towards the
north-east. Results go to docs/results/composition/quadruped.json.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import skillbank
from skillbank import compose, figures, storage
from skillbank.allocator import keep_freed_blocks
from skillbank.evaluation import Evaluation, bootstrap_interval
from skillbank.export import model_card
from skillbank.skill import Skill

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "composition"
SKILLS = ROOT / "runs" / "composition"
SHIPPED = ROOT / "pretrained"
TASK = "skillbank/QuadrupedRunToward-v0"
NORTHEAST = math.pi / 4
CONTROL_STEP = 0.05  # s


def loaded(name: str) -> Skill:
    return Skill.load(name) if name.endswith(".h5") else skillbank.Bank().load(name)


def measured(policy: Any, episodes: int, deterministic: bool) -> dict[str, Any]:
    """Headings, distances and falls of episodes; heading 0 is east."""
    e = skillbank.evaluate(policy, TASK, episodes=episodes, seed=2026, deterministic=deterministic)
    return figures_of(e)


def figures_of(e: Evaluation) -> dict[str, Any]:
    degrees = np.degrees(e.metrics["direction"])
    far = e.metrics["net_distance"]
    travel = np.array([trace[-1] - trace[0] for trace in e.traces])
    towards = travel @ (math.cos(NORTHEAST), math.sin(NORTHEAST))
    return {
        "heading": float(np.degrees(np.arctan2(travel[:, 1].mean(), travel[:, 0].mean()))),
        "heading spread": float(np.std((degrees - 45.0 + 180.0) % 360.0 - 180.0)),
        "off by": float(np.abs((degrees - 45.0 + 180.0) % 360.0 - 180.0).mean()),
        "distance": float(far.mean()),
        "towards north-east": float(towards.mean()),
        "interval": bootstrap_interval(towards),
        "fallen": float(e.metrics["fallen"].mean()),
    }


@click.group()
def commands() -> None:
    """Composition on the quadruped."""
    keep_freed_blocks()
    torch.set_num_threads(1)


@commands.command()
@click.argument("skill")
@click.option("--episodes", default=50, show_default=True)
@click.option("--steps", default=160_000, show_default=True, help="Environment steps per training.")
@click.option("--zero-shot", is_flag=True, help="Learn nothing.")
def measure(skill: str, episodes: int, steps: int, zero_shot: bool) -> None:
    """Compare all ways of composing, with their costs."""
    east = loaded(skill)
    north = east.turned(math.pi / 2)
    composed = east & north
    result: dict[str, Any] = {"skill": east.content_hash, "ways": {}}
    path = RESULTS / "quadruped.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def note(way: str, policy: Any, steps: int, seconds: float) -> None:
        found = {
            "steps": steps,
            "seconds": seconds,
            "best actions": measured(policy, episodes, True),
            "random actions": measured(policy, episodes, False),
        }
        result["ways"][way] = found
        click.echo(f"{way}: {json.dumps(found)}")
        path.write_text(json.dumps(result, indent=1) + "\n")

    note("east", east, 0, 0.0)
    # The mean of the two rewards is cos(45 degrees) times the speed north-east, at the same alpha.
    direct = math.cos(NORTHEAST) * east.turned(NORTHEAST)
    note("directly: east turned by 45 degrees, for the composed reward", direct, 0, 0.0)
    note("composed", composed, 0, 0.0)
    certificate = composed.certificate(TASK, episodes=8, steps=200)
    result["certificate"] = str(certificate)
    click.echo(result["certificate"])
    if zero_shot:
        path.write_text(json.dumps(result, indent=1) + "\n")
        return
    started = time.process_time()
    config = compose.CorrectionConfig(
        total_steps=steps, learning_starts=5_000, hidden=(200, 200), replay_capacity=steps
    )
    corrected = composed.corrected(TASK, config, hooks=_hooks())
    assert corrected.correction is not None
    corrected.correction.save(SKILLS / "northeast.npz")
    learned = corrected.correction.reports[-1].steps
    note("corrected", corrected, learned, time.process_time() - started)
    started = time.process_time()
    distill = compose.DistillConfig(total_steps=steps, replay_capacity=steps)
    one = corrected.distill(TASK, distill, name="run_northeast", hooks=_hooks())
    one.save(SKILLS / "run_northeast.h5")
    note("distilled", one, one.spec.steps, time.process_time() - started)


def _hooks() -> Any:
    from skillbank.training import Hooks

    last = [0.0]

    def show(progress: Any) -> None:
        if progress.seconds - last[0] > 30.0:
            last[0] = progress.seconds
            click.echo(f"{progress.steps}/{progress.total_steps} {progress.figures}")

    return Hooks(on_progress=show)


@commands.command()
@click.argument("skill")
@click.option("--repeats", default=300, show_default=True)
def speed(skill: str, repeats: int) -> None:
    """Time one composed action, batch 1, one thread."""
    east = loaded(skill)
    composed = east & east.turned(math.pi / 2)
    obs = np.random.default_rng(0).normal(size=(1, east.spec.observation_size)) * 0.3
    for what, policy in (
        ("composed", composed),
        ("composed, without refinement", composed.acting_with(refined=0)),
        ("composed, 3 Stein steps", composed.acting_with(stein_steps=3)),
        ("one skill", east),
    ):
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            policy.predict(obs)
            times.append(time.perf_counter() - started)
        median, least = float(np.median(times)), min(times)
        click.echo(
            f"{what}: median {1e3 * median:.2f} ms, best {1e3 * least:.2f} ms; "
            f"{100 * median / CONTROL_STEP:.0f} % of the {1e3 * CONTROL_STEP:.0f} ms step"
        )


@commands.command()
@click.argument("skill")
def ship(skill: str) -> None:
    """Write run_east and run_north, which is run_east turned, with cards and pictures."""
    east = loaded(skill)
    found = skillbank.evaluate(east, TASK, episodes=100, seed=2026)
    east = east.with_spec(
        name="run_east",
        description="Runs where heading 0 is, east: the component of its smoothed speed.",
        evaluations=(found.record(),),
    )
    east.save(SHIPPED / "run_east.h5")
    north = east.turned(math.pi / 2)
    north = north.with_spec(
        name="run_north",
        description="run_east, turned: runs 90 degrees to the left of heading 0.",
        parents=north.spec.parents,
    )
    north.save(SHIPPED / "run_north.h5")
    turned = skillbank.evaluate(north, TASK, episodes=100, seed=2026)
    for name, evaluation in (("run_east", found), ("run_north", turned)):
        figures.traces([("100 episodes", evaluation)], None, SHIPPED / f"{name}.png")
        card = model_card(storage.read(SHIPPED / f"{name}.h5"))
        (SHIPPED / f"{name}.md").write_text(f"{card}\n![100 episodes]({name}.png)\n")


if __name__ == "__main__":
    commands()

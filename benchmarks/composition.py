"""Composition on the point mass, over pairs and seeds, compared with skills trained directly.

    python benchmarks/composition.py run                 every unit that has no result yet
    python benchmarks/composition.py run --pair tricky --seeds 1
    python benchmarks/composition.py certificates        rank agreement with 21 exact gaps
    python benchmarks/composition.py table               the table, in docs/results/composition
    python benchmarks/composition.py draw                the pictures of docs/composition.md

A unit is one pair with one seed: its parts are trained (once for each seed), composed in each way,
and measured on the composed reward. Its result is one small JSON file in docs/results/composition,
so that a stopped study resumes where it stopped. One unit takes about two minutes on one free core;
seconds are CPU seconds of one thread.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from composition_tasks import GOALS_ID
from skillbank.envs import point_mass, simulation

import skillbank
from skillbank import compose, exact
from skillbank.allocator import keep_freed_blocks
from skillbank.config import recipe
from skillbank.evaluation import bootstrap_interval
from skillbank.skill import Skill
from skillbank.task import Task

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "composition"
SKILLS = ROOT / "runs" / "composition"
RUN_ID = "skillbank/PointMassRunToward-v0"
SEEDS = 5
EPISODES = 100
KINDS = ("best", "random")  # a policy's best actions, or its random ones
POINT_MASS = {RUN_ID: recipe(RUN_ID), GOALS_ID: recipe("PointMassReach")}
SMALL, DISCOUNT = POINT_MASS[RUN_ID].architecture, POINT_MASS[RUN_ID].discount
LEARNED: dict[str, Any] = {
    "total_steps": 16_000,
    "learning_starts": 512,
    "batch_size": 128,
    "hidden": (64, 64),
    "target_rate": 0.1,
    "replay_capacity": 50_000,
}


class Wish(NamedTuple):
    """A reward of the point mass."""

    env_id: str
    kwargs: dict[str, Any]
    scale: float = 1.0  # times the environment's reward


def run(degrees: float, scale: float = 1.0) -> Wish:
    return Wish(RUN_ID, {"direction": math.radians(degrees)}, scale)


def goals(**amounts: float) -> Wish:
    return Wish(GOALS_ID, {"amounts": amounts})


PARTS = {
    "east": run(0.0),
    "north": run(90.0),
    "northwest": run(135.0),
    "left": goals(left=10.0),
    "right": goals(right=10.0),
    "left_or_up": goals(left=10.0, up=10.0),
    "right_or_up": goals(right=10.0, up=10.0),
    "left_or_less": goals(left=10.0, up=7.0),
    "right_or_less": goals(right=10.0, up=7.0),
}


class Pair(NamedTuple):
    """Two parts, how they are composed, and the reward of the composition."""

    parts: tuple[str, str]
    make: Callable[[Skill, Skill], compose.Composed]
    wish: Wish


# The weighted sum of two speeds is the speed along w_1 d_1 + w_2 d_2, times that vector's length.
PAIRS = {
    "northeast": Pair(("east", "north"), lambda a, b: a & b, run(45.0, math.cos(math.pi / 4))),
    "obtuse": Pair(
        ("east", "northwest"), lambda a, b: a & b, run(67.5, math.cos(math.radians(67.5)))
    ),
    "but_not": Pair(
        ("east", "north"),
        lambda a, b: a - 0.5 * b,
        run(math.degrees(math.atan2(-0.5, 1.0)), math.hypot(1.0, 0.5)),
    ),
    "left_right": Pair(("left", "right"), lambda a, b: a & b, goals(left=5.0, right=5.0)),
    "left_and_up": Pair(
        ("left_or_up", "right_or_up"), lambda a, b: a & b, goals(left=5.0, right=5.0, up=10.0)
    ),
    "tricky": Pair(
        ("left_or_less", "right_or_less"), lambda a, b: a & b, goals(left=5.0, right=5.0, up=7.0)
    ),
    "either": Pair(
        ("left", "right"),
        lambda a, b: compose.any_of([a, b], shared_goals=True),
        goals(left=10.0, right=10.0),
    ),
}


def trained(wish: Wish, name: str, seed: int) -> Skill:
    """A skill for a reward, trained once and then loaded from its file."""
    path = SKILLS / f"{name}-{seed}.h5"
    if not path.is_file():
        config = POINT_MASS[wish.env_id].model_copy(update={"reward_scale": wish.scale})
        skillbank.pretrain(wish.env_id, config, seed=seed, name=name, env_kwargs=wish.kwargs).save(
            path
        )
    return Skill.load(path)


def measured(policy: Any, wish: Wish, seed: int) -> dict[str, Any]:
    """Returns on a reward, starting in the middle, by the best and by random actions."""
    middle = {"anywhere": False} if wish.env_id == GOALS_ID else {}
    found: dict[str, Any] = {}
    for kind, deterministic in zip(KINDS, (True, False), strict=True):
        e = skillbank.evaluate(
            policy,
            wish.env_id,
            episodes=EPISODES,
            seed=1000 + seed,
            deterministic=deterministic,
            **wish.kwargs,
            **middle,
        )
        returns = wish.scale * e.returns
        found[kind] = {"return": float(returns.mean()), "interval": bootstrap_interval(returns)}
        if "goal" in e.metrics:
            counts = np.bincount(e.metrics["goal"].astype(int) + 1, minlength=5)
            found[kind]["goals"] = dict(
                zip(("none", "right", "up", "left", "down"), counts.tolist(), strict=True)
            )
    return found


class Anyhow:
    """Uniform actions, which are 0 % in the table; the direct skill is 100 %."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, None]:
        """An action for every observation [B, S]."""
        del deterministic
        return self.generator.uniform(-1.0, 1.0, (len(observation), 2)), None


def nearer(policy: Any, wish: Wish, seed: int) -> float:
    """How often the reached goal is the nearer of left and right, starting anywhere."""
    e = skillbank.evaluate(policy, wish.env_id, episodes=EPISODES, seed=2000 + seed, **wish.kwargs)
    starts = np.array([trace[0, 0] for trace in e.traces])
    away = np.abs(starts) > 0.3  # in the middle there is no nearer one
    right = e.metrics["goal"] == 0
    left = e.metrics["goal"] == 2
    return float(np.where(starts > 0, right, left)[away].mean())


def run_unit(name: str, seed: int) -> dict[str, Any]:
    """Compose a pair in every way, and measure each."""
    torch.set_num_threads(1)
    pair = PAIRS[name]
    one, two = (trained(PARTS[part], part, seed) for part in pair.parts)
    result: dict[str, Any] = {"pair": name, "seed": seed, "ways": {}}
    wish = pair.wish
    where: dict[str, Any] = {"env_id": wish.env_id, "env_kwargs": wish.kwargs, "seed": seed}

    def note(way: str, policy: Any, started: float, steps: int) -> None:
        seconds = time.process_time() - started
        facts = {"seconds": seconds, "steps": steps} | measured(policy, wish, seed)
        if name == "either":
            facts["nearer"] = nearer(policy, wish, seed)
        result["ways"][way] = facts
        click.echo(f"{name} {seed} {way}: {facts}")

    note("anyhow", Anyhow(seed), time.process_time(), 0)
    for part, skill in zip(pair.parts, (one, two), strict=True):
        note(f"part {part}", skill, time.process_time(), 0)
    started = time.process_time()
    composed = pair.make(one, two)
    note("composed", composed, started, 0)
    certificate = composed.certificate(episodes=16, **where)
    result["certificate"] = {"loss": certificate.loss, "text": str(certificate)}
    started = time.process_time()
    corrected = composed.corrected(config=compose.CorrectionConfig(**LEARNED), **where)
    note("corrected", corrected, started, _steps(corrected))
    after = corrected.certificate(episodes=16, **where)
    result["certificate corrected"] = {"loss": after.loss, "text": str(after)}
    started = time.process_time()
    config = compose.DistillConfig(
        architecture=SMALL, total_steps=16_000, batch_size=64, replay_capacity=50_000
    )
    skill = corrected.distill(config=config, name=name, **where)
    skill.save(SKILLS / f"{name}-{seed}.h5")
    note("distilled", skill, started, skill.spec.steps)
    started = time.process_time()
    improve = compose.ImproveConfig(**LEARNED, reward_scale=wish.scale)
    best = compose.improve((one, two), config=improve, **where)
    note("best of parts", best, started, improve.total_steps)
    started = time.process_time()
    direct = trained(wish, f"direct_{name}", seed)
    note("direct", direct, started, direct.spec.steps)
    return result


def _steps(composed: compose.Composed) -> int:
    assert composed.correction is not None
    return composed.correction.reports[-1].steps


# The certificate against exact gaps.

GRID, CELLS = np.linspace(-2.3, 2.3, 27), 15


def exact_gap(composed: compose.Composed, table: exact.Table, states: Any, actions: Any) -> Any:
    """``V* - V^pi`` and V* at rest, for the rewards that make its parts exactly soft-optimal."""
    alpha, gamma = composed.spec.temperature, composed.spec.discount
    obs = states.astype(np.float32)
    every = np.broadcast_to(actions, (len(obs), *actions.shape))
    measure = table.log_measure

    def reward_of(skill: Skill) -> Any:
        q = skill.q(obs, every).astype(float)
        return q - gamma * table.expected(exact.soft_value(q, measure, alpha))

    leaves = compose.expression.leaves(composed.node)
    rewards = {leaf.skill.spec.name: reward_of(leaf.skill) for leaf in leaves}
    process = exact.Table(
        composed.reward(rewards), table.successor, table.probability, gamma, measure
    )
    best = exact.soft_policy_iteration(process, alpha).value
    log_pi = exact.log_policy(composed.q(obs, every).astype(float), measure, alpha)
    q = exact.soft_evaluation(process, log_pi, alpha)
    kept = (np.exp(log_pi + measure) * (q - alpha * log_pi)).sum(1)
    rest = int(np.argmin(np.abs(states).sum(1)))
    return float(best[rest] - kept[rest]), float(best[rest])


def velocity_table() -> tuple[exact.Table, Any, Any]:
    """The point mass on an open floor as a table; its velocity is the whole state."""
    # The simulator's arithmetic: implicit damping, five times per step.
    damping = point_mass.MASS / point_mass.RISE_TIME
    h = simulation.PHYSICS_TIMESTEP / point_mass.MASS

    def step(velocity: Any, action: Any) -> tuple[Any, Any, Any]:
        length = np.maximum(1.0, np.hypot(*action.T))[:, None]
        force = damping * point_mass.MAX_SPEED * action / length
        after = velocity
        for _ in range(simulation.SUBSTEPS):
            after = (after + h * force) / (1.0 + h * damping)
        limit = GRID[-1]
        return np.clip(after, -limit, limit), np.zeros(len(after)), np.zeros(len(after), bool)

    _check_against_simulator(step)
    return exact.discretise(step, (GRID, GRID), 2, CELLS, DISCOUNT)


def _check_against_simulator(step: Any) -> None:
    task = Task(RUN_ID, 4)
    velocity = task.reset(seed=0).double().numpy()
    action = np.random.default_rng(0).uniform(-1.0, 1.0, (4, 2))
    np.testing.assert_allclose(step(velocity, action)[0], task.step(action).next_obs, atol=1e-5)
    task.close()


def certificate_pairs(seed: int) -> list[compose.Composed]:
    """21 compositions of three skills."""
    east, north, west = (trained(PARTS[n], n, seed) for n in ("east", "north", "northwest"))
    pairs = [(east, north), (east, west), (north, west)]
    weights = [(0.5, 0.5), (0.2, 0.8), (0.8, 0.2), (1.0, 1.0), (1.0, -0.5), (-0.5, 1.0)]
    made = [compose.add([(a, u), (b, v)]) for a, b in pairs for u, v in weights]
    made += [east & north & west, east + north + west, east + north - 0.5 * west]
    return made


INTRODUCTION = f"""\
# Composition on the point mass

Pairs of skills, composed in every way and measured on the composed reward, compared with a skill
trained on it directly; [composition.md](../../composition.md) explains the ways.
Generated by `python benchmarks/composition.py table` from the result files beside this page, one
for each pair and seed.

- *best actions*, *random actions*: the return of {EPISODES} episodes in which every action is the
  best of its state, or drawn from the policy; mean over the seeds, with its 95 %
  bootstrap interval.
- *of direct*: 0 % is *anyhow*, uniformly random actions; 100 % is *direct*.
- *part X*: that skill alone. *best of parts*: both policies are evaluated on the composed reward,
  and the better one is taken in each state.
- *steps*, *CPU s*: environment steps and seconds of one core that the way itself took, without
  the training of the two parts, each of which was trained like *direct* on its own reward.
- *distilled*: made from *corrected*.
"""


@click.group()
def commands() -> None:
    """Composition on the point mass."""
    keep_freed_blocks()


@commands.command("run")
@click.option("--pair", "names", multiple=True, type=click.Choice(list(PAIRS)))
@click.option("--seeds", default=SEEDS, show_default=True)
def run_command(names: tuple[str, ...], seeds: int) -> None:
    """Run every unit that has no result yet, seed by seed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in names or PAIRS:
            path = RESULTS / f"{name}-{seed}.json"
            if not path.is_file():
                path.write_text(json.dumps(run_unit(name, seed), indent=1) + "\n")


@commands.command()
@click.option("--seed", default=0, show_default=True)
def certificates(seed: int) -> None:
    """Compare the certificate's loss with the exact gap, by rank correlation."""
    from scipy.stats import spearmanr

    torch.set_num_threads(1)
    table, states, actions = velocity_table()
    rows = []
    for composed in certificate_pairs(seed):
        found = composed.certificate(RUN_ID, episodes=8, seed=seed)
        gap, best = exact_gap(composed, table, states, actions)
        rows.append(
            {
                "name": composed.spec.name,
                "loss": found.loss,
                "shortfall": float(found.shortfall.mean()),
                "gap": gap,
                "value": best,
                "verdict": found.verdict,
            }
        )
        click.echo(rows[-1])
    gaps = [row["gap"] for row in rows]
    agreement = {
        what: float(spearmanr([row[what] for row in rows], gaps).statistic)
        for what in ("loss", "shortfall")
    }
    click.echo(agreement)
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"seed": seed, "pairs": rows, "spearman": agreement}, indent=1)
    (RESULTS / f"certificates-{seed}.json").write_text(text + "\n")


@commands.command("table")
def table_command() -> None:
    """Write the means over seeds, with 95 % bootstrap intervals."""
    lines = []
    for name, pair in PAIRS.items():
        results = [json.loads(p.read_text()) for p in sorted(RESULTS.glob(f"{name}-?.json"))]
        if not results:
            continue
        lines += [
            f"\n### {name}: {', '.join(pair.parts)} ({len(results)} seeds)\n",
            "| way | best actions | of direct | random actions | of direct | steps | CPU s |",
            "|---|---|---|---|---|---|---|",
        ]
        returns = {
            way: {k: np.array([r["ways"][way][k]["return"] for r in results]) for k in KINDS}
            for way in results[0]["ways"]
        }
        for way, by_kind in returns.items():
            cells = []
            for kind, values in by_kind.items():
                low, high = bootstrap_interval(values)
                zero, one = (returns[w][kind].mean() for w in ("anyhow", "direct"))
                share = 100.0 * (values.mean() - zero) / (one - zero)
                cells += [f"{values.mean():.1f} [{low:.1f}, {high:.1f}]", f"{share:.0f} %"]
            facts = [r["ways"][way] for r in results]
            seconds = np.mean([f["seconds"] for f in facts])
            lines.append(f"| {way} | {' | '.join(cells)} | {facts[0]['steps']} | {seconds:.0f} |")
    text = "\n".join([INTRODUCTION.rstrip("\n"), *lines]) + "\n"
    (RESULTS / "README.md").write_text(text)
    click.echo(text)


@commands.command()
def draw() -> None:
    """Draw energies and samples of compositions at rest, and traces."""
    from matplotlib.figure import Figure

    from skillbank import figures

    torch.set_num_threads(1)
    east, north = (trained(PARTS[name], name, 0) for name in ("east", "north"))
    shown = {
        "east": east,
        "north": north,
        "east & north": east & north,
        "east - 0.5 * north": east - 0.5 * north,
        "east | north": compose.any_of([east, north], shared_goals=True),
    }
    line = np.linspace(-1.0, 1.0, 61)
    actions = np.stack(np.meshgrid(line, line), -1).reshape(1, -1, 2)
    rest = np.zeros((1, 2), np.float32)
    figure = Figure(figsize=(13.0, 3.0), layout="constrained")
    for axes, (name, skill) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        energy = skill.energy(rest, actions)[0].reshape(61, 61)
        axes.contourf(line, line, energy - energy.min(), levels=20, cmap="viridis_r")
        axes.plot(*skill.sample(rest, 150, seed=0)[0].T, ".", color="tab:red", markersize=2.5)
        axes.set(title=name, aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axes.set_xlabel("push east")
    figure.axes[0].set_ylabel("push north")
    pictures = ROOT / "docs" / "composition"
    pictures.mkdir(exist_ok=True)
    figure.savefig(pictures / "energies.png", dpi=120)
    panels = [
        (name, skillbank.evaluate(skill, RUN_ID, episodes=30, seed=0))
        for name, skill in shown.items()
    ]
    figures.traces(panels, None, pictures / "traces.png")


if __name__ == "__main__":
    commands()

"""The main job over seeds: pretraining, then fine-tuning by each schedule and from scratch.

    python benchmarks/main_job.py run --workers 2        every unit that has no result yet
    python benchmarks/main_job.py draw                   the tables and the pictures of its README

A unit is one training with its evaluation; its result is one small JSON file in
docs/results/main_job, so that a stopped study goes on where it was. Times are wall clock and CPU
seconds of one thread.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
from running import run_missing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "main_job"
SKILLS = ROOT / "runs" / "main_job"
TASKS = ("QuadrupedHallwayWide", "QuadrupedHallwayNarrow", "QuadrupedUMaze")
WAYS = ("anchored", "paper", "scratch")
SEEDS = (0, 1, 2)
EPISODES = {"QuadrupedRun": 400, "MultiGoal": 200}  # 100 for the others
MULTI_GOAL = ("default", "stein", "map")  # the recipe; the paper's objective; its kernel off
MULTI_GOAL_SEEDS = range(5)


def units() -> list[str]:
    """Every unit's name, pretraining first."""
    pretraining = [f"QuadrupedRun-pretrain-{seed}" for seed in SEEDS]
    goals = [f"MultiGoal-{way}-{seed}" for seed in MULTI_GOAL_SEEDS for way in MULTI_GOAL]
    return pretraining + [f"{t}-{w}-{s}" for s in SEEDS for t in TASKS for w in WAYS] + goals


def run_unit(unit: str) -> dict[str, Any]:
    """Train, evaluate, and return what was measured."""
    import torch

    import skillbank
    from skillbank.allocator import keep_freed_blocks
    from skillbank.config import FinetuneConfig, finetune_recipe, recipe

    keep_freed_blocks()
    torch.set_num_threads(1)
    task, way, seed = unit.split("-")
    started, cpu = time.perf_counter(), time.process_time()
    before = None
    if way == "pretrain":
        skill = skillbank.pretrain(task, recipe(task), seed=int(seed), name="run_anywhere")
    elif task == "MultiGoal":
        changes: dict[str, Any] = {
            "default": {},
            "stein": {"objective": "stein", "particles": 16},
            "map": {"objective": "map", "proposals": "uniform", "value_samples": 32},
        }[way]
        config = recipe(task).model_copy(update=changes)
        skill = skillbank.pretrain(task, config, seed=int(seed), name="multi_goal")
    elif way == "scratch":
        budget = finetune_recipe(task)
        config = recipe(task).model_copy(
            update={"total_steps": budget.total_steps, "learning_starts": budget.learning_starts}
        )
        skill = skillbank.pretrain(task, config, seed=int(seed), name="scratch")
    else:
        parent = skillbank.Bank().load("run_anywhere")
        config = finetune_recipe(task, schedule=way)
        assert isinstance(config, FinetuneConfig)
        before = summary(skillbank.evaluate(parent, task, episodes=100, seed=12345))
        started, cpu = time.perf_counter(), time.process_time()
        skill = skillbank.finetune(parent, task, config, seed=int(seed))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    SKILLS.mkdir(parents=True, exist_ok=True)
    skill.save(SKILLS / f"{unit}.h5")
    after = skillbank.evaluate(
        skill,
        task,
        episodes=EPISODES.get(task, 100),
        seed=12345,
        nominal_start=way == "pretrain" or task == "MultiGoal",  # one pose
    )
    result = {
        "unit": unit,
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "steps": skill.spec.steps,
        "updates": skill.spec.updates,
        "before": before,
        "after": summary(after),
        "curve": [[p.steps, round(p.mean_return, 3)] for p in skill.spec.learning_curve],
        "config": skill.spec.config.model_dump(mode="json"),
        "versions": skill.spec.versions,
    }
    if task == "MultiGoal":
        goals = after.metrics["goal"]
        result["goals"] = [float((goals == goal).mean()) for goal in range(4)]
    if way == "pretrain":
        result["sectors"] = after.sectors.round(4).tolist()
    return result


def summary(evaluation: Any) -> dict[str, Any]:
    """Mean return with its interval, and the mean of each metric."""
    return evaluation.record().model_dump(mode="json")  # type: ignore[no-any-return]


@click.group()
def main() -> None:
    """Run the study, or draw what it found."""


@main.command()
@click.option("--workers", default=2, show_default=True, help="Processes at once, one thread each.")
@click.option("--only", default="", help="Only units whose name contains this.")
def run(workers: int, only: str) -> None:
    """Run every unit that has no result yet."""
    run_missing(__file__, units(), RESULTS, only, workers)


@main.command()
@click.argument("name", type=click.Choice(units()))
def unit(name: str) -> None:
    """Run one unit and write its result."""
    result = run_unit(name)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n")


TABLES = ("<!-- tables -->", "<!-- end of the tables -->")  # around what draw writes
FIGURE = {"QuadrupedUMaze": ("success", 100.0, "%")}  # progress in m for the hallways


@main.command()
def draw() -> None:
    """Put the tables into the README, and draw the learning curves and figure 1."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    found = {p.stem: json.loads(p.read_text()) for p in sorted(RESULTS.glob("*.json"))}
    lines = [
        "| task | way | seed | before | after | falls "
        "| return before, lowest, after | wall s | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in found.items():
        task, way, seed = name.split("-")
        if task == "MultiGoal":
            continue
        metric, factor, sign = FIGURE.get(task, ("progress", 1.0, "m"))
        if way == "pretrain":
            metric = "net_distance"
        before, after = (result[k] and result[k]["metrics"] for k in ("before", "after"))
        shown = f"{factor * before[metric]:.1f} {sign}" if before else ""
        returns = [point[1] for point in with_start(result)] + [result["after"]["mean_return"]]
        course = f"{returns[0]:.0f}, {min(returns):.0f}, {returns[-1]:.0f}" if before else ""
        lines.append(
            f"| {task} | {way} | {seed} | {shown} | {factor * after[metric]:.1f} {sign} "
            f"| {100 * after['fallen']:.0f} % | {course} | {result['wall_seconds']:.0f} "
            f"| {result['cpu_seconds']:.0f} |"
        )
    lines.append(
        "\n| multi-goal | seed | shares of the four goals | their number | return | CPU s |"
    )
    lines.append("|---|---|---|---|---|---|")
    for name, result in found.items():
        if "goals" in result:
            _, way, seed = name.split("-")
            shares = " ".join(f"{share:.2f}" for share in result["goals"])
            share = np.array([share for share in result["goals"] if share])
            number = np.exp(-(share * np.log(share)).sum())  # as many, equally often
            mean = result["after"]["mean_return"]
            seconds = result["cpu_seconds"]
            lines.append(
                f"| {way} | {seed} | {shares} | {number:.1f} | {mean:.0f} | {seconds:.0f} |"
            )
    readme = RESULTS / "README.md"
    before, _, rest = readme.read_text().partition(TABLES[0])
    readme.write_text(
        "\n".join([before + TABLES[0], "", *lines, "", TABLES[1]]) + rest.partition(TABLES[1])[2]
    )
    figure, axes = plt.subplots(1, len(TASKS), figsize=(4.2 * len(TASKS), 3.2), squeeze=False)
    colours = {"anchored": "tab:blue", "paper": "tab:orange", "scratch": "tab:gray"}
    for axis, task in zip(axes[0], TASKS, strict=True):
        for way in WAYS:
            for seed in SEEDS:
                result = found.get(f"{task}-{way}-{seed}")
                if result is None:
                    continue
                curve = np.asarray(with_start(result))
                axis.plot(
                    curve[:, 0] / 1e3,
                    curve[:, 1],
                    color=colours[way],
                    label=way if seed == SEEDS[0] else None,
                )
        axis.set(title=task, xlabel="environment steps / 1000", ylabel="return")
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(RESULTS / "curves.png", dpi=110)
    draw_figure_1()


def with_start(result: dict[str, Any]) -> list[list[float]]:
    """The learning curve, from the skill as it was before fine-tuning."""
    before = result["before"]
    curve: list[list[float]] = result["curve"]
    return [[0, before["mean_return"]], *curve] if before else curve


def draw_figure_1() -> None:
    """The paper's figure 1 for each way, where its first seed's skill is still there."""
    import skillbank
    from skillbank import figures
    from skillbank.task import Task

    for way in MULTI_GOAL:
        path = SKILLS / f"MultiGoal-{way}-0.h5"
        if path.is_file():
            skill = skillbank.Skill.load(path)
            found = skillbank.evaluate(skill, "MultiGoal", episodes=60, seed=1)
            task = Task("MultiGoal", 1)
            plane: Any = task.envs.unwrapped
            picture = RESULTS / f"figure_1_{way}.png"
            figures.multi_goal(skill, found, plane.place_reward, plane.goal_places, picture)
            task.close()


if __name__ == "__main__":
    main()

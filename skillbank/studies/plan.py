"""What to run for each of the paper's figures, and for the results beyond the paper.

Two budgets: ``full`` trains by the recipes that users get (in the U-maze stretched in proportion);
``quick`` takes minutes per unit, with the recipes' schedules shortened in proportion, to show that
everything works and which trend to expect. Within an experiment every algorithm gets the same
number of environment steps, unless ``STEPS_OF`` says otherwise.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from skillbank.config import (
    Architecture,
    FinetuneConfig,
    PretrainConfig,
    finetune_recipe,
    recipe,
    shortened,
)
from skillbank.studies.unit import BANK, Budget, RivalConfig, Unit, shipped_reference

# Environment steps of each experiment by budget.
STEPS: dict[str, dict[Budget, int]] = {
    "MultiGoal": {"quick": 12_000, "full": 40_000},
    "SwimmerFinishLine": {"quick": 60_000, "full": recipe("SwimmerFinishLine").total_steps},
    "QuadrupedMaze": {"quick": 80_000, "full": recipe("QuadrupedMaze").total_steps},
    "QuadrupedRun": {"quick": 80_000, "full": recipe("QuadrupedRun").total_steps},
    "QuadrupedHallwayWide": {
        "quick": 16_000,
        "full": finetune_recipe("QuadrupedHallwayWide").total_steps,
    },
    "QuadrupedHallwayNarrow": {
        "quick": 16_000,
        "full": finetune_recipe("QuadrupedHallwayNarrow").total_steps,
    },
    "QuadrupedUMaze": {"quick": 40_000, "full": 100_000},  # over the recipe's: baselines are slow
    "PointMassReach": {"quick": 3_000, "full": 6_000},  # a smoke test
}
# The other algorithms train this experiment from scratch; this one starts from a pretrained skill.
STEPS_OF: dict[tuple[str, str], dict[Budget, int]] = {
    ("QuadrupedMaze", "anchored"): {
        "quick": 40_000,
        "full": finetune_recipe("QuadrupedMaze").total_steps,
    },
}
FINAL_EPISODES = {"MultiGoal": 200, "QuadrupedRun": 400, "PointMassReach": 16}
TRACED = ("MultiGoal", "QuadrupedRun", "QuadrupedMaze", "QuadrupedUMaze")
# Evaluated from one nominal pose, where starts have a random heading or the paper has a single
# start: differences between episodes are then the policy's choice.
NOMINAL = ("MultiGoal", "QuadrupedRun", "SwimmerFinishLine")
WATCHED = {"SwimmerFinishLine": "progress", "QuadrupedMaze": "distance"}
FINISH_LINE = 0.8  # metres forward, of the swimmer's task
FINETUNED = ("QuadrupedHallwayWide", "QuadrupedHallwayNarrow", "QuadrupedUMaze")
TEMPERATURES = (10.0, 1.0, 0.1, 0.01)  # of figure 7
SEEDS = tuple(range(10))
FEW_SEEDS = SEEDS[:3]

# The compared kinds of sampler, as changes to the default recipe.
_STEIN: dict[str, Any] = {"objective": "stein", "particles": 16}
SAMPLERS: dict[str, dict[str, Any]] = {
    "stein": _STEIN,
    "noise": _STEIN
    | {
        "architecture": Architecture(sampler="noise"),
        "proposals": "uniform",
        "value_samples": 32,
    },
    "map": {"objective": "map", "proposals": "uniform", "value_samples": 32},
}
# Stable-Baselines3's own target updates. Of the paper's hard copies, figure 5's short trainings see
# only 39 or 98.
SOFT: dict[str, Any] = {"target_period": 0, "target_rate": 0.005}
# Fine-tuned without symmetries, from a skill that was pretrained without them.
UNSYMMETRIC = ("anchored_no_symmetry", "paper_no_symmetry")
DDPGS = ("ddpg", "ddpg_pretrained", "ddpg_soft", "ddpg_soft_pretrained")


class Figure(NamedTuple):
    """A figure of the paper, or a table that is not in it."""

    title: str
    runs: tuple[tuple[str, tuple[str, ...]], ...]  # experiments, each with its algorithms
    seeds: tuple[int, ...] = SEEDS


FIGURES: dict[str, Figure] = {
    "1": Figure("Multi-goal", (("MultiGoal", ("default", "paper", "map", "ddpg")),)),
    "3a": Figure("Swimmer with a finish line", (("SwimmerFinishLine", ("default", "ddpg")),)),
    "3b": Figure("Maze", (("QuadrupedMaze", ("anchored", "default", "ddpg")),)),
    "5": Figure(
        "Fine-tuning",
        tuple((task, ("anchored", "paper", "default", *DDPGS, "sac")) for task in FINETUNED),
    ),
    "6": Figure("Region explored by the swimmer", (("SwimmerFinishLine", ("default", "ddpg")),)),
    "7": Figure(
        "Temperature",
        (("QuadrupedRun", tuple(f"alpha_{alpha:g}" for alpha in TEMPERATURES)),),
        FEW_SEEDS,
    ),
    "beyond": Figure(
        "What is not in the paper",
        (
            ("QuadrupedRun", ("default", "no_symmetry", "stein", "noise")),
            ("MultiGoal", ("default", "stein", "noise", "map")),
            (
                "QuadrupedHallwayNarrow",
                ("anchored", "paper", "default", *UNSYMMETRIC, "sac", "sac_symmetry"),
            ),
            ("QuadrupedUMaze", ("anchored", "paper", "anchored_no_symmetry", "sac")),
        ),
        FEW_SEEDS,
    ),
    "smoke": Figure(
        "Check of the installation",
        (("PointMassReach", ("default", "ddpg", "anchored")),),
        FEW_SEEDS[:2],
    ),
}
PAPER = tuple(name for name in FIGURES if name != "smoke")


def units(
    figures: Iterable[str],
    budget: Budget,
    seeds: Iterable[int] | None = None,
    only: Iterable[str] | None = None,
) -> tuple[Unit, ...]:
    """All units that the figures need, each once, parents included; ordered by seed, then figure.

    Args:
        figures: Keys of ``FIGURES``.
        budget: ``quick`` or ``full``.
        seeds: The seeds; None: each figure's own.
        only: The algorithms; None: all.
    """
    found: dict[str, Unit] = {}
    only = None if only is None else tuple(only)
    for name in figures:
        figure = FIGURES[name]
        for seed in figure.seeds if seeds is None else tuple(seeds):
            for experiment, algorithms in figure.runs:
                for algorithm in algorithms:
                    if only is not None and algorithm not in only:
                        continue
                    _add(found, unit(experiment, algorithm, seed, budget))
    # Low seeds of everything first, so that an unfinished study already covers every figure.
    return tuple(sorted(found.values(), key=lambda unit: unit.seed))


def _add(found: dict[str, Unit], made: Unit) -> None:
    if made.parent_unit is not None:
        _add(found, made.parent_unit)
    found[made.name] = made


def unit(experiment: str, algorithm: str, seed: int, budget: Budget) -> Unit:
    """The definition of one unit.

    Raises:
        KeyError: There is no such experiment or algorithm.
    """
    steps = STEPS_OF.get((experiment, algorithm), STEPS[experiment])[budget]
    learning = _learning(experiment, algorithm, steps)
    rival = isinstance(learning, RivalConfig)
    parent = _parent(experiment, algorithm, seed, budget)
    drawn = experiment in TRACED and seed in FEW_SEEDS
    return Unit(
        experiment=experiment,
        algorithm=algorithm,
        seed=seed,
        budget=budget,
        env_id=f"skillbank/{experiment}-v0",
        learning=learning,
        parent=parent,
        parent_unit=None if parent is None else _parent_unit(parent, seed, budget),
        segment_steps=_segment(learning),
        evaluations=4 if experiment == "PointMassReach" else 20,
        final_episodes=FINAL_EPISODES.get(experiment, 100),
        nominal_start=experiment in NOMINAL,
        deterministic=rival,
        watched=WATCHED.get(experiment),
        traces=40 if drawn else 0,
        action_values=experiment == "MultiGoal" and seed == 0,
    )


def _parent_unit(parent: str, seed: int, budget: Budget) -> Unit | None:
    """A parent's definition; None for a skill that ships with skillbank."""
    if shipped_reference(parent):
        return None
    experiment, _, algorithm = parent.rsplit("-", 1)[0].partition("/")
    return unit(experiment, algorithm, seed, budget)


def _parent(experiment: str, algorithm: str, seed: int, budget: Budget) -> str | None:
    if algorithm in DDPGS and algorithm.endswith("_pretrained"):
        return f"QuadrupedRun/{algorithm.removesuffix('_pretrained')}-{seed}"
    if algorithm in UNSYMMETRIC:
        return f"QuadrupedRun/no_symmetry-{seed}"
    if algorithm not in ("anchored", "paper") or experiment == "MultiGoal":
        return None
    if experiment == "PointMassReach":
        return f"PointMassReach/default-{seed}"
    # In full every seed pretrains its own skill; in quick the shipped one is good enough.
    return f"{BANK}run_anywhere" if budget == "quick" else f"QuadrupedRun/default-{seed}"


def _learning(
    experiment: str, algorithm: str, steps: int
) -> PretrainConfig | FinetuneConfig | RivalConfig:
    begins = _begins(experiment, steps)
    if algorithm in DDPGS:
        ddpg = RivalConfig(total_steps=steps, learning_starts=begins or min(10_000, steps // 4))
        return ddpg.changed(**SOFT) if "soft" in algorithm else ddpg
    if algorithm in ("sac", "sac_symmetry"):  # the library's own defaults
        return RivalConfig(
            algorithm="sac",
            total_steps=steps,
            learning_starts=100,
            hidden=(256, 256),
            batch_size=256,
            critic_learning_rate=3e-4,
            actor_learning_rate=3e-4,
            noise_sigma=0.0,
            symmetry=algorithm == "sac_symmetry",
            **SOFT,
        )
    if experiment == "MultiGoal" and algorithm == "paper":
        return shortened(recipe(experiment, "paper"), steps)
    if algorithm in ("anchored", "paper", *UNSYMMETRIC):
        schedule: Any = algorithm.removesuffix("_no_symmetry")
        finetuning = finetune_recipe(experiment, schedule=schedule)
        return shortened(finetuning.changed(symmetry=algorithm == schedule), steps)
    changes = dict(_CHANGES[algorithm])
    if begins is not None:  # from scratch, but updated as early and as often as in fine-tuning
        changes["steps_per_update"] = finetune_recipe(experiment).steps_per_update
        changes["learning_starts"] = begins
    return shortened(recipe(experiment).changed(**changes), steps)


def _begins(experiment: str, steps: int) -> int | None:
    """Steps before the first update in experiments that compare with fine-tuning; else None."""
    if experiment not in FINETUNED:
        return None
    return shortened(finetune_recipe(experiment), steps).learning_starts


_CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "no_symmetry": {"symmetry": False},
    # As in the paper: one alpha throughout, and no use of the body's symmetry.
    **{
        f"alpha_{a:g}": {"temperature": a, "first_temperature": None, "symmetry": False}
        for a in TEMPERATURES
    },
    **SAMPLERS,
}


def _segment(learning: PretrainConfig | FinetuneConfig | RivalConfig) -> int:
    """Steps between checkpoints: a few minutes' work, and several episodes of every copy."""
    if isinstance(learning, RivalConfig):
        return 20_000
    return max(10_000, 4_000 * learning.num_envs)


_LABELS = {
    "anchored": "ours, anchored",
    "paper": "ours, paper's schedule",
    "default": "ours, from scratch",
    "no_symmetry": "ours, without symmetry",
    "anchored_no_symmetry": "ours, anchored, without symmetry",
    "paper_no_symmetry": "ours, paper's schedule, without symmetry",
    "stein": "ours, flow and Stein",
    "noise": "ours, noise-fed and Stein",
    "map": "kernel off",
    "ddpg": "DDPG",
    "ddpg_pretrained": "DDPG, pretrained",
    "ddpg_soft": "DDPG, soft copies",
    "ddpg_soft_pretrained": "DDPG, soft copies, pretrained",
    "sac": "SAC",
    "sac_symmetry": "SAC, with symmetries",
}
_LABELS_OF = {  # in experiments without fine-tuning
    ("MultiGoal", "default"): "ours, default",
    ("MultiGoal", "paper"): "ours, paper preset",
    ("QuadrupedRun", "default"): "ours, pretraining",
    ("QuadrupedRun", "ddpg"): "DDPG, pretraining",
    ("QuadrupedRun", "ddpg_soft"): "DDPG, soft copies, pretraining",
}


def label(experiment: str, algorithm: str) -> str:
    """An algorithm's label in pictures and tables."""
    if algorithm.startswith("alpha_"):
        return f"ours, alpha {algorithm.removeprefix('alpha_')}, no symmetry"
    return _LABELS_OF.get((experiment, algorithm)) or _LABELS[algorithm]


# CPU seconds per 1000 environment steps on one core of 2024, evaluation included, for estimates.
SECONDS = {"ours": 1.8, "ddpg": 3.2, "sac": 20.0}
SECONDS_OF = {
    ("MultiGoal", "paper"): 55.0,
    ("MultiGoal", "map"): 4.4,
    ("MultiGoal", "stein"): 6.0,
    ("MultiGoal", "noise"): 10.0,
    ("QuadrupedMaze", "default"): 1.05,
    **{
        (task, a): 5.5
        for task in FINETUNED[:2]
        for a in ("anchored", "paper", "default", *UNSYMMETRIC)
    },
    **{(task, "anchored"): 7.5 for task in ("QuadrupedUMaze", "QuadrupedMaze")},
    ("QuadrupedUMaze", "anchored_no_symmetry"): 7.5,
    ("QuadrupedUMaze", "paper"): 7.0,
    ("QuadrupedUMaze", "default"): 4.5,
    ("QuadrupedRun", "stein"): 6.5,
    ("QuadrupedRun", "noise"): 11.0,
}


def estimated_seconds(unit: Unit) -> float:
    """Estimated CPU seconds of a unit."""
    learning = unit.learning
    kind = learning.algorithm if isinstance(learning, RivalConfig) else "ours"
    per_1000 = SECONDS_OF.get((unit.experiment, unit.algorithm), SECONDS[kind])
    return per_1000 * unit.total_steps / 1000

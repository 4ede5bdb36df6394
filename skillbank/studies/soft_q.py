"""A unit of ours: soft Q-learning, from scratch or from a skill."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from skillbank.allocator import keep_freed_blocks
from skillbank.config import FinetuneConfig, PretrainConfig
from skillbank.errors import TrainingDiverged
from skillbank.finetuning import finetune
from skillbank.pretraining import pretrain
from skillbank.skill import Skill
from skillbank.studies.tracking import Learned, Tracker
from skillbank.studies.unit import Unit
from skillbank.task import Step
from skillbank.training import Hooks, Training


def learn(
    unit: Unit, parent: Skill | None, checkpoint: Path, tell: Callable[[int], None]
) -> Learned[Skill]:
    """Train a unit, from its checkpoint if there is one."""
    config = unit.learning
    assert isinstance(config, PretrainConfig | FinetuneConfig)
    keep_freed_blocks()
    tracker = Tracker(unit, config.num_envs, tell)

    def on_step(training: Training, step: Step) -> None:
        def policy() -> Skill:
            skill = training.skill(unit.algorithm)
            _check_finite(skill, unit, training.steps)
            return skill

        tracker(training.steps, step, policy)

    hooks = Hooks(
        on_step=on_step,
        segment_steps=unit.segment_steps,
        checkpoint=checkpoint,
        resume=checkpoint.is_file(),
        memory=tracker.memory,
        on_warning=lambda text: print(text, file=sys.stderr, flush=True),  # the unit's log
    )
    if isinstance(config, PretrainConfig):
        skill = pretrain(unit.env_id, config, seed=unit.seed, name=unit.algorithm, hooks=hooks)
    else:
        assert parent is not None
        skill = finetune(
            parent, unit.env_id, config, seed=unit.seed, name=unit.algorithm, hooks=hooks
        )
    _check_finite(skill, unit, unit.total_steps)
    return Learned(skill, tracker, skill.spec.updates)


def _check_finite(skill: Skill, unit: Unit, steps: int) -> None:
    if not all(np.isfinite(array).all() for array in skill.parameters().values()):
        raise TrainingDiverged(f"{unit.name} diverged before step {steps}")

"""Measure a pretrained skill and write the shipped file, its picture and the figures of its card.

python benchmarks/ship_run_anywhere.py runs/studies/full/QuadrupedRun/default-0/skill.h5
"""

import sys
from pathlib import Path

import torch

import skillbank
from skillbank import figures

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"
DESCRIPTION = (
    "Runs in a random direction: the speed of the low-passed centre of mass, maximum entropy. "
    "Every direction is as likely as every other."
)


def main(source: str) -> None:
    """Evaluate from one start pose and from random ones, and write the shipped file and picture."""
    torch.set_num_threads(1)
    skill = skillbank.Skill.load(source)
    env_id = skill.spec.env_id
    nominal = skillbank.evaluate(skill, env_id, episodes=400, seed=2026, nominal_start=True)
    random = skillbank.evaluate(skill, env_id, episodes=100, seed=2026)
    shipped = skill.with_spec(
        name="run_anywhere",
        description=DESCRIPTION,
        evaluations=(nominal.record().model_dump(), random.record().model_dump()),
    )
    shipped.save(SHIPPED / "run_anywhere.h5")
    figures.traces([("400 episodes from one pose", nominal)], None, SHIPPED / "run_anywhere.png")
    print(nominal.record(), nominal.sectors.round(3), sep="\n")  # for the card


if __name__ == "__main__":
    main(sys.argv[1])

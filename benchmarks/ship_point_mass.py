"""Train the point-mass skills that ship with skillbank, and draw their pictures.

    python benchmarks/ship_point_mass.py

Two run (east, north) and two reach a goal (left, right). Each takes about a minute on one core.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

import skillbank
from skillbank import figures, storage
from skillbank.export import model_card

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"


class Wanted(NamedTuple):
    """A skill to ship."""

    task: str
    kwargs: dict[str, Any]
    description: str


SKILLS = {
    "point_run_east": Wanted("PointMassRunToward", {"direction": 0.0}, "A point mass runs east."),
    "point_run_north": Wanted(
        "PointMassRunToward", {"direction": math.pi / 2}, "A point mass runs north."
    ),
    "point_reach_left": Wanted(
        "PointMassReach", {"goals": ("left",)}, "A point mass reaches the left one of four goals."
    ),
    "point_reach_right": Wanted(
        "PointMassReach", {"goals": ("right",)}, "A point mass reaches the right one of four goals."
    ),
}


def main() -> None:
    """Train and evaluate every skill, and write its file, picture and card."""
    torch.set_num_threads(1)
    for name, (task, kwargs, description) in SKILLS.items():
        skill = skillbank.pretrain(task, seed=0, name=name, env_kwargs=kwargs)
        found = skillbank.evaluate(skill, task, episodes=100, seed=2026, **kwargs)
        shipped = skill.with_spec(description=description, evaluations=(found.record(),))
        shipped.save(SHIPPED / f"{name}.h5")
        figures.traces([("100 episodes", found)], None, SHIPPED / f"{name}.png")
        card = model_card(storage.read(SHIPPED / f"{name}.h5"))
        (SHIPPED / f"{name}.md").write_text(f"{card}\n![100 episodes]({name}.png)\n")
        print(name, found.record())


if __name__ == "__main__":
    main()

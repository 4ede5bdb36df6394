"""Whether skills can be composed, and what the composition observes."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from skillbank.errors import IncompatibleSkill
from skillbank.skill import Skill
from skillbank.spec import block_columns, blocks_text
from skillbank.task import Layout

if TYPE_CHECKING:
    from skillbank.compose.correction import Correction


def check_together(skills: Sequence[Skill]) -> None:
    """Reject skills that cannot be composed.

    Raises:
        IncompatibleSkill: Their discounts, temperatures or action bounds differ; the message shows
            both.
    """
    first = skills[0].spec
    for skill in skills[1:]:
        other = skill.spec
        rows = [
            ("discount", f"{first.discount:g}", f"{other.discount:g}"),
            ("temperature", f"{first.temperature:g}", f"{other.temperature:g}"),
            ("action low", str(first.action_low), str(other.action_low)),
            ("action high", str(first.action_high), str(other.action_high)),
        ]
        if all(mine == theirs for _, mine, theirs in rows):
            continue
        text = _table(first.name, other.name, rows)
        if [what for what, mine, theirs in rows if mine != theirs] == ["temperature"]:
            text += (
                f"\nthey would at the same temperature: at_temperature({first.temperature:g}) of "
                f"'{other.name}', or --rescale, keeps its policy and scales its reward"
            )
        raise IncompatibleSkill(text)


def widest_layout(skills: Sequence[Skill], corrections: Sequence["Correction"]) -> Layout:
    """The blocks of whichever skill or correction observes them all, in the widest skill's task."""
    widest = max((skill.spec for skill in skills), key=lambda spec: spec.observation_size)
    bounds = np.asarray(widest.action_low), np.asarray(widest.action_high)
    own = [skill.spec.observation_blocks for skill in skills]
    observed = [*(one.blocks for one in corrections), *own]
    for blocks in observed:
        if all(set(other) <= set(blocks) for other in observed):
            return Layout(widest.env_id, blocks, *bounds)
    apart = (
        (one.spec, two.spec)
        for one, two in itertools.combinations(skills, 2)
        if block_columns(one.spec.observation_blocks, two.spec.observation_blocks) is None
        and block_columns(two.spec.observation_blocks, one.spec.observation_blocks) is None
    )
    first, other = next(apart, (None, None))
    if first is None or other is None:
        raise IncompatibleSkill(
            "one of the skills and corrections must observe every block; they observe "
            + "; ".join(map(blocks_text, observed))
        )
    mine = {block.name: block.size for block in first.observation_blocks}
    theirs = {block.name: block.size for block in other.observation_blocks}
    rows = [(name, str(mine.get(name, "-")), str(theirs.get(name, "-"))) for name in mine | theirs]
    raise IncompatibleSkill(
        _table(first.name, other.name, rows)
        + "\none of the skills must observe every block; fitted_to(task) adds blocks to a skill"
    )


def _table(mine: str, theirs: str, rows: Sequence[tuple[str, str, str]]) -> str:
    lines = [f"'{mine}' and '{theirs}' do not go together:"]
    widths = [max(len(row[i]) for row in [*rows, ("", mine, theirs)]) for i in range(3)]
    for what, one, other in [("", mine, theirs), *rows]:
        mark = "  <--" if what and one != other else ""
        lines.append(f"  {what:<{widths[0]}}  {one:>{widths[1]}}  {other:>{widths[2]}}{mark}")
    return "\n".join(lines)

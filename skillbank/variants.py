"""Exact variants of a skill: at another temperature, turned, or with a wider observation.

All change its parameters in closed form, without training. Pure functions of spec and parameters.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skillbank.errors import IncompatibleSkill, InvalidArgument
from skillbank.names import suffixed
from skillbank.spec import (
    MAX_TEXT,
    ObservationBlock,
    SkillSpec,
    Symmetry,
    block_columns,
    blocks_text,
)

Parameters = dict[str, NDArray[np.float32]]
POSITION = "position"  # the block of the position in the arena
HEADING = "heading"  # the block of cos and sin of the yaw relative to the target direction


def at_temperature(
    spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]], temperature: float
) -> tuple[SkillSpec, Parameters]:
    """The skill with the same policy at another temperature.

    With ``c = temperature / alpha``, ``c Q`` is soft-optimal at ``c alpha`` for the reward ``c r``,
    because ``exp(c Q / (c alpha))`` is the same policy; the entropy term scales in proportion.

    Raises:
        InvalidArgument: The temperature is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise InvalidArgument(f"temperature must be a positive number, got {temperature}")
    temperature = float(temperature)  # also of a NumPy scalar, which no metadata can hold
    factor = temperature / spec.temperature
    last = ("critic/out.weight", "critic/out.bias")
    changed = {
        name: (value * np.float32(factor)).astype(np.float32)
        if name.removeprefix("target_") in last
        else value
        for name, value in parameters.items()
    }
    update = {
        "temperature": temperature,
        "reward_scale": spec.reward_scale * factor,
        "reward": spec.reward and f"{factor:.3g} ({spec.reward})"[:MAX_TEXT],
    }
    return spec.model_copy(update=update), changed


def turned(
    spec: SkillSpec, parameters: Mapping[str, NDArray[np.float32]], angle: float
) -> tuple[SkillSpec, Parameters]:
    """A skill that does towards ``angle`` what this one does towards 0.

    The heading block is ``(cos h, sin h)`` with h the yaw relative to the target direction; the
    turned skill reads ``h - angle`` instead. The rotation is folded into the weights of the first
    layers. Each declared symmetry is conjugated with it, and dropped if the result is not a signed
    permutation.

    Args:
        spec: Metadata of the skill.
        parameters: Parameters of the skill.
        angle: Radians counter-clockwise.

    Raises:
        InvalidArgument: The angle is not finite.
        IncompatibleSkill: The skill does not observe a heading, or it also observes its position,
            which would have to be turned too.
    """
    if not math.isfinite(angle):
        raise InvalidArgument(f"angle must be a finite number of radians, got {angle}")
    start, size = 0, 0
    for block in spec.observation_blocks:
        if block.name == HEADING:
            size = block.size
            break
        start += block.size
    if size != 2:
        raise IncompatibleSkill(
            f"skill '{spec.name}' has no block '{HEADING}' (cos and sin) to turn; it observes "
            f"{blocks_text(spec.observation_blocks)}. Pretrain it for the other direction instead"
        )
    if any(block.name == POSITION for block in spec.observation_blocks):
        raise IncompatibleSkill(
            f"skill '{spec.name}' observes its {POSITION}, which would have to turn with it. "
            "Pretrain it for the other direction instead"
        )
    cos, sin = math.cos(angle), math.sin(angle)
    # cos(h - a), sin(h - a) = turn @ (cos h, sin h)
    turn = np.array([[cos, sin], [-sin, cos]])
    columns = slice(start, start + 2)
    changed: Parameters = {}
    for name, value in parameters.items():
        if not name.endswith("/0.weight"):
            changed[name] = value
            continue
        weight = value.astype(np.float64)
        weight[..., columns, :] = turn.T @ weight[..., columns, :]  # (x turn^T) W = x (turn^T W)
        changed[name] = weight.astype(np.float32)
    whole = np.eye(spec.observation_size)
    whole[columns, columns] = turn
    kept = tuple(s for s in (_conjugate(one, whole) for one in spec.symmetries) if s is not None)
    degrees = f"{math.fmod(math.degrees(angle), 360.0):.0f}".replace("-0", "0")
    update = {
        "name": suffixed(spec.name, f".turned_{degrees}"),
        "reward": f"{spec.reward or spec.task}, turned by {degrees} degrees"[:MAX_TEXT],
        "symmetries": kept,
        "evaluations": (),
    }
    return spec.model_copy(update=update), changed


def _conjugate(symmetry: Symmetry, turn: NDArray[np.float64]) -> Symmetry | None:
    """The conjugate ``turn^-1 S turn`` of a symmetry S; None if it is not a signed permutation."""
    size = len(symmetry.obs_index)
    matrix = np.zeros((size, size))
    matrix[np.arange(size), list(symmetry.obs_index)] = symmetry.obs_sign
    conjugate = turn.T @ matrix @ turn
    whole = np.rint(conjugate)
    if np.abs(conjugate - whole).max() > 1e-9:
        return None
    index = np.abs(whole).argmax(1)
    sign = whole[np.arange(size), index].astype(int)
    changes = {"obs_index": tuple(index.tolist()), "obs_sign": tuple(sign.tolist())}
    return symmetry.model_copy(update=changes)


def widened(
    spec: SkillSpec,
    parameters: Mapping[str, NDArray[np.float32]],
    blocks: tuple[ObservationBlock, ...],
) -> tuple[SkillSpec, Parameters]:
    """The same skill for an observation with additional blocks, which its networks ignore.

    Args:
        spec: Metadata of the skill.
        parameters: Parameters of the skill.
        blocks: The new observation's blocks, among them all of the skill's.
    """
    columns = block_columns(spec.observation_blocks, blocks)
    assert columns is not None, "all of the skill's blocks"
    size = sum(block.size for block in blocks)
    changed = {
        name: _with_zeros(value, columns, size) if name.endswith("/0.weight") else value
        for name, value in parameters.items()
    }
    update = {
        "observation_blocks": blocks,
        "symmetries": tuple(_extended(one, columns, size) for one in spec.symmetries),
    }
    return spec.model_copy(update=update), changed


def _with_zeros(
    weight: NDArray[np.float32], columns: NDArray[np.int64], observation: int
) -> NDArray[np.float32]:
    """First-layer weights [..., S (+ A), H] with rows of zeros for the new observation columns."""
    extra = weight.shape[-2] - len(columns)  # the action's (or the noise's) rows come last
    wide = np.zeros((*weight.shape[:-2], observation + extra, weight.shape[-1]), np.float32)
    wide[..., columns, :] = weight[..., : len(columns), :]
    wide[..., observation:, :] = weight[..., len(columns) :, :]
    return wide


def _extended(symmetry: Symmetry, columns: NDArray[np.int64], observation: int) -> Symmetry:
    """The same symmetry for a wider observation, whose new columns it leaves unchanged."""
    index, sign = np.arange(observation), np.ones(observation, np.int64)
    index[columns] = columns[list(symmetry.obs_index)]
    sign[columns] = symmetry.obs_sign
    changes = {"obs_index": tuple(index.tolist()), "obs_sign": tuple(sign.tolist())}
    return symmetry.model_copy(update=changes)

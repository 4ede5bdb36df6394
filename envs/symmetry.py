"""Symmetries of a task: relabellings under which its dynamics and reward do not change.

If a task declares a symmetry g, then stepping from g(state) with g(action) gives g(next state) and
the same reward. A learner may therefore apply g to any transition it has seen and learn from a
second one that is just as true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Symmetry(NamedTuple):
    """A signed permutation of the observation and of the action.

    The transformed observation is `obs[..., observation_index] * observation_sign`, and likewise
    for the action.

    Attributes:
        name: what it does, in words; the identity is called "identity".
        observation_index: [S] int64, which old entry each new entry is taken from.
        observation_sign: [S] float32, +1 or -1.
        action_index: [A] int64.
        action_sign: [A] float32, +1 or -1.
    """

    name: str
    observation_index: NDArray[np.int64]
    observation_sign: NDArray[np.float32]
    action_index: NDArray[np.int64]
    action_sign: NDArray[np.float32]


class SignedPermutation(NamedTuple):
    """A signed permutation of a vector: `new = old[source] * sign`."""

    source: tuple[int, ...]
    sign: tuple[int, ...]


def identity(size: int) -> SignedPermutation:
    """The permutation of `size` entries that moves nothing."""
    return SignedPermutation(tuple(range(size)), (1,) * size)


def compose(first: SignedPermutation, then: SignedPermutation) -> SignedPermutation:
    """Applies `first`, and `then` to what came out."""
    return SignedPermutation(
        tuple(first.source[j] for j in then.source),
        tuple(first.sign[j] * s for j, s in zip(then.source, then.sign, strict=True)),
    )


def concatenate(parts: Sequence[SignedPermutation]) -> SignedPermutation:
    """One permutation that acts on blocks laid side by side, each by its own."""
    source: list[int] = []
    sign: list[int] = []
    for part in parts:
        source.extend(j + len(sign) for j in part.source)
        sign.extend(part.sign)
    return SignedPermutation(tuple(source), tuple(sign))


def symmetry(name: str, observation: SignedPermutation, action: SignedPermutation) -> Symmetry:
    """Freezes two signed permutations into the arrays that learners index with."""
    arrays = (
        np.array(observation.source, np.int64),
        np.array(observation.sign, np.float32),
        np.array(action.source, np.int64),
        np.array(action.sign, np.float32),
    )
    for array in arrays:
        array.flags.writeable = False
    return Symmetry(name, *arrays)


_PLANE_TURN = SignedPermutation((1, 0), (-1, 1))  # x' = -y, y' = x
_PLANE_MIRROR = SignedPermutation((0, 1), (1, -1))  # y' = -y


def plane_symmetries(vectors: int) -> tuple[Symmetry, ...]:
    """The square's symmetries for an observation of `vectors` plane vectors and one as action."""
    result = []
    turned = identity(2)
    for quarter in range(4):
        for mirrored in (False, True):
            act = compose(turned, _PLANE_MIRROR) if mirrored else turned
            name = f"turned by {90 * quarter} degrees" if quarter else "identity"
            if mirrored:
                name = f"{name}, mirrored" if quarter else "mirrored"
            result.append(symmetry(name, concatenate([act] * vectors), act))
        turned = compose(turned, _PLANE_TURN)
    return tuple(result)

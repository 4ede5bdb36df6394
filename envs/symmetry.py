"""Symmetries of a task: relabellings under which its dynamics and reward do not change.

If a task declares a symmetry g, then stepping from g(state) with g(action) gives g(next state) and
the same reward. A learner may therefore apply g to any transition it has seen and learn from the
result, which is an equally valid transition.
"""

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
    """The permutation that applies `first`, then `then`."""
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


class Generator(NamedTuple):
    """A symmetry as a name and the signed permutations of observation and action."""

    name: str
    observation: SignedPermutation
    action: SignedPermutation


def group(generators: Sequence[Generator], sizes: tuple[int, int]) -> tuple[Symmetry, ...]:
    """The group that the generators generate.

    Args:
        generators: symmetries of the task.
        sizes: sizes of the observation and of the action.

    Returns:
        The whole group, identity first, each element once, named by its shortest product.
    """
    found = [Generator("identity", identity(sizes[0]), identity(sizes[1]))]
    for element in found:  # grows during the iteration
        for extra in generators:
            observation = compose(element.observation, extra.observation)
            action = compose(element.action, extra.action)
            if all((observation, action) != known[1:] for known in found):
                start = "" if element.name == "identity" else f"{element.name}, "
                found.append(Generator(start + extra.name, observation, action))
    return tuple(symmetry(*element) for element in found)


TURN_POINT = SignedPermutation((1, 0), (-1, 1))
"""A vector of the plane turned by 90 degrees: x' = -y, y' = x."""

NORTH_SOUTH = SignedPermutation((0, 1), (1, -1))
"""A vector of the plane mirrored: y' = -y."""

EAST_WEST = SignedPermutation((0, 1), (-1, 1))
"""A vector of the plane mirrored: x' = -x."""


def plane_symmetries(
    vectors: int, acts: Sequence[tuple[str, SignedPermutation]]
) -> tuple[Symmetry, ...]:
    """The group of `acts`, for an observation of `vectors` plane vectors and one as the action."""
    generators = [Generator(name, concatenate([act] * vectors), act) for name, act in acts]
    return group(generators, (2 * vectors, 2))


SQUARE = (("turned by 90 degrees", TURN_POINT), ("mirrored", NORTH_SOUTH))
"""Generators of the eight symmetries of a square."""

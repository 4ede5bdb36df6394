"""Signed permutations: the laws that every use of them relies on."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skillbank.envs.symmetry import (
    SQUARE,
    SignedPermutation,
    compose,
    concatenate,
    identity,
    plane_symmetries,
)


@st.composite
def permutations(draw: st.DrawFn, size: int = 5) -> SignedPermutation:
    source = draw(st.permutations(range(size)))
    sign = draw(st.lists(st.sampled_from([-1, 1]), min_size=size, max_size=size))
    return SignedPermutation(tuple(source), tuple(sign))


def apply(act: SignedPermutation, vector: np.ndarray) -> np.ndarray:
    return vector[list(act.source)] * act.sign


@given(permutations(), permutations())
def test_compose_is_one_after_the_other(a: SignedPermutation, b: SignedPermutation) -> None:
    vector = np.arange(1.0, 6.0)
    np.testing.assert_array_equal(apply(compose(a, b), vector), apply(b, apply(a, vector)))
    assert compose(a, identity(5)) == compose(identity(5), a) == a


@given(permutations(), permutations(size=3))
def test_concatenate_acts_block_by_block(a: SignedPermutation, b: SignedPermutation) -> None:
    left, right = np.arange(1.0, 6.0), np.arange(10.0, 13.0)
    both = apply(concatenate([a, b]), np.concatenate([left, right]))
    np.testing.assert_array_equal(both, np.concatenate([apply(a, left), apply(b, right)]))


def test_the_square_has_eight_symmetries_and_is_closed() -> None:
    elements = plane_symmetries(1, SQUARE)
    assert len(elements) == 8
    point = np.array([1.0, 2.0])
    orbit = {tuple(point[e.observation_index] * e.observation_sign) for e in elements}
    assert orbit == {
        (a, b) for a, b in [(1, 2), (2, 1)] for a, b in [(a, b), (-a, b), (a, -b), (-a, -b)]
    }

"""Intervals over seeds: Wilson's for rates, bootstrapped interquartile means for returns."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skillbank.evaluation import direction_counts

RESAMPLES = 20_000
# With fewer values, the mean and the range are given instead: a percentile bootstrap of 5 normal
# values covers 89 %, of 8 some 93 %, of 10 94 %.
FEW = 8


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Estimate:
    """A rate with Wilson's score interval, which holds for few trials and for 0 and 100 %.

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(
            f"expected 0 <= successes <= trials, trials >= 1; got {successes} of {trials}"
        )
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(method="wilson")
    return Estimate(successes / trials, float(found.low), float(found.high))


def interquartile_mean(values: ArrayLike) -> Estimate:
    """Mean of the middle of values [N], one per seed, with a percentile-bootstrap interval.

    See ``interquartile_means``.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected finite values [N], got {values}")
    line = interquartile_means(values[:, np.newaxis])
    return Estimate(float(line[0, 0]), float(line[1, 0]), float(line[2, 0]))


def interquartile_means(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interquartile means of curves [seeds, points] with intervals: value, low, high [3, points].

    A quarter of the seeds, rounded down, is trimmed at either end. The bootstrap resamples whole
    curves, since seeds are the independent draws. Fewer than ``FEW`` seeds are too few for a
    bootstrap; the result is then the mean, the minimum and the maximum.
    """
    from scipy.stats import trim_mean

    seeds = len(curves)
    found: NDArray[np.float64]
    if seeds < FEW:
        found = np.stack([curves.mean(0), curves.min(0), curves.max(0)])
        return found
    value = trim_mean(curves, 0.25, axis=0)
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    means = trim_mean(curves[draws], 0.25, axis=1)  # [RESAMPLES, points]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    found = np.stack([value, low, high])
    return found


def direction_entropy(directions: ArrayLike, bins: int = 16) -> float:
    """Entropy of angles (rad) over equal bins of the circle, as a share of its maximum, 0 to 1.

    With the Miller-Madow correction of (occupied bins - 1) / 2N nats for few angles.
    """
    counts = direction_counts(directions, bins)
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * np.log(share)).sum() + (len(share) - 1) / (2 * counts.sum())
    return min(1.0, float(entropy / math.log(bins)))

"""Composing skills: Q-functions are added; the resulting error can be measured and corrected.

    a & b               compose.mean([a, b])            reward  mean of r_i
    a - 0.5 * b         compose.add({a: 1, b: -0.5})    reward  sum_i w_i r_i
    a | b               compose.any_of([a, b])          reward  soft-OR of r_i

A composed skill has the interface of a skill and acts without further training. ``certificate``
estimates how far from optimal it can be, ``corrected`` learns what is missing, and ``distill``
turns it into one ordinary skill.
"""

from skillbank.compose.acting import Acting
from skillbank.compose.certificate import Certificate
from skillbank.compose.composed import Composed, ComposedSpec, Drawn
from skillbank.compose.correction import Correction, CorrectionConfig
from skillbank.compose.distillation import DistillConfig
from skillbank.compose.improvement import ImproveConfig, improve
from skillbank.compose.making import CompositionWarning, add, any_of, joined, mean

__all__ = [
    "Acting",
    "Certificate",
    "Composed",
    "ComposedSpec",
    "CompositionWarning",
    "Correction",
    "CorrectionConfig",
    "DistillConfig",
    "Drawn",
    "ImproveConfig",
    "add",
    "any_of",
    "improve",
    "joined",
    "mean",
]

"""Stein variational gradient descent: the direction that moves particles towards a target.

Pure functions of tensors. Particles are points in R^d; the agent uses the space before squashing,
where the target has no boundary.
"""

import math

import numpy as np
import torch
from torch import Tensor

NARROWEST = 1e-4  # minimum bandwidth, so that rounding does not drive coinciding particles apart


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances between two sets of particles, x [B, M, d] and y [B, K, d] -> [B, M, K]."""
    assert x.ndim == y.ndim == 3, (x.shape, y.shape)
    centre = x.mean(1, keepdim=True)  # centring reduces cancellation errors
    x, y = x - centre, y - centre
    sums = x.square().sum(-1).unsqueeze(2) + y.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(sums, x, y.transpose(1, 2), alpha=-2.0).clamp_min_(0.0)


def bandwidth(squared: Tensor) -> Tensor:
    """Kernel bandwidth of each state from the median heuristic (appendix D.1).

    The paper gives ``h = d / (2 log(M + 1))`` with d "the median of pairwise distance". In the
    kernel ``exp(-|x - y|^2 / h)``, h has the unit of a squared distance, so d is taken to be the
    median of the *squared* distances, as in Liu & Wang (2016). This makes the direction equivariant
    to a change of units.

    Args:
        squared: Squared distances [B, M, K].

    Returns:
        Bandwidth h [B, 1, 1], positive even where all particles coincide.
    """
    median = _median(squared.detach().flatten(1))
    count = squared.shape[1]
    return (median / (2.0 * math.log(count + 1.0))).clamp_min(NARROWEST).view(-1, 1, 1)


def _median(values: Tensor) -> Tensor:
    """The (lower) median of each row [B, N] -> [B]."""
    if values.device.type != "cpu":
        return values.median(dim=1).values
    middle = (values.shape[1] - 1) // 2  # NumPy's selection is twice as fast as torch's
    return torch.from_numpy(np.partition(values.numpy(), middle, axis=1)[:, middle])


def stein_direction(
    fixed: Tensor, updated: Tensor, score: Tensor, temperature: float, h: Tensor | None = None
) -> Tensor:
    """The direction of steepest descent of the KL divergence to the target (eq. 13, app. C.1).

    ``phi(y_j) = mean_i [ k(x_i, y_j) grad Q(x_i) + alpha grad_x k(x_i, y_j) ]`` with the kernel
    ``k(x, y) = exp(-|x - y|^2 / h)``.

    Args:
        fixed: Particles x_i [B, M, d].
        updated: Particles y_j [B, K, d]; may be the same as ``fixed``.
        score: Gradient of alpha * log target at ``fixed`` [B, M, d] (for exp(Q/alpha): grad Q).
        temperature: alpha, the weight of the repulsion.
        h: Bandwidth [B, 1, 1]; None: the median heuristic.

    Returns:
        phi [B, K, d].
    """
    assert fixed.shape == score.shape, (fixed.shape, score.shape)
    squared = squared_distances(fixed, updated)  # [B, M, K]
    h = bandwidth(squared) if h is None else h
    kernel = torch.exp(-squared / h).transpose(1, 2)  # k(x_i, y_j) as [B, K, M]
    attraction = kernel @ score  # [B, K, d]
    # sum_i grad_x k(x_i, y_j) = -2/h sum_i (x_i - y_j) k(x_i, y_j), as one matrix product; centred,
    # so that the terms of coinciding particles cancel exactly
    centre = fixed.mean(1, keepdim=True)
    x, y = fixed - centre, updated - centre
    repulsion = (2.0 / h) * (y * kernel.sum(-1, keepdim=True) - kernel @ x)
    return (attraction + temperature * repulsion) / fixed.shape[1]

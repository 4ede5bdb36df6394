"""Soft values and soft Bellman targets. Pure functions of tensors."""

import math

import torch
from torch import Tensor


def soft_value(q: Tensor, log_weight: Tensor, temperature: float) -> Tensor:
    """Soft value by importance sampling (eq. 10).

    ``V = alpha [ logsumexp_k (Q(s, a_k) / alpha + log w_k) - log K ]`` where ``w_k`` is the
    density of the base measure divided by that of the proposal: ``1 / q(a_k | s)`` for the paper's
    objective, ``pi_0(a_k | s) / q(a_k | s)`` for an anchored one.

    Args:
        q: Q(s, a_k) [B, K], a_k drawn from q.
        log_weight: log w_k [B, K].
        temperature: alpha.

    Returns:
        V [B].
    """
    assert q.shape == log_weight.shape, (q.shape, log_weight.shape)
    if q.shape[-1] == 1:  # nothing to average
        return (q + temperature * log_weight).squeeze(-1)
    log_mean = torch.logsumexp(q / temperature + log_weight, -1) - math.log(q.shape[-1])
    return temperature * log_mean


def effective_sample_size(q: Tensor, log_weight: Tensor, temperature: float) -> Tensor:
    """Effective sample size as a share of the K proposals: ``(sum w)^2 / (K sum w^2)`` -> [B]."""
    log_w = q / temperature + log_weight
    doubled = 2.0 * torch.logsumexp(log_w, -1) - torch.logsumexp(2.0 * log_w, -1)
    return doubled.exp() / q.shape[-1]


def soft_bellman_target(
    reward: Tensor, discount: Tensor, terminated: Tensor, next_value: Tensor
) -> Tensor:
    """``y = r + gamma (1 - terminated) V(s')`` (eq. 7), also for truncated episodes. All [B]."""
    assert reward.shape == discount.shape == terminated.shape == next_value.shape
    return reward + discount * (1.0 - terminated) * next_value

"""Replay memory: a ring buffer of transitions, one row each in a single table."""

from typing import NamedTuple

import torch
from torch import Tensor

from skillbank.errors import SkillbankError


class Transitions(NamedTuple):
    """One step of N copies, all float32; actions are scaled to [-1, 1]."""

    obs: Tensor  # [N, S]
    action: Tensor  # [N, A]
    reward: Tensor  # [N]
    terminated: Tensor  # [N], 1 where the episode terminated
    ended: Tensor  # [N], 1 where the episode terminated or was truncated
    next_obs: Tensor  # [N, S], before any reset, also at an episode's end


class Batch(NamedTuple):
    """Sampled transitions over n steps (fewer at an episode's end)."""

    obs: Tensor  # [B, S]
    action: Tensor  # [B, A]
    reward: Tensor  # [B], discounted sum of the rewards of the n steps
    discount: Tensor  # [B], gamma^n, the weight of the value of ``next_obs``
    terminated: Tensor  # [B]
    next_obs: Tensor  # [B, S], after the n steps


class Replay:
    """A ring buffer of the last ``capacity`` transitions, ``4 (2 S + A + 3)`` bytes each.

    The operating system allocates memory as rows are first written, so a short training uses only
    as much as it has stored.

    Args:
        capacity: Number of transitions kept.
        observation: S, the size of an observation.
        action: A, the size of an action.
        copies: N, transitions per ``add``; a copy's next step is N rows later.
        device: Device of the table.

    Raises:
        SkillbankError: The table does not fit into memory.
    """

    def __init__(
        self, capacity: int, observation: int, action: int, copies: int, device: str = "cpu"
    ) -> None:
        self.capacity, self.copies = capacity, copies
        self._widths = [observation, action, 1, 1, 1, observation]
        self._reward = observation + action  # column; terminated and ended follow
        width = sum(self._widths)
        try:
            self.rows = torch.empty((capacity, width), device=device)
        except RuntimeError as error:
            raise SkillbankError(
                f"a replay of {capacity} transitions needs {4e-9 * capacity * width:.1f} GB, "
                "which cannot be allocated; use a smaller replay_capacity"
            ) from error
        self.added = 0  # transitions ever added

    def __len__(self) -> int:
        """Number of transitions that can be sampled."""
        return min(self.added, self.capacity)

    @property
    def sizes(self) -> tuple[int, int]:
        """S and A."""
        return self._widths[0], self._widths[1]

    def add(self, step: Transitions) -> None:
        """Append one transition per copy, overwriting the oldest if the buffer is full.

        The step may be on another device; it is copied as one block.
        """
        scalars = torch.stack((step.reward, step.terminated, step.ended), dim=1)
        rows = torch.cat((step.obs, step.action, scalars, step.next_obs), dim=1)
        assert rows.shape == (self.copies, self.rows.shape[1]), rows.shape
        rows = rows.to(self.rows.device)
        start = self.added % self.capacity
        first = min(len(rows), self.capacity - start)
        self.rows[start : start + first] = rows[:first]
        self.rows[: len(rows) - first] = rows[first:]
        self.added += len(rows)

    def end_episodes(self) -> None:
        """Mark the last transition of each copy as its episode's end, so n-step returns stop there.

        Call it before the episodes restart.
        """
        last = torch.arange(max(0, self.added - self.copies), self.added, device=self.rows.device)
        self.rows[last % self.capacity, self._reward + 2] = 1.0

    def rewards(self) -> Tensor:
        """All stored rewards [len]."""
        return self.rows[: len(self), self._reward]

    def terminations(self) -> Tensor:
        """Of all stored transitions, 1 where the episode terminated [len]."""
        return self.rows[: len(self), self._reward + 1]

    def sample(
        self, count: int, generator: torch.Generator, discount: float, n_step: int = 1
    ) -> Batch:
        """Sample ``count`` transitions uniformly with replacement.

        Args:
            count: B.
            generator: Random generator.
            discount: gamma, per step.
            n_step: Steps per transition; fewer where the episode or the stored data ends.
        """
        device = self.rows.device
        age = torch.randint(len(self), (count,), generator=generator, device=device)  # 0: oldest
        oldest = self.added - len(self)
        first = self.rows.index_select(0, (oldest + age) % self.capacity)
        obs, action, reward, terminated, ended, next_obs = torch.split(first, self._widths, dim=1)
        reward, terminated = reward.squeeze(1), terminated.squeeze(1)
        power = torch.full_like(reward, discount)
        if n_step == 1:
            return Batch(obs, action, reward, power, terminated, next_obs)
        goes_on = ended.squeeze(1) == 0.0
        for _ in range(n_step - 1):
            age = age + self.copies
            goes_on = goes_on & (age < len(self))
            row = self.rows.index_select(0, (oldest + age) % self.capacity)
            scalars = row[:, self._reward : self._reward + 3]
            reward = torch.where(goes_on, reward + power * scalars[:, 0], reward)
            terminated = torch.where(goes_on, scalars[:, 1], terminated)
            next_obs = torch.where(goes_on[:, None], row[:, -self._widths[-1] :], next_obs)
            power = torch.where(goes_on, power * discount, power)
            goes_on = goes_on & (scalars[:, 2] == 0.0)
        return Batch(obs, action, reward, power, terminated, next_obs)

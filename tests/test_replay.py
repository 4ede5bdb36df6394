"""The ring against a plain list, and n-step transitions against sums written out."""

import numpy as np
import pytest
import torch

from skillbank.errors import SkillbankError
from skillbank.replay import Replay, Transitions

GAMMA = 0.9


def filled(steps, capacity, copies=3, *, end_rate=0.0, seed=0):
    """A ring, and the plain list of all its rows (number, reward, terminated, ended) ever added.

    The observation is the transition's number, the next one that plus 0.5, the action minus that.
    """
    rng = np.random.default_rng(seed)
    replay, rows = Replay(capacity, 1, 1, copies), []
    for _ in range(steps):
        number = np.arange(len(rows), len(rows) + copies, dtype=np.float32)
        reward = rng.normal(size=copies).astype(np.float32)
        ended = rng.random(copies) < end_rate
        terminated = ended & (rng.random(copies) < 0.5)
        columns = (number[:, None], -number[:, None], reward, terminated, ended)
        tensors = [torch.tensor(column, dtype=torch.float32) for column in columns]
        replay.add(Transitions(*tensors, torch.tensor(number[:, None] + 0.5)))
        rows += list(zip(number, reward, terminated, ended, strict=True))
    return replay, rows


def sampled(replay, count=2_000, n_step=1):
    return replay.sample(count, torch.Generator().manual_seed(1), GAMMA, n_step)


@pytest.mark.parametrize(("steps", "capacity"), [(2, 10), (3, 9), (5, 10), (40, 10), (7, 3)])
def test_ring_holds_the_last_transitions_whole_and_no_others(steps, capacity):
    replay, rows = filled(steps, capacity, end_rate=0.3)
    kept = rows[-capacity:]
    assert len(replay) == len(kept)
    batch = sampled(replay)
    assert sorted(set(batch.obs[:, 0].tolist())) == [row[0] for row in kept]
    by_number = {row[0]: row for row in kept}
    for i in range(200):
        number = batch.obs[i, 0].item()
        _, reward, terminated, _ = by_number[number]
        assert batch.action[i, 0].item() == -number
        assert batch.next_obs[i, 0].item() == number + 0.5
        assert batch.reward[i].item() == reward
        assert batch.terminated[i].item() == terminated
        assert batch.discount[i].item() == pytest.approx(GAMMA)
    assert sorted(replay.rewards().tolist()) == sorted(float(row[1]) for row in kept)


def test_sampling_is_uniform():
    replay, _ = filled(4, 10)
    counts = torch.bincount(sampled(replay, 50_000).obs[:, 0].long())[2:]
    assert counts.shape == (10,)
    assert (counts / 5_000 - 1).abs().max() < 0.06  # four standard deviations


def test_a_generator_decides_what_is_sampled():
    replay, _ = filled(4, 10)
    assert torch.equal(sampled(replay).obs, sampled(replay).obs)
    other = replay.sample(2_000, torch.Generator().manual_seed(2), GAMMA)
    assert not torch.equal(sampled(replay).obs, other.obs)


@pytest.mark.parametrize("n_step", [1, 2, 4])
@pytest.mark.parametrize("capacity", [1000, 40])  # 40 is no multiple of the three copies
def test_n_steps_sum_discounted_rewards_up_to_an_episodes_end(n_step, capacity):
    copies = 3
    replay, rows = filled(30, capacity, copies, end_rate=0.2)
    batch = sampled(replay, 500, n_step)
    spans = set()
    for i in range(500):
        at = int(batch.obs[i, 0])
        total, power = 0.0, 1.0
        for taken in range(n_step):
            last = at + taken * copies
            total += power * rows[last][1]
            power *= GAMMA
            if rows[last][3] or last + copies >= len(rows):  # an end, or nothing newer
                break
        spans.add(taken + 1)
        assert batch.reward[i].item() == pytest.approx(total, abs=1e-5)
        assert batch.discount[i].item() == pytest.approx(power)
        assert batch.next_obs[i, 0].item() == last + 0.5
        assert batch.terminated[i].item() == rows[last][2]
    assert spans == set(range(1, n_step + 1))  # short and whole ones were both seen


def test_nothing_spans_a_new_beginning():
    """After a resume the simulation starts anew: the old last steps have no successors."""
    copies = 3
    replay, rows = filled(4, 100, copies)
    replay.end_episodes()
    step = [torch.zeros(copies, 1), torch.zeros(copies, 1), *torch.zeros(3, copies)]
    replay.add(Transitions(*step, torch.full((copies, 1), 99.0)))
    batch = sampled(replay, 500, 2)
    last = (batch.obs[:, 0] >= len(rows) - copies) & (batch.obs[:, 0] < len(rows))
    assert last.any()
    torch.testing.assert_close(batch.next_obs[last, 0], batch.obs[last, 0] + 0.5)
    torch.testing.assert_close(batch.discount[last], torch.full((int(last.sum()),), GAMMA))


def test_wrong_number_of_rows_is_refused():
    replay, _ = filled(1, 10)
    with pytest.raises(AssertionError):
        replay.add(Transitions(*(torch.zeros(2, 1),) * 2, *torch.zeros(3, 2), torch.zeros(2, 1)))


def test_more_than_there_is_memory_is_a_clear_error():
    with pytest.raises(SkillbankError, match="use a smaller replay_capacity"):
        Replay(10**15, 4, 2, 1)


def test_a_full_ring_ends_the_episodes_of_its_newest_steps_alone():
    copies, capacity = 3, 10
    replay, rows = filled(5, capacity, copies, end_rate=0.0)
    replay.end_episodes()
    number, ended = replay.rows[:, 0], replay.rows[:, replay._reward + 2]
    assert sorted(number[ended == 1.0].tolist()) == [len(rows) - 3, len(rows) - 2, len(rows) - 1]

"""Units and plans: definitions, files, what a figure needs; and the statistics of results."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import trim_mean
from scipy.stats.mstats import winsorize
from skillbank.envs.swimmer import FINISH_LINE
from studying import STEPS, finish, places, planned, tiny

from skillbank.cli import commands
from skillbank.config import finetune_recipe
from skillbank.errors import SkillbankError
from skillbank.evaluation import direction_counts
from skillbank.studies import plan, tracking
from skillbank.studies.statistics import (
    direction_entropy,
    interquartile_mean,
    interquartile_means,
    wilson,
)
from skillbank.studies.unit import RivalConfig, Unit, finished, read_result

# Units.


@pytest.mark.parametrize("algorithm", ["default", "anchored", "ddpg", "sac"])
def test_a_definition_survives_json(algorithm):
    unit = tiny(algorithm, 3)
    assert Unit.model_validate_json(unit.model_dump_json()) == unit
    assert type(Unit.model_validate_json(unit.model_dump_json()).learning) is type(unit.learning)


def test_a_result_counts_only_for_its_own_definition(tmp_path):
    where, unit = places(tmp_path), tiny()
    assert not finished(unit, where)
    finish(unit, where)
    assert finished(unit, where)
    assert not finished(tiny(segment_steps=400), where)
    assert not finished(tiny(seed=1), where)


def test_a_setting_that_came_later_has_its_default_in_older_results(tmp_path):
    where, unit = places(tmp_path), tiny()
    finish(unit, where)
    path = where.result(unit)
    result = json.loads(path.read_text())
    del result["unit"]["learning"]["n_step"], result["unit"]["action_values"]
    path.write_text(json.dumps(result))
    assert finished(tiny(learning=unit.learning.model_copy(update={"n_step": 1})), where)
    assert not finished(unit, where)  # which has n_step 3
    result["unit"]["learning"]["gone"] = 1
    path.write_text(json.dumps(result))
    assert not finished(unit, where)


def test_a_result_is_of_its_parents_definition_too(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name, parent_unit=parent)
    finish(child, where)
    path = where.result(child)
    result = json.loads(path.read_text())
    del result["unit"]["parent_unit"]["learning"]["precision"]  # it came later
    path.write_text(json.dumps(result))
    assert finished(child, where)
    result["unit"]["parent_unit"]["learning"]["temperature"] = 0.3  # as were the default once
    path.write_text(json.dumps(result))
    assert not finished(child, where)


MADE = {"versions": {"skillbank": "0.1.0"}, "sources": "abc", "machine": "m"}


def test_a_file_that_is_no_result_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(SkillbankError, match=r"x\.json is no result.*delete it"):
        read_result(path)
    path.write_text('{"format": 99}')
    with pytest.raises(SkillbankError, match="format 99, expected 2"):
        read_result(path)
    for wrong in (
        {"format": 2},
        {"format": 2, "unit": {}, "made": {}, "measured": {}},
        {"format": 2, "unit": {}, "made": None, "measured": {"final": {}}},
        {"format": 2, "unit": {}, "made": MADE, "measured": ["final"]},
        {"format": 2, "unit": [], "made": MADE, "measured": {"final": {}}},
        {"format": 2, "unit": {}, "made": MADE | {"machine": "a\n# b"}, "measured": {"final": {}}},
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(SkillbankError, match=r"x\.json is no result.*delete it"):
            read_result(path)
    path.write_text(json.dumps({"format": 2, "unit": {}, "made": MADE, "measured": {"final": {}}}))
    assert read_result(path) is not None
    path.write_text("[" * 200_000)
    with pytest.raises(SkillbankError, match=r"x\.json is no result.*delete it"):
        read_result(path)


def test_a_result_is_of_what_its_parent_has_left(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name, parent_unit=parent)
    finish(parent, where)
    finish(child, where)
    assert finished(child, where)
    path = where.result(parent)
    result = json.loads(path.read_text())
    for parameters, alike in (("abcd", True), ("dcba", False), (None, True)):
        result["made"] |= {"parameters": parameters}
        if parameters is None:
            del result["made"]["parameters"]  # nothing is told by older results
        path.write_text(json.dumps(result))
        assert finished(child, where) == alike
    path.write_text(json.dumps(result | {"measured": {"diverged": "at step 3"}}))
    assert not finished(child, where)


# Plans.


@pytest.mark.parametrize("figure", plan.FIGURES)
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_parent_is_planned_before_its_children_and_names_are_unique(figure, budget):
    units = plan.units([figure], budget)
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    for unit in units:
        if unit.parent is not None and not unit.parent.startswith("bank:"):
            assert names.index(unit.parent) < names.index(unit.name)


def test_figure_5_is_at_equal_steps_and_in_full_each_seed_has_its_own_parent():
    units = {unit.name: unit for unit in plan.units(["5"], "full", [4])}
    for task in plan.FINETUNED:
        steps = {u.total_steps for u in units.values() if u.experiment == task}
        assert steps == {plan.STEPS[task]["full"]}
        assert units[f"{task}/anchored-4"].parent == "QuadrupedRun/default-4"
        assert units[f"{task}/ddpg_pretrained-4"].parent == "QuadrupedRun/ddpg-4"
        assert units[f"{task}/ddpg_soft_pretrained-4"].parent == "QuadrupedRun/ddpg_soft-4"
        assert units[f"{task}/default-4"].parent is None
    assert planned("QuadrupedUMaze", "anchored", 4).parent == "bank:run_anywhere"


def test_ddpg_has_the_papers_constants():
    learning = plan.unit("QuadrupedMaze", "ddpg", 0, "full").learning
    assert isinstance(learning, RivalConfig)
    assert (learning.critic_learning_rate, learning.actor_learning_rate) == (1e-3, 1e-4)
    assert (learning.hidden, learning.batch_size) == ((200, 200), 64)
    assert (learning.noise_theta, learning.noise_sigma) == (0.15, 0.3)
    assert (learning.target_period, learning.target_rate) == (1000, 1.0)
    assert (learning.replay_capacity, learning.learning_starts) == (1_000_000, 10_000)


def test_soft_copies_are_all_that_differs_from_ddpg():
    hard, soft = (plan.unit("QuadrupedUMaze", kind, 0, "full") for kind in ("ddpg", "ddpg_soft"))
    assert isinstance(soft.learning, RivalConfig)
    assert (soft.learning.target_period, soft.learning.target_rate) == (0, 0.005)
    back = {"target_period": 1000, "target_rate": 1.0}
    same = {"algorithm": "ddpg", "learning": soft.learning.changed(**back)}
    assert soft.changed(**same) == hard


def test_symmetries_are_all_that_differs_from_sac():
    plain, other = (
        plan.unit("QuadrupedHallwayNarrow", kind, 0, "full") for kind in ("sac", "sac_symmetry")
    )
    assert (plain.learning.symmetry, other.learning.symmetry) == (False, True)
    same = {"algorithm": "sac", "learning": other.learning.changed(symmetry=False)}
    assert other.changed(**same) == plain


@pytest.mark.parametrize("task", plan.FINETUNED)
def test_beside_a_fine_tuning_all_begin_to_learn_at_one_step(task):
    kinds = ("anchored", "paper", "default", *plan.DDPGS)
    begins = {plan.unit(task, kind, 0, "full").learning.learning_starts for kind in kinds}
    assert begins == {finetune_recipe(task).learning_starts}


def test_a_result_does_not_outlive_what_it_started_from(monkeypatch, tmp_path):
    where, child = places(tmp_path), plan.unit("QuadrupedUMaze", "anchored", 0, "full")
    assert child.parent == "QuadrupedRun/default-0"
    finish(child, where)
    assert finished(child, where)
    monkeypatch.setitem(plan.STEPS["QuadrupedRun"], "full", 300_000)
    assert not finished(plan.unit("QuadrupedUMaze", "anchored", 0, "full"), where)


def test_figure_7_varies_only_the_temperature():
    units = [u for u in plan.units(["7"], "full") if u.seed == 1]
    assert [u.learning.temperature for u in units] == [10.0, 1.0, 0.1, 0.01]
    rest = {json.dumps(u.learning.model_dump(mode="json", exclude={"temperature"})) for u in units}
    assert len(rest) == 1
    assert not any(u.learning.symmetry for u in units)


def test_the_finish_line_is_where_the_task_has_it():
    assert plan.FINISH_LINE == FINISH_LINE


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(KeyError):
        plan.unit("MultiGoal", "ppo", 0, "quick")


# The command's own words.


@pytest.mark.parametrize(
    ("given", "units"), [("0-2", 9), ("1", 3), ("0,2", 6), ("0-1,1-2", 9), (None, 6)]
)
def test_seeds_are_understood(tmp_path, given, units):
    words = ["reproduce", "smoke", "--plan", "--results", str(tmp_path), "--work", str(tmp_path)]
    done = CliRunner().invoke(commands, words + (["--seeds", given] if given else []))
    assert done.exit_code == 0, done.output
    assert f"{units} of {units} units to run" in done.output


@pytest.mark.parametrize("given", ["a", "3-1", "-2", "1-", "0-99999"])
def test_other_seeds_are_refused(given):
    done = CliRunner().invoke(commands, ["reproduce", "smoke", "--plan", "--seeds", given])
    assert done.exit_code == 2
    assert "--seeds" in done.output


# Statistics.


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (8, 10), (3, 7), (1, 1)])
def test_the_ends_of_a_wilson_interval_are_as_unlikely_as_its_level_says(hits, trials):
    """At either end the share is 1.96 standard deviations away, unless it is 0 or 1."""
    share, low, high = wilson(hits, trials)
    assert share == hits / trials
    for end in (low, high):
        if end in (0.0, 1.0):
            assert share == pytest.approx(end, abs=1e-12)
        else:
            deviation = np.sqrt(end * (1.0 - end) / trials)
            assert abs(share - end) / deviation == pytest.approx(1.959964, rel=1e-5)


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (3, 2), (-1, 4)])
def test_rates_that_cannot_be_are_refused(hits, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson(hits, trials)


def test_interquartile_mean_leaves_out_the_extremes():
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e6]
    estimate = interquartile_mean(values)
    assert estimate.value == trim_mean(values, 0.25) == pytest.approx(3.5)
    assert estimate.low < 3.5 < estimate.high
    assert interquartile_mean([2.5]) == (2.5, 2.5, 2.5)
    with pytest.raises(ValueError, match="finite"):
        interquartile_mean([1.0, math.nan])


def test_few_seeds_have_their_mean_and_range():
    assert interquartile_mean([0.0, 10.0, 50.0]) == (20.0, 0.0, 50.0)
    curves = np.array([[0.0, 3.0], [4.0, 1.0]])
    np.testing.assert_array_equal(interquartile_means(curves), [[2.0, 2.0], [0.0, 1.0], [4.0, 3.0]])


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = sum(
        estimate.low <= 0.0 <= estimate.high
        for estimate in (interquartile_mean(rng.normal(size=20)) for _ in range(60))
    )
    assert 48 <= hits <= 60  # a percentile bootstrap of 20 values is somewhat narrow


def test_curves_are_resampled_whole():
    curves = np.random.default_rng(1).normal(size=(8, 5)) + np.arange(5.0)
    value, low, high = interquartile_means(curves)
    np.testing.assert_allclose(value, trim_mean(curves, 0.25, axis=0))
    assert (low <= value).all()
    assert (value <= high).all()


def test_direction_entropy_is_1_for_all_directions_and_0_for_one():
    rng = np.random.default_rng(0)
    assert direction_entropy(rng.uniform(-np.pi, np.pi, 4000)) == pytest.approx(1.0, abs=0.01)
    assert direction_entropy(np.full(50, 0.3)) == 0.0
    four = direction_entropy(np.tile([0.1, 1.7, 3.2, 4.8], 500))
    assert four == pytest.approx(math.log(4) / math.log(16), abs=0.01)


def test_along_an_axis_is_one_direction():
    for quarter in range(-2, 3):
        swaying = quarter * np.pi / 2 + np.array([-0.1, 0.1])
        assert direction_entropy(swaying) == 0.0
        counts = direction_counts(swaying, 8)
        assert counts[2 * quarter % 8] == counts.sum() == 2


def test_baselines_that_are_not_installed_are_told_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("skillbank.cli_reproduce.find_spec", lambda _: None)
    folders = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(commands, ["reproduce", "smoke", *folders])
    assert done.exit_code != 0
    assert "pip install 'skillbank[baselines]'" in str(done.exception) + done.output
    assert not list(tmp_path.rglob("*.json"))


def test_a_unit_is_evaluated_as_it_says(monkeypatch):
    asked = []
    monkeypatch.setattr(tracking, "evaluate", lambda *_, **how: asked.append(how) or Measured())
    unit = tiny(deterministic=True, nominal_start=True)
    tracker = tracking.Tracker(unit, 4, lambda _: None)
    tracker.memory.update(tracker._nothing())
    tracker._evaluate(0, 4, None)
    tracker.final(None)
    seeds = [how.pop("seed") for how in asked]
    assert seeds[0] != seeds[1]
    shared = {"deterministic": True, "nominal_start": True}
    episodes = (unit.evaluation_episodes, unit.final_episodes)
    assert asked == [shared | {"episodes": n} for n in episodes]


class Measured:
    returns, metrics = np.zeros(2), {}


def test_an_episode_that_a_segment_cuts_is_no_return():
    import torch

    unit = tiny(segment_steps=8, evaluations=0)
    tracker = tracking.Tracker(unit, 4, lambda _: None)
    one, end = torch.ones(4), np.ones(4, bool)
    for steps in (4, 8, 12):  # two steps, then a third in the next segment
        tracker(steps, SimpleNamespace(reward=one, ended=end & (steps == 12), info={}), None)
    told = [value for value in tracker.report()["training_returns"] if value is not None]
    assert told == [1.0]


def test_the_last_step_of_a_window_is_in_it():
    import torch

    unit = tiny(evaluations=0)  # windows of 2.4 steps
    tracker = tracking.Tracker(unit, 4, lambda _: None)
    step = SimpleNamespace(reward=torch.ones(4), ended=np.ones(4, bool), info={})
    tracker(12, step, None)
    windows = np.flatnonzero(tracker.memory["episodes"][:, 1])
    assert windows.tolist() == [(12 - 1) * tracking.WINDOWS // STEPS] == [4]


def test_the_extremes_of_a_window_are_of_all_its_steps():
    import torch

    unit = tiny(evaluations=0, watched="goal")
    tracker = tracking.Tracker(unit, 1, lambda _: None)
    for steps, value in ((1, 3.0), (2, 1.0), (3, 2.0)):  # three steps of one window
        info = {"goal": np.array([value])}
        tracker(
            steps, SimpleNamespace(reward=torch.zeros(1), ended=np.zeros(1, bool), info=info), None
        )
    np.testing.assert_array_equal(tracker.memory["extremes"][0], [1.0, 3.0])


def test_the_interval_is_that_of_a_trimmed_mean():
    values = np.random.default_rng(0).standard_t(2, size=200)
    # its standard error is the winsorised deviation over the share that is left
    error = np.std(winsorize(values, (0.25, 0.25)), ddof=1) / (0.5 * math.sqrt(200))
    found = interquartile_mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_seven_seeds_are_few_and_eight_are_not():
    assert interquartile_mean([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 13.0]) == (4.0, 0.0, 13.0)
    found = interquartile_mean([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 27.0])
    assert found.value == 3.5
    assert 0.0 < found.low < found.high < 27.0


def test_the_entropy_of_few_angles_is_corrected():
    expected = (math.log(2) + 1 / (2 * 6)) / math.log(16)  # two bins of 16, three angles in each
    assert direction_entropy([0.0, 0.0, 0.0, 2.0, 2.0, 2.0]) == pytest.approx(expected)

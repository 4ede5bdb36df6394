"""Pictures, tables and the command, from made-up results."""

import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import image
from studying import FakeExecutor, finish, places, planned

from skillbank import cli_reproduce
from skillbank.cli import commands
from skillbank.studies import drawing, gathering, page, plan, scheduler
from skillbank.studies.scheduler import Event, Standing

LEVELS = np.linspace(-1.0, 0.0, 41 * 41).reshape(1, 41, 41).repeat(3, 0).tolist()


def invent(experiment, algorithm, seed, where, *, score, **more):
    """A result such as a training would have, whose evaluations rise linearly to ``score``."""
    unit = planned(experiment, algorithm, seed)
    rng = np.random.default_rng(seed)
    steps = np.linspace(unit.total_steps / 20, unit.total_steps, 20)
    returns = score * np.linspace(0.05, 1.0, 20)
    metrics = {"net_distance": 30.0 + seed, "fallen": 0.02, "success": 0.9} | more.pop(
        "metrics", {}
    )
    final = {"episodes": 100, "mean_return": score, "mean_length": 500.0, "metrics": metrics}
    final["directions"] = rng.uniform(-3.1, 3.1, 100).round(3).tolist()
    final["places"] = rng.uniform(0.0, 9.0, (100, 2)).round(3).tolist()
    final |= more.pop("final", {})
    measured = {
        "evaluations": {"steps": steps.tolist(), "mean_return": returns.tolist()},
        "final": final,
    }
    watched = more.pop("watched", None)
    if watched is not None:
        line = np.linspace(0.0, watched, 100).tolist()
        measured["watched"] = {
            "fact": unit.watched,
            "least": [None, *line[1:]],
            "most": line,
            "evaluated_least": (returns * 0.1 - 0.2).tolist(),
            "evaluated_most": (returns * 0.1).tolist(),
        }
    if unit.traces:
        measured["traces"] = rng.normal(size=(3, 5, 2)).round(3).tolist()
    finish(unit, where, **measured | more)
    return unit


@pytest.fixture
def where(tmp_path):
    return places(tmp_path)


def table_of(text, heading):
    """The rows of the first table after a heading: {first cell: other cells}."""
    lines = text.split(heading, 1)[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    end = lines.index("", lines.index(rows[0]))
    rows = [line for line in lines[:end] if line.startswith("|")]
    return {r[0]: r[1:] for r in ([c.strip() for c in line.strip("|").split("|")] for line in rows)}


def test_a_page_without_results_says_so(where):
    text = page.text("quick", where)
    assert text.count("No results yet.") == len(plan.FIGURES) - 1
    assert drawing.draw(plan.FIGURES, "quick", where) == []


def test_rates_returns_and_steps_stand_in_the_tables(where):
    for seed in range(5):
        # ours is there half-way, at 50 % of the steps
        succeeds = {"success": 0.9 if seed else 0.0}
        invent("QuadrupedUMaze", "anchored", seed, where, score=220.0, metrics=succeeds)
        invent("QuadrupedUMaze", "paper", seed, where, score=1100.0)
        invent("QuadrupedUMaze", "ddpg", seed, where, score=100.0, metrics={"success": 0.25})
        invent("QuadrupedUMaze", "sac", seed, where, score=60.0)
    finish(planned("QuadrupedUMaze", "paper", 5), where, diverged="at step 7")
    text = page.text("quick", where)
    rows = table_of(text, "### U-shaped maze")
    within = "episodes that come within 1 m of the target"
    mark = ["steps to 100", "within 20% of its 40 k"]
    assert rows[""] == ["seeds", "final return", within, "seeds where most do", *mark]
    # the seed that fails is in no middle of five, and yet it is told
    late = ["5 of 10", "220 (220 to 220)", "72%", "80% (38% to 96%)", "20 k", "0% (0% to 43%)"]
    assert rows["ours, anchored"] == late
    fast = rows["ours, paper's schedule"]
    assert (fast[0], fast[4]) == ("6 of 10, 1 diverged", "4 k")
    assert fast[3] == fast[5] == "83% (44% to 97%)"
    none = ["0% (0% to 43%)", "not reached", "0% (0% to 43%)"]
    assert rows["DDPG"] == ["5 of 10", "100 (100 to 100)", "25%", *none]
    assert rows["SAC"][-2:] == ["not reached", "0% (0% to 43%)"]
    again = table_of(text, "### Anchored and naive fine-tuning in the U-shaped maze")
    assert again["ours, anchored"][0] == "5"  # more than were planned
    missing = "DDPG, pretrained; DDPG, soft copies; DDPG, soft copies, pretrained"
    assert f"baseline (no results yet of {missing}), DDPG." in " ".join(text.split())
    cost = table_of(text, "What each training took; 20.0 CPU hours in all:")
    assert cost["ours, anchored"] == ["QuadrupedUMaze", "40 k", "0 k", "60 min", "5 of 10"]
    assert cost["DDPG, pretrained"][-1] == "no results yet"
    assert "Made with torch 2.13.0;\non x86_64, 2 cores, Linux; hash of the code: 0123." in text


def test_of_two_seeds_steps_the_later_one_is_told(where):
    invent("QuadrupedHallwayWide", "ddpg", 0, where, score=100.0, final={"progress": [9.0]})
    for seed, score in enumerate((220.0, 60.0)):
        invent("QuadrupedHallwayWide", "paper", seed, where, score=score, final={"progress": [1.0]})
    rows = table_of(page.text("quick", where), "### Wide hallway")
    assert rows["ours, paper's schedule"][-2:] == ["not reached", "0% (0% to 66%)"]
    invent("QuadrupedHallwayWide", "paper", 1, where, score=9_000.0, final={"progress": [1.0]})
    rows = table_of(page.text("quick", where), "### Wide hallway")
    assert rows["ours, paper's schedule"][-2:] == ["8 k", "50% (9% to 91%)"]


def test_luck_in_one_evaluation_is_no_level_reached(where):
    for seed in range(5):
        invent("QuadrupedHallwayWide", "ddpg", seed, where, score=100.0, final={"progress": [9.0]})
        invent(
            "QuadrupedHallwayWide", "anchored", seed, where, score=100.0, final={"progress": [9.0]}
        )
        path = where.result(planned("QuadrupedHallwayWide", "anchored", seed))
        result = json.loads(path.read_text())
        result["measured"]["evaluations"]["mean_return"][3] = 500.0
        path.write_text(json.dumps(result))
    rows = table_of(page.text("quick", where), "### Wide hallway")
    assert rows["ours, anchored"][-2] == "not reached"


def test_every_version_behind_the_numbers_is_told(where):
    for seed, code in enumerate(("aaaa", "bbbb")):
        invent("MultiGoal", "default", seed, where, score=-9.0, final={"goals": [25] * 4})
        path = where.result(planned("MultiGoal", "default", seed))
        result = json.loads(path.read_text())
        result["made"]["sources"] = code
        result["made"]["versions"]["torch"] = f"2.{seed}"
        path.write_text(json.dumps(result))
    text = page.text("quick", where)
    assert "Made with torch 2.0 and 2.1;" in text
    assert "hash of the code: aaaa, bbbb." in text


def test_an_algorithm_that_always_diverges_is_told(where):
    invent("QuadrupedUMaze", "ddpg", 0, where, score=100.0)
    for seed in range(2):
        finish(planned("QuadrupedUMaze", "sac", seed), where, diverged="at step 7")
    rows = table_of(page.text("quick", where), "### U-shaped maze")
    assert rows["SAC"] == ["2 of 10, 2 diverged", *["all diverged"] * 5]


def test_the_swimmer_is_judged_by_where_its_episodes_end(where):
    for seed in range(5):
        ahead = 1.2 if seed else -0.4
        final = {"progress": [ahead, ahead, -1.0]}
        invent("SwimmerFinishLine", "ddpg", seed, where, score=5.0, watched=1.0, final=final)
        path = where.result(planned("SwimmerFinishLine", "ddpg", seed))
        result = json.loads(path.read_text())
        window = 50 if seed < 2 else 90  # before the line is crossed, and after
        result["measured"]["watched"]["least"][window] = -0.31
        path.write_text(json.dumps(result))
    rows = table_of(page.text("quick", where), "Figure 3a")
    assert rows["DDPG"][1] == "100% (57% to 100%)"
    assert rows["DDPG"][2] == "49 k"  # of 60 k, in the 81st of 100 windows
    assert rows["DDPG"][3].startswith("40% (")
    assert rows["DDPG"][4].startswith("80% (")
    assert "Here all of DDPG's do in training" in " ".join(page.text("quick", where).split())


def test_the_maze_is_judged_by_how_near_training_came(where):
    for seed, nearest in enumerate((1.0, 6.2)):
        ends = {"places": [[14.0, 0.5], [13.0 - 9.0 * seed, 0.0]]}
        invent("QuadrupedMaze", "default", seed, where, score=1.0, watched=0.0, final=ends)
        path = where.result(planned("QuadrupedMaze", "default", seed))
        result = json.loads(path.read_text())
        result["measured"]["watched"]["least"] = [None, 12.0, nearest, 9.0]
        path.write_text(json.dumps(result))
    rows = table_of(page.text("quick", where), "Figure 3b")
    assert rows[""][1] == "below the threshold of 6.0 m in training"
    assert rows["ours, from scratch"][1].startswith("50% (")
    assert rows["ours, from scratch"][2] == "not reached"  # by the later of the two
    assert rows["ours, from scratch"][4].startswith("50% (")
    assert "this difference does not show" not in page.text("quick", where)


def test_multi_goal_counts_the_goals(where):
    for seed, goals in enumerate(([25, 25, 25, 25], [50, 50], [16, 16, 16, 52])):
        invent("MultiGoal", "default", seed, where, score=-9.0, final={"goals": goals})
    rows = table_of(page.text("quick", where), "Figure 1")
    assert rows["ours, default"][1].startswith("67% (")
    assert rows["ours, default"][2].startswith("0% (")
    assert rows["ours, default"][3] == "0.14 to 0.42"


def test_multi_goal_tells_who_commits_to_one_goal(where):
    for seed, goals in enumerate(([0, 100], [0, 0, 0, 100], [99, 1])):
        invent("MultiGoal", "ddpg", seed, where, score=-9.0, final={"goals": goals})
    rows = table_of(page.text("quick", where), "Figure 1")
    assert rows["DDPG"][1].startswith("0% (")
    assert rows["DDPG"][2].startswith("67% (")


def test_diverged_and_outdated_results_are_told_apart(where):
    invent("SwimmerFinishLine", "ddpg", 0, where, score=5.0, watched=1.0, final={"progress": [1.0]})
    finish(planned("SwimmerFinishLine", "ddpg", 1), where, diverged="at step 7")
    old = planned("SwimmerFinishLine", "ddpg", 2).model_copy(update={"final_episodes": 3})
    finish(old, where)
    group = gathering.gather("SwimmerFinishLine", "ddpg", "quick", where, 10)
    assert (len(group), group.seeds, group.stale) == (1, 2, 1)
    text = page.text("quick", where)
    assert table_of(text, "Figure 3a")["DDPG"][1].startswith("50% (")
    assert "2 of 10, 1 diverged, 1 of another definition left out" in text


def test_another_spelling_of_a_seed_is_not_counted(where):
    unit = invent("SwimmerFinishLine", "ddpg", 1, where, score=500.0)
    whole = where.result(unit).read_text()
    for seed in ("01", "\u0661", "+1"):  # the second is an Arabic 1
        where.result(unit).with_name(f"ddpg-{seed}.json").write_text(whole.replace("500", "900"))
    group = gathering.gather("SwimmerFinishLine", "ddpg", "quick", where, 10)
    assert list(group.results) == [1]
    assert group.final("mean_return").tolist() == [500.0]


def test_temperatures_and_what_is_not_in_the_paper(where):
    for seed in range(2):
        for alpha in plan.TEMPERATURES:
            invent("QuadrupedRun", f"alpha_{alpha:g}", seed, where, score=900.0)
        invent("QuadrupedRun", "no_symmetry", seed, where, score=900.0)
        for kind in ("default", "stein", "noise"):
            invent("QuadrupedRun", kind, seed, where, score=900.0)
            invent("MultiGoal", kind, seed, where, score=-9.0, final={"goals": [25] * 4})
    text = page.text("quick", where)
    rows = table_of(text, "Figure 7")
    assert list(rows)[2:] == ["alpha = 10", "alpha = 1", "alpha = 0.1", "alpha = 0.01"]
    assert rows["alpha = 1"][:3] == ["2 of 3", "30.5 m (30.0 to 31.0)", "1.22 m/s (1.20 to 1.24)"]
    assert rows["alpha = 1"][-1] == "60 min"
    assert set(table_of(text, "### Symmetry")) >= {"with symmetry", "without symmetry"}
    kinds = {"flow, divergence", "flow, Stein", "noise-fed, Stein"}
    assert set(table_of(text, "### Samplers, multi-goal")) >= kinds
    assert set(table_of(text, "### Samplers, pretraining")) >= kinds


def test_every_figure_is_drawn_from_its_results(where):
    values = {"states": [[0, 0]] * 3, "q": LEVELS, "actions": np.zeros((3, 4, 2)).tolist()}
    for seed in range(2):
        goals = {"goals": [25] * 4}
        invent("MultiGoal", "default", seed, where, score=1.0, final=goals, action_values=values)
        invent("MultiGoal", "ddpg", seed, where, score=1.0, final=goals)
        for algorithm in ("default", "ddpg"):
            told = {"progress": [1.0]}
            invent("SwimmerFinishLine", algorithm, seed, where, score=1.0, watched=1.0, final=told)
            invent("QuadrupedMaze", algorithm, seed, where, score=1.0, watched=9.0)
            invent("QuadrupedUMaze", algorithm, seed, where, score=1.0)
        invent("QuadrupedRun", "alpha_1", seed, where, score=1.0)
    paths = drawing.draw(plan.PAPER, "quick", where)
    assert [path.name for path in paths] == [
        f"figure_{name}.png" for name in ("1", "3a", "3b", "5", "6", "7")
    ]
    written = page.write("quick", where)
    targets = re.findall(r"!\[[^]]*\]\(([^)]+)\)", written.read_text())
    assert [(written.parent / target) for target in targets] == paths
    # every curve and trace is in its picture: another one is drawn when one result is another
    before = [image.imread(path) for path in paths]
    values["actions"] = np.ones((3, 4, 2)).tolist()
    invent("MultiGoal", "default", 0, where, score=1.0, final=goals, action_values=values)
    invent("SwimmerFinishLine", "ddpg", 1, where, score=0.5, watched=0.5, final=told)
    invent("QuadrupedMaze", "ddpg", 1, where, score=1.0, watched=5.0)
    invent("QuadrupedUMaze", "ddpg", 1, where, score=0.5)
    traces = np.ones((3, 5, 2)).tolist()
    invent("QuadrupedRun", "alpha_1", 0, where, score=1.0, traces=traces)
    for path, old in zip(drawing.draw(plan.PAPER, "quick", where), before, strict=True):
        new = image.imread(path)
        assert new.shape[0] > 200
        assert new.shape != old.shape or np.abs(new - old).max() > 0.2, path.name
    # a picture goes with its results
    for seed in range(2):
        for algorithm in ("default", "ddpg"):
            where.result(planned("QuadrupedMaze", algorithm, seed)).unlink()
    where.result(planned("MultiGoal", "default", 0)).unlink()
    where.result(planned("MultiGoal", "ddpg", 0)).unlink()
    left = drawing.draw(plan.PAPER, "quick", where)
    assert left == [path for path in paths if path.stem not in ("figure_1", "figure_3b")]
    assert [path for path in paths if path.exists()] == left
    targets = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.write("quick", where).read_text())
    assert [(written.parent / target) for target in targets] == left


def test_a_page_of_diverged_trainings_alone_says_so(where):
    for experiment in ("MultiGoal", "SwimmerFinishLine", "QuadrupedMaze"):
        finish(planned(experiment, "ddpg", 0), where, diverged="at step 3")
    text = page.text("quick", where)
    for heading in ("Figure 1", "Figure 3a", "Figure 3b"):
        assert table_of(text, heading)["DDPG"][1] == "all diverged"


# The command.


def reproduce(where, *words):
    folders = ["--results", str(where.results), "--work", str(where.work)]
    return CliRunner().invoke(commands, ["reproduce", *words, *folders])


def test_the_command_runs_draws_and_writes_the_page(where, monkeypatch):
    executor = FakeExecutor(where)
    monkeypatch.setattr(cli_reproduce, "_executor", lambda *_: executor)
    done = reproduce(where, "smoke", "--seeds", "0")
    assert done.exit_code == 0, done.output
    assert len(executor.started) == 3
    assert "3 of 3 units done, 0 of them before" in done.output
    page = (where.results / "quick" / "README.md").read_text()
    assert page.startswith("# Results")
    section = page[page.index("## Check of the installation") :]
    for label in ("ours, from scratch", "DDPG", "ours, anchored"):
        assert f"| {label} | 1 of 2 |" in section
    assert not (where.results.parent / "results.md").exists()
    only = reproduce(where, "smoke", "--seeds", "1", "--only", "anchored", "--plan").output
    assert "anchored" in only
    assert "default" in only  # which it starts from
    assert "ddpg" not in only
    assert "no algorithm 'dppg'" in reproduce(where, "smoke", "--only", "dppg").output
    assert "3 of them before" in reproduce(where, "smoke", "--seeds", "0").output


def test_the_command_names_what_failed(where, monkeypatch):
    executor = FakeExecutor(where, failing=["PointMassReach/ddpg-1"])
    monkeypatch.setattr(cli_reproduce, "_executor", lambda *_: executor)
    done = reproduce(where, "smoke")
    assert done.exit_code == 2
    assert "1 units failed" in done.output
    assert "PointMassReach/ddpg-1: no such thing" in done.output


def test_a_plan_runs_nothing_and_adds_up(where):
    finish(planned("PointMassReach", "default", 0), where)
    done = reproduce(where, "smoke", "--plan", "--workers", "2")
    assert done.exit_code == 0
    assert "5 of 6 units to run" in done.output
    assert not (where.results.parent / "results.md").exists()


def test_an_interrupted_command_says_that_it_can_go_on(where, monkeypatch):
    executor = FakeExecutor(where)
    executor.events = lambda timeout: (_ for _ in ()).throw(KeyboardInterrupt)
    monkeypatch.setattr(cli_reproduce, "_executor", lambda *_: executor)
    done = reproduce(where, "smoke")
    assert done.exit_code == 130
    assert "stopped; run the same command to continue" in done.output
    assert executor.closed


def test_folders_that_cannot_be_written_are_refused_before_anything_runs(where):
    where.results.write_text("a file")
    done = reproduce(where, "smoke")
    assert done.exit_code == 2
    assert "--results" in done.output


def test_the_display_tells_share_and_who_runs(capsys):
    units = tuple(planned("PointMassReach", "default", seed) for seed in range(4))
    half = units[1].total_steps // 2
    standing = Standing(units, done={units[0].name})
    standing.running[units[1].name] = Event(units[1].name, "progress", half)
    assert cli_reproduce.share_done(standing) == pytest.approx(0.375)
    with cli_reproduce.Board("smoke") as board:
        board(standing)
    said = capsys.readouterr().err
    assert "smoke: 38%, 1 of 4 done" in said
    assert f"{units[1].name} 50%" in said


def test_the_scheduler_shows_units_without_word_as_not_begun(where):
    units = [planned("PointMassReach", "default", 0)]
    shown = []
    scheduler.run(units, where, FakeExecutor(where), lambda s: shown.append(dict(s.running)))
    assert shown[0][units[0].name].steps == 0


@pytest.mark.parametrize(
    ("returns", "steps"),
    [
        ([9, 9, 9, 0, 0, 0], 0.0),
        ([0, 0, 9, 9, 9, 0], 30.0),
        ([0, 9, 9, 0, 9, 9], math.inf),
        ([0, 8, 8, 8, 8, 8], math.inf),
    ],
)
def test_a_level_is_reached_at_the_first_of_three_in_a_row(returns, steps):
    told = {"evaluations": {"steps": [10, 20, 30, 40, 50, 60], "mean_return": returns}}
    group = gathering.Group("E", "a", 1, {0: {"measured": told}})
    assert group.steps_to(9.0).tolist() == [steps]


def test_fine_tuning_without_symmetries_is_compared_with_the_baseline(where):
    task = "QuadrupedHallwayNarrow"
    scores = {"anchored": 100.0, "anchored_no_symmetry": 10.0, "sac": 50.0, "sac_symmetry": 70.0}
    for algorithm, score in scores.items():
        for seed in range(3):
            final = {"progress": [score / 10]}
            invent(task, algorithm, seed, where, score=score, final=final)
    rows = table_of(page.text("quick", where), "Symmetry, fine-tuning")
    assert rows[""][-2:] == ["steps to 50", "within 20% of its 16 k"]
    assert rows["ours, anchored"][1].startswith("100 (")
    assert rows["ours, anchored, without symmetry"][1].startswith("10 (")
    assert rows["ours, anchored, without symmetry"][4] == "not reached"
    assert rows["SAC, with symmetries"][1].startswith("70 (")


def test_backward_counts_until_the_line_is_first_crossed(where):
    invent("SwimmerFinishLine", "ddpg", 0, where, score=5.0, watched=1.0, final={"progress": [1.0]})
    path = where.result(planned("SwimmerFinishLine", "ddpg", 0))
    result = json.loads(path.read_text())
    watched = result["measured"]["watched"]
    watched["most"][95], watched["least"][95] = 0.0, -0.31  # it has come back
    path.write_text(json.dumps(result))
    rows = table_of(page.text("quick", where), "Figure 3a")
    assert rows["DDPG"][3].startswith("0% (")

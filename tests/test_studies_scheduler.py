"""The scheduler with an executor that needs no processes."""

import json

import pytest
import studying
from studying import FakeExecutor, finish, places, tiny

from skillbank.studies import scheduler
from skillbank.studies.unit import done, read_result


def run(units, where, executor):
    shown = []

    def show(standing):
        shown.append((len(standing.done), sorted(standing.running)))

    standing = scheduler.run(units, where, executor, show)
    assert executor.closed
    assert executor.most <= executor.slots
    return standing, shown


def test_all_units_are_run_once_and_shown_on_the_way(tmp_path):
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(5)]
    executor = FakeExecutor(where)
    standing, shown = run(units, where, executor)
    assert executor.started == [unit.name for unit in units]
    assert standing.done == {unit.name for unit in units}
    assert (standing.failed, standing.skipped, standing.retries) == ({}, 0, 0)
    assert shown[0] == (0, [units[0].name, units[1].name])
    assert shown[-1] == (5, [])


def test_what_is_done_is_skipped(tmp_path):
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(3)]
    finish(units[1], where)
    executor = FakeExecutor(where)
    standing, _ = run(units, where, executor)
    assert executor.started == [units[0].name, units[2].name]
    assert standing.skipped == 1
    again = FakeExecutor(where)
    run(units, where, again)
    assert again.started == []


def test_a_unit_that_dies_is_tried_again_three_times_in_all(tmp_path):
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(2)]
    first, second = (unit.name for unit in units)
    executor = FakeExecutor(where, dying={first: 2, second: 3})
    standing, _ = run(units, where, executor)
    assert executor.started.count(first) == 3
    assert executor.started.count(second) == 3
    assert standing.done == {first}
    assert standing.failed == {second: "gone"}
    assert standing.retries == 4


def test_a_unit_that_ends_by_an_error_is_not_tried_again_now_but_by_the_next_run(tmp_path):
    where, unit = places(tmp_path), tiny()
    executor = FakeExecutor(where, failing=[unit.name])
    standing, _ = run([unit, tiny(seed=1)], where, executor)
    assert executor.started.count(unit.name) == 1
    assert standing.failed == {unit.name: "no such thing"}
    assert len(standing.done) == 1
    assert run([unit], where, FakeExecutor(where))[0].done == {unit.name}


def test_parents_come_first_and_their_skill_is_handed_on(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name)
    executor = FakeExecutor(where)
    run([child, parent], where, executor)
    assert executor.started == [parent.name, child.name]
    assert executor.parents == {parent.name: None, child.name: where.learned(parent)}


def test_children_of_a_unit_that_failed_are_given_up(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name)
    executor = FakeExecutor(where, failing=[parent.name])
    standing, _ = run([parent, child], where, executor)
    assert executor.started == [parent.name]
    assert standing.failed[child.name] == f"its parent {parent.name} failed"


def test_a_done_parent_is_run_again_only_if_a_child_lacks_its_skill(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name)
    finish(parent, where)
    where.learned(parent).unlink()  # as after a fresh checkout, which has results only
    assert scheduler.unfinished([parent, child], where) == [parent, child]
    finish(child, where)
    assert scheduler.unfinished([parent, child], where) == []


def test_a_parent_is_run_again_where_its_skill_is_not_that_of_its_result(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name)
    finish(parent, where)
    assert scheduler.unfinished([parent, child], where) == [child]
    assert done(parent, where)
    where.learned(parent).write_bytes(b"another skill")  # results come from elsewhere, say
    assert scheduler.unfinished([parent, child], where) == [parent, child]
    assert not done(parent, where)


def test_children_are_not_trained_again_with_a_parent_whose_result_was_lost(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name, parent_unit=parent)
    for unit in (parent, child):
        finish(unit, where)
        where.learned(unit).unlink()
    where.result(parent).unlink()
    executor = FakeExecutor(where)
    standing, _ = run([parent, child], where, executor)
    assert executor.started == [parent.name]
    assert standing.done == {parent.name, child.name}


def test_all_children_follow_a_parent_that_became_another(tmp_path, monkeypatch):
    where, parent = places(tmp_path), tiny()
    children = [tiny("anchored", n, parent=parent.name, parent_unit=parent) for n in range(2)]
    for unit in (parent, children[0]):
        finish(unit, where)
    where.learned(parent).unlink()  # the other child needs it
    monkeypatch.setattr(studying, "PARAMETERS", "of another processor")
    executor = FakeExecutor(where)
    standing, _ = run([parent, *children], where, executor)
    assert executor.started == [parent.name, children[1].name, children[0].name]
    assert standing.done == {parent.name, children[0].name, children[1].name}
    assert (standing.failed, standing.skipped) == ({}, 0)
    assert all(scheduler.finished(unit, where) for unit in children)


def test_a_child_is_run_again_when_its_parent_is_defined_otherwise(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name)
    finish(parent, where)
    finish(child, where)
    other = tiny(segment_steps=300)
    assert scheduler.unfinished([other, child], where) == [other, child]


def test_nobody_starts_from_a_training_that_diverged(tmp_path):
    where, parent = places(tmp_path), tiny()
    child = tiny("anchored", parent=parent.name, parent_unit=parent)
    finish(parent, where, diverged="at step 3")
    where.learned(parent).unlink()
    path = where.result(parent)
    result = json.loads(path.read_text())
    del result["made"]["parameters"], result["made"]["learned"]
    path.write_text(json.dumps(result))
    for _ in range(2):  # nor is it trained again
        executor = FakeExecutor(where)
        standing, _ = run([parent, child], where, executor)
        assert executor.started == []
        assert standing.failed == {}
        assert standing.done == {parent.name, child.name}
        told = read_result(where.result(child))["measured"]
        assert told == {"diverged": f"its parent {parent.name} diverged"}
    finish(parent, where)  # it has been trained by another code
    standing, _ = run([parent, child], where, executor)
    assert executor.started == [child.name]


def test_a_parent_in_the_bank_needs_no_unit_and_another_does(tmp_path):
    where = places(tmp_path)
    executor = FakeExecutor(where)
    run([tiny("anchored", parent="bank:run_anywhere")], where, executor)
    assert list(executor.parents.values()) == [None]
    with pytest.raises(ValueError, match=r"no units of this study.*MultiGoal/default-0"):
        run([tiny("anchored", parent="MultiGoal/default-0")], where, FakeExecutor(where))


def test_a_unit_of_another_command_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "BUSY_SECONDS", 0.0)
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(2)]
    busy = units[0].name
    executor = FakeExecutor(where, slots=1, busy={busy: 1})

    def start(unit, parent, begin=executor.start):
        if unit.name == units[1].name:
            finish(units[0], where)  # the other command is done with it now
        begin(unit, parent)

    executor.start = start
    standing, _ = run(units, where, executor)
    assert executor.started == [busy, units[1].name]
    assert standing.done == {unit.name for unit in units}


def test_two_commands_share_the_work(tmp_path):
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(4)]

    class Beside(FakeExecutor):
        """While its first unit runs, another command does two more; one of them diverges."""

        def start(self, unit, parent):
            super().start(unit, parent)
            if len(self.started) == 1:
                finish(units[2], where)
                finish(units[3], where, diverged="at step 7")
                where.learned(units[3]).unlink()

    executor = Beside(where, slots=1)
    standing, _ = run(units, where, executor)
    assert executor.started == [unit.name for unit in units[:2]]
    assert standing.done == {unit.name for unit in units}


def test_an_interrupted_study_stops_its_units(tmp_path):
    where = places(tmp_path)
    executor = FakeExecutor(where)

    def stop(standing):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler.run([tiny()], where, executor, stop)
    assert executor.closed

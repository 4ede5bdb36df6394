"""Studies in real processes: on this machine and on a Ray cluster, with kill -9."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import ray
import torch
from studying import places, tiny

from skillbank.errors import SkillbankError
from skillbank.studies import scheduler
from skillbank.studies.cluster import RayCluster
from skillbank.studies.local import ONE_THREAD, LocalProcesses
from skillbank.studies.performing import perform
from skillbank.studies.unit import Places, Unit, read_result


def lasting(steps: int, **changes) -> Unit:
    return tiny(learning=tiny().learning.model_copy(update={"total_steps": steps}), **changes)


class KillOnce:
    """Shows nothing; kills a unit's process as soon as it has left a checkpoint."""

    def __init__(self, unit: Unit, where: Places) -> None:
        self.folder, self.killed = where.folder(unit), False

    def __call__(self, standing: scheduler.Standing) -> None:
        if not self.killed and (self.folder / "checkpoint.npz").is_file():
            os.kill(int((self.folder / "lock").read_text()), signal.SIGKILL)
            self.killed = True


def measured(unit: Unit, where: Places):
    result = read_result(where.result(unit))
    assert result is not None
    return result["measured"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A parent and its child, trained in this very process without any trouble."""
    where = places(tmp_path_factory.mktemp("undisturbed"))
    parent = lasting(600)
    child = tiny("anchored", parent=parent.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for unit, source in ((parent, None), (child, where.learned(parent))):
        perform(unit, where, source, lambda _: None)
    torch.set_num_threads(threads)
    return where, [parent, child]


@pytest.fixture
def watchful(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)


@pytest.mark.usefixtures("watchful")
def test_a_killed_worker_goes_on_with_the_same_numbers_and_a_wrong_one_says_why(
    tmp_path, undisturbed
):
    before, (unit, _) = undisturbed
    where, wrong = places(tmp_path), tiny(env_id="Nowhere-v0", seed=1)
    killer = KillOnce(unit, where)
    standing = scheduler.run([unit, wrong], where, LocalProcesses(where, 2), killer)
    assert killer.killed
    assert standing.retries == 1
    assert standing.done == {unit.name}
    assert measured(unit, where) == measured(unit, before)
    assert list(standing.failed) == [wrong.name]
    assert "no environment 'Nowhere-v0'" in standing.failed[wrong.name]


def test_workers_end_with_a_study_that_is_killed(tmp_path):
    where, units = places(tmp_path), [tiny(seed=seed) for seed in range(2)]
    code = f"""
from pathlib import Path
from skillbank.studies.local import LocalProcesses
from skillbank.studies.unit import Places, Unit
executor = LocalProcesses(Places(Path({str(where.results)!r}), Path({str(where.work)!r})), 2)
for definition in {[unit.model_dump_json() for unit in units]!r}:
    executor.start(Unit.model_validate_json(definition), None)
print(*(process.pid for process in executor.processes.values()), flush=True)
executor.events(600.0)
"""
    study = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | ONE_THREAD
    )
    assert study.stdout is not None
    workers = [int(word) for word in study.stdout.readline().split()]
    assert len(workers) == 2
    assert all(runs(worker) for worker in workers)
    study.kill()
    study.wait()
    study.stdout.close()
    patience = time.monotonic() + 60.0
    while any(runs(worker) for worker in workers) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not any(runs(worker) for worker in workers)
    assert not any(where.result(unit).exists() for unit in units)


def runs(pid: int) -> bool:
    """Whether a process lives; one that nobody has buried yet does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith(b"Z")


def test_a_worker_that_cannot_start_is_given_up_after_three_tries(tmp_path, monkeypatch):
    where, unit = places(tmp_path), tiny()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    standing = scheduler.run([unit], where, LocalProcesses(where, 1), lambda _: None)
    assert standing.retries == 2
    assert standing.failed[unit.name].startswith("its process ended with 1; see ")


# Ray.


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one core each, on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token to the user's home
        for attempt in range(1, 6):
            try:
                ray.init(
                    address="local",
                    num_cpus=2,
                    include_dashboard=False,
                    log_to_driver=False,
                    object_store_memory=100_000_000,
                )
                break
            except Exception as error:  # Ray gives a node 30 s to start, however busy the machine
                if "timed out during startup" not in str(error) or attempt == 5:
                    raise
                ray.shutdown()
        yield
        ray.shutdown()


@pytest.mark.usefixtures("watchful", "cluster")
def test_ray_gives_the_numbers_of_this_machine_with_a_worker_killed(tmp_path, undisturbed):
    before, units = undisturbed
    where, wrong = places(tmp_path), tiny(env_id="Nowhere-v0", seed=1)
    executor = RayCluster(where, "auto")
    assert executor.slots == 2
    killer = KillOnce(units[0], where)
    standing = scheduler.run([*units, wrong], where, executor, killer)
    assert killer.killed
    assert standing.retries == 1
    assert standing.done == {unit.name for unit in units}
    for unit in units:
        assert measured(unit, where) == measured(unit, before)
        assert where.learned(unit).is_file()
    assert "no environment 'Nowhere-v0'" in standing.failed[wrong.name]
    assert "Nowhere" in (where.folder(wrong) / "log.txt").read_text()


@pytest.mark.usefixtures("cluster")
def test_on_ray_a_result_that_cannot_be_written_fails_alone_and_keeps_its_checkpoint(tmp_path):
    where, units = places(tmp_path), [tiny(), tiny("ddpg")]
    where.result(units[0]).mkdir(parents=True)  # a folder where its file should be
    executor = RayCluster(where, "auto")
    ray.kill(executor._note)  # who notes the progress is lost, too
    standing = scheduler.run(units, where, executor, lambda _: None)
    assert standing.done == {units[1].name}
    assert "cannot write" in standing.failed[units[0].name]
    assert (where.folder(units[0]) / "checkpoint.npz").is_file()


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SkillbankError, match=r"pip install 'skillbank\[ray\]'"):
        RayCluster(places(tmp_path), "auto")


def test_without_a_cluster_the_error_says_how_to_begin_one(tmp_path, monkeypatch):
    def refuse(**_):
        raise ConnectionError("nothing there")

    nobody = SimpleNamespace(is_initialized=lambda: False, init=refuse)
    monkeypatch.setitem(sys.modules, "ray", nobody)
    with pytest.raises(SkillbankError, match=r"no Ray cluster at 'auto': nothing there.*ray start"):
        RayCluster(places(tmp_path), "auto")

"""Ctrl-C and SIGTERM, sent to a real process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK_PRETRAIN  # type: ignore[import-not-found]

import skillbank
from skillbank.cli_signals import StopRequest, stop_on_signals

PATIENCE = 120.0  # seconds until a test gives up on a busy machine
MAIN = "from skillbank.cli import main; main()"


def start(words: list[str], cwd: Path, hangup: Any = signal.SIG_DFL) -> subprocess.Popen[str]:
    before = signal.signal(signal.SIGHUP, hangup)  # which a child inherits
    try:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            cwd=cwd,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    finally:
        signal.signal(signal.SIGHUP, before)


def wait_for(what: Any, process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(number: int, bank: skillbank.Bank) -> None:
    here = bank.folder.parent
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    words[words.index("--steps") + 1] = "1000000"
    process = start(words, here)
    wait_for(lambda: list(here.glob("runs/mine/events*")), process)  # it has reported
    process.send_signal(number)
    time.sleep(0.01)
    process.send_signal(number)  # an impatient second one
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "--resume" in error.splitlines()[-1]
    with np.load(here / "runs/mine/checkpoint.npz") as saved:
        meta = json.loads(saved["meta"].tobytes())
        assert len(saved["replay"]) == meta["steps"] > 0
    assert "mine" not in bank.names()


def test_what_was_ignored_at_the_start_is_ignored(bank: skillbank.Bank) -> None:
    """A training under nohup goes on when its terminal is closed."""
    here = bank.folder.parent
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    words[words.index("--steps") + 1] = "1000000"
    process = start(words, here, hangup=signal.SIG_IGN)
    wait_for(lambda: list(here.glob("runs/mine/events*")), process)
    (events,) = here.glob("runs/mine/events*")
    process.send_signal(signal.SIGHUP)
    size = events.stat().st_size
    wait_for(lambda: events.stat().st_size > size + 1000, process)  # it reports on and on
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error


def test_a_signal_while_the_program_loads(bank: skillbank.Bank) -> None:
    here = bank.folder.parent
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    words[words.index("--steps") + 1] = "1000000"
    process = start(words, here)
    assert process.stderr is not None
    process.stderr.readline()  # "... logs in ...": the signals are ours by now, training is not
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, error
    assert "Traceback" not in error


@pytest.mark.usefixtures("signals")
def test_in_the_block_a_signal_is_only_a_request() -> None:
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()


@pytest.mark.usefixtures("signals")
def test_in_an_interruptible_part_it_raises() -> None:
    def work(stop: StopRequest) -> None:
        with stop.interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    with stop_on_signals() as stop:
        with pytest.raises(KeyboardInterrupt):
            work(stop)
        assert stop.made


@pytest.mark.usefixtures("signals")
def test_a_signal_that_came_too_late_for_one_part_ends_the_next() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), stop.interruptible():
            raise AssertionError("not reached")
        stop.note(signal.SIGINT, None)  # raises no longer


@pytest.mark.usefixtures("signals")
def test_without_a_signal_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        assert signal.getsignal(signal.SIGINT) == stop.note
    assert signal.getsignal(signal.SIGINT) == before


def test_a_request_is_made_once() -> None:
    stop = StopRequest()
    stop.made = True
    stop.note(signal.SIGINT, None)
    assert stop()

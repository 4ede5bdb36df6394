"""Options of the whole suite. Being here, it also lets tests import ``skill_files``."""

import os
import signal

import pytest

from skillbank import durable

# What is started in the background ignores Ctrl-C, and so would the commands that are tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the long versions: all bit flips, 1,000 kills, 8 processes x 200 operations",
    )


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))


@pytest.fixture
def synced(monkeypatch):
    """What lies in a folder whenever its names are made durable."""
    real, seen = durable.sync_folder, []

    def sync(folder):
        real(folder)
        seen.append((folder, set(os.listdir(folder))))

    monkeypatch.setattr(durable, "sync_folder", sync)
    return seen

"""Options of the whole suite. Being here, it also lets tests import ``skill_files``."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the long versions: all bit flips, 1,000 kills, 8 processes x 200 operations",
    )


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))

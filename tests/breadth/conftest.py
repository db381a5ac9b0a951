"""tools/architectures.py builds and exports the networks: its folder is made importable. And the option `--fresh`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fresh", action="store_true", help="random graphs that were not tried before")


@pytest.fixture(scope="session")
def fresh(request: pytest.FixtureRequest) -> int:
    """0 for the graphs of every run, another number for others; it is printed, so that a failure can be repeated."""
    number = random.SystemRandom().randrange(1, 2**31) if request.config.getoption("--fresh") else 0
    print(f"random graphs {number}")
    return number

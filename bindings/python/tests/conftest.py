"""The tests find the package and the project's checkpoints without being installed."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "bindings" / "python"), str(ROOT / "tests" / "python")]


@pytest.fixture
def device():
    """The simulated GPU, which must have seen nothing wrong by the end."""
    from simulated_device import Device

    device = Device()
    yield device
    assert device.violations() == []

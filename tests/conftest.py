"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def soak() -> int:
    """How many times longer the long tests run: 1, or 20 with QUANTBENCH_SOAK=1."""
    return 20 if os.environ.get("QUANTBENCH_SOAK") == "1" else 1

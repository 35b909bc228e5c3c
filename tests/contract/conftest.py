"""What the contract's tests share: the probe, for runs in the test's own process."""

import importlib

import pytest


@pytest.fixture
def probe(tmp_path):
    """Give what bodies count and order themselves with; `threads` holds those they ran in."""
    effects = tmp_path / "effects"
    effects.touch()
    # Not at the top: what it needs is found by the conftest above this one.
    made = importlib.import_module("support.zygote").make_probe(str(effects), {})
    made.threads = []
    return made

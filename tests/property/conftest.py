"""Processes that run programs, and whether a program is as the oracle says."""

import itertools
from pathlib import Path

import pytest
from programs.trial import ENGINE
from support.always_replay import Zygote


@pytest.fixture(scope="session")
def theatre(signing_key):
    """Two processes with different hash seeds, which fork for each execution of a program."""
    pair = [Zygote(seed, ENGINE) for seed in (1, 2)]
    yield pair
    for zygote in pair:
        zygote.close()


@pytest.fixture
def folders(tmp_path):
    """Return a new folder each time."""
    count = itertools.count()

    def folder():
        made = Path(tmp_path) / f"case{next(count)}"
        made.mkdir()
        return made

    return folder

"""Fixtures for every test: a signing key of the test's own, and the always-replay bench."""

import itertools
import os
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.always_replay import Bench, Zygote
from support.plain_notebooks import Notebooks

from nbdurable.api import configuration
from nbdurable.evidence import starts
from nbdurable.output import streams

LONG = ("crash", "property", "browser", "notebooks", "contract", "notebook", "store")
"""The folders whose files take long: they begin first, so that no core waits for one at the end."""


# Hundreds of processes import the package: as for a user, it is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(config, items):
    """Put the tests of long files first; the order within a folder stays.

    What needs Python 3.12 is left out before that; `.ci/run` has a leg for it.
    """
    if sys.version_info < (3, 12):
        left_out = [item for item in items if item.get_closest_marker("monitoring")]
        items[:] = [item for item in items if not item.get_closest_marker("monitoring")]
        config.hook.pytest_deselected(items=left_out)
    order = {folder: at for at, folder in enumerate(LONG)}
    here = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(here).parts[0], len(order)))


@pytest.fixture(scope="session", autouse=True)
def signing_key(tmp_path_factory):
    """Keep the user's own key out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBDURABLE_KEY_FILE", str(tmp_path_factory.mktemp("key") / "signing.key"))
        yield


@pytest.fixture(autouse=True)
def working_folder():
    """Let each test have a default store of its own, wherever it works."""
    configuration._state.places.clear()


@pytest.fixture(autouse=True)
def nothing_unseen(monkeypatch):
    """Let runs in the test's own process not say what this Python does not show of code."""
    starts.install()
    monkeypatch.setitem(starts._state, "why", "")


@pytest.fixture(autouse=True)
def no_run_left():
    """Fail the test that leaves a run or a body for good, not every later one that it disturbs.

    A body that was let go may end a little later than its test.
    """
    yield
    pause = threading.Event()
    for _ in range(1000):
        if not streams._users:
            return
        pause.wait(0.01)
    left = streams._users
    for _ in range(left):
        streams.remove()
    pytest.fail(f"{left} runs or bodies of this test don't end: its streams are still replaced")


@pytest.fixture(scope="session")
def zygotes(signing_key):
    """Two processes with different hash seeds, which fork for each execution."""
    pair = [Zygote(1), Zygote(2)]
    yield pair
    for zygote in pair:
        zygote.close()


@pytest.fixture(scope="session")
def notebooks(signing_key):
    """Give what runs notebooks of plain cells, each pass in a process that is killed."""
    made = Notebooks()
    yield made
    made.close()


@pytest.fixture
def bench(zygotes, tmp_path):
    """Return a store and an effects file to run programs on."""
    return Bench(zygotes, tmp_path)


@pytest.fixture
def make_bench(zygotes, tmp_path):
    """Return a function that makes a fresh bench each time."""
    count = itertools.count()

    def make():
        folder = tmp_path / f"bench{next(count)}"
        folder.mkdir()
        return Bench(zygotes, folder)

    return make


@pytest.fixture
def always_replay(bench):
    """Run a program, run it again in new processes, compare everything."""
    return bench.always_replay

"""A real kernel, killed with SIGKILL in mid-cell, and the notebook run again in a new one."""

import collections
import shutil

import nbformat
import pytest
from kernel_harness import ROOT, KernelDiedError, kernel

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"


def sources():
    """Return the quickstart's code cells."""
    cells = nbformat.read(QUICKSTART, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def shown(result):
    """Return what a cell shows: its texts whole, however many messages brought them."""
    assert result.status == "ok", result.text
    found = []
    for output in result.outputs:
        one = {key: output.get(key) for key in ("type", "name", "text", "data")}
        if one["text"] and found and found[-1]["name"] == one["name"]:
            found[-1]["text"] += one["text"]
        elif one["text"] or one["data"]:  # the live view leaves an empty display
            found.append(one)
    return found


def run_all(running):
    """Run the whole notebook and give what it shows, durable cells included."""
    return [shown(running.run(source)) for source in sources()]


def bodies(folder):
    """Count how often each source was asked, in all kernels."""
    return collections.Counter((folder / "calls.log").read_text().splitlines())


def winner(folder):
    """Ask the store who won."""
    found = questions.answer("SELECT DISTINCT winner FROM decisions", folder / "store.duckdb")
    open_stores.close_stores()
    return [row["winner"] for row in found]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Run the notebook once without a crash."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with kernel(folder, {"NBDURABLE_STORE": str(folder / "store.duckdb")}) as running:
        return run_all(running)


@pytest.mark.parametrize(("finished", "in_flight"), [(2, 2), (3, 1)])
def test_killed_in_mid_cell(tmp_path, uninterrupted, finished, in_flight):
    """What had finished ran once, what was in flight at most twice; the output is the same."""
    shutil.copy(QUICKSTART, tmp_path)
    environment = {"NBDURABLE_STORE": str(tmp_path / "store.duckdb")}

    def reached(rows):
        states = collections.Counter(row["state"] for row in rows if row.get("kind") == "step")
        return states["done"] == finished and states["running"] == in_flight

    with kernel(tmp_path, environment) as running:
        load, setup, durable, *_ = sources()
        running.run(load)
        running.run(setup)
        running.begin(durable)
        running.wait_for_rows(reached)
        running.kill()
        with pytest.raises(KernelDiedError):
            running.finish()
    saved = {
        row["step"].split("'")[1]
        for row in questions.steps("quotes", tmp_path / "store.duckdb")
        if row["status"] == "finished"
    }
    before = bodies(tmp_path)
    assert len(saved) >= finished
    assert before == dict.fromkeys(("alpha", "beta", "gamma", "delta"), 1)
    assert winner(tmp_path) == ["quote('alpha', 0.8)"]

    with kernel(tmp_path, environment) as running:
        loaded = running.run("%load_ext nbdurable", "cell")
        assert f"quotes: {len(saved)} of 4 steps saved, died" in loaded.text
        assert run_all(running)[1:] == uninterrupted[1:]
        replayed = running.run(sources()[2])
        assert shown(replayed) == uninterrupted[2]
    again = {name for name, count in bodies(tmp_path).items() if count == 2}
    assert again == set(before) - saved
    assert winner(tmp_path) == ["quote('alpha', 0.8)"]

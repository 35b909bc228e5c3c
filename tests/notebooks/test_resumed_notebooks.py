"""Every notebook in `notebooks/`, killed in mid-run and run again; and what the gallery's texts say.

The kill is a real SIGKILL of a real kernel, by nbclient, which knows nothing of
nbdurable, right after a commit. What the texts promise of an edit is tried with that edit.
"""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from support import notebooks
from support.environments import ROOT, sealed

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELL_TIMEOUT = 60

# After which commit the kernel is killed: when something has finished, and not everything. None:
# as the first step has finished, where workers begin whenever they can.
KILLED = {
    "quickstart": 5, "warehouse": 6, "providers": 5, "sweep": 3, "pipeline": 5, "training": 6,
    "processes": 4, "dask": None,
}  # fmt: skip
KILLER = "from nbdurable.testing import kill_at; kill_at('after', {})"
KILLER_AT_AN_OUTCOME = """
import os
import signal
from nbdurable.commit import observers

observers.StepFinished = lambda *told: os.kill(os.getpid(), signal.SIGKILL)
"""

# Cells that show how often bodies ran: what was in flight at the kill has run twice.
COUNTING = {
    "providers": {"paid"},
    "training": {"bodies", "saved"},
    "processes": {"attempts"},
}

STEPS = """
    SELECT workflow, name, label, status, execution FROM steps
    WHERE status IN ('finished', 'failed') ORDER BY ALL"""


def test_every_notebook_is_killed():
    """A new notebook in the folder is one of those below."""
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(KILLED)


@pytest.fixture
def play(tmp_path):
    """Return a function that runs a notebook, from the top in a new kernel, beside its store."""
    folder = tmp_path / "folder"
    folder.mkdir()
    variables = sealed(tmp_path, PYTHONPATH=str(ROOT))

    def run(name, edits=(), killer=None):
        notebook = notebooks.read(ROOT / "notebooks" / f"{name}.ipynb")
        edit(notebook, edits)
        if killer is not None:
            durable = [cell.source.startswith("%%durable") for cell in notebook.cells].index(True)
            notebook.cells.insert(durable, nbformat.v4.new_code_cell(killer))
        place = folder / f"{name}.ipynb"
        client = NotebookClient(notebook, kernel_name="python3", timeout=CELL_TIMEOUT)
        try:
            client.execute(cwd=str(folder), env=variables | {"JPY_SESSION_NAME": str(place)})
        finally:
            run.saved = saved(folder / ".nbdurable" / f"{name}.duckdb")
        return notebooks.shown(notebook)

    run.folder = folder
    return run


def edit(notebook, edits):
    """Change the sources; a change that finds nothing to change is a mistake."""
    for old, new in edits:
        hits = [cell for cell in notebook.cells if old in cell.source and cell.cell_type == "code"]
        assert hits, old
        for cell in hits:
            cell.source = cell.source.replace(old, new)


def saved(store):
    """Ask the store for the steps that have ended, and let go of it."""
    try:
        return questions.query(STEPS, store).to_dict("records")
    finally:
        open_stores.close_stores()


@pytest.mark.parametrize("name", KILLED)
def test_killed_and_run_again(play, name):
    """The second kernel shows what an uninterrupted run shows, and redoes nothing that was saved."""
    expected = notebooks.shown(notebooks.read(ROOT / "notebooks" / f"{name}.ipynb"))
    commits = KILLED[name]
    killer = KILLER_AT_AN_OUTCOME if commits is None else KILLER.format(commits)
    with pytest.raises(DeadKernelError):
        play(name, killer=killer)
    before = play.saved
    shown = play(name)
    # A failure that nobody had seen is tried again.
    kept = [row for row in before if row["status"] == "finished"]
    assert kept
    assert len(before) < len(play.saved)
    assert [row for row in kept if row not in play.saved] == []
    for cell in COUNTING.get(name, ()):
        del shown[cell], expected[cell]
    assert shown == expected


@pytest.mark.parametrize(
    ("name", "replayed"), [("sweep", {"fit"}), ("pipeline", {"load", "clean"})]
)
def test_the_readers_kill(play, name, replayed):
    """The cell that the text tells to insert kills the kernel where the text says, and no later."""
    expected = play(name)
    notebook = notebooks.read(ROOT / "notebooks" / f"{name}.ipynb")
    (text,) = (cell.source for cell in notebook.cells if cell.id == "death")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert lines[0] == f"%durable restart {name}"
    with pytest.raises(DeadKernelError):
        play(name, killer="\n".join(lines))
    newest = max(row["execution"] for row in play.saved)
    before = [row for row in play.saved if row["execution"] == newest]
    assert {row["name"] for row in before} >= replayed
    assert not {row["name"] for row in before} & {"score", "features", "rank"}
    shown = play(name)
    # The notice at load; and a count of what is saved, the restarted run included.
    for cell in {"load", "kept"} & expected.keys():
        del shown[cell], expected[cell]
    assert shown == expected


def test_training_that_was_killed_three_times(play, capfd):
    """Each kill comes in the one step of 90 epochs: it goes on from its last save each time."""
    weights = [("print(f\"{right", "print(model.coef_.tobytes().hex())\nprint(f\"{right")]
    undisturbed = play("training", weights)
    again = [("EPOCHS = 90", "EPOCHS = 90\n%durable restart training")]
    ran = (play.folder / "epochs.log").read_text().split()
    assert ran == [str(epoch) for epoch in range(90)]
    (play.folder / "epochs.log").unlink()
    said = []
    for edits in ([*weights, *again], weights, weights):
        with pytest.raises(DeadKernelError):
            play("training", edits, killer=KILLER.format(28))
        (run,) = questions.unfinished(play.folder / ".nbdurable" / "training.duckdb")
        open_stores.close_stores()
        said.append(int(re.fullmatch(r"(\d+) of 90", run.progress)[1]))
    assert 0 < said[0] < said[1] < said[2] < 90
    shown = play("training", weights)
    # The notice at load: in the kernel's log, where nobody looks at the notebook.
    assert f"died at {said[-1]} of 90" in capfd.readouterr().err
    assert shown["training"] == undisturbed["training"]
    ran = (play.folder / "epochs.log").read_text().split()
    assert sorted(set(ran), key=int) == [str(epoch) for epoch in range(90)]
    assert len(ran) <= 93  # at each kill one body of an epoch was cut off at most
    assert f"90 epochs, {len(ran)} bodies" in str(shown["bodies"])


# --- What the gallery says of an edit --------------------------------------------------

SCORED = [("np.sqrt((residual**2).mean())", "np.abs(residual).mean()")]
BASIS = [("np.vander(x, degree + 1)", "np.vander(x, degree + 1, increasing=True)")]
SWING = [("(days.max() - days.min())", "(days.quantile(0.9) - days.quantile(0.1))")]


@pytest.mark.parametrize(
    ("name", "edits", "ran"),
    [
        ("sweep", SCORED, {"score": 48}),
        ("sweep", BASIS, {"fit": 48, "score": 48}),
        ("pipeline", SWING, {"swing": 1, "features": 1, "rank": 1}),
        ("warehouse", [("avg(revenue), 2", "avg(revenue), 1")], {"rank_shops": 1}),
    ],
    ids=["score", "basis", "swing", "rank"],
)
def test_an_edit_runs_what_changed_and_nothing_else(play, name, edits, ran):
    """Edited and run again, in another kernel: the steps that the text names have run."""
    play(name)
    before = play.saved
    shown = play(name, edits)
    again = [row["name"] for row in play.saved if row not in before]
    assert {step: again.count(step) for step in set(again)} == ran
    assert shown != notebooks.shown(notebooks.read(ROOT / "notebooks" / f"{name}.ipynb"))

"""Durable cells that are no plain cells of the front end: VS Code's ids, `%run`, `.ipy` files."""

import json

import nbformat
import pytest
from kernel_harness import kernel

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

VSCODE = "vscode-notebook-cell:/home/me/n.ipynb#W{}sZmlsZQ%3D%3D"
CELL = (
    "%%durable other --quiet\nfrom nbdurable import go\n"
    "def paid():\n    open('paid.log', 'a').write('x')\n    return 7\n"
    "seven = go(paid).result()"
)


@pytest.fixture
def running(tmp_path):
    """A kernel of the notebook n.ipynb that has loaded the extension."""
    with kernel(tmp_path, notebook=tmp_path / "n.ipynb") as running:
        running.run("%load_ext nbdurable")
        yield running


def save(path, *sources):
    """Save the notebook, with ids that VS Code doesn't tell the kernel."""
    cells = [
        {"id": f"id-{at}", "cell_type": "code", "source": source}
        for at, source in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells}))


def test_a_cell_retyped_in_vscode(running, tmp_path):
    """What the file holds tells whether the first cell is gone; its ids can't."""
    first, second = VSCODE.format(0), VSCODE.format(1)
    save(tmp_path / "n.ipynb", "%%durable a --quiet\n1")
    assert running.run("%%durable a --quiet\n1", first).status == "ok"
    refused = running.run("%%durable a --quiet\n2", second)
    assert "save the notebook" in refused.traceback[0]
    save(tmp_path / "n.ipynb", "%%durable a --quiet\n1", "%%durable a --quiet\n2")
    assert running.run("%%durable a --quiet\n2", second).status == "error"
    save(tmp_path / "n.ipynb", "x = 1", "%%durable a --quiet\n2")
    assert running.run("%%durable a --quiet\n2", second).status == "ok"


def test_another_notebook_is_run(running, tmp_path):
    """Its durable cell is no cell of this notebook: two cells may run it, and it replays."""
    cells = [nbformat.v4.new_code_cell(source) for source in (CELL, "eight = seven + 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "other.ipynb")
    for cell_id in ("one", "two"):
        assert running.run("%run other.ipynb\neight", cell_id).value == "8"
    assert running.run("%%durable own --quiet\n1", "one").status == "ok"
    inside = running.run("%%durable outer --quiet\n%run other.ipynb\n1", "three")
    assert "other would begin inside outer" in inside.text
    assert running.run("%%durable outer --quiet\n2", "three").status == "ok"
    assert (tmp_path / "paid.log").read_text() == "x"


def test_an_ipy_file_says_what_to_do(running, tmp_path):
    """An .ipy file is one cell, so a durable cell can't stand in its middle; text may."""
    (tmp_path / "script.ipy").write_text(f"x = 1\n{CELL}\n")
    said = running.run("%run script.ipy", "one").text
    assert "%%durable other --quiet has to be the first line of its cell" in said
    assert "an .ipy file is one cell: use a notebook" in said
    assert not (tmp_path / "paid.log").exists()
    (tmp_path / "whole.ipy").write_text(CELL)
    running.run("%run whole.ipy", "one")
    assert (tmp_path / "paid.log").read_text() == "x"
    below = running.run("%load_ext nbdurable\n%%durable low\n1", "two")
    assert (below.ename, len(below.traceback)) == ("UsageError", 1)
    text = running.run('y = """\n%%durable in a text\n"""\ny', "three")
    assert text.value == repr("\n%%durable in a text\n")
    running.run("%%writefile made.py\n# made\n%%durable x\n", "four")
    assert "%%durable x" in (tmp_path / "made.py").read_text()

"""Tools that run notebooks without a front end: each notebook has one store, in all of them."""

import json
import subprocess
import sys

import nbformat
import pytest
from kernel_harness import kernel
from nbclient import NotebookClient
from support.environments import ROOT, run, sealed

from nbdurable.headless.kernels import kernels_for
from nbdurable.headless.papermill import local

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LOAD = "%load_ext nbdurable"
CELL = """%%durable quotes
from nbdurable import go
def paid(what):
    with open("paid.log", "a") as log: log.write(f"{what}\\n")
    return what * 2
print(go(paid, x).result())"""


def write(path, *, x, parameters=False):
    """Write a notebook whose durable cell makes one paid call, of `x`."""
    cells = [nbformat.v4.new_code_cell(source) for source in (LOAD, f"x = {x!r}", CELL)]
    if parameters:
        cells[1].metadata["tags"] = ["parameters"]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
    nbformat.write(notebook, path)
    return path


def paid(folder):
    """Return what was paid for, in all passes."""
    return sorted((folder / "paid.log").read_text().split())


def stores_in(folder):
    """Return the names of the stores beside the notebooks."""
    return sorted(path.name for path in (folder / ".nbdurable").glob("*.duckdb"))


def printed(path):
    """Return what the notebook's last cell printed."""
    (output,) = [
        one for one in nbformat.read(path, 4).cells[-1].outputs if one.output_type == "stream"
    ]
    return output.text.strip()


@pytest.fixture
def environ(tmp_path):
    """Return the environment of a user who has nothing yet."""
    (tmp_path / "home").mkdir()
    return sealed(tmp_path / "home", PYTHONPATH=str(ROOT))


def test_two_papermill_runs_of_one_input_at_once(tmp_path, environ):
    """Each output notebook has its own store: no run waits for the other, none pays twice."""
    write(tmp_path / "in.ipynb", x="nothing", parameters=True)
    command = [sys.executable, "-m", "papermill", "--engine", "nbdurable", "--no-progress-bar"]
    for _ in range(2):
        running = [
            subprocess.Popen(
                [*command, "in.ipynb", f"{x}.ipynb", "-p", "x", x],
                cwd=tmp_path,
                env=environ,
                stderr=subprocess.PIPE,
                text=True,
            )
            for x in ("one", "two")
        ]
        for one in running:
            _, said = one.communicate(timeout=120)
            assert one.returncode == 0, said
    assert paid(tmp_path) == ["one", "two"]
    assert stores_in(tmp_path) == ["one.duckdb", "two.duckdb"]
    assert printed(tmp_path / "two.ipynb") == "twotwo"


def test_papermill_paths():
    """What papermill writes elsewhere has no store beside it."""
    assert str(local("out/one.ipynb")) == "out/one.ipynb"
    for elsewhere in ("s3://bucket/one.ipynb", "-", None, "", "one.json"):
        assert local(elsewhere) is None


def test_nbval_on_two_workers(tmp_path, environ):
    """Two notebooks are validated at once, each in a worker of its own; and again."""
    for x in ("one", "two"):
        made = nbformat.read(write(tmp_path / f"{x}.ipynb", x=x), 4)
        shown = nbformat.v4.new_output("stream", name="stdout", text=f"{x}{x}\n")
        made.cells[-1].outputs = [shown]
        made.cells[-1].execution_count = 3
        made.cells[-1].source = made.cells[-1].source.replace("quotes", "quotes --quiet", 1)
        nbformat.write(made, tmp_path / f"{x}.ipynb")
    for _ in range(2):
        command = [sys.executable, "-m", "pytest", "--nbval", "-n", "2", "one.ipynb", "two.ipynb"]
        done = run([*command, "-q", "-p", "no:cacheprovider"], cwd=tmp_path, env=environ)
        assert "6 passed" in done.stdout
    assert paid(tmp_path) == ["one", "two"]
    assert stores_in(tmp_path) == ["one.duckdb", "two.duckdb"]


def test_pytest_without_notebooks(tmp_path, environ):
    """The plugin imports nothing of nbdurable, and leaves other tests alone."""
    (tmp_path / "test_plain.py").write_text(
        "import os, sys\n\n\ndef test_plain():\n"
        "    assert '_nbdurable_pytest' in sys.modules\n"
        "    assert 'nbdurable' not in sys.modules\n"
        "    assert 'JPY_SESSION_NAME' not in os.environ\n"
    )
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, env=environ)


def test_nbconvert_then_jupyterlab(tmp_path, environ):
    """What `jupyter nbconvert --execute` has computed is there when the file is opened."""
    path = write(tmp_path / "analysis.ipynb", x="one")
    write(tmp_path / "other.ipynb", x="one")
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--to", "notebook"]
    run([*command, "analysis.ipynb", "--output", "done.ipynb"], cwd=tmp_path, env=environ)
    assert printed(tmp_path / "done.ipynb") == "oneone"
    with kernel(tmp_path, notebook=path) as running:
        assert running.run(LOAD, "a").outputs == []
        running.run("x = 'one'", "b")
        assert "oneone" in running.run(CELL, "c").stdout
    assert paid(tmp_path) == ["one"]
    assert stores_in(tmp_path) == ["analysis.duckdb"]


def test_nbclient_is_told_the_notebook(tmp_path, environ, monkeypatch):
    """Whatever is built on nbclient takes the class that tells its kernels the notebook."""
    for name in ("JUPYTER_DATA_DIR", "IPYTHONDIR", "PYTHONPATH"):
        monkeypatch.setenv(name, environ[name])
    path = tmp_path / "elsewhere" / "deep.ipynb"
    path.parent.mkdir()
    write(path, x="one")
    client = NotebookClient(nbformat.read(path, 4), kernel_manager_class=kernels_for(path))
    client.execute(cwd=str(tmp_path))
    assert stores_in(tmp_path / "elsewhere") == ["deep.duckdb"]
    assert "one" in json.dumps(client.nb.cells[-1].outputs)

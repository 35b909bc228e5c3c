"""Every notebook in `notebooks/`: runs, replays, and is fit to be shipped.

A new notebook is covered by lying there. It is run as users and their tools run
it, in a folder of its own, by two tools that know nothing of nbdurable; that the
second pass replayed is asked from the store and seen in what the steps' bodies
leave behind.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from xml.etree import ElementTree as ET

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat.validator import iter_validate
from support import notebooks
from support.environments import ROOT, run, sealed

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELL_TIMEOUT = 60
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What the bodies of a notebook's steps leave, once each: a line in a file.
EFFECTS = {
    "quickstart": ("calls.log", ["alpha", "beta", "delta", "gamma"]),
    "providers": ("paid.log", ["large", "large", "oracle", "oracle", "small"]),
    "training": ("epochs.log", sorted(map(str, range(90)))),
}

QUESTIONS = {
    "executions": "SELECT workflow, status FROM executions ORDER BY execution",
    "steps": "SELECT COLUMNS(*)::VARCHAR FROM steps ORDER BY ALL",
    "attempts": "SELECT COLUMNS(*)::VARCHAR FROM attempts ORDER BY ALL",
    "decisions": "SELECT COLUMNS(*)::VARCHAR FROM decisions ORDER BY ALL",
}

KEPT_METADATA = {"tags"}
"""What a cell's metadata may hold: nothing that a tool wrote there by itself."""

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

# A path from the root: not the end of a tag, not a part of a URL or of a relative path.
ABSOLUTE = re.compile(r"(?<![\w.:/<~-])(?:/[\w.@+-]+){2,}|\b[A-Za-z]:\\|file://|~/")


def test_there_are_notebooks():
    """The tests below have something to say."""
    assert {path.stem for path in PATHS} >= {"quickstart", *EFFECTS}


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def stored(request):
    """Return a notebook's path."""
    return request.param


@pytest.fixture
def folder(tmp_path, stored):
    """Return a folder with nothing but a copy of the notebook."""
    made = tmp_path / "folder"
    made.mkdir()
    shutil.copy(stored, made)
    return made


@pytest.fixture
def variables(tmp_path, monkeypatch):
    """Return the environment of a user who has nothing yet; this process has it, too."""
    given = sealed(tmp_path, PYTHONPATH=str(ROOT))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in os.environ.keys() - given.keys():
        monkeypatch.delenv(name)
    return given


# --- It runs, and it replays -------------------------------------------------------------


def test_nbval_passes_twice(tmp_path, folder, stored, variables):
    """To nbval both passes show the stored outputs: the one that computes, the one that replays."""
    nbval(tmp_path, folder, stored, variables)
    before = saved(folder), left_behind(folder)
    nbval(tmp_path, folder, stored, variables)
    check_replayed(stored, before, (saved(folder), left_behind(folder)))


def test_nbval_would_notice(tmp_path, variables):
    """The comparison above is a strict one: an output that differs by a character fails it."""
    shown = nbformat.v4.new_output("stream", name="stdout", text="12\n")
    cell = nbformat.v4.new_code_cell("print(1)", execution_count=1, outputs=[shown])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": KERNELSPEC})
    path = tmp_path / "differs.ipynb"
    nbformat.write(notebook, path)
    with pytest.raises(AssertionError, match="Cell outputs differ"):
        nbval(tmp_path, tmp_path, path, variables)


def test_nbclient_before_and_after_a_restart(folder, stored, variables):
    """A kernel's restart changes no output: those of both passes are the stored ones."""
    expected = notebooks.shown(notebooks.read(stored))
    client = NotebookClient(
        notebooks.read(stored), kernel_name="python3", timeout=CELL_TIMEOUT, allow_errors=True
    )
    with client.setup_kernel(cwd=str(folder), env=variables):
        assert execute(client) == expected
        before = saved(folder), left_behind(folder)
        process = client.km.provisioner.pid
        run_sync(client.km.restart_kernel)(now=True)
        run_sync(client.kc.wait_for_ready)(timeout=CELL_TIMEOUT)
        assert client.km.provisioner.pid != process
        assert execute(client) == expected
        check_replayed(stored, before, (saved(folder), left_behind(folder)))


def nbval(tmp_path, folder, path, variables):
    """Run nbval over the notebook in the folder: strictly, each cell a test that passes."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # not what lies further up
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "--nbval", f"--nbval-cell-timeout={CELL_TIMEOUT}"]
    options = ["-p", "no:cacheprovider", "--color=no", f"--junitxml={report}", path.name]
    run(command + options, cwd=folder, env=variables)
    counts = ET.parse(report).getroot().find("testsuite").attrib
    cells = len(notebooks.code_cells(notebooks.read(path)))
    seen = [int(counts[name]) for name in ("tests", "failures", "errors", "skipped")]
    assert seen == [cells, 0, 0, 0]


def execute(client):
    """Execute every cell and give what the notebook shows."""
    client.reset_execution_trackers()
    for index, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, index)
    return notebooks.shown(client.nb)


def saved(folder):
    """Ask the folder's one store what it holds, and let go of it: a kernel wants it."""
    (store,) = (folder / ".nbdurable").glob("*.duckdb")
    try:
        return {name: rows(sql, store) for name, sql in QUESTIONS.items()}
    finally:
        open_stores.close_stores()


def rows(sql, store):
    """Return the rows as lists, None where there is nothing."""
    frame = questions.query(sql, store)
    return json.loads(frame.to_json(orient="values"))


def left_behind(folder):
    """Return every file but the store's, with what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".nbdurable" not in path.parts
    }


def check_replayed(stored, before, after):
    """See that a second pass was an execution of each run, and nothing else."""
    (first, effects), (second, effects_now) = before, after
    assert first["steps"]
    assert all(status == "finished" for _, status in second["executions"])
    assert second["executions"] == 2 * first["executions"]
    for what in ("steps", "attempts", "decisions"):
        assert second[what] == first[what]
    assert effects_now == effects
    if stored.stem in EFFECTS:
        name, lines = EFFECTS[stored.stem]
        assert sorted(effects[name].decode().split()) == lines


# --- It is fit to be shipped ---------------------------------------------------------------


def test_nothing_is_wrong_with_it(stored):
    """The notebook is valid, was run in order, and holds nothing of the machine it was run on."""
    assert faults(json.loads(stored.read_text(encoding="utf-8"))) == []


def test_the_demonstrations_notebook_is_as_new():
    """What `nbdurable demo --lab` copies has the same faults to avoid, and was never run."""
    path = ROOT / "notebooks" / "demo" / "hedged.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert {cell["execution_count"] for cell in code(notebook)} == {None}
    assert faults(notebook) == ["not run once, from the top", "no outputs"]


@pytest.mark.parametrize(("fault", "spoil"), [
    ("no ids", lambda nb: nb.update(nbformat_minor=4)),
    ("not valid", lambda nb: nb["cells"][0].pop("id")),
    ("one id", lambda nb: nb["cells"][1].update(id=nb["cells"][0]["id"])),
    ("of the machine", lambda nb: nb["metadata"]["kernelspec"].update(name="mine")),
    ("of the machine", lambda nb: nb["metadata"]["language_info"].update(version="3.11.7")),
    ("of the machine", lambda nb: nb["metadata"].update(widgets={})),
    ("of a cell", lambda nb: code(nb)[-1]["metadata"].update(execution={"shell.reply": "noon"})),
    ("from the top", lambda nb: code(nb)[-1].update(execution_count=None)),
    ("from the top", lambda nb: code(nb)[-1].update(execution_count=17)),
    ("no outputs", lambda nb: [cell.update(outputs=[]) for cell in code(nb)]),
    ("an error", lambda nb: code(nb)[-1]["outputs"].append(
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    )),
    ("a warning", lambda nb: code(nb)[-1]["outputs"].append(
        {"output_type": "stream", "name": "stderr", "text": ["beware"]}
    )),
    ("absolute path", lambda nb: code(nb)[-1]["source"].append("\nopen('/home/ada/calls.log')")),
    ("absolute path", lambda nb: code(nb)[-1]["outputs"][0]["text"].append("in /tmp/x.log")),
    ("absolute path", lambda nb: nb["cells"][0]["source"].append("\nSee C:\\Users\\ada")),
])  # fmt: skip
def test_each_fault_is_found(fault, spoil):
    """The test above can fail: each of these would be named."""
    notebook = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    spoil(notebook)
    assert any(fault in found for found in faults(notebook))


def faults(notebook):
    """Name what keeps a notebook, as plain JSON, from being shipped."""
    return [
        *invalid(notebook),
        *wrong_metadata(notebook),
        *wrong_outputs(notebook),
        *(
            f"an absolute path: {found[0]}"
            for text in strings(notebook)
            for found in ABSOLUTE.finditer(text)
        ),
    ]


def code(notebook):
    """Return the code cells."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def invalid(notebook):
    """Hold it against the format, in the version that gave cells their ids."""
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        yield "a format in which cells have no ids"
    yield from (f"not valid: {error.message}" for error in iter_validate(notebook))
    ids = [cell.get("id") for cell in notebook["cells"]]
    if len(set(ids)) < len(ids):
        yield "two cells with one id"


def wrong_metadata(notebook):
    """See that there is no more than what every machine agrees on."""
    if notebook["metadata"] != {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}:
        yield f"metadata of the machine: {notebook['metadata']}"
    for cell in notebook["cells"]:
        if more := cell["metadata"].keys() - KEPT_METADATA:
            yield f"metadata of a cell: {sorted(more)}"


def wrong_outputs(notebook):
    """See that it was run from the top without errors, and shows what came of it."""
    cells = code(notebook)
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not run once, from the top"
    outputs = [output for cell in cells for output in cell["outputs"]]
    if not outputs:
        yield "no outputs"
    for output in outputs:
        if output["output_type"] == "error" or output.get("name") == "stderr":
            yield f"an error or a warning: {output}"


def strings(value):
    """Yield every text anywhere in a JSON value, lines put together."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(line, str) for line in value):
        yield "".join(value)
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)

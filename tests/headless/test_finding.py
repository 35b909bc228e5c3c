"""Where nobody tells a kernel its notebook: what is found, and what one run's own store is."""

import json

import nbformat
import pytest
from kernel_harness import kernel

from nbdurable import UsageError, go, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import amending, maintenance
from nbdurable.inspection import queries as questions
from nbdurable.notebook.finding import found, named_by
from nbdurable.store import run_stem

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELL = (
    "%%durable quotes\n"
    "from nbdurable import go\n"
    "def paid(): open('paid.log', 'a').write('x')\n"
    "go(paid).result()"
)


def write(path, *sources):
    """Write a notebook of these cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def stores_in(folder):
    """Return the names of the stores beside the notebooks."""
    return sorted(path.name for path in (folder / ".nbdurable").glob("*.duckdb"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder in which no notebook is known."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    configuration.set_notebook(None)
    open_stores.close_stores()


# --- what is found ---------------------------------------------------------------------------


def test_the_one_that_holds_the_cell(tmp_path):
    """Exactly one notebook has the source that runs; two, or none, are no notebook."""
    one = write(tmp_path / "one.ipynb", "a = 1", CELL)
    other = write(tmp_path / "other.ipynb", "b = 2")
    (tmp_path / "broken.ipynb").write_text(json.dumps(CELL)[1:-1])
    everything = list(tmp_path.iterdir())
    assert found([CELL], [everything]) == one
    assert found(["a = 1", CELL + "\n"], [everything]) == one
    assert found(["a = 1"], [[other], [one]]) == one
    assert found(["c = 3"], [everything]) is None
    assert found([], [everything]) is None
    write(tmp_path / "copy.ipynb", "a = 7", CELL)
    everything = list(tmp_path.iterdir())
    assert found([CELL], [everything]) is None
    assert found(["a = 1", CELL], [everything]) == one, "only that one holds both"
    assert found(["%load_ext nbdurable", CELL], [everything]) is None


def test_letters_of_any_kind(tmp_path):
    """A notebook is found whether its file writes letters as they are or escaped."""
    plain = tmp_path / "plain.ipynb"
    cells = [{"cell_type": "code", "source": ["x = 'é\"\\n'\n", "y = 1"]}]
    plain.write_text(json.dumps({"cells": cells}, ensure_ascii=False), encoding="utf-8")
    assert found(["x = 'é\"\\n'\ny = 1"], [[plain]]) == plain
    plain.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert found(["x = 'é\"\\n'\ny = 1"], [[plain]]) == plain


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["python", "/bin/jupyter-nbconvert", "--execute", "a.ipynb"], ["a.ipynb"]),
        (["jupyter-execute", "a.ipynb", "b.ipynb"], ["a.ipynb", "b.ipynb"]),
        (["jupyter-execute", "[ab].ipynb"], ["a.ipynb", "b.ipynb"]),
        (["jupyter-nbconvert", "a.ipynb", "--output", "b.ipynb"], ["a.ipynb"]),
        (["jupyter-nbconvert", "a.ipynb", "--output=b.ipynb"], ["a.ipynb"]),
        (["python", "/bin/papermill", "a.ipynb", "b.ipynb", "-p", "x", "1"], ["b.ipynb"]),
        (["python", "-m", "papermill", "a.ipynb", "b.ipynb"], ["b.ipynb"]),
        (["papermill", "a.ipynb", "-"], ["a.ipynb"]),
        (["papermill", "a.ipynb", "not-yet-there.ipynb"], ["a.ipynb"]),
        (["bash", "-c", "something else"], []),
    ],
)
def test_notebooks_on_a_command_line(tmp_path, command, named):
    """The notebook that a command runs is meant, not the one that it only writes."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.ipynb", CELL)
    assert [path.name for path in named_by(command, tmp_path)] == named


def test_a_kernel_finds_its_notebook(tmp_path):
    """Without a path the notebook of the working folder that holds the cell has the store."""
    write(tmp_path / "analysis.ipynb", "%load_ext nbdurable", CELL)
    write(tmp_path / "other.ipynb", "%load_ext nbdurable")
    with kernel(tmp_path) as running:
        assert running.run("%load_ext nbdurable").outputs == []
        assert running.run(CELL).status == "ok"
    assert stores_in(tmp_path) == ["analysis.duckdb"]
    with kernel(tmp_path, notebook=tmp_path / "analysis.ipynb") as running:
        running.run("%load_ext nbdurable")
        running.run(CELL)
    assert (tmp_path / "paid.log").read_text() == "x"


def test_a_path_that_was_told_to_another_kernel(tmp_path):
    """A kernel that a notebook starts doesn't take that notebook's path for its own."""
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner" / "mine.ipynb", "%load_ext nbdurable", CELL)
    script = (
        "import nbformat\nfrom nbclient import NotebookClient\n"
        "nb = nbformat.read('inner/mine.ipynb', 4)\n"
        "NotebookClient(nb, kernel_name='python3').execute(cwd='inner')"
    )
    (tmp_path / "script.py").write_text(script)
    with kernel(tmp_path, notebook=tmp_path / "outer.ipynb") as running:
        done = running.run("import sys, os\nos.system(f'{sys.executable} script.py')")
        assert done.value == "0", done.text
    assert stores_in(tmp_path / "inner") == ["mine.duckdb"]
    assert stores_in(tmp_path) == []


# --- no notebook is known --------------------------------------------------------------------


def run(name, **options):
    """Run a workflow of one step; tell whether its body ran."""
    ran = []

    def compute():
        ran.append(1)
        return 1

    with workflow(name, **options):
        go(compute).outcome()
    return bool(ran)


def test_one_store_for_each_run_name(here):
    """Runs share no store, so they share no lock; those of one template do."""
    assert run("quotes")
    assert run("etl", id=1)
    assert run("etl", id=2)
    assert not run("quotes")
    assert stores_in(here) == ["etl.run.duckdb", "quotes.run.duckdb"]
    assert {one.name for one in questions.runs()} == {"quotes", "etl[1]", "etl[2]"}
    open_stores.close_stores()


def test_a_template_is_one_store(tmp_path):
    """All days of `etl-{day}` are in one store, and another cell's are in its own."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable\nday = 1")
        for day in (1, 2):
            running.run(f"day = {day}")
            running.run("%%durable etl-{day}\nfrom nbdurable import go\ngo(int).result()")
        running.run("%%durable other\ngo(int).result()")
        assert stores_in(tmp_path) == ["etl-{day}.run.duckdb", "other.run.duckdb"]
        assert "int()" in running.run("%durable steps etl-1").text
        listed = running.run("%durable runs").text
        assert all(name in listed for name in ("etl-1", "etl-2", "other"))
        told = running.run("%durable restart etl-1")
        assert "etl-1: its next run starts from nothing" in told.stdout


def test_questions_name_a_run(here):
    """A question with a run's name finds its store; one without asks which, if it can't tell."""
    run("one")
    run("two")
    open_stores.close_stores()
    assert [row["step"] for row in questions.steps("one")] == ["compute()"]
    configuration._state.places.clear()  # as in another process
    assert [row["workflow"] for row in questions.status()] == ["one", "two"]
    with pytest.raises(UsageError, match=r"there are 2 stores in .*: one\.run\.duckdb, two"):
        questions.query("FROM runs")


def test_a_renamed_run_is_found(here):
    """A run that has a store of its own takes it along; none is renamed onto another's."""
    run("one")
    run("two")
    with pytest.raises(UsageError, match="another run is called two"):
        amending.rename("one", "two")
    amending.rename("one", "three")
    assert not run("three")
    open_stores.close_stores()
    assert stores_in(here) == ["three.run.duckdb", "two.run.duckdb"]


@pytest.mark.parametrize(
    ("run", "stem"),
    [
        ("quotes", "quotes.run"),
        ("a/b: c", "a%2Fb%3A c.run"),
        ("données", "données.run"),
        ("nbdurable", "_nbdurable.run"),
        ("%2F", "%252F.run"),
    ],
)
def test_names_of_files(run, stem):
    """Every run has a file's name of its own."""
    assert run_stem(run) == stem


def test_long_names_of_files(here):
    """Names that are too long for a file are told apart all the same."""
    names = ["é" * 110 + end for end in "ab"]
    assert run_stem(names[0]) != run_stem(names[1])
    assert len(run_stem(names[0]).encode()) < 200
    assert run(names[0])
    assert not run(names[0])


# --- what was saved elsewhere ----------------------------------------------------------------


def test_a_run_that_was_saved_apart_is_named_and_adopted(tmp_path):
    """A notebook that is known now says at load what its cells saved before, and takes it."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        running.run(CELL)
    write(tmp_path / "late.ipynb", "%load_ext nbdurable", CELL, "%%durable\n1", "%%durable 'x\n1")
    with kernel(tmp_path, notebook=tmp_path / "late.ipynb") as running:
        told = running.run("%load_ext nbdurable", "cell").stdout
        assert told.count("\n") == 1
        assert "quotes has run where no notebook was known: `%durable adopt quotes.run`" in told
        assert "late.ipynb has the checkpoints" in running.run("%durable adopt quotes.run").stdout
        running.run(CELL)
    assert (tmp_path / "paid.log").read_text() == "x"
    assert stores_in(tmp_path) == ["late.duckdb", "quotes.run.duckdb"]


def test_a_run_is_named_before_it_begins_anew(tmp_path):
    """Who didn't adopt hears it again from the cell, before a body runs; and still can."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        running.run(CELL)
    with kernel(tmp_path, notebook=tmp_path / "late.ipynb") as running:
        running.run("%load_ext nbdurable")
        stopped = running.run("%%durable quotes --quiet\nraise RuntimeError('stop')", "one")
        first = stopped.displays[0]["text/plain"]
        assert "quotes has no checkpoints in" in first
        assert "has 1 outcome," in first
        assert "run `%durable adopt quotes.run`, and run it again" in first
        assert "late.ipynb has the checkpoints" in running.run("%durable adopt quotes.run").stdout
        running.run(CELL)
    assert (tmp_path / "paid.log").read_text() == "x"


def test_what_a_shared_store_holds_is_named(here):
    """The store that all runs of a folder shared is named, with the line that uses it."""
    shared = here / ".nbdurable" / "default.duckdb"
    run("quotes", store=shared)
    open_stores.close_stores()
    (other,) = maintenance.elsewhere("quotes", "quotes", configuration.store_of_run("quotes"))
    assert (other.store, other.saved) == (shared, 1)
    assert maintenance.elsewhere("x", "x", configuration.store_of_run("x")) == []


def test_a_cell_goes_on_where_its_run_began(tmp_path):
    """A notebook that can be found only later doesn't take the cell away from its store."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        running.run(CELL)
    write(tmp_path / "saved-later.ipynb", "%load_ext nbdurable", CELL)
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        running.run(CELL)
    assert (tmp_path / "paid.log").read_text() == "x"
    assert stores_in(tmp_path) == ["quotes.run.duckdb"]

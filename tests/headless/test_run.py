"""`nbdurable run`: through deaths to the end, or given up; suspended; refused in one line."""

import os
import random
import signal
import subprocess
import sys

import nbformat
import pytest
from support import notebooks
from support.environments import ROOT, run, sealed

from nbdurable.api import open_stores
from nbdurable.errors import UsageError
from nbdurable.headless import memory, notebook_file
from nbdurable.inspection import queries as questions

COMMAND = [sys.executable, "-m", "nbdurable.cli", "run"]
DEATHS = int(os.environ.get("NBDURABLE_DEATHS", "4"))
CELLS = 10

LOAD = "%load_ext nbdurable\nfrom nbdurable import go, step"
STEP = """import os, pathlib, signal
begun, done = pathlib.Path("begun.log"), pathlib.Path("done.log")
kills = pathlib.Path("kills.txt")
def log(path, line):
    with path.open("a") as file: file.write(line + "\\n")
    return len(path.read_text().splitlines())
@step(ignore=("begun", "done", "kills"), reads="ignore")
def double(x):
    number = log(begun, str(x))
    if kills.exists() and str(number) in kills.read_text().split():
        os.kill(os.getpid(), signal.SIGKILL)
    log(done, str(x))
    return 2 * x"""


def durable(number):
    """Write a durable cell of two steps, the second after the first."""
    return f"%%durable cell-{number}\nx = double({number}0)\nprint({number}, double(x + 1))\nx"


def write(path, *sources, tags=()):
    """Write a notebook; the first cell after the loading one has the tags."""
    cells = [nbformat.v4.new_code_cell(source) for source in (LOAD, *sources)]
    cells[1].metadata["tags"] = list(tags)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


@pytest.fixture
def environ(tmp_path):
    """Return the environment of a user who has nothing yet."""
    (tmp_path / "home").mkdir()
    return sealed(tmp_path / "home", PYTHONPATH=str(ROOT))


@pytest.fixture
def go_on(tmp_path, environ):
    """Return a function that runs the command in the test's folder."""

    def call(*words, code=0):
        return run([*COMMAND, *words], cwd=tmp_path, env=environ, code=code, timeout=280)

    return call


def lines(path):
    """Return a file's lines, none if there is no file."""
    return path.read_text().split() if path.exists() else []


# --- through deaths --------------------------------------------------------------------------


def test_killed_again_and_again(tmp_path, go_on):
    """The output is that of a run that nothing disturbed, and no finished body ran twice."""
    for folder in ("calm", "killed"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "ten.ipynb", STEP, *map(durable, range(CELLS)))
    draw = random.Random(7)
    # A pass that begins anew begins the body that was in flight again: so far apart at least.
    kills = sorted(draw.sample(range(1, 2 * CELLS + DEATHS), DEATHS))
    (tmp_path / "killed" / "kills.txt").write_text(" ".join(map(str, kills)))
    go_on("calm/ten.ipynb")
    done = go_on("killed/ten.ipynb")
    assert f"done, through {DEATHS} deaths of its kernel: ten.ipynb" in done.stderr
    assert done.stdout == ""
    executed = [notebooks.read(tmp_path / name / "ten.ipynb") for name in ("calm", "killed")]
    seen = [[one[1:] for one in notebooks.shown(notebook).values()] for notebook in executed]
    assert seen[0] == seen[1]
    assert ["stream", "stdout", "9 362\n"] in seen[0][-1]
    finished = lines(tmp_path / "killed" / "done.log")
    assert len(finished) == len(set(finished)) == 2 * CELLS
    assert len(lines(tmp_path / "killed" / "begun.log")) == 2 * CELLS + DEATHS


def test_given_up(tmp_path, go_on):
    """A step that always kills the kernel is named; what had finished is saved, and written."""
    kill = "%%durable deadly\nimport os\ndef boom(): os.kill(os.getpid(), 9)\ngo(boom).result()"
    path = write(tmp_path / "dies.ipynb", STEP, durable(1), kill, "print('never')")
    ended = go_on("dies.ipynb", "--deaths", "2", code=3)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("given up: the kernel died 2 times in a row without progress, in cell 4")
    assert "(deadly), with boom() in flight: killed by SIGKILL" in last
    assert "2 outcomes are saved" in last
    assert last.endswith("nbdurable run dies.ipynb --deaths 2")
    assert lines(tmp_path / "done.log") == ["10", "21"]
    cells = notebooks.read(path).cells
    assert "42" in str(cells[2].outputs)
    assert cells[4].outputs == []


def test_a_cell_that_kills_the_kernel(tmp_path, go_on):
    """Where no step was in flight that is said, with the cell."""
    write(tmp_path / "plain.ipynb", "1", "import os\nos._exit(3)")
    ended = go_on("plain.ipynb", "--deaths", "1", code=3)
    assert (
        "in cell 3 (import os), with no step in flight: it ended with exit code 3" in ended.stderr
    )


# --- suspended -------------------------------------------------------------------------------


def test_suspended_by_sigterm(tmp_path, environ, go_on):
    """SIGTERM ends the run between two steps, says how to go on, and that does."""
    wait = (
        "%%durable long\nprint(double(1))\n"
        "def last():\n    import time\n    if kills.exists():\n"
        "        kills.open('w').close()\n        time.sleep(600)\n    return 3\n"
        "print(step(last, ignore=('kills',), reads='ignore')())"
    )
    path = write(tmp_path / "long.ipynb", STEP, wait)
    os.mkfifo(tmp_path / "kills.txt")
    (tmp_path / "begun.log").touch()
    path.write_text(path.read_text().replace("if kills.exists() and str", "if False and str"))
    running = subprocess.Popen(
        [*COMMAND, "long.ipynb"], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
    )
    (tmp_path / "kills.txt").open().close()  # until the last step has begun
    second = go_on("long.ipynb", code=4)
    assert f"another `nbdurable run` writes {path} now (pid {running.pid})" in second.stderr
    assert second.stderr.count("\n") == 1
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=100)
    assert running.returncode == 128 + signal.SIGTERM, said
    assert "suspended in cell 3 (long)" in said
    assert said.endswith("1 outcome is saved; to go on: nbdurable run long.ipynb\n")
    assert [one.ename for one in notebooks.read(path).cells[2].outputs if "ename" in one] == [
        "KeyboardInterrupt"
    ]
    (row,) = questions.runs(tmp_path / ".nbdurable" / "long.duckdb")
    open_stores.close_stores()
    assert str(row.status) == "interrupted"
    (tmp_path / "kills.txt").unlink()
    assert "done: long.ipynb" in go_on("long.ipynb").stderr
    assert lines(tmp_path / "done.log") == ["1"]
    assert "3" in str(notebooks.read(path).cells[2].outputs)


# --- parameters, errors, bad input -----------------------------------------------------------


def test_parameters_and_an_error(tmp_path, go_on):
    """Parameters are set behind the tagged cell; a cell's error ends the run, and is written."""
    path = write(
        tmp_path / "in.ipynb",
        "day, n = 'none', 0",
        "%%durable of-day\nprint(day, go(abs, n).result())",
        "1 / n",
        tags=["parameters"],
    )
    before = path.read_bytes()
    done = go_on("in.ipynb", "-p", "day", "monday", "-p", "n", "-4", "--output", "monday.ipynb")
    assert "done: monday.ipynb" in done.stderr
    cells = notebooks.read(tmp_path / "monday.ipynb").cells
    assert (cells[2].source, cells[2].metadata.tags) == (
        "# Parameters\nday = 'monday'\nn = -4",
        ["injected-parameters"],
    )
    assert "monday 4" in str(cells[3].outputs)
    failed = go_on("in.ipynb", "--output", "none.ipynb", code=1).stderr.splitlines()[-1]
    assert failed.startswith("failed in cell 4 (1 / n): ZeroDivisionError: division by zero;")
    assert "ZeroDivisionError" in str(notebooks.read(tmp_path / "none.ipynb").cells[3].outputs)
    assert path.read_bytes() == before
    names = sorted(one.name for one in (tmp_path / ".nbdurable").glob("*.duckdb"))
    assert names == ["monday.duckdb", "none.duckdb"]


def test_bad_input_is_one_line(tmp_path, go_on):
    """No such notebook, no such kernel, no cell for parameters, no notebook at all."""
    write(tmp_path / "plain.ipynb", "1")
    (tmp_path / "broken.ipynb").write_text("{")
    cases = {
        ("missing.ipynb",): "there is no notebook missing.ipynb",
        ("broken.ipynb",): "broken.ipynb is no notebook",
        (
            "plain.ipynb",
            "-p",
            "day",
            "1",
        ): "has no cell for parameters: give the cell that sets day",
        ("plain.ipynb", "-p", "a day", "1"): "a parameter is a variable's name",
        ("plain.ipynb", "--output", "no/where.ipynb"): "there is no folder",
        ("plain.ipynb", "--kernel", "nope"): "there is no kernel called nope: there are ",
    }
    for words, said in cases.items():
        ended = go_on(*words, code=2)
        assert said in ended.stderr
        assert ended.stderr.startswith("Error: ")
        assert ended.stderr.count("\n") == 1


# --- the file --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("None", None),
        ("-3", -3),
        ("1e3", 1000.0),
        ("nan", "nan"),
        ("inf", "inf"),
        ("007", 7),
        ("2026-11-30", "2026-11-30"),
        ("", ""),
    ],
)
def test_what_a_parameter_stands_for(text, value):
    """Values are read as papermill reads them, but for numbers that no literal gives."""
    found = notebook_file.parameter(text)
    assert (found, type(found)) == (value, type(value))


def test_parameters_of_an_earlier_run_are_replaced(tmp_path):
    """A notebook that has run with parameters gets one cell for them, not two."""
    path = write(tmp_path / "a.ipynb", "day = 1", "day", tags=["parameters"])
    notebook = notebook_file.read(path)
    notebook_file.inject(notebook, [("day", "2")], "a.ipynb")
    notebook_file.inject(notebook, [("day", "3")], "a.ipynb")
    assert [cell.source for cell in notebook.cells[1:]] == [
        "day = 1",
        "# Parameters\nday = 3",
        "day",
    ]
    nbformat.validate(notebook)
    with pytest.raises(UsageError, match="a variable's name"):
        notebook_file.inject(notebook, [("1", "2")], "a.ipynb")


def test_what_somebody_else_wrote_is_kept(tmp_path):
    """A notebook that is saved in JupyterLab meanwhile is not overwritten; that is said once."""
    path = write(tmp_path / "a.ipynb", "1")
    path.chmod(0o640)
    notebook, output = notebook_file.read(path), notebook_file.Output(path)
    assert output.write(notebook) == ""
    assert path.stat().st_mode & 0o777 == 0o640
    path.unlink()
    assert output.write(notebook) == "", "one that was deleted is written again"
    path.write_text("mine")
    assert "a.ipynb was changed meanwhile" in output.write(notebook)
    assert output.write(notebook) == ""
    assert path.read_text() == "mine"
    assert notebook_file.read(tmp_path / "a.executed-1.ipynb") == notebook
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.executed-1.ipynb", "a.ipynb"]


def test_a_file_that_cant_be_written(tmp_path, monkeypatch):
    """The old content stays whole, nothing is left beside it, and that is said."""
    path = write(tmp_path / "a.ipynb", "1")
    before = path.read_bytes()
    output = notebook_file.Output(path)
    monkeypatch.setattr(
        notebook_file.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "x"))
    )
    assert "can't be written: x" in output.write(notebook_file.read(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- memory ----------------------------------------------------------------------------------


def test_a_kernel_killed_for_want_of_memory(tmp_path, monkeypatch):
    """It is said where the system has counted it, and as probable where it looks like it."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.events").write_text("low 0\noom_kill 3\n")
    (tmp_path / "memory.max").write_text(f"{2**33}\n")
    seen = memory.Memory()
    seen.look(os.getpid())
    assert seen.verdict(-9).startswith("killed by SIGKILL; it held ")
    assert seen.verdict(-9).endswith(" of 8.0 GiB")
    (tmp_path / "memory.max").write_text(f"{seen.last}\n")
    assert seen.verdict(-9).startswith("killed (SIGKILL), probably for want of memory; it held ")
    (tmp_path / "memory.events").write_text("low 0\noom_kill 4\n")
    assert seen.verdict(-9).startswith("the system killed it for want of memory; it held ")
    assert seen.verdict(-11).startswith("killed by SIGSEGV; it held ")
    assert seen.verdict(1).startswith("it ended with exit code 1; it held ")
    assert memory.Memory().verdict(None) == "it ended"

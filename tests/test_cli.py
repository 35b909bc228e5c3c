"""The command line: exit codes, one line for what goes wrong, and the words at the end.

What `nbdurable demo` shows is in test_demo; here it is replaced where only the
words around it matter.
"""

from __future__ import annotations

import importlib.util
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner  # noqa: TID251 - the runner of what click made
from support.environments import ROOT, sealed

import nbdurable
from nbdurable import cli
from nbdurable.api import open_stores
from nbdurable.demo import story


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return an empty working folder."""
    made = tmp_path / "place"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def played(monkeypatch):
    """Let the demonstration be over at once, with a true story."""
    steps = (
        story.StepStory("quote('alpha', 0.8)", "finished", replayed=True, seconds=0.8, bodies=1),
        story.StepStory("quote('gamma', 0.7)", "finished", replayed=True, seconds=0.75, bodies=1),
        story.StepStory("quote('beta', 4)", "in flight", replayed=False, seconds=4.0, bodies=2),
    )

    def play(notebook, tell):
        return story.Story(notebook, steps, "quote('alpha', 0.8)", 2.0, 5.0)

    monkeypatch.setattr(story, "play", play)


def call(*words, **options):
    """Run the command line in this process."""
    return CliRunner(**options).invoke(cli.main, list(words), prog_name="nbdurable")


def check_one_line(result):
    """See that all that was said is one line about what went wrong."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


# --- Lines that are right or wrong ----------------------------------------------------


def test_version():
    """The version is the package's and the project file's."""
    result = call("--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert result.exit_code == 0
    assert result.stdout == f"nbdurable, version {nbdurable.__version__}\n"
    assert nbdurable.__version__ == project["version"]


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["demo", "--help"]])
def test_help(words):
    """Help is no failure, and says what the exit codes mean."""
    result = call(*words)
    assert result.exit_code == 0
    assert "Exit codes: 0 done, 1 failed" in result.stdout


def test_list_of_commands_is_whole():
    """No command's description is cut off."""
    assert "..." not in call("--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--bogus"], "--bogus"),
        (["bogus"], "bogus"),
        (["demo", "--bogus"], "--bogus"),
        (["demo", "more"], "more"),
        (["demo", "--folder"], "--folder"),
    ],
)
def test_wrong_line(place, words, named):
    """A wrong command line ends with 2, says what is wrong, and does nothing."""
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr.splitlines()[-1]
    assert not list(place.iterdir())


# --- Folders that won't do ------------------------------------------------------------


def test_folder_that_holds_something(place):
    """A folder with something in it is left as it is."""
    inside = place / "work" / "notes.txt"
    inside.parent.mkdir()
    inside.write_text("mine")
    before = inside.stat(), inside.parent.stat()
    result = call("demo", "--folder", "work")
    check_one_line(result)
    assert f"{inside.parent} is not empty" in result.stderr
    assert "--folder" in result.stderr
    assert (inside.stat(), inside.parent.stat()) == before
    assert [path.name for path in place.rglob("*")] == ["work", "notes.txt"]


def test_folder_that_is_a_file(place):
    """A file in the folder's place makes the command line wrong."""
    (place / "work").write_text("mine")
    result = call("demo", "--folder", "work")
    assert result.exit_code == 2
    assert "'work' is a file" in result.stderr
    assert (place / "work").read_text() == "mine"


def test_folder_below_a_file(place):
    """A folder that can't be made is one line with the reason, whoever the user is."""
    (place / "work").write_text("mine")
    result = call("demo", "--folder", "work/demo")
    check_one_line(result)
    assert f"{place / 'work' / 'demo'} can't be written (Not a directory)" in result.stderr
    assert (place / "work").read_text() == "mine"


def test_folder_without_permission(place, monkeypatch):
    """A folder that may not be written is one line with the reason, too."""

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = call("demo")
    check_one_line(result)
    assert "can't be written (Permission denied): name another folder" in result.stderr


@pytest.mark.parametrize("words", [["demo"], ["demo", "--folder", "work"]])
def test_no_working_folder(place, words):
    """A working folder that is gone is one line."""
    place.rmdir()
    check_one_line(call(*words))


# --- What goes wrong on the way -----------------------------------------------------------


def test_failed_demo(place, monkeypatch):
    """A demonstration that did not show what it promises ends with 1 and says what was seen."""

    def play(notebook, tell):
        raise story.DemoError("quote('beta', 4) ran three times")

    monkeypatch.setattr(story, "play", play)
    result = call("demo")
    assert result.exit_code == 1
    assert result.stderr == "Error: quote('beta', 4) ran three times\n"
    assert result.stdout.splitlines() == ["a copy of quickstart.ipynb is in nbdurable-demo/"]


# A program that a background job starts may have been told to pass over Ctrl-C.
DEMO = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from nbdurable.cli import main
main(["demo"])
"""


@pytest.mark.parametrize("awaited", ["a copy of", "is running", "again, from the top"])
def test_interrupted_demo(place, tmp_path, awaited):
    """Ctrl-C ends it at any time, in one word, and no kernel is left."""
    variables = sealed(tmp_path, PYTHONPATH=str(ROOT))
    with subprocess.Popen(
        [sys.executable, "-c", DEMO],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if awaited in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (1, "Aborted!")
    runtime = variables["JUPYTER_RUNTIME_DIR"]
    assert not [one.pid for one in psutil.process_iter() if runtime in " ".join(words_of(one))]


def words_of(process):
    """Return a process's command line, nothing if it is gone or another user's."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# --- The words at the end ---------------------------------------------------------------


def test_story_fits_80_columns(place, played):
    """On a terminal of the usual width no line is broken, and the table is whole."""
    lines = call("demo", env={"COLUMNS": "80"}).stdout.splitlines()
    told, _, how_to_open = "\n".join(lines).rpartition("\n\n")
    assert max(len(line) for line in told.splitlines()) <= 80
    row = next(line for line in lines if line.startswith("quote('beta', 4)"))
    assert row.split()[2:] == ["in", "flight", "ran", "4.0", "s", "2"]
    assert "replayed: 2 steps, 1.6 s of work not done again" in lines
    assert "select: quote('alpha', 0.8) won before the kill, and after it" in lines
    assert how_to_open.endswith("nbdurable-demo/quickstart.ipynb")


def test_story_on_a_poor_terminal(place, played):
    """A narrow terminal that knows no more than ASCII gets the same table."""
    wide = call("demo", "--folder", "a", charset="ascii", env={"COLUMNS": "80"})
    narrow = call("demo", "--folder", "b", charset="ascii", env={"COLUMNS": "40"})
    assert (wide.exit_code, narrow.exit_code) == (0, 0), narrow.exception
    assert narrow.stdout == wide.stdout.replace(" a/", " b/")


@pytest.fixture
def found(monkeypatch):
    """Return a function that says whether JupyterLab is installed, and what is on the path."""

    def arrange(*, lab, path):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if lab else None)
        monkeypatch.setenv("PATH", str(path))

    return arrange


def test_open_where_the_environment_is_active(place, found):
    """In an activated environment with JupyterLab the line is as short as can be."""
    found(lab=True, path=Path(sys.executable).parent)
    (place / "my demo").mkdir()
    lines = cli._how_to_open(place / "my demo" / "quickstart.ipynb")
    assert lines[1:] == ["  jupyter lab 'my demo/quickstart.ipynb'"]


def test_open_where_it_is_not_active(place, found):
    """Elsewhere the line names the interpreter, which is sure to be there."""
    found(lab=True, path="/nowhere")
    (line,) = cli._how_to_open(place / "quickstart.ipynb")[1:]
    python, *rest = shlex.split(line)
    assert Path(python).samefile(sys.executable)
    assert rest == ["-m", "jupyterlab", "quickstart.ipynb"]


def test_open_with_another_jupyter_on_the_path(place, found, tmp_path):
    """Another environment's `jupyter` is not the one to call."""
    other = tmp_path / "bin"
    other.mkdir()
    for name in ("jupyter", "python"):
        (other / name).touch(mode=0o755)
    found(lab=True, path=other)
    line = cli._how_to_open(place / "quickstart.ipynb")[1]
    assert line.endswith(f"{Path(sys.executable).name} -m jupyterlab quickstart.ipynb")


def test_open_without_jupyterlab(place, found):
    """Where there is no JupyterLab the line that installs it comes first."""
    found(lab=False, path=Path(sys.executable).parent)
    lines = cli._how_to_open(place / "quickstart.ipynb")
    assert lines[1:] == [
        "  python -m pip install 'nbdurable[lab]'",
        "  jupyter lab quickstart.ipynb",
    ]


# --- What is made again, and other names ------------------------------------------------


def test_redo_and_rename(place):
    """The same as `%durable redo` and `rename`: lines on stdout, a mistake on stderr."""
    store = str(place / "s.duckdb")

    def double(number):
        return 2 * number

    with nbdurable.workflow("numbers", store=store):
        nbdurable.step(double, version=1)(3)
    open_stores.close_stores()
    assert call("redo", "numbers", "dubble", "--store", store).stderr.splitlines() == [
        "Error: redo numbers: it has no saved outcome of dubble: did you mean double?"
    ]
    done = call("redo", "numbers", "double(3)", "--store", store)
    first, second = done.stdout.splitlines()
    assert first.startswith("redo numbers takes out 1 outcome of double, which took ")
    assert second == "numbers: run its cell again to make them anew"
    again = call("redo", "numbers", "--store", store)
    assert (again.exit_code, again.stdout) == (1, "")
    renamed = call("rename", "numbers", "doubles", "--store", store)
    assert "the run numbers is called doubles now" in renamed.stdout
    assert call("rename", "numbers", "x", "--store", store).exit_code == 1

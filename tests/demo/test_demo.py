"""`nbdurable demo`: as a user gets it, from a wheel; and that it can't tell what is not so.

The lying notebooks are the shipped one with shorter waits and one lie each.
"""

from __future__ import annotations

import re
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from kernel_harness import kernel
from support import notebooks
from support.environments import ROOT, environment, pip, run, sealed

from nbdurable.demo import story as demo
from nbdurable.inspection import queries as questions

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SHIPPED = sorted((ROOT / "notebooks").glob("**/*.ipynb"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Make an environment with nothing in it but pip."""
    with environment(tmp_path_factory.mktemp("fresh") / "env") as python:
        yield python


@pytest.fixture(scope="module")
def wheel(fresh, tmp_path_factory):
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(fresh, "wheel", "--no-deps", "--wheel-dir", folder, ".")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(fresh, wheel):
    """Install the wheel, and nothing that it doesn't ask for."""
    pip(fresh, "install", wheel)
    return fresh


# --- From a wheel ------------------------------------------------------------------------


def test_the_wheel_ships_the_notebooks(wheel):
    """The notebooks are in the wheel as they are here, and nothing that running them leaves."""
    with zipfile.ZipFile(wheel) as archive:
        prefix = "nbdurable/notebooks/"
        names = {name for name in archive.namelist() if name.startswith(prefix)}
        assert names == {prefix + path.name for path in SHIPPED}
        for path in SHIPPED:
            assert archive.read(prefix + path.name) == path.read_bytes()


@pytest.fixture(scope="module")
def shown(installed, tmp_path_factory):
    """Run the demo in a folder somewhere, on a terminal of 80 columns; what it said, and where."""
    folder = tmp_path_factory.mktemp("somewhere") / "my notebooks"
    folder.mkdir()
    variables = sealed(folder.parent, COLUMNS="80")
    ended = run([installed.with_name("nbdurable"), "demo"], cwd=folder, env=variables)
    assert ended.stderr == ""
    return ended.stdout, folder


def test_demo_tells_the_death_and_what_came_after(shown):
    """The kernel named is killed in the middle of the cell, and another one goes on."""
    text, _ = shown
    assert text.startswith("a copy of quickstart.ipynb is in nbdurable-demo/\n")
    told = text.partition("\n\n")[0].splitlines()[1:]
    first = re.fullmatch(r"kernel (\d+) runs quickstart.ipynb", told[0])[1]
    kill = told.index(f"kill -9 {first}, in the middle of the cell")
    second = re.fullmatch(r"kernel (\d+) runs quickstart.ipynb again, from the top", told[kill + 1])
    assert second[1] != first
    before, after = told[1:kill], told[kill + 2 :]
    for fast in ("  quote('alpha', 0.8)", "  quote('gamma', 0.7)"):
        assert f"{fast} has finished, and is saved" in before
        assert f"{fast} is replayed" in after
        assert f"{fast} is running" not in after
    for slow in ("  quote('beta', 4)", "  quote('delta', 4.5)"):
        assert f"{slow} is running" in before
        assert f"{slow} has finished, and is saved" not in before
        assert f"{slow} has finished, and is saved" in after


def test_demo_sums_up(shown):
    """The table has each step, and the lines below agree with it."""
    text, _ = shown
    table, summary = text.split("\n\n")[1:3]
    assert max(len(line) for line in table.splitlines() + summary.splitlines()) <= 80
    row = re.compile(r"(quote\(.*\)) +(finished|in flight) +(replayed|ran) +([\d.]+) s +(\d)")
    rows = [row.fullmatch(line.rstrip()).groups() for line in table.splitlines()[2:]]
    assert [(label, *rest, bodies) for label, *rest, _, bodies in rows] == [
        ("quote('alpha', 0.8)", "finished", "replayed", "1"),
        ("quote('gamma', 0.7)", "finished", "replayed", "1"),
        ("quote('beta', 4)", "in flight", "ran", "2"),
        ("quote('delta', 4.5)", "in flight", "ran", "2"),
    ]
    replayed, ran, select, output, _ = summary.splitlines()
    spared = re.fullmatch(r"replayed: 2 steps, ([\d.]+) s of work not done again", replayed)[1]
    assert float(spared) == pytest.approx(sum(float(row[3]) for row in rows[:2]), abs=0.11)
    assert float(spared) >= 0.8 + 0.7
    assert ran == "ran: 2 steps, which were in flight"
    assert select == "select: quote('alpha', 0.8) won before the kill, and after it"
    assert output == "output: the same as that of an uninterrupted run"


def test_demo_says_how_to_open_the_notebook(shown, installed):
    """The last lines install JupyterLab, which is not there, and open the notebook with it."""
    text, folder = shown
    install, opening = (shlex.split(line) for line in text.splitlines()[-2:])
    assert (folder / install[0]).samefile(installed)
    assert install[1:] == ["-m", "pip", "install", "nbdurable[lab]"]
    assert opening == [install[0], "-m", "jupyterlab", "nbdurable-demo/quickstart.ipynb"]
    assert (folder / opening[-1]).is_file()


def test_demo_leaves_what_replays(shown):
    """Opened as JupyterLab opens it, the notebook replays everything, as the last lines say."""
    _, folder = shown
    path = folder / "nbdurable-demo" / "quickstart.ipynb"
    assert path.read_bytes() == (ROOT / "notebooks" / "quickstart.ipynb").read_bytes()
    calls = path.with_name("calls.log")
    before = calls.read_text()
    notebook = notebooks.read(path)
    with kernel(path.parent, notebook=path) as running:
        for cell in notebooks.code_cells(notebook):
            assert running.run(cell.source, cell.id).status == "ok"
    assert calls.read_text() == before


# --- The folder -----------------------------------------------------------------------------


def test_default_folders_are_counted(tmp_path, monkeypatch):
    """Each demo has a folder of its own, which git passes over."""
    monkeypatch.chdir(tmp_path)
    made = [demo.prepare().parent for _ in range(3)]
    assert [path.name for path in made] == [f"nbdurable-demo{more}" for more in ("", "-2", "-3")]
    for path in made:
        assert path.is_absolute()
        assert (path / ".gitignore").read_text() == "*\n"
        assert {one.name for one in path.iterdir()} == {".gitignore", "quickstart.ipynb"}


def test_an_empty_folder_will_do(tmp_path):
    """A folder that is there and empty is as good as none."""
    assert demo.prepare(tmp_path) == tmp_path / "quickstart.ipynb"


# --- It does not tell what is not so ------------------------------------------------------


SHORTER = (
    ("0.8", "0.1"),
    ("0.7", "0.2"),
    (", 4)", ", 1.5)"),
    ("after 4 s", "after 1.5 s"),
    ("4.5", "1.7"),
)

# What is changed in the notebook, and what the error says.
LIES = {
    "a select that nothing decided": (
        [
            (
                "first = select(fast, slow)",
                (
                    "from types import SimpleNamespace as Stub\n"
                    "first = Stub(winner=fast, result=fast.result)"
                ),
            )
        ],
        "the select was not decided before the kill",
    ),
    "steps that are over too soon": (
        [(", 1.5)", ", 0)"), ("1.7", "0")],
        "the notebook ended before 2 steps had finished with 2 in flight",
    ),
    "a kernel that dies by itself": (
        [("import time", "import os; os._exit(1)")],
        r"the kernel died by itself; its log is .*kernel\.log",
    ),
    "a cell that fails": (
        [("import time", "import time; time.no_such")],
        "a cell failed with AttributeError: .*no_such",
    ),
    "an output of another run": (
        [("alpha   9412", "alpha   9413")],
        "a cell shows .*9412.* where an uninterrupted run shows .*9413",
    ),
    "a body that runs twice": (
        [("{source}\\n", "{source}\\n{source}\\n")],
        r"the body of quote\('alpha', 0\.1\) ran 2 times, not 1",
    ),
    "code that is another in each kernel": (
        [
            ("import time", "import os, time"),
            ("CALLS = ", "KERNEL = os.getpid()\nCALLS = "),
            ("time.sleep(seconds)", "time.sleep(seconds + 0 * KERNEL)"),
        ],
        "is in flight after the second pass|and yet ran again",
    ),
}


def shortened(folder, changes=()):
    """Prepare the demo in the folder, with shorter waits and these changes."""
    path = demo.prepare(folder)
    notebook = notebooks.read(path)
    for old, new in (*SHORTER, *changes):
        hits = 0
        for cell in notebooks.code_cells(notebook):
            texts = [(cell, "source")]
            for output in cell.outputs:
                texts += [(output, "text")] if "text" in output else []
                texts += [(output.data, kind) for kind in output.get("data", ())]
            for holder, key in texts:
                hits += holder[key].count(old)
                holder[key] = holder[key].replace(old, new)
        assert hits, old
    nbformat.write(notebook, path)
    return path


def test_the_truth_is_told(tmp_path):
    """The shortened notebook without a lie: what the lies below are compared with."""
    told = []
    story = demo.play(shortened(tmp_path / "demo"), told.append)
    assert [step.label for step in story.replayed] == ["quote('alpha', 0.1)", "quote('gamma', 0.2)"]
    assert [step.label for step in story.ran] == ["quote('beta', 1.5)", "quote('delta', 1.7)"]
    assert story.winner == "quote('alpha', 0.1)"
    assert story.seconds_spared == pytest.approx(0.3, abs=0.2)
    assert sum("kill -9" in line for line in told) == 1


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_an_error(tmp_path, lie):
    """A notebook, or a library, that breaks a promise is no demonstration of it."""
    changes, said = LIES[lie]
    with pytest.raises(demo.DemoError, match=f"(?s){said}"):
        demo.play(shortened(tmp_path / "demo", changes), lambda line: None)


def test_a_store_that_does_not_answer(tmp_path, monkeypatch):
    """What the store says is wrong with it is passed on."""
    monkeypatch.setenv("NBDURABLE_KEY_FILE", "/dev/null/key")
    with pytest.raises(demo.DemoError, match=r"StoreError: the signing key /dev/null/key"):
        demo.play(shortened(tmp_path / "demo"), lambda line: None)


def test_an_interrupted_question_is_an_interrupt(monkeypatch):
    """A Ctrl-C that DuckDB took for itself is a Ctrl-C again."""

    def query(sql, store):
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(questions, "query", query)
    with pytest.raises(KeyboardInterrupt):
        demo._rows("SELECT 1", Path("somewhere"))


# The checks one by one, on what the store and the folder could say.

FAST = {"label": "quote('a')", "status": "finished", "seconds": 0.5, "execution": 1}
ALSO = FAST | {"label": "quote('b')"}
SLOW = {"label": "quote('c')", "status": "in flight", "seconds": 0.0, "execution": 1}
LATE = SLOW | {"label": "quote('d')"}
DONE = {"status": "finished", "seconds": 1.5, "execution": 2}
BEFORE = [FAST, ALSO, SLOW, LATE]
AFTER = [FAST, ALSO, SLOW | DONE, LATE | DONE]
CALLS = {"a": 1, "b": 1, "c": 2, "d": 1}


def test_compare():
    """Each step is where the death found it, and with the bodies that it took."""
    assert demo._compare(BEFORE, AFTER, CALLS) == (
        demo.StepStory("quote('a')", "finished", replayed=True, seconds=0.5, bodies=1),
        demo.StepStory("quote('b')", "finished", replayed=True, seconds=0.5, bodies=1),
        demo.StepStory("quote('c')", "in flight", replayed=False, seconds=1.5, bodies=2),
        demo.StepStory("quote('d')", "in flight", replayed=False, seconds=1.5, bodies=1),
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (BEFORE, [*AFTER[:3], LATE], r"quote\('d'\) is in flight after the second pass"),
        ([FAST, SLOW, LATE], AFTER, "fewer than 2 steps were finished"),
        ([FAST, ALSO, SLOW], AFTER, "fewer than 2 steps were in flight"),
    ],
)
def test_compare_refuses(before, after, said):
    """Too little at the kill, or something open at the end."""
    with pytest.raises(demo.DemoError, match=said):
        demo._compare(before, after, CALLS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replayed": False}, "was finished at the kill and yet ran again"),
        ({"bodies": 2}, "ran 2 times, not 1"),
        ({"bodies": 0}, "ran 0 times, not 1"),
        ({"before": "in flight", "replayed": False, "bodies": 3}, "ran 3 times, not 2"),
        ({"before": "in flight"}, "was in flight at the kill and yet was replayed"),
    ],
)
def test_bodies_are_counted(change, said):
    """A body that ran too often, or never, or that can't have been replayed."""
    first, *others = demo._compare(BEFORE, AFTER, CALLS)
    told = demo.Story(Path("quickstart.ipynb"), (first, *others), "quote('a')", 1.0, 1.0)
    demo._check_bodies(told)
    with pytest.raises(demo.DemoError, match=said):
        demo._check_bodies(replace(told, steps=(replace(first, **change), *others)))


def test_winner():
    """The winner is that of both passes."""
    won, other = ({"label": "select", "winner": name} for name in ("quote('a')", "quote('c')"))
    assert demo._winner([won], [won]) == "quote('a')"
    with pytest.raises(demo.DemoError, match="not decided before the kill"):
        demo._winner([], [won])
    with pytest.raises(
        demo.DemoError, match=r"won by quote\('a'\) before .* by quote\('c'\) after"
    ):
        demo._winner([won], [other])


def test_output_is_compared(tmp_path):
    """The output is that of the notebook, cell for cell."""
    path = demo.prepare(tmp_path)
    right = demo._outputs(notebooks.read(path))
    demo._check_output(path, right)
    with pytest.raises(demo.DemoError, match=r"a cell shows .* where an uninterrupted run shows"):
        demo._check_output(path, [*right[:-1], ["something else"]])

"""``%%step NAME``: one plain cell saved and restored, in processes and in real kernels."""

import os
import subprocess
import sys

import pytest
from kernel_harness import kernel
from support.plain_notebooks import same

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CELLS = [
    "calls = []\nimport random\ndef f(n):\n    print('f', n)\n    return [n]",
    "%%step load\na = f(2)\nb = a\nr = random.random()\na",
    "k = 1",
    "%%step more\nb.append(k)\nprint(len(a))",
    "a is b, a",
]


def told(passed):
    """Give what became of the marked cells: whether each was restored."""
    return [one["outcome"]["restored"] for one in passed.cells if one["outcome"]]


@pytest.mark.parametrize("killed", range(len(CELLS)))
def test_killed_and_run_again(notebooks, tmp_path, killed):
    """Whatever cell was the last, the next pass restores what was saved, links included."""
    notebooks.run(tmp_path, CELLS, "loaded", kill_after=killed)
    second = notebooks.run(tmp_path, CELLS, "loaded")
    third = notebooks.run(tmp_path, CELLS, "loaded")
    assert told(second) == [killed >= 1, killed >= 3]
    assert told(third) == [True, True]
    assert not any(second.errors)
    assert (same(second.left, third.left, drawn=False), second.shown) == ([], third.shown)
    assert third.left["values"]["a"] == "builtins.list[int:2, int:1]"


def test_a_finished_cell_is_restored(notebooks, tmp_path):
    """Content decides, however often: a clock is no reason here, for it was asked to be saved."""
    cells = ["import time", "%%step when\nt = time.time()"]
    first = notebooks.run(tmp_path, cells, "loaded", end="exit")
    second = notebooks.run(tmp_path, cells, "loaded", end="exit")
    assert (told(second), same(first.left, second.left, drawn=False)) == ([True], [])


@pytest.mark.parametrize(
    ("edited", "restored"),
    [
        ({}, [True, True]),
        ({2: "k = 5"}, [True, False]),
        ({0: CELLS[0].replace("[n]", "[n, n]")}, [False, False]),
        ({1: CELLS[1].replace("f(2)", "f(3)")}, [False, False]),
        ({1: "%%step other\n" + CELLS[1].partition("\n")[2]}, [False, True]),
    ],
)
def test_edits(notebooks, tmp_path, edited, restored):
    """An edit of a cell, of a function or of a value makes what depends on it run, and says so."""
    notebooks.run(tmp_path, CELLS, "loaded")
    cells = [edited.get(at, cell) for at, cell in enumerate(CELLS)]
    second = notebooks.run(tmp_path, cells, "loaded")
    assert told(second) == restored
    plain = [cell.partition("\n")[2] if cell.startswith("%%") else cell for cell in cells]
    fresh = notebooks.run(tmp_path, plain, "plain")
    values, others = second.left["values"], fresh.left["values"]
    assert {name: values[name] for name in "abk"} == {name: others[name] for name in "abk"}


def test_a_cell_that_cannot_be_saved_says_why(notebooks, tmp_path):
    """One line names the reason; the cell has run."""
    cells = ["%%step live\ng = iter([1])", "%%step wrong\n1/0", "%%step only\nimport os"]
    passed = notebooks.run(tmp_path, cells, "loaded")
    assert "live is not saved and runs again next time: `g` (list_iterator)" in passed.shown[0]
    assert passed.errors[1].startswith("ZeroDivisionError")
    assert "only only defines and imports" in passed.shown[2]


def test_its_run_is_like_any_other(notebooks, tmp_path):
    """Status, steps, why, sql, redo and restart know it."""
    cells = [
        *CELLS,
        "%durable status",
        "%durable status load",
        "%durable steps load",
        "%durable why more",
        "%durable sql SELECT workflow, name, label, status FROM steps",
        "%durable gc",
        "%durable redo load",
    ]
    first = notebooks.run(tmp_path, cells, "loaded")
    assert not any(first.errors), first.errors
    assert "a = f(2)" in first.shown[7]
    assert "b.append(k)" in first.shown[8]
    second = notebooks.run(tmp_path, CELLS, "loaded")
    assert told(second) == [False, True]
    runs = {one.name: str(one.status) for one in questions.runs(tmp_path / "store.duckdb")}
    open_stores.close_stores()
    assert runs == {"load": "finished", "more": "finished"}


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%step\nx = 1", "%%step needs a name, under which the cell is found again"),
        ("%%step a b\nx = 1", "%%step takes one name and got 2: try `%%step a-b`"),
        ("%%step a --new\nx = 1", "%%step has no option --new"),
        ("%%step -\nx = 1", "a name starts with a letter or a digit"),
        ("%%step auto\nx = 1", "that is the run of `%durable auto`"),
        ("%%step 'a\nx = 1", "is never closed"),
        ("%%step {nope}\nx = 1", "the name could not be made: NameError"),
        ("y = 1\n%%step late\nx = 1", "%%step late has to be the first line of its cell"),
        ("%%time\n%%step inside\nx = 1", "%%step inside has to be the first line of its cell"),
        ("%%durable auto\nx = 1", "that is the run of `%durable auto`"),
    ],
)
def test_bad_input(notebooks, tmp_path, cell, said):
    """One clear line, and the cell has not run."""
    passed = notebooks.run(tmp_path, ["x = 0", cell], "loaded")
    assert "UsageError" in passed.errors[1] + passed.shown[1], passed.cells
    assert said in passed.errors[1] + passed.shown[1]
    assert passed.left["values"]["x"] == "int:0"


def test_a_magic_below_it(notebooks, tmp_path):
    """%%time may follow: its body is the cell's."""
    cells = ["%%step timed\n%%time\nx = [1]\nx.append(2)"]
    notebooks.run(tmp_path, cells, "loaded")
    second = notebooks.run(tmp_path, cells, "loaded")
    assert told(second) == [True]
    assert second.left["values"]["x"] == "builtins.list[int:1, int:2]"


def test_a_name_with_expressions(notebooks, tmp_path):
    """As for a durable cell: a record a day."""
    cells = ["day = 'mon'", "%%step load-{day}\nx = [day]"]
    notebooks.run(tmp_path, cells, "loaded")
    assert told(notebooks.run(tmp_path, ["day = 'tue'", cells[1]], "loaded")) == [False]
    assert told(notebooks.run(tmp_path, cells, "loaded")) == [True]


# --- in a real kernel ----------------------------------------------------------------------

FIGURE = (
    "%%step picture\nfrom IPython.display import HTML, clear_output, display\n"
    "for i in range(3):\n    clear_output(wait=True); print(i)\n"
    "shown = display(HTML('<b>x</b>'), display_id='it')\nshown.update(HTML('<b>y</b>'))\n"
    "fig, ax = plt.subplots()\nax.plot([1, 2])"
)


def shown(result):
    """Give what a cell shows, apart from nbdurable's own lines."""
    outputs = [
        {key: one.get(key) for key in ("type", "name", "text", "data")}
        for one in result.outputs
        if "opacity:.65" not in str(one.get("data"))
    ]
    return result.status, outputs


def test_figures_and_displays_in_a_killed_kernel(tmp_path):
    """Pictures, displays that were updated and results come again in a new kernel, as they were."""
    env = {"NBDURABLE_STORE": str(tmp_path / "store.duckdb")}
    setting = "%load_ext nbdurable\n%matplotlib inline\nimport matplotlib.pyplot as plt"
    with kernel(tmp_path, env) as running:
        assert running.run(setting).status == "ok"
        first = shown(running.run(FIGURE))
        failed = running.run("%%step failing\ndef g():\n    raise ValueError('x')\ng()")
        assert failed.ename == "ValueError"
        assert "nbdurable" not in "".join(failed.traceback)
        later = shown(running.run("%%step later\nax.set_title('t'); fig"))
        awaited = running.run("%%step awaits\nimport asyncio\nv = await asyncio.sleep(0, 7)\nv")
        assert awaited.value == "7"
        running.kill()
    assert [one["type"] for one in first[1]][-1] == "display_data"
    with kernel(tmp_path, env) as running:
        assert running.run(setting).status == "ok"
        again = running.run(FIGURE)
        assert shown(again) == first
        assert shown(running.run("%%step later\nax.set_title('t'); fig")) == later
        asked = running.run(f"fig.axes[0] is ax, ax.get_title(), Out[{again.count}] is not None")
        assert asked.value == "(True, 't', True)"


def test_two_cells_with_one_name(tmp_path):
    """Where the front end tells cells apart, the second is refused."""
    with kernel(tmp_path, {"NBDURABLE_STORE": str(tmp_path / "store.duckdb")}) as running:
        running.run("%load_ext nbdurable", cell_id="one")
        assert running.run("%%step a\nx = 1", cell_id="two").status == "ok"
        refused = running.run("%%step a\nx = 2", cell_id="three")
        assert refused.ename == "UsageError"
        assert "a is the name of another cell of this notebook" in refused.evalue


IN_A_TERMINAL = """
import os, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in ("%load_ext nbdurable", "%%step pair\\nprint('made')\\n(1, 2)"):
    found = shell.run_cell(cell, store_history=True)
print("result", found.result)
sys.stdout.flush()
os._exit(0)
"""


def test_a_shell_without_a_front_end_shows_a_result_once(tmp_path):
    """What IPython itself writes of a result is not taken for the cell's text."""
    given = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", IN_A_TERMINAL],
            cwd=tmp_path, env=given, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        lines = [line for line in ended.stdout.splitlines() if "(1, 2)" in line or line == "made"]
        assert lines == ["made", "Out[2]: (1, 2)", "result (1, 2)"]

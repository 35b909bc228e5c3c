"""``%durable auto``: notebooks of plain cells, killed with SIGKILL and run again.

Each pass is a process of its own with a shell of its own. What it leaves is compared by value
and link, by what no part of the product computes (`support.plain_state`).
"""

import json

import pytest
from support.plain_notebooks import same

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions


@pytest.fixture
def twice(notebooks, tmp_path):
    """Run a notebook, kill it at its end, run it again; give both passes and what differs."""

    def run(cells, *, change=None, mode="auto", **options):
        first = notebooks.run(tmp_path, cells, mode, **options)
        if change is not None:
            change(tmp_path)
        second = notebooks.run(tmp_path, cells, mode, **options)
        return first, second

    return run


def why_rows(folder):
    """Ask the store why each cell ran, by its label."""
    found = questions.why("auto", folder / "store.duckdb")
    open_stores.close_stores()
    return {row["step"]: row["why"] for row in found}


# --- restored values and links ----------------------------------------------------------

LINKED = {
    "a list in a dict": ["d = {'x': [1]}\nlst = d['x']", "lst.append(2)"],
    "two names": ["a = [1]\nb = a", "b.append(2)", "a is b"],
    "a view of an array": [
        "import numpy as np",
        "a = np.zeros(6)\nb = a[2:5]",
        "a[3] = -1",
        "b.tolist()",
    ],
    "a view of a view, in a later cell": [
        "import numpy as np",
        "a = np.arange(12).reshape(3, 4)",
        "row = a[1]\npart = row[1:3]",
        "part[:] = 7",
        "a.sum()",
    ],
    "two frames and their index": [
        "import pandas as pd",
        "df = pd.DataFrame({'a': [1, 2]})\nother = df\nidx = df.index",
        "df2 = pd.DataFrame({'b': [3, 4]}, index=idx)",
        "df['c'] = df.a * 2",
        "other is df, df2.index is idx, list(other)",
    ],
    "a frame that is bound again": [
        "import pandas as pd",
        "df = pd.DataFrame({'a': [1, 2]})\nold = df",
        "df = df.rename(columns=str.upper)",
        "list(df), list(old)",
    ],
    "a registry on a class": [
        "class C:\n    made = []\n    def __init__(self, n): self.n = n; C.made.append(self)",
        "one = C(1)",
        "two = C(2); C.made[0] is one",
    ],
    "a counter in a default": [
        "def f(n, seen=[]):\n    seen.append(n)\n    return len(seen)",
        "f(1)\nf(2)",
        "f(3)",
    ],
    "a closure": [
        "def make():\n    kept = []\n    def add(x):\n        kept.append(x)\n        return kept\n"
        "    return add",
        "add = make()",
        "add(1);",
        "last = add(2)",
    ],
    "lambdas": ["fs = [lambda x, k=k: x * k for k in range(3)]", "[f(2) for f in fs]"],
    "state through a function": [
        "state = {'n': 0}\ndef bump():\n    global total\n    state['n'] += 1\n    total = state['n']",
        "bump()",
        "bump()",
        "total, state",
    ],
    "the order of a dict": ["d = {'b': 1, 'a': 2}", "d['c'] = d.pop('b')", "list(d)"],
    "a list in itself": ["l = [1]\nl.append(l)", "l.append(2)", "l[1] is l, len(l)"],
    "instances": [
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    tags: list",
        "p, q = P(1, []), P(2, [])\nq.tags = p.tags",
        "p.tags.append('t')",
        "q",
    ],
    "what is deleted": ["x = 1\ny = 2", "del x", "y = 3"],
    "what is shown, and changed later": ["l = [1]\nl", "l.append(2)", "l"],
}


def joined(cases):
    """Put notebooks behind each other; give the cells, and the places of those of each."""
    cells, places = [], {}
    for name, more in cases.items():
        places[name] = range(len(cells), len(cells) + len(more))
        cells += more
    return cells, places


@pytest.fixture(scope="module")
def linked(notebooks, tmp_path_factory):
    """Run all of them in one notebook, kill it at its end, and run it again."""
    folder = tmp_path_factory.mktemp("linked")
    cells, places = joined(LINKED)
    cells.append("end = 1")
    first = notebooks.run(folder, cells, trace=True)
    return places, first, notebooks.run(folder, cells, trace=True)


@pytest.mark.parametrize("name", LINKED)
def test_values_and_links(linked, name):
    """What a cell left is there again, linked as it was; nothing of it runs."""
    places, first, second = linked
    for at in places[name]:
        assert first.errors[at] == ""
        assert at not in second.ran
        assert second.shown[at] == first.shown[at]
        then, now = (one.cells[at + 1]["before"] for one in (first, second))
        assert same({**then, "out": {}}, {**now, "out": {}}) == []


def test_results(linked):
    """Each Out[n] is what it was."""
    _, first, second = linked
    assert second.left["out"] == first.left["out"]


def test_output_is_shown_again(twice):
    """Prints, displays, updates and the value come again, though the code is not run."""
    first, second = twice(
        [
            "import sys\nfrom IPython.display import display, Markdown",
            "print('one'); print('two', file=sys.stderr); display(Markdown('*x*')); 3",
            "n = 7;",
            "print('only')",
        ]
    )
    assert second.ran == []
    assert second.shown == first.shown
    assert "one\n" in first.shown[1]
    assert same(first.left, second.left) == []


# --- what runs again --------------------------------------------------------------------


def test_an_edit_runs_what_depends_on_it(notebooks, tmp_path):
    """Exactly the dependents of an edited cell run; an equal value cuts off what is behind it."""
    cells = ["a = 1", "b = a + 1", "c = b > 0", "d = [c]", "e = 5"]
    notebooks.run(tmp_path, cells)
    edited = ["a = 2", *cells[1:]]
    second = notebooks.run(tmp_path, edited)
    assert (second.ran, second.restored) == ([0, 1, 2], [3, 4])
    assert second.why(1) == "`a` changed"
    assert same(notebooks.run(tmp_path, edited, "plain").left, second.left, drawn=False) == []
    back = notebooks.run(tmp_path, cells)
    assert back.ran == []  # several records of one text are kept


def test_an_edited_function_runs_who_calls_it(notebooks, tmp_path):
    """A function's code counts wherever a cell reaches it."""
    cells = [
        "def inner(): return 1\ndef f(): return inner()\ndef g(): return 0",
        "class C:\n    def m(self): return f()",
        "x = f()",
        "c = C()",
        "y = c.m()",
        "z = g()",
    ]
    notebooks.run(tmp_path, cells)
    edited = [cells[0].replace("return 1", "return 2"), *cells[1:]]
    second = notebooks.run(tmp_path, edited)
    assert (second.ran, second.restored) == ([2, 3, 4], [5])
    assert same(notebooks.run(tmp_path, edited, "plain").left, second.left, drawn=False) == []


def test_order_does_not_count(notebooks, tmp_path):
    """Cells run in another order, twice, or not at all: content decides."""
    notebooks.run(tmp_path, ["a = 1", "b = 2", "c = a + b", "a = 5", "d = a"])
    second = notebooks.run(tmp_path, ["b = 2", "a = 1", "c = a + b", "c = a + b", "e = c"])
    assert (second.restored, second.ran) == ([0, 1, 2, 3], [4])


def test_a_cell_that_counts_up_runs_each_time(notebooks, tmp_path):
    """A cell that is run twice has another state before it the second time."""
    cells = ["n = []", "n.append(1)", "n.append(1)", "n.append(1)"]
    first = notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, cells)
    assert (first.ran, second.ran) == ([0, 1, 2, 3], [])
    assert same(first.left, second.left) == []


def test_what_was_not_there(notebooks, tmp_path):
    """A name that a cell found missing must be missing."""
    cells = ["try:\n    flag\nexcept NameError:\n    x = 1\nelse:\n    x = 2"]
    notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, ["flag = 0", *cells])
    assert second.ran == [0, 1]
    assert second.why(1) == "`flag` is there now"


EACH_TIME = [
    (["g = (i for i in range(3))", "x = next(g)"], 1, "can't be compared"),
    (["import threading", "lock = threading.Lock()"], 1, "can't be compared"),
    (["f = open('a.txt', 'w')"], 0, "can't be compared"),
    (["import subprocess", "r = subprocess.run(['true']).returncode"], 1, "started a process"),
    (["x = !echo 1"], 0, "shell command"),
    (["%%writefile a.txt\n1"], 0, "%%writefile"),
    (["globals()['x'] = 1"], 0, "`globals`"),
    (["import json", "json.mine = 1\nx = 1"], 1, "not the notebook's"),
    (["None"], 0, "no effect"),
    (["1", "_"], 1, "`_`"),
    (["import os", "os.environ['API_KEY'] = 'k'\nx = 1"], 1, "secret"),
    (["x = 1", "try:\n    x\nfinally:\n    1/0"], 1, "raised"),
    (
        ["from collections import namedtuple", "P = namedtuple('P', 'x')\np = P(1)"],
        1,
        "by a call",
    ),
    (
        [
            "import threading",
            "e = []\nt = threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True)"
            "\nt.start()\ndel t",
        ],
        1,
        "still running",
    ),
]
"""Cells, the place of the one that is meant, and what is said of it; the last leaves a thread."""


@pytest.fixture(scope="module")
def each_time(notebooks, tmp_path_factory):
    """Run all of them in one notebook, twice."""
    folder = tmp_path_factory.mktemp("each")
    cells, places = joined({at: cells for at, (cells, _, _) in enumerate(EACH_TIME)})
    return places, notebooks.run(folder, cells), notebooks.run(folder, cells)


@pytest.mark.parametrize("case", range(len(EACH_TIME)))
def test_runs_each_time(each_time, case):
    """What can't be compared, saved or understood runs as if nothing were there, with a reason."""
    places, first, second = each_time
    _, at, why = EACH_TIME[case]
    place = places[case][at]
    assert why in first.unsaved(place)
    assert place in second.ran
    assert second.errors[place] == first.errors[place]


def test_behind_a_cell_that_runs_each_time(twice):
    """Its results are compared: what is behind them is restored."""
    _, second = twice(["g = iter([3])", "x = next(g)", "y = x + 1"])
    assert (second.ran, second.restored) == ([0, 1], [2])


def test_an_error_half_way(notebooks, tmp_path):
    """Nothing of a cell that raised is saved; the pass after the cure restores what was before."""
    cells = ["a = [1]", "a.append(2)\n1/0", "b = a"]
    first = notebooks.run(tmp_path, cells)
    assert first.errors[1].startswith("ZeroDivisionError")
    cured = [cells[0], "a.append(2)", cells[2]]
    second = notebooks.run(tmp_path, cured)
    assert second.restored == [0, 2]
    assert same(notebooks.run(tmp_path, cured, "plain").left, second.left, drawn=False) == []


def test_why_tells_of_cells(twice, tmp_path):
    """The table of the run has each cell, and why it was not saved."""
    twice(["a = 1", "g = iter([a])", "import os"])
    rows = why_rows(tmp_path)
    assert rows["a = 1"] == "new"
    assert rows["g = iter([a])"] == "`g` (list_iterator) can't be compared"


# --- random numbers, and what is around -------------------------------------------------

DRAWS = [
    "import random, numpy as np",
    "a = random.random()",
    "b = np.random.rand(2)",
    "rng = np.random.default_rng()\nc = rng.normal()",
    "d = rng.normal(), random.random(), np.random.rand()",
]


@pytest.mark.parametrize("kill", range(len(DRAWS)))
def test_unseeded_numbers_go_on(notebooks, tmp_path, kill):
    """A notebook that seeds nothing resumes to the same numbers, wherever its kernel died."""
    whole = tmp_path / "whole"
    whole.mkdir()
    first = notebooks.run(tmp_path, DRAWS, kill_after=kill)
    second = notebooks.run(tmp_path, DRAWS)
    third = notebooks.run(tmp_path, DRAWS)
    assert second.restored == [at for at in range(1, len(DRAWS)) if at <= kill]
    assert same(second.left, third.left) == []
    assert first.cells
    other = notebooks.run(whole, DRAWS)
    assert other.left["values"]["a"] != second.left["values"]["a"]


def test_new_draws_anew(notebooks, tmp_path):
    """With --new nothing is restored, and other numbers are drawn."""
    first = notebooks.run(tmp_path, DRAWS)
    second = notebooks.run(tmp_path, DRAWS, "auto --new")
    assert second.restored == []
    assert first.left["values"]["a"] != second.left["values"]["a"]


def test_another_seed_runs_what_draws(notebooks, tmp_path):
    """A generator's state is a dependency of the cells that move it."""
    cells = ["import random", "random.seed(1)", "a = random.random()", "b = 1"]
    notebooks.run(tmp_path, cells)
    edited = [cells[0], "random.seed(2)", *cells[2:]]
    second = notebooks.run(tmp_path, edited)
    assert (second.ran, second.restored) == ([1, 2], [3])
    assert same(notebooks.run(tmp_path, edited, "plain").left, second.left, drawn=False) == []


AROUND = [
    "import os, sys, logging, warnings\nimport numpy as np, pandas as pd\nimport matplotlib as mpl",
    "os.environ['MINE'] = '1'\nos.makedirs('sub', exist_ok=True)",
    "os.chdir('sub')",
    "sys.path.append('/nowhere/at/all')",
    "logging.getLogger().setLevel(logging.DEBUG)\nlogging.getLogger('own').setLevel(30)",
    "warnings.filterwarnings('ignore', message='mine')",
    "np.set_printoptions(precision=2)\npd.set_option('display.max_rows', 7)",
    "mpl.rcParams['font.size'] = 17",
    "where = os.getcwd()",
]


def test_around(twice):
    """Environment, folder, path, logging, warnings and options are set again."""
    first, second = twice(AROUND)
    assert second.ran == []
    assert same(first.left, second.left) == []


def test_options_count_where_they_are_used(notebooks, tmp_path):
    """A cell that shows a frame depends on pandas' options, one that adds numbers does not."""
    cells = [
        "import pandas as pd",
        "pd.set_option('display.max_rows', 4)",
        "pd.Series(range(9))",
        "x = 1 + 1",
    ]
    notebooks.run(tmp_path, cells)
    edited = [cells[0], "pd.set_option('display.max_rows', 6)", *cells[2:]]
    second = notebooks.run(tmp_path, edited)
    assert (second.ran, second.restored) == ([1, 2], [3])
    assert second.shown == notebooks.run(tmp_path, edited, "plain").shown


def test_variables_of_the_environment(notebooks, tmp_path):
    """A variable that a cell names counts; others don't."""
    cells = ["import os", "x = os.environ.get('MINE', '')", "y = 1"]
    notebooks.run(tmp_path, cells, env={"MINE": "1"})
    other = notebooks.run(tmp_path, cells, env={"MINE": "1", "OTHER": "2"})
    changed = notebooks.run(tmp_path, cells, env={"MINE": "2"})
    assert (other.ran, changed.ran) == ([], [1])


# --- files and clocks -------------------------------------------------------------------

FILES = [
    "import json, pathlib",
    "data = json.loads(pathlib.Path('in.json').read_text())",
    "_ = pathlib.Path('out.txt').write_text(str(data))",
    "n = len(data)",
]


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        (lambda folder: None, []),
        (lambda folder: (folder / "in.json").write_text("[1, 2, 3]"), [1, 2, 3]),
        (lambda folder: (folder / "in.json").touch(), []),
        (lambda folder: (folder / "out.txt").unlink(), [2]),
        (lambda folder: (folder / "out.txt").write_text("other"), [2]),
    ],
)
def test_files(notebooks, tmp_path, change, ran):
    """A changed input, or an output that is missing or changed, makes its cell run."""
    (tmp_path / "in.json").write_text("[1, 2]")
    notebooks.run(tmp_path, FILES)
    change(tmp_path)
    second = notebooks.run(tmp_path, FILES)
    assert second.ran == ran
    assert (tmp_path / "out.txt").read_text() == str(json.loads((tmp_path / "in.json").read_text()))


GROWS = [
    "def read():\n    with open('log.txt') as file:\n        return file.read()\n"
    "def add(text):\n    with open('log.txt', 'a') as file:\n        file.write(text)",
    "before = read()",
    "add('x'); done = 1",
    "after = read()",
]


def test_a_file_as_an_unfinished_pass_left_it(notebooks, tmp_path):
    """What cells of a pass that died wrote is no change; after a pass that finished, it is one."""
    (tmp_path / "log.txt").write_text("")
    first = notebooks.run(tmp_path, GROWS)
    second = notebooks.run(tmp_path, GROWS, end="exit")
    assert (second.ran, same(first.left, second.left)) == ([], [])
    third = notebooks.run(tmp_path, GROWS)
    assert third.ran == [1, 2, 3]
    assert (tmp_path / "log.txt").read_text() == "xx"


CLOCK = ["import time, uuid", "t = time.time(), uuid.uuid4()", "u = str(t)"]


def test_clocks(notebooks, tmp_path):
    """A cell that reads the clock is restored while the last pass had not finished."""
    first = notebooks.run(tmp_path, CLOCK)
    second = notebooks.run(tmp_path, CLOCK, end="exit")
    assert (second.ran, same(first.left, second.left)) == ([], [])
    third = notebooks.run(tmp_path, CLOCK)
    assert third.ran == [1, 2]
    assert third.why(1) == "it uses time.time, uuid.uuid4, and the last pass finished"


# --- the switch -------------------------------------------------------------------------


def test_only_what_took_longer(notebooks, tmp_path):
    """With a number of seconds, quick cells are not saved."""
    first = notebooks.run(tmp_path, ["a = 1"], "auto 5s")
    assert first.unsaved(0).endswith("less than 5.0 s"), first.unsaved(0)
    assert notebooks.run(tmp_path, ["a = 1"], "auto 5s").ran == [0]


def test_dry(notebooks, tmp_path):
    """A dry pass runs every cell, and says what would have been restored to something else."""
    cells = ["import os", "a = 1", "b = os.getpid()"]
    notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, cells, "auto dry")
    assert second.restored == []
    assert [one["outcome"]["differs"] for one in second.cells[1:]] == [[], ["b"]]


def test_off(notebooks, tmp_path):
    """Switched off, cells are cells again."""
    cells = ["a = 1", "%durable auto off", "b = 2", "%durable auto", "c = 3"]
    first = notebooks.run(tmp_path, cells)
    assert [one["outcome"] is not None for one in first.cells] == [True, True, False, False, True]
    second = notebooks.run(tmp_path, ["a = 1", "b = 2", "c = 3"])
    assert (second.restored, second.ran) == ([0, 2], [1])


@pytest.mark.parametrize("words", ["of", "2 3", "fast", "off 2", "-1"])
def test_a_wrong_word(notebooks, tmp_path, words):
    """One line says what can be written, and nothing is switched."""
    passed = notebooks.run(tmp_path, [f"%durable auto {words}", "a = 1"], "loaded")
    assert passed.errors[0].startswith("UsageError: %durable auto")
    assert passed.cells[1]["outcome"] is None


def test_mixed_with_durable_cells(notebooks, tmp_path):
    """Durable cells keep their own records; plain cells around them theirs."""
    cells = [
        "from nbdurable import step\nran = []",
        "@step\ndef load(n):\n    open('calls', 'a').write('x')\n    return n",
        "k = 3",
        "%%durable flow --quiet\ngot = load(k)",
        "twice = got * 2",
    ]
    first = notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, cells)
    assert not any(second.errors)
    assert (second.ran, same(first.left, second.left)) == ([], [])
    assert (tmp_path / "calls").read_text() == "x"


def test_magics_and_await(twice):
    """%time, %%time and top-level await are cells like others."""
    first, second = twice(
        [
            "import asyncio",
            "%time a = sum(range(9))",
            "%%time\nb = a + 1",
            "c = await asyncio.sleep(0, 7)\nc",
            "async with asyncio.Lock():\n    d = c",
        ]
    )
    assert not any(first.errors)
    assert second.ran == []
    assert (same(first.left, second.left), second.shown) == ([], first.shown)


def test_imports_and_definitions_run_in_each_pass(notebooks, tmp_path):
    """They are executed in order also in a restored cell, after what they need is set."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text("VALUE = 3\ndef f():\n    return VALUE\n")
    cells = [
        "import sys\nsys.path.insert(0, 'lib')\nimport mine\ndef g():\n    return mine.f()\nx = g()",
        "y = g() + x",
    ]
    first = notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, cells)
    assert not any(second.errors)
    assert (second.restored, same(first.left, second.left)) == ([0, 1], [])
    (tmp_path / "lib" / "mine.py").write_text("VALUE = 44\ndef f():\n    return VALUE\n")
    third = notebooks.run(tmp_path, cells)
    assert third.left["values"]["y"] == "int:88"


def test_a_store_that_another_process_holds(notebooks, tmp_path):
    """Cells run as ever where nothing can be saved."""
    (tmp_path / "taken").mkdir()
    passed = notebooks.run(
        tmp_path, ["a = 1", "b = a"], env={"NBDURABLE_STORE": str(tmp_path / "taken")}
    )
    assert not any(passed.errors)
    assert passed.left["values"]["b"] == "int:1"


def test_what_is_saved_and_broken(notebooks, tmp_path):
    """A record that can't be restored is a cell that runs."""
    cells = ["import numpy as np", "a = np.arange(200_000)\ns = sum(range(5_000_000))", "b = s"]
    notebooks.run(tmp_path, cells)
    for file in (tmp_path / "store.duckdb.objects").rglob("*"):
        if file.is_file():
            file.unlink()
    second = notebooks.run(tmp_path, cells)
    assert (second.ran, second.restored) == ([1], [2])
    assert "can't be restored" in second.why(1)

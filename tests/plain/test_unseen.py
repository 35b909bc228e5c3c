"""What a cell depends on where its text doesn't show it: an edit or a change must be noticed.

Each notebook is run, killed at its end, edited, run again in another process, and compared with
a plain run of the edited one.
"""

import pytest
from support.plain_notebooks import same

EDITS = {
    "a function in numpy's wrapper": (
        ["def f1(x): return x + k1", "k1 = 1", "import numpy as np\nv1 = np.vectorize(f1)"],
        ["y1 = v1([1]).tolist()"],
        (1, "k1 = 2"),
    ),
    "instances in an array and in a frame": (
        ["class A2:\n    def m(self): return 1", "import numpy as np, pandas as pd"],
        [
            "a2 = np.array([A2(), 2], dtype=object)\nd2 = pd.DataFrame({'o': [A2(), A2()]})",
            "y2 = a2[0].m()",
            "z2 = [one.m() for one in d2.o]\ndel d2, a2",
        ],
        (0, "class A2:\n    def m(self): return 2"),
    ),
    "the view of a dictionary": (
        ["class A3:\n    def m(self): return 1"],
        ["v3 = {'x': A3()}.values()", "y3 = [one.m() for one in v3]\ndel v3"],
        (0, "class A3:\n    def m(self): return 2"),
    ),
    "print options of what an instance holds": (
        ["import numpy as np", "np.set_printoptions(precision=3)"],
        ["d4 = {'n': 1, 'a': np.array([1 / 3])}", "s4 = str(d4)"],
        (1, "np.set_printoptions(precision=5)"),
    ),
    "a variable by a name in a variable": (
        ["import os", "os.environ['NAMED5'] = 'one'"],
        [
            "k5 = 'NAMED5'",
            "y5 = os.environ[k5]",
            "z5 = os.path.expandvars('$NAMED5/b')",
            "def g5(n): return os.getenv(n)",
            "w5 = g5(k5)",
        ],
        (1, "os.environ['NAMED5'] = 'two'"),
    ),
    "the notebook as a module": (
        ["import __main__ as notebook", "x6 = 1"],
        ["y6 = notebook.x6", "import sys\nz6 = sys.modules['__main__'].x6"],
        (1, "x6 = 2"),
    ),
}
"""Cells, more cells, and the place and the text of the edit."""


def test_edits_are_noticed(notebooks, tmp_path):
    """Nothing is as it was before the edit, wherever code or settings are reached through."""
    cells, edited = [], []
    for before, after, (place, text) in EDITS.values():
        cells += before + after
        edited += [text if at == place else one for at, one in enumerate(before)] + after
    notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, edited)
    plain = notebooks.run(tmp_path, edited, "plain")
    assert same(plain.left, second.left, drawn=False) == []
    assert not any(second.errors)


def test_an_underscore_of_the_users_own(notebooks, tmp_path):
    """What a cell binds to `_` is there for later cells, which read no result of the shell's."""
    cells = [
        "u8, _ = divmod(7, 2)\nu8",
        "y8 = _ + 1",
        "for _ in range(3):\n    pass",
        "z8 = _ * 10",
    ]
    notebooks.run(tmp_path, cells)
    second = notebooks.run(tmp_path, cells)
    plain = notebooks.run(tmp_path, cells, "plain")
    assert same(plain.left, second.left, drawn=False) == []
    assert [second.left["values"][name] for name in ("y8", "z8")] == ["int:2", "int:20"]
    assert second.shown[0] == plain.shown[0]


MODULES = {
    "inner.py": "def g(x): return x + 1\n",
    "outer.py": "import inner\ncfg = {'lr': 1}\nseen = []\n"
    "def f(x): return inner.g(x)\n"
    "def rate(): return cfg['lr']\n"
    "def add(x):\n    seen.append(x)\n    return len(seen)\n"
    "def count(): return len(seen)\n"
    "class K:\n    def m(self, x): return inner.g(x)\n",
}
IMPORTED = [
    "import sys\nsys.path.insert(0, '')\nsys.dont_write_bytecode = True",
    "from outer import f, K, add, count, cfg, rate",
    "a = f(1)",
    "k = [K()]",
    "b = k[0].m(1)",
    "cfg['lr'] = 5",
    "m = {'c': cfg}",
    "m['c']['lr'] += 1",
    "r = rate()",
    "q = add(1), add(2)",
    "n = count()",
]
LOOKED = ["again = count(), rate(), m['c'] is cfg, f(1)"]


def write(folder, files):
    """Write modules."""
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("edit", [False, True])
def test_modules_of_the_project(notebooks, tmp_path, edit):
    """Names imported from them keep their links with them, and their code counts, however deep."""
    write(tmp_path, MODULES)
    notebooks.run(tmp_path, IMPORTED)
    files = {**MODULES, "inner.py": "def g(x): return x + 200\n"} if edit else MODULES
    write(tmp_path, files)
    second = notebooks.run(tmp_path, IMPORTED + LOOKED)
    plain = notebooks.run(tmp_path, IMPORTED + LOOKED, "plain")
    assert same(plain.left, second.left, drawn=False) == []
    assert {5, 7, 8} <= set(second.restored)
    assert (2 in second.ran, 4 in second.ran) == (edit, edit)


ABSENT = [
    "import os\nfrom pathlib import Path\nF = 'flag'",
    "def there(): return os.path.exists(F)",
    "a = there()",
    "b = Path('flag').exists()",
    "try:\n    c = open('fl' + 'ag').read()\nexcept FileNotFoundError:\n    c = None",
    "d = 1",
]


def test_a_file_that_was_not_there(notebooks, tmp_path):
    """What was looked for in vain is a dependency."""
    notebooks.run(tmp_path, ABSENT)
    again = notebooks.run(tmp_path, ABSENT)
    assert again.ran == []
    (tmp_path / "flag").write_text("x")
    second = notebooks.run(tmp_path, ABSENT)
    assert second.ran == [2, 3, 4]


POLARS = [
    "import polars as pl\nd = 'data'",
    "a = pl.read_csv(f'{d}.csv')['x'].sum()",
    "lazy = pl.scan_csv('data.csv')",
    "b = lazy.collect().height",
    "c = pl.DataFrame({'x': [1]}).lazy().collect().height",
]


def test_files_that_polars_reads(notebooks, tmp_path):
    """Whoever opens a file, and whenever, what was read of it counts."""
    pytest.importorskip("polars")
    write(tmp_path, {"data.csv": "x\n1\n2\n"})
    notebooks.run(tmp_path, POLARS)
    write(tmp_path, {"data.csv": "x\n1\n5\n7\n"})
    second = notebooks.run(tmp_path, POLARS)
    assert (second.left["values"]["a"], second.left["values"]["b"]) == ("int:13", "int:3")
    assert 4 in second.restored


CLOCKS = [
    "import time as tm, secrets as s, pandas as pd\nfrom time import time, perf_counter as pc\n"
    "from uuid import uuid4 as u4",
    "a = tm.time()",
    "b = time()",
    "c = pc()",
    "d = str(u4())",
    "e = s.token_hex(4)",
    "f = str(pd.Timestamp('now'))",
    "g = pd.Timestamp('2020')",
]


def test_clocks_under_other_names(notebooks, tmp_path):
    """A clock is one by whatever name it is called."""
    notebooks.run(tmp_path, CLOCKS, end="exit")
    assert notebooks.run(tmp_path, CLOCKS).ran == [1, 2, 3, 4, 5, 6]


ACTING = [
    "class N:\n    all = []\n    def __new__(cls):\n        one = super().__new__(cls)\n"
    "        cls.all.append(one)\n        return one",
    "n = N()",
    "gone = []\nclass D:\n    def __del__(self): gone.append(1)",
    "d = D()",
    "del d",
    "calls = [0]\nclass H:\n    def __hash__(self):\n        calls[0] += 1\n        return 1",
    "h = {H(): 1}",
    "class P:\n    def __getstate__(self): return {'x': 1}\n"
    "    def __setstate__(self, state): self.__dict__.update(state)",
    "p = P(); p.x = 1",
]


def test_code_that_a_copy_would_call(notebooks, tmp_path):
    """Saving a value does not run what the notebook would see; such a cell runs each time."""
    end = ["seen = len(N.all), N.all[0] is n, gone, calls, p.x"]
    first = notebooks.run(tmp_path, ACTING)
    second = notebooks.run(tmp_path, ACTING + end)
    plain = notebooks.run(tmp_path, ACTING + end, "plain")
    assert same(plain.left, second.left, drawn=False) == []
    assert "N.__new__() would be called" in first.unsaved(1)
    assert "D.__del__() may be called" in first.unsaved(3)
    assert "H.__hash__() would be called, which uses `calls`" in first.unsaved(6)
    assert second.restored == [2, 5, 8]


SETTINGS = [
    "import os, time, signal, sys, mimetypes\nfrom unittest import mock\nimport textwrap",
    "os.environ['TZ'] = 'Asia/Tokyo'; time.tzset(); a = 1",
    "old = str(signal.signal(signal.SIGUSR1, signal.SIG_IGN))",
    "sys.set_int_max_str_digits(0); b = 1",
    "p = mock.patch('textwrap.fill', lambda text: 'P')",
    "started = p.start() is not None",
    "import pandas as pd\noptions = pd.options\noptions.display.max_rows = 7",
    "with mock.patch('textwrap.dedent', lambda text: 'Q'):\n    c = textwrap.dedent('x')",
]
CYCLES = ["t = {}\nt['self'] = t", "l = []\nl.append(l)", "t['x'] = l", "n = t['x'][0] is l"]


def test_what_holds_itself_first(notebooks, tmp_path):
    """A cycle by the first item of a container is one like others."""
    first = notebooks.run(tmp_path, CYCLES)
    second = notebooks.run(tmp_path, CYCLES)
    assert second.restored == [0, 1, 2, 3]
    assert same(first.left, second.left) == []


ABSTRACT = [
    "import abc\nclass I(abc.ABC): pass\nclass C: pass",
    "I.register(C)",
    "x = isinstance(C(), I)",
]


def test_classes_registered_with_an_abstract_one(notebooks, tmp_path):
    """The registry of an abstract class can't be seen: it is filled again."""
    notebooks.run(tmp_path, ABSTRACT)
    second = notebooks.run(tmp_path, [*ABSTRACT, "y = issubclass(C, I)"])
    assert (second.ran[0], second.errors) == (1, [""] * 4)
    assert (second.left["values"]["x"], second.left["values"]["y"]) == ("bool:True", "bool:True")


SET = [
    "[time.localtime(0).tm_hour, signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN,\n"
    " sys.get_int_max_str_digits(), textwrap.fill('x'),\n"
    " options is pd.options, textwrap.dedent('x')]"
]


def test_settings_that_cannot_be_seen(notebooks, tmp_path):
    """What sets something in a library runs each time, wherever in the cell it does."""
    cells = SETTINGS + SET
    notebooks.run(tmp_path, SETTINGS)
    second = notebooks.run(tmp_path, cells)
    plain = notebooks.run(tmp_path, cells, "plain")
    assert second.shown[8] == plain.shown[8]
    assert second.ran[:6] == [1, 2, 3, 4, 5, 6]
    assert second.restored == [7]

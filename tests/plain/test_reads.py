"""What a cell's text says, and what the values behind its names lead to, in tables."""

import ast
import linecache
import sys
import types

import pytest

from nbdurable.fingerprint import Fingerprinter
from nbdurable.plain.cell_text import cell_text
from nbdurable.plain.reads import OutsideError, code_digest, reached_by


def text_of(source):
    """Read a cell as the shell hands it over."""
    return cell_text(ast.parse(source).body)


@pytest.mark.parametrize(
    ("source", "reads", "binds"),
    [
        ("x = 1", "", "x"),
        ("x = y", "y", "x"),
        ("x = 1\ny = x", "", "x y"),
        ("y = x\nx = 1", "x", "x y"),
        ("x += 1", "x", "x"),
        ("x[0] = 1", "x", ""),
        ("x.a = y", "x y", ""),
        ("x: int = 1", "int", "x"),
        ("a, (b, *c) = d", "d", "a b c"),
        ("for i in r:\n    s = i", "r", "i s"),
        ("for i in r:\n    s = i\ni", "r i", "i s"),
        ("if c:\n    x = 1\nx", "c x", "x"),
        ("if c:\n    x = 1\nelse:\n    x = 2\nx", "c", "x"),
        ("while t:\n    t = f(t)", "t f", "t"),
        ("with o() as h:\n    x = h\nx", "o x", "h x"),
        ("try:\n    x = 1\nexcept E as e:\n    x = e\nx", "E", "x e"),
        ("try:\n    x = f()\nexcept E:\n    pass\nx", "f E x", "x"),
        ("[i for i in r if i > n]", "r n", ""),
        ("[(i, j) for i in r for j in i]", "r", ""),
        ("{k: v for k, v in d.items()}", "d", ""),
        ("f = lambda a, b=c: a + b + g", "c g", "f"),
        ("(n := m)", "m", "n"),
        ("del x", "x", ""),
        ("x = 1\ndel x\nx", "x", "x"),
        ("import a.b, c as d\nfrom e import f", "", "a d f"),
        ("def f(a=x):\n    return a + y", "x y", "f"),
        ("def f():\n    return f()", "", "f"),
        ("def f():\n    global n\n    n = m", "m", "f n"),
        ("class C(B):\n    v = w\n    def m(self):\n        return z", "B w z", "C"),
        ("match p:\n    case [a, *b]:\n        c = a", "p", "a b c"),
        ("print(f'{x!r:>{w}}')", "print x w", ""),
        ("await f(x)", "f x", ""),
        ("async for i in a:\n    x = i", "a", "i x"),
    ],
)
def test_names(source, reads, binds):
    """A name that may be read before it is bound is read; one that may be bound is bound."""
    text = text_of(source)
    assert (set(text.reads), set(text.binds)) == (set(reads.split()), set(binds.split()))


SHELL = "get_ipython()."


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("globals()['x']", "it uses `globals`"),
        ("locals()", "it uses `locals`"),
        ("eval('x')", "it uses `eval`"),
        ("exec('x = 1')", "it uses `exec`"),
        ("vars()", "it uses `vars()`"),
        ("Out[3]", "it uses `Out`"),
        ("In", "it uses `In`"),
        ("_ + 1", "it uses `_`"),
        ("_12", "it uses `_12`"),
        ("input('?')", "it uses `input`"),
        (f"{SHELL}system('ls')", "it runs a shell command with `!`"),
        (f"x = {SHELL}getoutput('ls')", "it runs a shell command with `!`"),
        (f"{SHELL}run_cell_magic('bash', '', 'ls')", "it uses the magic %%bash"),
        (f"{SHELL}run_line_magic('run', 'x.py')", "it uses the magic %run"),
        (f"{SHELL}user_ns", "it uses the shell itself, by `get_ipython`"),
        ("from os import *", "`from os import *` binds names that can't be told"),
        ("x = 1\ndef f(a=x): pass", "f is defined with `x`, which the same cell changes"),
        ("def f(a=g()): pass\nx = 1", "a default of f() calls something"),
        ("@app.get('/')\ndef f(): pass\nx = 1", "the decorator `@app.get` of f calls something"),
        ("class C(make()): pass\nx = 1", "a base of class C calls something"),
        ("class C:\n    print(1)\nx = 1", "the body of class C does more than define"),
    ],
)
def test_always_runs(source, why):
    """What can't be told from the text is a reason to run."""
    assert text_of(source).unkept == why


@pytest.mark.parametrize(
    "source",
    [
        "for _ in r: pass",
        "_, x = pair",
        "vars(x)",
        "df.eval('a + b')",
        f"{SHELL}run_line_magic('matplotlib', 'inline')\nx = 1",
        f"{SHELL}run_cell_magic('time', '', 'x = f(y)')",
        "import os\ndef f(a, b=3): return a\nx = 1",
        "@dataclass\nclass P:\n    x: int = field(default_factory=list)\nx = 1",
        "@lru_cache(maxsize=None)\ndef f(): pass\nx = 1",
    ],
)
def test_may_be_restored(source):
    """What only looks like that is none."""
    assert text_of(source).unkept == ""


def test_code_that_a_magic_runs():
    """The code below %%time is the cell's."""
    text = text_of(f"{SHELL}run_cell_magic('time', '', 'import a\\nx = f(y)')")
    assert (text.reads, text.binds) == ({"f", "y"}, {"a", "x"})
    assert [type(one) for one in text.definitions.always] == [ast.Import]


@pytest.mark.parametrize(
    ("source", "only"),
    [
        ("import a\ndef f(): pass\nclass C: pass", True),
        ("'text'\nimport a", True),
        (f"{SHELL}run_line_magic('matplotlib', 'inline')", True),
        ("import a\na.b()", False),
    ],
)
def test_only_defines(source, only):
    """A cell that only defines is executed in each pass, and needs no record."""
    assert text_of(source).only_defines == only


def test_comments_and_layout_dont_count():
    """The digest is of the code; a semicolon at the end is told apart, for it hides the value."""
    assert text_of("x=1 # one").code == text_of("x = 1").code != text_of("x = 2").code
    body = ast.parse("f()").body
    assert cell_text(body, quiet=True).code != cell_text(body).code


@pytest.mark.parametrize(
    ("source", "clocks"),
    [
        ("time.time()", "time.time"),
        ("datetime.now()", "datetime.now"),
        ("pd.Timestamp.now()", "now"),
        ("uuid4()", "uuid4"),
        ("secrets.choice(x)", "secrets.choice"),
        ("time.sleep(1)", ""),
        ("df.time", ""),
    ],
)
def test_clocks(source, clocks):
    """Names by which code reads a clock or draws from the system."""
    assert set(text_of(source).clocks) == set(clocks.split())


# --- what values lead to -------------------------------------------------------------


@pytest.fixture
def space():
    """Give a namespace like a notebook's, and what runs cells in it."""
    module = types.ModuleType("__main__")

    def run(source):
        name = f"<ipython-input-{len(linecache.cache)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), module.__dict__)
        return module.__dict__

    return run


@pytest.mark.parametrize(
    ("defined", "source", "names"),
    [
        ("k = 2\ndef f(): return k", "f()", "f k"),
        ("k = 2\ndef f(): return g()\ndef g(): return k", "f()", "f g k"),
        ("k = 2\nfs = [lambda: k]", "fs[0]()", "fs k"),
        ("k = 2\nd = {'a': (lambda: k,)}", "d", "d k"),
        ("k = 2\nclass C:\n    def m(self): return k\nc = C()", "c.m()", "c k"),
        ("k = 2\nclass C:\n    def m(self): return k\nb = C().m", "b()", "b k"),
        ("k = 2\nclass B:\n    def m(self): return k\nclass C(B): pass\nc = C()", "c", "c k"),
        ("import functools\nk = 2\ndef f(a): return k\np = functools.partial(f, 1)", "p()", "p k"),
        ("import functools\nk = 2\n@functools.lru_cache\ndef f(): return k", "f()", "f k"),
        (
            "k = 2\ndef make():\n    def inner(): return k\n    return inner\ni = make()",
            "i()",
            "i k",
        ),
        ("class P:\n    @property\n    def a(self): return k\nk = 1\np = P()", "p.a", "p k"),
        ("import types\nt = 3", "'@t'", "t"),
        ("t = 3\nu = 4", "df.query('a > @t')", "t"),
        ("def f(): return missing", "f()", "f"),
    ],
)
def test_reach(space, defined, source, names):
    """Functions, methods, partials, closures and what holds them are followed to what they load."""
    found = reached_by(text_of(source), space(defined)).names
    assert set(names.split()) <= found <= set(names.split()) | {"C", "P", "functools"}


def test_absent_names(space):
    """A name that isn't there is a dependency: it must not be there."""
    reached = reached_by(text_of("print(zz)"), space("x = 1"))
    assert reached.absent == {"print", "zz"}


@pytest.mark.parametrize(
    ("defined", "source", "why"),
    [
        ("def f(): return globals()", "f()", "f() uses `globals`"),
        (
            "import json",
            "json.encoder.FLOAT_REPR = 1",
            "it changes `json.encoder.FLOAT_REPR`, which",
        ),
        ("import fakelib", "fakelib.setup()", "it calls `fakelib.setup()`, whose effect"),
        (
            "from fakelib import tool",
            "tool.pandas(); x = 1",
            "it calls `tool.pandas()`, whose effect",
        ),
        ("", "import fakelib\nfakelib.go()", "it calls `fakelib.go()`, whose effect"),
        ("import fakelib\ndef f(): fakelib.go()", "f()\nx = 1", "it calls `fakelib.go()`, whose"),
        ("", "setattr(x, 'a', 1)", "it calls `setattr`, whose effect"),
        ("import gc", "gc.set_threshold(1)", "it calls `gc.set_threshold()`, whose effect"),
    ],
)
def test_effects_nobody_sees(space, monkeypatch, defined, source, why):
    """A dropped call into an unknown library, or an assignment into one, is a reason to run."""
    library = types.ModuleType("fakelib")
    library.tool = type("Tool", (), {"__module__": "fakelib", "pandas": staticmethod(print)})
    monkeypatch.setitem(sys.modules, "fakelib", library)
    assert reached_by(text_of(source), space(defined)).unkept.startswith(why)


@pytest.mark.parametrize(
    "source",
    ["print(1)", "lst.append(1)", "lst.sort()", "json.dump(1, f)", "f(1)", "x = json.loads('1')"],
)
def test_effects_that_are_seen(space, source):
    """A call on the notebook's own values, or of a known library, is none."""
    there = space("import json\nlst = [1]\ndef f(a): lst.append(a)")
    assert reached_by(text_of(source), there).unkept == ""


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("def f(): return 1", "def f(): return 2", False),
        ("def f(): return 1  # a", "def f():\n    return 1", True),
        ("def f(): return g()\ndef g(): return 1", "def f(): return g()\ndef g(): return 2", False),
        ("def f(): return k\nk = 1", "def f(): return k\nk = 2", True),
        ("class f:\n    def m(self): return 1", "class f:\n    def m(self): return 2", False),
    ],
)
def test_code_counts_apart_from_data(space, before, after, same):
    """The digest of the code that a cell reaches is of functions and classes, not of data."""
    prints = Fingerprinter()
    text = text_of("f()")
    digests = []
    for source in (before, after):
        there = space(source)
        reached = reached_by(text, there)
        digests.append(code_digest(prints, text, reached, there, frozenset({"k"})))
    assert (digests[0] == digests[1]) == same


def test_code_of_an_instance_counts(space):
    """An instance brings the code of its class, though the cell names only the instance."""
    digests = set()
    for number in (1, 2):
        there = space(f"class C:\n    def m(self): return {number}\nc = C()")
        text = text_of("c.m()")
        reached = reached_by(text, there)
        digests.add(code_digest(Fingerprinter(), text, reached, there, frozenset({"c"})))
    assert len(digests) == 2


def test_a_module_of_the_project_that_is_changed(space, tmp_path, monkeypatch):
    """What a project's function keeps in its module can't be set again: the cell runs."""
    (tmp_path / "mine_kept.py").write_text(
        "KEPT = []\ndef add(x):\n    KEPT.append(x)\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    there = space("import mine_kept")
    text = text_of("x = mine_kept.add(1)")
    with pytest.raises(OutsideError, match=r"changes `mine_kept\.KEPT`"):
        code_digest(Fingerprinter(), text, reached_by(text, there), there, frozenset())

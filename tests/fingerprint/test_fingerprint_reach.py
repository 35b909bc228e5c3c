"""What reading the source must not miss: modules, classes, functions, strings, and what can't matter."""

from __future__ import annotations

import importlib
import io
import linecache
import pathlib
import subprocess
import sys
import textwrap
import types

import pytest
from fingerprint_kit.notebook import Notebook, cell

import nbdurable
from nbdurable.errors import UsageError
from nbdurable.fingerprint import Fingerprinter, Places


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write a project's files; what was loaded of an earlier state of them is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write(folder=None, **files):
        for name in set(sys.modules) - known:
            if name.partition(".")[0] in {"tool", "pk", "plug", "other"}:
                del sys.modules[name]
        if folder is not None:
            (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in files.items():
            path = tmp_path / (folder or "") / (name + ".py")
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        linecache.checkcache()
        return tmp_path

    yield write
    write()


def digest(text, name="f", **names):
    """Digest a function of a one-cell notebook."""
    return Fingerprinter().code(cell(text, **names)[name]).digest


WAYS = {
    "in a closure": "def make():\n    import tool\n    def g(): return tool.rate()\n    return g\nf = make()",
    "in a comprehension": "def f():\n    import tool\n    return [tool.rate() for _ in 'ab']",
    "in a nested function": "def f():\n    import tool as t\n    def g(): return t.rate()\n    return g()",
    "as an element": "import tool\nALL = [tool]\ndef f(): return [m.rate() for m in ALL]",
    "as a dict's value": "import tool\nALL = {'t': tool}\ndef f(): return ALL['t'].rate()",
    "under a local name": "import tool\ndef f():\n    m = tool\n    return m.rate()",
    "passed on": "import tool\ndef g(m): return m.rate()\ndef f(): return g(tool)",
    "a class attribute": "import tool\nclass C:\n    m = tool\ndef f(): return C.m.rate()",
    "a default": "import tool\ndef f(m=tool): return m.rate()",
    "getattr": "import tool\ndef f(name): return getattr(tool, name)()",
    "import_module": "import importlib\ndef f(): return importlib.import_module('tool').rate()",
    "import_module, computed": "import importlib\ndef f(n): return importlib.import_module('to' + n).rate()",
    "sys.modules": "import sys, tool\ndef f(): return sys.modules['tool'].rate()",
    "__dict__": "import tool\ndef f(): return tool.__dict__['rate']()",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_module_is_reached_in_every_way(project, monkeypatch, way):
    """An edit of what the module's function reads changes the digest."""
    monkeypatch.chdir(project(tool="K = 1\ndef rate(): return K\n"))
    before = digest(WAYS[way])
    project(tool="K = 2\ndef rate(): return K\n")
    assert digest(WAYS[way]) != before


def test_what_is_imported_in_a_body_is_read_and_never_run(project):
    """A dead branch's module is not executed, and counts all the same."""
    text = "def f(x):\n    if x:\n        import tool\n        return tool.rate()\n    return 0"
    project(tool="import sys\nsys.exit(3)\ndef rate(): return 1\ndef other(): return 5\n")
    before = digest(text)
    assert "tool" not in sys.modules
    project(tool="import sys\nsys.exit(3)\ndef rate(): return 2\ndef other(): return 5\n")
    edited = digest(text)
    assert edited != before
    project(tool="import sys\nsys.exit(3)\ndef rate(): return 2\ndef other(): return 6\n")
    assert digest(text) == edited


def test_an_import_in_a_body_has_one_digest_before_and_after_it_ran(project):
    """Through relative imports, packages and registries as well."""
    project("pk", __init__="", sub="from .low import K\ndef rate(): return K\n", low="K = 1\n")
    text = "def f():\n    from pk import sub\n    return sub.rate()"
    before = digest(text)
    importlib.import_module("pk.sub")
    assert digest(text) == before
    project("pk", low="K = 2\n")
    assert digest(text) != before


def test_a_registry_in_an_unloaded_module_counts_with_what_registers(project):
    """What a decorator keeps decides what the reader gets."""
    text = "def f():\n    import tool\n    return tool.use('a')"
    tool = """
        KNOWN = {}
        def keep(fn):
            KNOWN[fn.__name__] = fn
            return fn
        @keep
        def a(): return %s
        def use(name): return KNOWN[name]()
    """
    project(tool=tool % 1)
    before = digest(text)
    project(tool=tool % 2)
    assert digest(text) != before


def test_an_edited_module_that_is_not_reloaded_counts_as_it_runs(project):
    """A constant that was edited in the file is not what the body will read."""
    text = "def f():\n    import tool\n    return tool.K"
    project(tool="K = 1\n")
    importlib.import_module("tool")
    before = digest(text)
    pathlib.Path(sys.modules["tool"].__file__).write_text("K = 22\n")
    edited = digest(text)
    project(tool="K = 22\n")
    assert edited != digest(text)
    assert before != digest(text)


NAMES = {
    "a function with underscores": "def __g(): return «1|2»\ndef f(): return __g()",
    "a dunder constant": "__rate__ = «1|2»\ndef f(): return __rate__",
    "attrs defaults": "import attrs\n@attrs.define\nclass C:\n    a: int = «1|2»\ndef f(): return C()",
    "an attrs converter": "import attrs\n@attrs.define\nclass C:\n    a: int = attrs.field(converter=lambda s: s * «1|2»)\ndef f(): return C(1)",
    "NamedTuple defaults": "import typing\nclass C(typing.NamedTuple):\n    a: int = «1|2»\ndef f(): return C()",
    "dataclass metadata": "import dataclasses as d\n@d.dataclass\nclass C:\n    a: int = d.field(default=1, metadata={'u': '«m|k»'})\ndef f(): return C()",
    "pydantic private": "import pydantic as p\nclass C(p.BaseModel):\n    _a: int = p.PrivateAttr(«1|2»)\ndef f(): return C()",
    "Enum.__new__": "import enum\nclass C(enum.Enum):\n    A = 1\n    def __new__(cls, v):\n        o = object.__new__(cls)\n        o._value_ = v\n        o.more = v * «1|2»\n        return o\ndef f(): return C.A.more",
    "a builtin as attribute": "import math\nclass C:\n    op = math.«floor|ceil»\ndef f(): return C.op(1.5)",
    "a dunder table": "class C:\n    __table__ = {'a': «1|2»}\ndef f(): return C.__table__",
    "a NewType's supertype": "import typing\nN = typing.NewType('N', «int|str»)\ndef f(): return N(1)",
    "make_dataclass": "import dataclasses\nC = dataclasses.make_dataclass('C', [('a', int, «1|2»)])\ndef f(): return C()",
    "a registry of subclasses": "class B:\n    known = []\n    def __init_subclass__(cls): B.known.append(cls)\nclass C(B):\n    def m(self): return «1|2»\ndef f(): return [c().m() for c in B.known]",
    "__subclasses__": "class B: pass\nclass C(B):\n    def m(self): return «1|2»\ndef f(): return [c().m() for c in B.__subclasses__()]",
    "a registry in a class": "class R:\n    known = {}\n    @classmethod\n    def keep(cls, fn):\n        cls.known[fn.__name__] = fn\n        return fn\n@R.keep\ndef a(): return «1|2»\ndef f(): return R.known['a']()",
    "a function's attribute": "def g(): return 1\ng.rate = «1|2»\ndef f(): return g.rate",
    "singledispatch types": "import functools\n@functools.singledispatch\ndef g(x): return 0\n@g.register(«int|float»)\ndef _(x): return 1\ndef f(x): return g(x)",
    "a tenacity callback": "import tenacity\ndef cb(state): return «1|2»\n@tenacity.retry(retry_error_callback=cb)\ndef g(): return 1\ndef f(): return g()",
    "a ContextDecorator": "import contextlib\nclass C(contextlib.ContextDecorator):\n    def __enter__(self): return «1|2»\n    def __exit__(self, *e): pass\n@C()\ndef g(): return 1\ndef f(): return g()",
    "np.frompyfunc": "import numpy as np\ndef g(x): return x + «1|2»\nu = np.frompyfunc(g, 1, 1)\ndef f(x): return u(x)",
    "a patched method": "import fractions\ndef m(self): return «1|2»\nfractions.Fraction.fp_reach = m\ndef f(x): return x.fp_reach()",
    "a tool's docstring": "def tool():\n    'Say «one|two».'\nTOOLS = [tool]\ndef f(): return TOOLS",
    "a docstring that is read": "def tool():\n    'Say «one|two».'\ndef f(): return tool.__doc__",
    "an inner tool's docstring": "def f(use):\n    def tool():\n        'Say «one|two».'\n    return use(tool)",
    "a schema": "class A:\n    'Say «one|two».'\ndef f(use): return use(response_format=A)",
    "a tool's annotation": "def tool(x: «int|str»): pass\ndef f(use): return use(tool)",
    "SQL over data": "import types\nsales = types.SimpleNamespace(a=«1|2»)\ndef f(con): return con.sql('select a from sales')",
    "a query with @": "limit = «1|2»\ndef f(df): return df.query('a > @limit')",
    "eval": "limit = «1|2»\ndef f(): return eval('limit + 1')",
    "a rule from a table": "limit = «1|2»\nRULES = {'a': 'limit + 1'}\ndef f(k): return eval(RULES[k])",
    "globals": "limit = «1|2»\ndef f(): return globals()['limit']",
    "globals, computed": "limit_a = «1|2»\ndef f(k): return globals()['limit_' + k]",
    "format_map": "limit = «1|2»\ndef f(): return '{limit}'.format_map(globals())",
    "the order of a dict": "C = {«'a': 1, 'b': 2¦'b': 2, 'a': 1»}\ndef f(): return C",
    "a key that is read": "C = {'a': «1|2», 'b': 3}\ndef f(): return C['a']",
    "closures with fresh lambdas": "class L:\n    def __init__(self, n): self.n = n\n    def __getstate__(self): return {'g': (lambda n: lambda: n)(self.n)}\nC = [L(1), L(«2|3»), L(4)]\ndef f(): return C",
}  # fmt: skip

SAME = {
    "a row's key beside a global": "price = «1|2»\ndef f(row): return row['price']",
    "a word in a prompt": "text = '«one|two»'\ndef f(ask): return ask('Select the best text from the list of texts')",
    "a bare string": "def f(x):\n    x += 1\n    «|'why'»\n    return x",
    "a pass": "def f(x):\n    if x:\n        x = 2\n        «|pass»\n    return x",
    "a renamed local": "def f(x):\n    «y|yy» = x + 1\n    return «y|yy» * 2",
    "a renamed loop variable": "def f(x): return [«a|b» + 1 for «a|b» in x]",
    "the order of imports": "def f():\n    import «json, math¦math, json»\n    return json, math",
    "another key": "C = {'a': 1, 'b': «2|3»}\ndef f(): return C['a']",
    "another key by get": "C = {'a': 1, 'b': «2|3»}\ndef f(): return C.get('a')",
    "a class that is not reached": "class A:\n    def m(self): return «1|2»\nclass B:\n    def m(self): return 1\ndef f(): return B().m()",
    "a called class's docstring": "class A:\n    '«One|Two».'\n    def m(self): return 1\ndef f(): return A().m()",
    "a plain class's annotation": "class A:\n    x: «int|str» = 1\ndef f(): return A().x",
    "an exception's docstring": "class E(Exception):\n    '«One|Two».'\ndef f(g):\n    try: return g()\n    except E: raise",
}  # fmt: skip


def sides(text):
    """Return a text as it was before and after the edit that is marked in it."""
    import re  # noqa: PLC0415

    marks = re.compile("«([^«»]*?)¦([^«»]*?)»|«([^«»|]*?)\\|([^«»]*?)»")
    return [
        marks.sub(lambda m, side=side: [g for g in m.groups() if g is not None][side], text)
        for side in (0, 1)
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("edit", NAMES)
def test_an_edit_of_what_counts_is_seen(edit):
    """And nothing else makes the digest another."""
    before, after = sides(NAMES[edit])
    assert digest(before) == digest("#\n" + before)
    assert digest(before) != digest(after)


@pytest.mark.parametrize("edit", SAME)
def test_an_edit_that_cannot_matter_is_not_seen(edit):
    """A needless run of a paid step is a fault, too."""
    before, after = sides(SAME[edit])
    assert digest(before) == digest(after)


def test_two_locals_do_not_become_one():
    """Renaming never hides that another variable is read."""
    one = "def f(x):\n    a = x\n    b = 1\n    return {}"
    assert digest(one.format("a")) != digest(one.format("b"))
    alias = "def f():\n    import {0} as m\n    {0} = 1\n    return m, {0}"
    assert digest(alias.format("json")) != digest(alias.format("math"))


def test_strings_in_arguments_name_inputs_where_they_are_run():
    """`f("limit + 1")` depends on `limit` where f evaluates what it gets."""
    book = cell("limit = 1\ndef f(rule): return eval(rule)\ndef g(rule): return len(rule)")
    found = []
    for value in (1, 2):
        book.space["limit"] = value
        fp = Fingerprinter()
        fp.code(book["f"])
        fp.code(book["g"])
        found.append([fp.arguments(book[n], ("limit + 1",)).digest for n in "fg"])
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]


def test_what_a_string_names_may_move_and_is_told():
    """It is an input, and no reason to fail the step."""
    book = cell("limit = 1\ndef f(df): return df.query('a > @limit')")
    found = Fingerprinter().code(book["f"])
    book.space["limit"] = 2
    assert found.moved() == ()
    assert found.shifted() == ("limit",)


def test_ignore_names_the_steps_own():
    """A helper's `timeout=3` counts; so does a global of another module."""
    text = "def h(timeout={}): return timeout\ndef f(timeout=1): return h(), timeout"
    ignore = frozenset({"timeout"})
    made = [Fingerprinter().code(cell(text.format(n))["f"], ignore=ignore).digest for n in (3, 4)]
    assert made[0] != made[1]
    other = Notebook(__name__="other").run("timeout = 1\ndef h(): return timeout")
    book = cell("def f(): return h()", h=other["h"])
    one = Fingerprinter().code(book["f"], ignore=ignore).digest
    other.space["timeout"] = 2
    assert Fingerprinter().code(book["f"], ignore=ignore).digest != one


def test_a_public_function_of_ours_counts_by_its_public_name(monkeypatch):
    """Moving our modules about changes nobody's digest."""
    for name in nbdurable.__all__:
        value = getattr(nbdurable, name)
        if not isinstance(value, (types.FunctionType, type)):
            continue
        code = f"def f(): return {name}"
        before = digest(code, **{name: value})
        if isinstance(value, type):
            monkeypatch.setattr(value, "__module__", "nbdurable.elsewhere")
            moved = value
        else:
            space = {**value.__globals__, "__name__": "nbdurable.elsewhere"}
            moved = types.FunctionType(value.__code__, space, value.__name__)
            moved.__qualname__ = value.__qualname__
        assert digest(code, **{name: moved}) == before, name


ONCE = {
    "a list's iterator": lambda: iter([1, 2]),
    "a dict's iterator": lambda: iter({1: 2}),
    "a set's iterator": lambda: iter({1, 2}),
    "enumerate": lambda: enumerate("ab"),
    "a map": lambda: map(str, [1]),
    "StringIO": lambda: io.StringIO("ab"),
    "BytesIO": lambda: io.BytesIO(b"ab"),
}


@pytest.mark.parametrize("kind", ONCE)
def test_what_is_used_up_by_reading_is_data(kind):
    """It has one digest, is not used up by looking, and using it is no change of an input."""
    fp = Fingerprinter()
    value = ONCE[kind]()
    found = fp.value(value)
    assert found.notes == ()
    assert fp.value(ONCE[kind]()).digest == found.digest
    next(iter(value))
    assert found.moved() == ()
    assert fp.value(value).digest != found.digest


def test_a_generator_is_refused_with_the_cure():
    """What it gives can't be looked at without using it up."""
    for value in ((n for n in "a"), [(n for n in "a")]):
        with pytest.raises(UsageError, match=r"`it.*list\(it\)"):
            Fingerprinter().value(value, "it")


CYCLES = """
import json, sys
sys.path[:0] = {paths}
from fingerprint_kit.notebook import cell
from nbdurable.fingerprint import Fingerprinter, Places
book = cell('''
class N:
    def __init__(self, n): self.n, self.near, self.by = n, set(), {{}}
nodes = [N(n) for n in range(4)]
for a in nodes:
    for b in nodes:
        a.near.add(b)
        a.by.setdefault("x", set()).add(b)
import sqlalchemy as sa
from sqlalchemy.orm import declarative_base
Base = declarative_base()
class T(Base):
    __tablename__ = "t"
    id = sa.Column(sa.Integer, primary_key=True)
    def m(self): return self.id
def f(): return T, nodes
''')
fp = Fingerprinter()
print(fp.value(book["nodes"]).digest.hex(), fp.code(book["f"]).digest.hex())
"""


def test_cycles_with_sets_and_declared_models_are_the_same_in_every_process():
    """Under any hash seed."""
    text = CYCLES.format(paths=[p for p in sys.path if p])
    made = {
        subprocess.run(
            [sys.executable, "-c", text],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(made) == 1


def test_what_was_assigned_in_place_of_a_cached_property_counts():
    """And computing it is no change of the instance."""
    text = "import functools\nclass C:\n    @functools.cached_property\n    def total_fp(self): return 1\nc = C()\n"
    made = [Fingerprinter().value(cell(f"{text}c.total_fp = {n}")["c"]) for n in (1, 2)]
    assert made[0].digest != made[1].digest
    value = cell(text)["c"]
    found = Fingerprinter().value(value)
    assert value.total_fp == 1
    assert found.moved() == ()


TOOL = """
import dataclasses, functools
K = {0}
@dataclasses.dataclass
class Row:
    'One row.'
    a: int = {0}
    def total(self): return self.a + {0}
class Base:
    rate = {0}
    @property
    def p(self): return {0}
    @classmethod
    def make(cls): return cls()
def rate(x, scale={0}):
    'Return {0}.'
    return Row(x).total() * K * scale + Base.make().p
def kept(fn):
    @functools.wraps(fn)
    def w(*a): return fn(*a)
    return w
@kept
def wrapped(x): return x + {0}
"""


def test_autoreload_and_a_restart_give_one_digest(project):
    """What was exchanged in place is what a new process would load."""
    from IPython.extensions import autoreload  # noqa: PLC0415

    use = "import tool\ndef f(x): return tool.rate(x), tool.wrapped(x), tool.Base, [tool.Row]"
    folder = project(tool=TOOL.format(1))
    book = cell(use)
    before = Fingerprinter().code(book["f"]).digest
    old = {}
    autoreload.superreload(sys.modules["tool"], importlib.reload, old)
    (folder / "tool.py").write_text(TOOL.format(22))
    linecache.checkcache()
    autoreload.superreload(sys.modules["tool"], importlib.reload, old)
    reloaded = Fingerprinter().code(book["f"]).digest
    project(tool=TOOL.format(22))
    assert reloaded == digest(use)
    assert reloaded != before


def test_a_package_as_data_counts_with_its_parts_however_many_are_loaded(project):
    """By their texts: a part that a body imports is no change."""
    use = "import pk\ndef g(m): return m\ndef f(): return g(pk)"
    project("pk", __init__="K = 1\n", part="L = 1\n")
    before = digest(use)
    importlib.import_module("pk.part")
    assert digest(use) == before
    project("pk", part="L = 2\n")
    assert digest(use) != before


def test_as_many_modules_may_be_others(monkeypatch):
    """What is loaded is asked anew where one module has come and another has gone."""
    places = Places()
    for name in ("one_of_ours", "another_of_ours"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        assert [one.__name__ for one in places.modules() if one.__name__.endswith("_ours")] == [
            name
        ]
        monkeypatch.delitem(sys.modules, name)

"""Code: what changes a function's fingerprint, and what must not."""

from __future__ import annotations

import importlib
import linecache
import sys
import types

import pytest
from fingerprint_kit.notebook import Notebook, cell

from nbdurable.errors import FingerprintError, UsageError
from nbdurable.fingerprint import Fingerprinter, Note

PLAIN = """
def f(x):
    y = x + 1
    return h(y) * K

def h(y):
    return hh(y) - 2

def hh(y):
    return [y, "a"]

K = 3
"""


def code(text, name="f", **names):
    """Fingerprint a function of a one-cell notebook."""
    return Fingerprinter().code(cell(text, **names)[name])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write project modules, import them, write them again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = []

    def write(name, text, *, load=True):
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        if not load:
            return None
        made.append(name)
        sys.modules.pop(name, None)
        linecache.checkcache()
        return importlib.import_module(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


SAME = {
    "comment": PLAIN.replace("y = x + 1", "y = x + 1  # why"),
    "blank lines": PLAIN.replace("    return h", "\n\n    return h"),
    "position": "import math\n\n\n" + PLAIN,
    "spaces": PLAIN.replace("x + 1", "x+1"),
    "parentheses": PLAIN.replace("x + 1", "(x + (1))"),
    "quotes": PLAIN.replace('"a"', "'a'"),
    "line break": PLAIN.replace("[y,", "[\n        y,"),
    "docstring": PLAIN.replace("    y = x", '    """Say."""\n    y = x'),
    "helper's docstring": PLAIN.replace("    return hh", '    """Say."""\n    return hh'),
    "parameter annotation": PLAIN.replace("f(x)", "f(x: int)"),
    "return annotation": PLAIN.replace("f(x):", "f(x) -> int:"),
    "local annotation": PLAIN.replace("y = x + 1", "y: int = x + 1"),
    "order of definitions": "K = 3\n" + PLAIN.replace("\nK = 3", ""),
    "an unread global": PLAIN + "\nUNREAD = 5\n",
    "int written in hex": PLAIN.replace("K = 3", "K = 0x3"),
}

EDITED = {
    "body": (PLAIN.replace("x + 1", "x + 2"), {"f"}),
    "operator": (PLAIN.replace("x + 1", "x - 1"), {"f"}),
    "int to float": (PLAIN.replace("x + 1", "x + 1.0"), {"f"}),
    "int to bool": (PLAIN.replace("x + 1", "x + True"), {"f"}),
    "helper": (PLAIN.replace("- 2", "- 3"), {"h"}),
    "helper's helper": (PLAIN.replace('"a"', '"b"'), {"hh"}),
    "global": (PLAIN.replace("K = 3", "K = 4"), {"K"}),
    "global's type": (PLAIN.replace("K = 3", "K = 3.0"), {"K"}),
    "default": (PLAIN.replace("f(x)", "f(x, z=1)"), {"f", "z"}),
    "kept name": (PLAIN.replace("y = x", "yy = y = x"), {"f"}),
}


@pytest.mark.parametrize("edit", SAME)
def test_what_cannot_change_the_result_does_not_change_the_digest(edit):
    """Comments, format, docstrings, annotations and position leave no trace."""
    assert code(SAME[edit]).digest == code(PLAIN).digest


@pytest.mark.parametrize("edit", EDITED)
def test_an_edit_anywhere_in_the_reached_code_changes_the_digest(edit):
    """And the parts say which function or global it was."""
    text, names = EDITED[edit]
    before, after = code(PLAIN), code(text)
    assert before.digest != after.digest
    changed = set(dict(set(after.parts) - set(before.parts)))
    assert {name.removesuffix("()") for name in changed} <= names
    assert changed


PAIRS = {
    "a default's value": ("def f(x=1): return x", "def f(x=2): return x"),
    "a keyword default": ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    "a computed default": ("D = 1\ndef f(x=D): return x", "D = 2\ndef f(x=D): return x"),
    "a closure's value": (
        "def make(n):\n    def g(x): return x + n\n    return g\nf = make(1)",
        "def make(n):\n    def g(x): return x + n\n    return g\nf = make(2)",
    ),
    "a nested function": (
        "def f(x):\n    def g(): return x + 1\n    return g()",
        "def f(x):\n    def g(): return x + 2\n    return g()",
    ),
    "a global read in a nested lambda": (
        "K = 1\ndef f(xs): return map(lambda x: x + K, xs)",
        "K = 2\ndef f(xs): return map(lambda x: x + K, xs)",
    ),
    "a global read in a comprehension": (
        "K = 1\ndef f(xs): return [x + K for x in xs]",
        "K = 2\ndef f(xs): return [x + K for x in xs]",
    ),
    "a global read in a class in the body": (
        "K = 1\ndef f():\n    class C:\n        k = K\n    return C.k",
        "K = 2\ndef f():\n    class C:\n        k = K\n    return C.k",
    ),
    "a method": (
        "class C:\n    def m(self): return 1\ndef f(): return C().m()",
        "class C:\n    def m(self): return 2\ndef f(): return C().m()",
    ),
    "a class attribute": (
        "class C:\n    k = 1\ndef f(): return C.k",
        "class C:\n    k = 2\ndef f(): return C.k",
    ),
    "a base class": (
        "class A:\n    def m(self): return 1\nclass C(A): pass\ndef f(): return C().m()",
        "class A:\n    def m(self): return 2\nclass C(A): pass\ndef f(): return C().m()",
    ),
    "which base": (
        "class A: pass\nclass B: pass\nclass C(A): pass\ndef f(): return C()",
        "class A: pass\nclass B: pass\nclass C(B): pass\ndef f(): return C()",
    ),
    "a helper of a method": (
        "def h(): return 1\nclass C:\n    def m(self): return h()\ndef f(): return C().m()",
        "def h(): return 2\nclass C:\n    def m(self): return h()\ndef f(): return C().m()",
    ),
    "a property": (
        "class C:\n    @property\n    def p(self): return 1\ndef f(): return C().p",
        "class C:\n    @property\n    def p(self): return 2\ndef f(): return C().p",
    ),
    "a static method": (
        "class C:\n    @staticmethod\n    def s(): return 1\ndef f(): return C.s()",
        "class C:\n    @staticmethod\n    def s(): return 2\ndef f(): return C.s()",
    ),
    "a dataclass's field type": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 1\ndef f(): return C()",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: str = 1\ndef f(): return C()",
    ),
    "a dataclass's default factory": (
        "import dataclasses as d\ndef g(): return 1\n@d.dataclass\nclass C:\n"
        "    x: int = d.field(default_factory=g)\ndef f(): return C()",
        "import dataclasses as d\ndef g(): return 2\n@d.dataclass\nclass C:\n"
        "    x: int = d.field(default_factory=g)\ndef f(): return C()",
    ),
    "a pydantic constraint": (
        "import pydantic as p\nclass C(p.BaseModel):\n    x: int = p.Field(1, gt=0)\ndef f(): return C()",
        "import pydantic as p\nclass C(p.BaseModel):\n    x: int = p.Field(1, gt=-1)\ndef f(): return C()",
    ),
    "a pydantic validator": (
        "import pydantic as p\nclass C(p.BaseModel):\n    x: int = 1\n    @p.field_validator('x')\n"
        "    @classmethod\n    def v(cls, x): return x + 1\ndef f(): return C()",
        "import pydantic as p\nclass C(p.BaseModel):\n    x: int = 1\n    @p.field_validator('x')\n"
        "    @classmethod\n    def v(cls, x): return x + 2\ndef f(): return C()",
    ),
    "an enum member": (
        "import enum\nclass C(enum.Enum):\n    A = 1\ndef f(): return C.A",
        "import enum\nclass C(enum.Enum):\n    A = 2\ndef f(): return C.A",
    ),
    "a named tuple's field": (
        "import collections\nC = collections.namedtuple('C', 'a b')\ndef f(): return C(1, 2)",
        "import collections\nC = collections.namedtuple('C', 'b a')\ndef f(): return C(1, 2)",
    ),
    "a class docstring": (
        "class C:\n    'one'\ndef f(): return C.__doc__",
        "class C:\n    'two'\ndef f(): return C.__doc__",
    ),
    "a function in a global dict": (
        "def h(): return 1\nR = {'h': h}\ndef f(): return R['h']()",
        "def h(): return 2\nR = {'h': h}\ndef f(): return R['h']()",
    ),
    "closures swapped in a global dict": (
        "def mk(n): return lambda: n\nR = {'a': mk(1), 'b': mk(2)}\ndef f(): return R['a']()",
        "def mk(n): return lambda: n\nR = {'a': mk(2), 'b': mk(1)}\ndef f(): return R['a']()",
    ),
    "closures swapped by name": (
        "def mk(n): return lambda: n\na, b = mk(1), mk(2)\ndef f(): return a() - b()",
        "def mk(n): return lambda: n\na, b = mk(2), mk(1)\ndef f(): return a() - b()",
    ),
    "a global behind a function in a dict": (
        "K = 1\ndef h(): return K\nR = [h]\ndef f(): return R[0]()",
        "K = 2\ndef h(): return K\nR = [h]\ndef f(): return R[0]()",
    ),
    "a class of an instance in a global": (
        "class C:\n    def m(self): return 1\nc = C()\ndef f(): return c.m()",
        "class C:\n    def m(self): return 2\nc = C()\ndef f(): return c.m()",
    ),
    "state of an instance in a global": (
        "class C: pass\nc = C(); c.a = 1\ndef f(): return c.a",
        "class C: pass\nc = C(); c.a = 2\ndef f(): return c.a",
    ),
    "a partial's function": (
        "from functools import partial\ndef h(a, b): return 1\nf = partial(h, 1)",
        "from functools import partial\ndef h(a, b): return 2\nf = partial(h, 1)",
    ),
    "a wrapped function": (
        "import functools\ndef deco(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n"
        "    return w\n@deco\ndef f(): return 1",
        "import functools\ndef deco(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n"
        "    return w\n@deco\ndef f(): return 2",
    ),
    "a wrapper": (
        "import functools\ndef deco(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n"
        "    return w\n@deco\ndef f(): return 1",
        "import functools\ndef deco(g):\n    @functools.wraps(g)\n    def w(*a): return 1 + g(*a)\n"
        "    return w\n@deco\ndef f(): return 1",
    ),
    "a function under lru_cache": (
        "import functools\n@functools.cache\ndef h(): return 1\ndef f(): return h()",
        "import functools\n@functools.cache\ndef h(): return 2\ndef f(): return h()",
    ),
    "a foreign decorator's options": (
        "import tenacity\n@tenacity.retry(stop=tenacity.stop_after_attempt(2))\ndef f(): return 1",
        "import tenacity\n@tenacity.retry(stop=tenacity.stop_after_attempt(3))\ndef f(): return 1",
    ),
    "a singledispatch implementation": (
        "import functools\n@functools.singledispatch\ndef h(x): return 1\n"
        "@h.register\ndef _(x: int): return 1\ndef f(): return h(1)",
        "import functools\n@functools.singledispatch\ndef h(x): return 1\n"
        "@h.register\ndef _(x: int): return 2\ndef f(): return h(1)",
    ),
    "which module a name means": (
        "import json as m\ndef f(): return m.loads",
        "import pickle as m\ndef f(): return m.loads",
    ),
    "a builtin replaced": ("def f(x): return len(x)", "def f(x): return len(x)\ndef len(x): return 1"),
    "frozen set constants": ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    "an f-string": ("def f(x): return f'{x}a'", "def f(x): return f'{x!r}a'"),
    "async": ("def f(x): return x", "async def f(x): return x"),
    "a global list": ("K = [1]\ndef f(): return K", "K = [2]\ndef f(): return K"),
    "keyword only": ("def f(a, b): return a", "def f(a, *, b): return a"),
    "a callable instance's class": (
        "class C:\n    def __call__(self): return 1\nf = C()",
        "class C:\n    def __call__(self): return 2\nf = C()",
    ),
    "a lambda": ("f = lambda x: x + 1", "f = lambda x: x + 2"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("pair", PAIRS)
def test_edits_of_every_kind_are_seen(pair):
    """Each pair of cells differs in one thing that can change the result."""
    one, two = PAIRS[pair]
    assert code(one).digest != code(two).digest
    assert code(one).digest == code("# moved\n\n" + one).digest


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("pair", PAIRS)
def test_code_with_source_needs_no_notes(pair):
    """Nothing is left out, and no source is missing."""
    notes = [n for n in code(PAIRS[pair][0]).notes if n.kind != "written"]
    assert not notes


def test_set_order_in_constants_leaves_no_trace():
    """A set literal's order in the code object depends on the hash seed; its digest doesn't."""
    one = code("def f(x): return x in {'a', 'b', 'c'}")
    assert one.digest == code("def f(x):\n    # hm\n    return x in {'a', 'b', 'c'}").digest


def test_recursion_and_mutual_recursion_end():
    """Functions, classes and data that reach themselves have a fingerprint."""
    text = """
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
class Node:
    def __init__(self): self.next = NODES
    def walk(self): return [Node(), even(1), TABLE]
NODES = []
TABLE = {"even": even, "node": Node}
NODES.append(NODES)
one = Node()
NODES.append(one)
def f(n): return f(n - 1) if n else odd(n), Node, one
"""
    assert code(text).digest == code("#\n" + text).digest
    assert code(text).digest != code(text.replace("n != 0", "n != 1")).digest
    assert code(text, "even").digest != code(text, "odd").digest


def test_many_functions_that_all_call_each_other_take_no_time():
    """A dense graph is walked once, not path by path."""
    names = [f"f{n}" for n in range(40)]
    text = "\n".join(f"def {n}(): return [{', '.join(names)}, {at}]" for at, n in enumerate(names))
    assert code(text, "f0").digest != code(text.replace(", 39]", ", 40]"), "f0").digest


def test_a_nested_function_is_found_by_itself():
    """A closure's own source is used, wherever its maker is."""
    text = "def make():\n    def g(x):\n        return x + 1\n    return g\nf = make()"
    moved = "\n\ndef other(): pass\n" + text
    assert code(text).notes == ()
    assert code(text).digest == code(moved).digest


def test_several_lambdas_on_one_line_are_told_apart():
    """Each is matched with its own text, also when nested or in a default."""
    text = (
        "a, b, c = lambda x: x + 1, lambda x: (x + 2), lambda y=lambda: 3: lambda: y() + 1\nd = c()"
    )
    prints = [code(text, name) for name in "abcd"]
    assert len({p.digest for p in prints}) == 4
    assert all(p.notes == () for p in prints)
    assert code("a = lambda x: x + 1", "a").digest == prints[0].digest


def test_without_source_the_instructions_count():
    """The same code gives the same digest, another one another, and a note says so."""
    run = lambda text: Fingerprinter().code(Notebook().run(text, known=False)["f"])  # noqa: E731
    one = run("def f(x): return x + 1")
    assert one.digest == run("\n\n# moved\ndef f(x): return x + 1").digest
    assert one.digest != run("def f(x): return x + 2").digest
    assert one.digest != run("def f(x): return x + 1.0").digest
    assert [n.kind for n in one.notes] == ["no source"]
    assert "`f`" in str(one.notes[0])


def test_a_file_edited_but_not_reloaded_has_not_changed(module):
    """What runs is in memory; another kernel's first look at the file says so with a note."""
    loaded = module("fp_mod_a", "def f(x):\n    return x + 1\n")
    before = Fingerprinter().code(loaded.f)
    module("fp_mod_a", "def f(x):\n    return x + 2  # edited\n", load=False)
    after = Fingerprinter().code(loaded.f)
    assert after.digest == before.digest
    assert before.notes == ()
    assert Fingerprinter().code(module("fp_mod_a", "def f(x):\n    return x + 2\n").f) != before


def test_a_file_edited_before_the_first_look_counts_by_instructions(module):
    """Source that doesn't compile to what is in memory is never believed."""
    loaded = module("fp_mod_b", "def f(x):\n    return x + 1\n")
    module("fp_mod_b", "def f(x):\n    return x + 2\n", load=False)
    stale = Fingerprinter().code(loaded.f)
    assert [n.kind for n in stale.notes] == ["no source"]
    fresh = module("fp_mod_b", "def f(x):\n    return x + 2\n")
    assert Fingerprinter().code(fresh.f).digest != stale.digest


def test_a_function_that_moved_in_an_edited_file_keeps_its_source(module):
    """Lines above it may change without a reload."""
    loaded = module("fp_mod_c", "def f(x):\n    return x + 1\n")
    module("fp_mod_c", "import os\n\n\ndef f(x):\n    return x + 1\n", load=False)
    assert Fingerprinter().code(loaded.f).notes == ()


def test_autoreload_replaces_code_in_place():
    """A function whose `__code__` was replaced has changed, for the same fingerprinter too."""
    book = cell("def f(x): return h(x)\ndef h(x): return x + 1")
    fp = Fingerprinter()
    before = fp.code(book["f"])
    assert before.moved() == ()
    new = cell("def h(x): return x + 2")["h"]
    book["h"].__code__ = new.__code__
    assert fp.code(book["f"]).digest != before.digest
    assert before.moved()[0][0] == "h()"


def test_a_redefined_helper_is_seen_by_the_same_fingerprinter():
    """Names are looked up again on every call."""
    book = cell(PLAIN)
    fp = Fingerprinter()
    before = fp.code(book["f"])
    assert fp.code(book["f"]) is fp.code(book["f"])
    book.run("def hh(y): return [y, 'b']")
    after = fp.code(book["f"])
    assert after.digest != before.digest
    assert [name for name, _ in before.moved()] == ["hh()"]
    book.run("def hh(y):\n    return [y, 'a']  # back")
    assert fp.code(book["f"]).digest == before.digest
    assert before.moved() == ()


def test_a_monkeypatched_method_is_seen():
    """A class is what its dictionary says now."""
    book = cell("class C:\n    def m(self): return 1\ndef f(): return C().m()")
    fp = Fingerprinter()
    before = fp.code(book["f"])
    book["C"].m = lambda self: 2
    assert fp.code(book["f"]).digest != before.digest
    before = fp.code(book["f"])
    book["C"].extra = lambda self: 2
    assert fp.code(book["f"]).digest != before.digest


def test_project_modules_are_followed_through_attributes(module):
    """`helpers.clean(x)` and `pkg.mod.fn` reach the function; what isn't named doesn't count."""
    text = "def clean(x):\n    return x + K\n\nK = 1\n\ndef other():\n    return 1\n"
    helpers = module("fp_helpers", text)
    use = "import fp_helpers\ndef f(x): return fp_helpers.clean(x)"
    before = code(use)
    assert {"f()", "fp_helpers.clean()", "fp_helpers.K"} == set(dict(before.parts))
    module("fp_helpers", text.replace("return 1", "return 2"))
    assert code(use).digest == before.digest
    module("fp_helpers", text.replace("K = 1", "K = 2"))
    assert code(use).digest != before.digest
    del helpers


@pytest.mark.parametrize(
    "use",
    [
        "def f(x):\n    import fp_lazy\n    return fp_lazy.clean(x)",
        "def f(x):\n    import fp_lazy as m\n    return m.clean(x)",
        "def f(x):\n    from fp_lazy import clean\n    return clean(x)",
        "import fp_lazy as m\nclean = m.clean\ndef f(x): return clean(x)",
    ],
)
def test_imports_inside_a_function_are_followed(module, use):
    """The digest is the same before and after the body's own import, and sees edits."""
    text = "def clean(x):\n    return x + 1\n"
    module("fp_lazy", text)
    sys.modules.pop("fp_lazy")
    before = code(use)
    importlib.import_module("fp_lazy")
    assert code(use).digest == before.digest
    module("fp_lazy", text.replace("+ 1", "+ 2"))
    assert code(use).digest != before.digest


def test_installed_packages_count_by_name():
    """Numpy's own code is not walked; which function is named is."""
    one = code("import numpy as np\ndef f(x): return np.mean(x)")
    assert set(dict(one.parts)) == {"f()"}
    assert one.digest != code("import numpy as np\ndef f(x): return np.median(x)").digest
    assert one.digest == code("import numpy as np\n\n\ndef f(x): return np.mean(x)").digest


def test_project_roots_make_an_installed_folder_the_projects(tmp_path, monkeypatch):
    """A package in site-packages counts by name, unless it is a project root."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "fp_inst.py").write_text("def g():\n    return 1\n")
    monkeypatch.syspath_prepend(folder)
    book = cell("import fp_inst\ndef f(): return fp_inst.g()")
    assert set(dict(Fingerprinter().code(book["f"]).parts)) == {"f()"}
    rooted = Fingerprinter(project_roots=[str(folder)]).code(book["f"])
    assert set(dict(rooted.parts)) == {"f()", "fp_inst.g()"}
    sys.modules.pop("fp_inst")


class Step:
    """Stands for a decorated step."""

    __nbdurable_step__ = True

    def __init__(self, fn, **options):
        self.__wrapped__ = fn
        self.options = options


Step.__module__ = "nbdurable.entries"


def step(fn=None, **options):
    """Stand for nbdurable's own decorator."""
    return Step(fn, **options) if fn else lambda fn: Step(fn, **options)


step.__module__ = "nbdurable.entries"


def test_a_steps_options_are_in_no_fingerprint():
    """Our decorator is no part of the text, in whatever form it is written."""
    plain = code("def f(x): return x")
    for line in ("@step", "@step(retries=3)", "@nb.step(timeout=2)"):
        text = f"{line}\ndef f(x): return x"
        assert code(text, step=step, nb=types.SimpleNamespace(step=step)).digest == plain.digest
    assert code("def deco(g): return g\n@deco\ndef f(x): return x").digest != plain.digest


def test_a_step_inside_a_step_counts_by_its_function():
    """A parent's result depends on the child's code, and not on its options."""
    text = "@step(retries={})\ndef child(): return {}\ndef f(): return child()"
    one = code(text.format(1, 1), step=step)
    assert one.digest == code(text.format(2, 1), step=step).digest
    assert one.digest != code(text.format(1, 2), step=step).digest
    nested = "def f():\n    @step(retries={})\n    def g(): return 1\n    return g()"
    assert code(nested.format(1), step=step).digest == code(nested.format(2), step=step).digest


WRITERS = {
    "assignment": "def f():\n    global G\n    G = 1\n    return G",
    "augmented": "def f():\n    global G\n    G += 1",
    "item": "def f(): G[1] = 2",
    "item in item": "def f(): G[1][2] = 2",
    "del item": "def f():\n    del G[1]",
    "augmented item": "def f(): G[1] += 2",
    "attribute": "def f(): G.x = 2",
    "append": "def f(): G.append(1)",
    "setdefault": "def f(): return G.setdefault(1, []).append(2)",
    "update": "def f(): G.update(a=1)",
    "through a helper": "def h(k): G[k] = 1\ndef f(): return h(1), G",
    "through a helper's helper": "def hh(k): G[k] = 1\ndef h(k): hh(k)\ndef f(): return G, h(1)",
    "in a nested function": "def f():\n    def g(): G[1] = 1\n    g()",
    "in a lambda": "def f(): return (lambda: G.append(1))()",
    "in a comprehension": "def f(): return [G.append(x) for x in 'ab']",
    "tuple target": "def f(): G[0], y = 1, 2",
    "for target": "def f():\n    for G[0] in 'ab': pass",
    "in a method": "class C:\n    def m(self): G[1] = 2\ndef f(): return C().m(), G",
    "setattr": "def f(): setattr(G, 'x', 1)",
    "heap": "import heapq\ndef f(): heapq.heappush(G, 1)",
}


# Without source only the plain cases are found, in the instructions.
SYNTAX_ONLY = {
    "item in item", "in a comprehension", "tuple target", "setattr", "heap", "setdefault",
    "augmented item", "for target",
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "known"),
    [(how, known) for how in WRITERS for known in (True, False) if known or how not in SYNTAX_ONLY],
)
def test_a_written_global_is_no_input(how, known):
    """Its value doesn't count, and a note names it."""
    prints = [
        Fingerprinter().code(Notebook(G=value).run(WRITERS[how], known=known)["f"])
        for value in ([1], {2: 3}, types.SimpleNamespace())
    ]
    if how in {"in a lambda", "in a comprehension"} or (how in {"append", "update"} and not known):
        prints = prints[:2]
    assert len({p.digest for p in prints}) == 1
    notes = [n for n in prints[0].notes if n.kind == "written"]
    assert [n.where for n in notes] == ["G"]
    assert str(notes[0]) == "writes global `G`: on replay that change won't happen"


def test_written_globals_are_named_in_one_order():
    """Notes come sorted by name, whatever the hash seed makes of a set."""
    names = [f"name_{letter}" for letter in "hgfedcba"]
    source = "def f():\n" + "".join(f"    {name}.append(1)\n" for name in names)
    f = Notebook(**{name: [] for name in names}).run(source)["f"]
    assert [note.where for note in Fingerprinter().code(f).notes] == sorted(names)


READERS = {
    "a local of the same name": "def f():\n    G = {}\n    G[1] = 2\n    return h()\ndef h(): return G",
    "a parameter of the same name": "def f(G):\n    G.append(1)\n    return h()\ndef h(): return G",
    "a module function": "import numpy as np\ndef f(x): return np.append(x, G)",
    "a value used": "def f(): return G.get(1)",
}


@pytest.mark.parametrize("how", READERS)
def test_a_read_global_is_an_input(how):
    """Writing something else by the same name, or calling what changes nothing, is no write."""
    one, two = code(READERS[how], G={1: 1}), code(READERS[how], G={1: 2})
    assert one.digest != two.digest
    assert one.notes == ()


def test_a_frames_method_that_gives_a_new_frame_is_no_write():
    """`df.add(1)` used for its value leaves the frame an input."""
    import pandas as pd  # noqa: PLC0415

    text = "def f(): return df.add(1)"
    assert (
        code(text, df=pd.DataFrame({"a": [1]})).digest
        != code(text, df=pd.DataFrame({"a": [2]})).digest
    )
    text = "def f(): df.drop(columns='a', inplace=True)"
    assert (
        code(text, df=pd.DataFrame({"a": [1]})).digest
        == code(text, df=pd.DataFrame({"a": [2]})).digest
    )


def test_a_written_closure_value_and_a_memoising_default_are_no_inputs():
    """The same rule for what isn't global."""
    counter = "def make(n):\n    def f():\n        nonlocal n\n        n += 1\n        return n\n    return f\nf = make({})"
    assert code(counter.format(1)).digest == code(counter.format(2)).digest
    memo = "def f(n, memo={}):\n    memo[n] = 1\n    return memo"
    book = cell(memo)
    fp = Fingerprinter()
    before = fp.code(book["f"])
    book["f"](3)
    assert fp.code(book["f"]).digest == before.digest
    assert before.moved() == ()
    assert [n.where for n in before.notes] == ["memo"]


def test_a_written_class_attribute_is_no_input_but_the_class_is():
    """`Model.count += 1` doesn't take the class out of the fingerprint."""
    text = "class Model:\n    count = {}\n    def m(self): return {}\ndef f():\n    Model.count += 1\n    return Model().m()"
    assert code(text.format(0, 1)).digest == code(text.format(5, 1)).digest
    assert code(text.format(0, 1)).digest != code(text.format(0, 2)).digest
    assert [str(n.where) for n in code(text.format(0, 1)).notes] == ["Model.count"]


def test_a_registry_filled_by_a_decorator_is_an_input():
    """Only what the step's own code reaches can write."""
    text = "R = {{}}\ndef reg(g):\n    R[g.__name__] = g\n    return g\n@reg\ndef h(): return {}\ndef f(): return R['h']()"
    assert code(text.format(1)).digest != code(text.format(2)).digest


def test_moved_names_globals_and_closure_values():
    """Changed in place or bound anew, they are named with the object; unchanged, it is free."""
    book = cell(
        "cfg = {'lr': 1}\nN = 1\ndef make(v):\n    def f(): return cfg, N, v\n    return f\nf = make([1])"
    )
    fp = Fingerprinter()
    one = fp.code(book["f"])
    assert one.moved() == ()
    book["cfg"]["lr"] = 2
    assert one.moved() == (("cfg", {"lr": 2}),)
    book["cfg"]["lr"] = 1
    assert one.moved() == ()
    book.space["N"] = 2
    assert one.moved() == (("N", 2),)
    book.space["N"] = 1
    book.space["cfg"] = {"lr": 1}
    assert one.moved() == ()
    book["f"].__closure__[0].cell_contents.append(2)
    assert one.moved() == (("v", [1, 2]),)
    assert fp.code(book["f"]).digest != one.digest


def test_moved_sees_a_name_that_appears_or_goes():
    """A global defined later, or deleted, has moved."""
    book = cell("def f(): return N")
    fp = Fingerprinter()
    one = fp.code(book["f"])
    book.space["N"] = 1
    assert [n for n, _ in one.moved()] == ["N"]
    two = fp.code(book["f"])
    del book.space["N"]
    assert [n for n, _ in two.moved()] == ["N"]


def test_ignored_names_are_left_out():
    """Globals, closure values and parameters' defaults alike."""
    text = "KEY = {}\ndef f(client={}): return KEY, client"
    ignore = frozenset({"KEY", "client"})
    prints = {
        Fingerprinter().code(cell(text.format(n, n))["f"], ignore=ignore).digest for n in "12"
    }
    assert len(prints) == 1
    prints = {Fingerprinter().code(cell(text.format(n, n))["f"]).digest for n in "12"}
    assert len(prints) == 2


def test_a_global_without_comparable_state_is_noted_and_strict_refuses_it():
    """A client counts by its type, by name."""
    text = "import threading\nclass Client:\n    def __init__(self): self.lock = threading.Lock()\nconn = threading.Lock()\nclient = Client()\ndef f(): return conn, client"
    one = code(text)
    assert Note("not compared", "conn", "lock") in one.notes
    assert Note("not compared", "client.lock", "lock") in one.notes
    assert str(one.notes[0]) in {
        "not compared: `conn` (lock)",
        "not compared: `client.lock` (lock)",
    }
    with pytest.raises(FingerprintError, match=r"ignore="):
        Fingerprinter(strict=True).code(cell(text)["f"])


class Handle:
    """Stands for a handle."""

    def __init__(self, name):
        self.name = name

    def __nbdurable_identity__(self):
        return self.name.encode()


@pytest.mark.parametrize(
    "text",
    [
        "def f(): return handle",
        "handles = [handle]\ndef f(): return handles",
        "def make(h):\n    return lambda: h\nf = make(handle)",
        "def f(x=handle): return x",
    ],
)
def test_a_handle_in_code_is_a_usage_error(text):
    """Globals, closures and defaults can't carry one."""
    with pytest.raises(UsageError, match="pass the handle itself"):
        code(text, handle=Handle("a"))


def test_a_method_counts_by_its_function():
    """Of two instances' methods the code is one; so it is with callable instances."""
    book = cell(
        "class C:\n    def __init__(s, n): s.n = n\n    def m(s): return s.n\n    def __call__(s): return s.n\na, b = C(1), C(2)"
    )
    fp = Fingerprinter()
    assert fp.code(book["a"].m).digest == fp.code(book["b"].m).digest
    assert fp.code(book["a"]).digest == fp.code(book["b"]).digest


def test_builtins_count_by_name():
    """Callables without code of their own are told apart by their names."""
    import math  # noqa: PLC0415
    import operator  # noqa: PLC0415

    fp = Fingerprinter()
    callables = [len, sum, math.sin, math.cos, str.upper, "a".upper, operator.itemgetter(1),
                 operator.itemgetter(2), int, [].append]  # fmt: skip
    assert len({fp.code(c).digest for c in callables}) == len(callables)


def test_top_level_await_and_future_flags_are_no_obstacle():
    """A cell with both still gives its functions' source."""
    text = "from __future__ import annotations\nimport asyncio\nasync def g(): return 1\ndef f(x: Undefined) -> int: return x\n"
    book = Notebook()
    path = "/nowhere/ipykernel_await/1.py"
    whole = text + "y = await g()\n"
    linecache.cache[path] = (len(whole), None, whole.splitlines(keepends=True), path)
    exec(compile(text, path, "exec"), book.space)
    assert Fingerprinter().code(book["f"]).notes == ()


def test_nothing_is_kept_alive_by_a_fingerprint():
    """A lambda and what it closes over go when the user lets go of them."""
    import gc  # noqa: PLC0415
    import weakref  # noqa: PLC0415

    class Big:
        pass

    fp = Fingerprinter()
    held = Big()
    gone = weakref.ref(held)
    fn = lambda h=held: h  # noqa: E731
    fp.code(fn)
    fp.arguments(fn, (), {})
    del held, fn
    gc.collect()
    assert gone() is None

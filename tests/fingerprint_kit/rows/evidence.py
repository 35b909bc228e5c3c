"""Edits of code that no reading of the source finds: it is reached when a body runs."""

from fingerprint_kit.editing import Row

HEAD = """
import functools, importlib, inspect, operator, sys, threading
from concurrent.futures import ThreadPoolExecutor
import pk
NAME = ".".join(["pk", "rules"])
importlib.import_module(NAME)
def rules(): return sys.modules[NAME]
def pick(name): return getattr(rules(), name)
"""

WAYS = {
    "getattr with a computed name": "@step\ndef f(n, x): return pick(n)(x)",
    "vars": "@step\ndef f(n, x): return vars(rules())[n](x)",
    "a registry": "@step\ndef f(n, x): return getattr(rules(), 'R' + 'EG')[n](x)",
    "attrgetter": "@step\ndef f(n, x): return operator.attrgetter(n)(rules())(x)",
    "methodcaller": "@step\ndef f(n, x): return operator.methodcaller(n, x)(rules())",
    "map": "@step\ndef f(n, x): return list(map(pick(n), [x]))",
    "sorted's key": "@step\ndef f(n, x): return sorted([x, x + 1], key=lambda v: -pick(n)(v)), pick(n)(x)",
    "reduce": "@step\ndef f(n, x): return functools.reduce(lambda a, b: a + pick(n)(b), [x, x], 0)",
    "eval": "@step\ndef f(n, x): return eval(n + '(x)', vars(rules()), {'x': x})",
    "exec": "@step\ndef f(n, x):\n    space = {'pick': pick, 'x': x}\n    exec('y = pick(' + repr(n) + ')(x)', space)\n    return space['y']",
    "getmembers": "@step\ndef f(n, x): return dict(inspect.getmembers(rules()))[n](x)",
    "a thread": "@step\ndef f(n, x):\n    out = []\n    t = threading.Thread(target=lambda: out.append(pick(n)(x)))\n    t.start()\n    t.join()\n    return out",
    "a pool": "@step\ndef f(n, x):\n    with ThreadPoolExecutor(2) as pool: return list(pool.map(pick(n), [x, x]))",
    "a pool that the cell made": "POOL = ThreadPoolExecutor(2)\nPOOL.submit(len, 'a').result()\n@step(ignore=('POOL',))\ndef f(n, x): return POOL.submit(pick(n), x).result()",
    "a partial": "@step\ndef f(n, x): return functools.partial(pick(n), x)()",
    "vectorize": "import numpy as np\n@step\ndef f(n, x): return np.vectorize(pick(n))([x]).tolist()",
    "a frame's apply": "import pandas as pd\n@step\ndef f(n, x): return pd.DataFrame({'a': [x]})['a'].apply(pick(n)).tolist()",
    "a generator": "def each(n, x): yield pick(n)(x)\n@step\ndef f(n, x): return list(each(n, x))",
    "a coroutine": "import asyncio\nasync def one(n, x): return pick(n)(x)\n@step\ndef f(n, x): return asyncio.run(one(n, x))",
    "an async step": "import asyncio\nasync def g(n, x):\n    await asyncio.sleep(0)\n    return pick(n)(x)\ndef f(n, x): return go(g, n, x).result()",
    "a concurrent step": "def g(n, x): return pick(n)(x)\ndef f(n, x): return gather(go(g, n, x), go(g, n, x + 1)).result()",
    "a sub-workflow": "@step\ndef g(n, x): return pick(n)(x)\n@step\ndef f(n, x): return g(n, x) + g(n, x + 1)",
    "a step that is looked up": "@step\ndef f(n, x): return step(pick(n))(x)",
    "an import in the body": "def load(): return importlib.import_module(NAME)\n@step\ndef f(n, x): return getattr(load(), n)(x)",
    "a file that is loaded by its path": "import importlib.util, pathlib\n@step(reads='ignore')\ndef f(n, x):\n    spec = importlib.util.spec_from_file_location('anything', '/'.join([str(pathlib.Path(pk.__file__).parent), 'rules.' + 'py']))\n    m = importlib.util.module_from_spec(spec)\n    spec.loader.exec_module(m)\n    return getattr(m, n)(x)",
    "a class's method": "@step\ndef f(n, x): return getattr(pick('Tool')(), n + '_')(x)",
    "a property": "@step\ndef f(n, x): return getattr(pick('Tool')(), n + '_p')",
    "__getattr__": "@step\ndef f(n, x): return getattr(pick('Lazy')(), n)(x)",
}  # fmt: skip
"""Ways to what is called `calc` in the module, called with a number."""

FOLLOWED = {way: text for way, text in WAYS.items() if way != "an import in the body"}
"""Without the way in which reading takes all modules, for it can't tell which is imported."""

COMMON = """
REG = {}
def register(fn):
    REG[fn.__name__] = fn
    return fn
BODY
class Tool:
    def calc_(self, x): return calc(x)
    @property
    def calc_p(self): return calc(1)
class Lazy:
    def __getattr__(self, name): return globals()[name]
"""

USES = {
    "its body": "@register\ndef calc(x): return x + «1|2»",
    "its helper": "def helper(x): return x + «1|2»\n@register\ndef calc(x): return helper(x)",
    "its constant": "K = «1|2»\n@register\ndef calc(x): return x + K",
    "its default": "@register\ndef calc(x, k=«1|2»): return x + k",
    "a method": "class M:\n    def m(self, x): return x + «1|2»\n@register\ndef calc(x): return M().m(x)",
    "a class attribute": "class M:\n    k = «1|2»\n@register\ndef calc(x): return x + M.k",
    "a base's attribute": "class B:\n    k = «1|2»\nclass M(B): pass\n@register\ndef calc(x): return x + M().k",
    "a decorator": "def more(fn):\n    def inner(x): return fn(x) + «1|2»\n    return inner\n@register\n@functools.wraps(len)\ndef none(x): return x\n@more\ndef calc(x): return x\nREG['calc'] = calc",
    "a decorator's argument": "def more(k):\n    def deco(fn):\n        def inner(x): return fn(x) + k\n        return inner\n    return deco\n@more(«1|2»)\ndef calc(x): return x\nREG['calc'] = calc",
    "a lambda": "calc = REG['calc'] = lambda x: x + «1|2»",
    "a closure": "def make(k):\n    def calc(x): return x + k\n    return calc\ncalc = REG['calc'] = make(«1|2»)",
    "a dataclass's default": "@dataclasses.dataclass\nclass D:\n    k: int = «1|2»\n@register\ndef calc(x): return x + D().k",
    "a dict that a loop fills": "T = {}\nfor at in range(3): T[at] = at + «1|2»\n@register\ndef calc(x): return x + T[2]",
    "an augmented constant": "K = 1\nK += «1|2»\n@register\ndef calc(x): return x + K",
    "a named tuple's field": "class N(typing.NamedTuple):\n    k: int = «1|2»\n@register\ndef calc(x): return x + N().k",
    "an enum's member": "class E(enum.Enum):\n    A = «1|2»\n@register\ndef calc(x): return x + E.A.value",
    "a module beside it": "from pk.other import more\n@register\ndef calc(x): return more(x)",
    "a module's constant beside it": "from pk import other\n@register\ndef calc(x): return x + other.K",
    "a generator's body": "def gen(x):\n    yield x + «1|2»\n@register\ndef calc(x): return next(gen(x))",
    "an operator": "class V:\n    def __init__(self, v): self.v = v\n    def __add__(self, o): return self.v + o + «1|2»\n@register\ndef calc(x): return V(x) + 0",
}  # fmt: skip

HARMLESS_USES = {
    "another function": "@register\ndef calc(x): return x + 1\ndef other(x): return «1|2»",
    "another registered function": "@register\ndef calc(x): return x + 1\n@register\ndef other(x): return «1|2»",
    "a comment": "@register\ndef calc(x): return x + 1  # «one|two»",
    "a docstring": "@register\ndef calc(x):\n    '''«one|two»'''\n    return x + 1",
    "lines above": "«|\n\n# a line\n»@register\ndef calc(x): return x + 1",
    "another constant": "K = «1|2»\n@register\ndef calc(x): return x + 1",
    "another class": "class O:\n    def m(self): return «1|2»\n@register\ndef calc(x): return x + 1",
    "spaces": "@register\ndef calc(x): return x«+|  +  »1",
    "a module that it does not use": "from pk import other\n@register\ndef calc(x): return x + 1",
    "another name of a module that it uses": "from pk.other import same\n@register\ndef calc(x): return same(x)",
}  # fmt: skip

OTHER = "K = «1|2»\ndef more(x): return x + K\ndef same(x): return x + 1\n"
QUIET = "K = 1\ndef more(x): return x + K\ndef same(x): return x + 1\n"


def _row(name, way, body, other=QUIET):
    module = COMMON.replace("BODY", body)
    heads = "import dataclasses, enum, functools, typing\n"
    return Row(
        name,
        f"{HEAD}{way}\n>>> f('calc', 1)\n--- pk/__init__.py\n\n--- pk/rules.py\n{heads}{module}\n"
        f"--- pk/other.py\n{other}",
    )


def _crossed(ways, uses, each):
    """Combine each way with `each` of the uses, in turn, so that each use comes in many ways."""
    rows, names = [], list(uses)
    for at, (way, text) in enumerate(ways.items()):
        for turn in range(each):
            use = names[(at * each + turn) % len(names)]
            other = OTHER if "module" in use or "another name" in use else QUIET
            rows.append(_row(f"{use}: {way}", text, uses[use], other))
    return rows


TEXTS = {
    "singledispatch that another module registers": """
import pk.base, importlib
importlib.import_module("pk." + "kinds")
@step
def f(x): return getattr(pk.base, "sh" + "ow")(x)
>>> f(1)
--- pk/__init__.py
--- pk/base.py
import functools
@functools.singledispatch
def show(x): return "?"
--- pk/kinds.py
from pk.base import show
@show.register
def _(x: int): return «1|2»
@show.register
def _(x: str): return 5
""",
    "plug-ins that a listing finds": """
import importlib, pkgutil, pk
@step
def f(x):
    for found in sorted(m.name for m in pkgutil.iter_modules(pk.__path__)):
        x = getattr(importlib.import_module("pk." + found), "ap" + "ply")(x)
    return x
>>> f(1)
--- pk/__init__.py
--- pk/one.py
def apply(x): return x + «1|2»
--- pk/two.py
def apply(x): return x * 2
""",
    "a metaclass": """
import importlib, sys
importlib.import_module("pk." + "meta")
@step
def f(x): return getattr(sys.modules["pk." + "meta"], "Th" + "ing")(x)
>>> f(1)
--- pk/__init__.py
--- pk/meta.py
class Meta(type):
    def __call__(cls, x): return x + «1|2»
class Thing(metaclass=Meta): pass
""",
    "attrs": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x): return getattr(sys.modules["pk." + "data"], "Th" + "ing")(x).value
>>> f(1)
--- pk/__init__.py
--- pk/data.py
import attrs
@attrs.define
class Thing:
    x: int
    k: int = «1|2»
    @property
    def value(self): return self.x + self.k
""",
    "a converter of attrs": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x): return getattr(sys.modules["pk." + "data"], "Th" + "ing")(x).x
>>> f(1)
--- pk/__init__.py
--- pk/data.py
import attrs
@attrs.define
class Thing:
    x: int = attrs.field(converter=lambda v: v + «1|2»)
""",
    "a method that is patched": """
import importlib, sys
importlib.import_module("pk." + "data")
importlib.import_module("pk." + "patch")
@step
def f(x): return getattr(sys.modules["pk." + "data"], "Th" + "ing")().m(x)
>>> f(1)
--- pk/__init__.py
--- pk/data.py
class Thing:
    def m(self, x): return x
--- pk/patch.py
from pk.data import Thing
def m(self, x): return x + «1|2»
Thing.m = m
""",
    "a transformer in a pipeline": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x):
    from sklearn.pipeline import make_pipeline
    made = make_pipeline(getattr(sys.modules["pk." + "data"], "Th" + "ing")())
    return made.fit_transform([[x]])
>>> f(1)
--- pk/__init__.py
--- pk/data.py
from sklearn.base import BaseEstimator, TransformerMixin
class Thing(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None): return self
    def transform(self, X): return [[v + «1|2» for v in row] for row in X]
""",
    "a function that is loaded from a pickle": """
import importlib, pickle
DATA = b"cpk.data\\nap" + b"ply\\n."
@step
def f(x): return pickle.loads(DATA)(x)
>>> f(1)
--- pk/__init__.py
--- pk/data.py
def apply(x): return x + «1|2»
""",
    "a dict's default factory": """
import collections, importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x): return collections.defaultdict(getattr(sys.modules["pk." + "data"], "ma" + "ke"))[x]
>>> f(1)
--- pk/__init__.py
--- pk/data.py
def make(): return «1|2»
""",
    "a context manager": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x):
    with getattr(sys.modules["pk." + "data"], "op" + "ened")(x) as value: return value
>>> f(1)
--- pk/__init__.py
--- pk/data.py
import contextlib
@contextlib.contextmanager
def opened(x): yield x + «1|2»
""",
    "a function that another step runs first": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def g(x, n):
    return [getattr(sys.modules["pk." + "data"], "ap" + "ply")(x) for _ in range(n)][0]
>>> g(1, 1000)
>>> g(2, 1000)
>>> g(3, 1)
--- pk/__init__.py
--- pk/data.py
def apply(x): return x + «1|2»
""",
    "a script's own function": """
import sys
RULES = {}
def rule(fn): RULES[fn.__name__] = fn
def strip(x): return x + «1|2»
@step
def f(x): return getattr(sys.modules["__ma" + "in__"], "st" + "rip")(x)
>>> f(1)
""",
    "exec of text in a module": """
import importlib, sys
importlib.import_module("pk." + "data")
@step
def f(x): return getattr(sys.modules["pk." + "data"], "ap" + "ply")(x)
>>> f(1)
--- pk/__init__.py
--- pk/data.py
exec("def apply(x): return x + «1|2»")
""",
}

NOTEBOOK = {
    "a function of another cell": "import sys\ndef strip(x): return x + «1|2»\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
    "a constant of another cell": "import sys\nK = «1|2»\ndef strip(x): return x + K\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
    "a class of another cell": "import sys\nclass Strip:\n    def m(self, x): return x + «1|2»\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)().m(x)\n>>> f('Strip', 1)",
    "a later definition": "import sys\ndef strip(x): return 0\n# %%\ndef strip(x): return x + «1|2»\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
    "a module by a computed name": "import importlib\n# %%\n@step\ndef f(n, x): return importlib.import_module(n[:2] + 'ol').g(x)\n>>> f('to', 1)\n--- tool.py\ndef g(x): return x + «1|2»\n",
}  # fmt: skip

HARMLESS_NOTEBOOK = {
    "another function of another cell": "import sys\ndef strip(x): return x\ndef other(x): return «1|2»\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
    "a cell that is run twice": "import sys\ndef strip(x): return x\n«|# %%\ndef strip(x): return x\n»# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
    "a cell split in two": "import sys\ndef strip(x): return x\n«|# %%\n»def other(x): return x\n# %%\n@step\ndef f(n, x): return getattr(sys.modules['__ma' + 'in__'], n)(x)\n>>> f('strip', 1)",
}  # fmt: skip

HARMLESS_TEXTS = {
    "another kind of singledispatch's module": TEXTS[
        "singledispatch that another module registers"
    ].replace("«1|2»", "1\nUNUSED = «1|2»"),
    "a method's comment": TEXTS["a metaclass"].replace("«1|2»", "1  # «one|two»"),
    "a function below": TEXTS["a function that another step runs first"].replace(
        "«1|2»", "1\ndef below(): return «1|2»"
    ),
}

_REGISTRY = """
import importlib, sys
import pk.plugins
«|import pk.late
»@step
def f(n, x): return getattr(importlib.import_module("pk." + n), "be" + "st")(x)
>>> f("rules", 1)
--- pk/__init__.py
--- pk/rules.py
RULES
--- pk/plugins.py
from pk import rules
PLUGIN
--- pk/late.py
from pk import rules
LATER
"""


def _registry(rules, plugin, later):
    return _REGISTRY.replace("RULES", rules).replace("PLUGIN", plugin).replace("LATER", later)


_LISTED = "FOUND = []\ndef rule(fn):\n    FOUND.append(fn)\n    return fn\ndef best(x): return FOUND[-1](x)"
_KEYED = "FOUND = {}\ndef rule(p):\n    def add(fn):\n        FOUND[p] = fn\n        return fn\n    return add\ndef best(x): return FOUND[max(FOUND)](x)"
_DERIVED = "class Rule:\n    def on(self, x): return x\ndef best(x): return Rule.__subclasses__()[-1]().on(x)"
_OWNED = "class Rule:\n    known = []\n    def __init_subclass__(cls): Rule.known.append(cls)\ndef best(x): return Rule.known[-1]().on(x)"

REGISTRIES = {
    "a plug-in comes into a list": _registry(_LISTED, "@rules.rule\ndef low(x): return x", "@rules.rule\ndef high(x): return x + 1"),
    "a plug-in comes into a table": _registry(_KEYED, "@rules.rule(1)\ndef low(x): return x", "@rules.rule(2)\ndef high(x): return x + 1"),
    "a subclass comes": _registry(_DERIVED, "class Low(rules.Rule): pass", "class High(rules.Rule):\n    def on(self, x): return x + 1"),
    "a subclass comes that its base keeps": _registry(_OWNED, "class Low(rules.Rule):\n    def on(self, x): return x", "class High(rules.Rule):\n    def on(self, x): return x + 1"),
    "a first plug-in comes": _registry("FOUND = []\ndef best(x): return FOUND[-1](x) if FOUND else 0", "", "rules.FOUND.append(lambda x: x + 1)"),
}  # fmt: skip

HARMLESS_REGISTRIES = {
    "a memo of functions that another step fills": "import importlib, sys\nimport pk.rules\n@step\ndef f(n, x): return getattr(importlib.import_module('pk.' + n), 'be' + 'st')(x)\n«|pk.rules.best(7)\n»>>> f('rules', 1)\n--- pk/__init__.py\n--- pk/rules.py\nMADE = {}\ndef made(x):\n    if x not in MADE: MADE[x] = lambda y: x + y\n    return MADE[x]\ndef best(x): return made(x)(1)\n",
}  # fmt: skip

NOTICED = [
    *_crossed(WAYS, USES, 4),
    *(Row(name, text) for name, text in (TEXTS | REGISTRIES).items()),
    *(Row(f"{name}, in cells", text, notebook=True) for name, text in NOTEBOOK.items()),
]
HARMLESS = [
    *_crossed(FOLLOWED, HARMLESS_USES, 2),
    *(Row(name, text) for name, text in (HARMLESS_TEXTS | HARMLESS_REGISTRIES).items()),
    *(Row(f"{name}, in cells", text, notebook=True) for name, text in HARMLESS_NOTEBOOK.items()),
]

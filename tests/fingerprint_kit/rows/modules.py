"""Modules, reached in every way in which a step's code can reach one."""

from fingerprint_kit.editing import Row

WAYS = {
    "import a.b": "import pk.sub\n@step\ndef f(): return pk.sub.USE",
    "import a.b as q": "import pk.sub as q\n@step\ndef f(): return q.USE",
    "from a import b": "from pk import sub\n@step\ndef f(): return sub.USE",
    "from a import b as q": "from pk import sub as q\n@step\ndef f(): return q.USE",
    "import a.b in the body": "@step\ndef f():\n    import pk.sub\n    return pk.sub.USE",
    "import a.b as q in the body": "@step\ndef f():\n    import pk.sub as q\n    return q.USE",
    "from a import b in the body": "@step\ndef f():\n    from pk import sub\n    return sub.USE",
    "in a nested function": "@step\ndef f():\n    import pk.sub as q\n    def g(): return q.USE\n    return g()",
    "import a.b, in a nested function": "@step\ndef f():\n    import pk.sub\n    def g(): return pk.sub.USE\n    return g()",
    "in a comprehension": "@step\ndef f():\n    from pk import sub\n    return [sub.USE for _ in range(2)]",
    "in a generator": "@step\ndef f():\n    import pk.sub\n    return sum(pk.sub.USE for _ in range(2))",
    "in a lambda": "@step\ndef f():\n    import pk.sub as q\n    return (lambda: q.USE)()",
    "in a nested class": "@step\ndef f():\n    import pk.sub as q\n    class C:\n        def m(self): return q.USE\n    return C().m()",
    "in a closure": "def make():\n    import pk.sub as q\n    def g(): return q.USE\n    return g\ng = make()\n@step\ndef f(): return g()",
    "import a.b in a closure": "def make():\n    import pk.sub\n    return lambda: pk.sub.USE\ng = make()\n@step\ndef f(): return g()",
    "as a helper's argument": "import pk.sub as q\ndef use(m): return m.USE\n@step\ndef f(): return use(q)",
    "as an element": "import pk.sub as q\nMODULES = [q]\n@step\ndef f(): return [m.USE for m in MODULES]",
    "as a dict's value": "import pk.sub as q\nMODULES = {'q': q}\n@step\ndef f(): return MODULES['q'].USE",
    "under a second name": "import pk.sub as q\nother = q\n@step\ndef f(): return other.USE",
    "under a local name": "import pk.sub as q\n@step\ndef f():\n    m = q\n    return m.USE",
    "under a local name of a part": "import pk.sub\n@step\ndef f():\n    m = pk\n    return m.sub.USE",
    "import_module": "import importlib\n@step\ndef f(): return importlib.import_module('pk.sub').USE",
    "import_module by its name": "from importlib import import_module\n@step\ndef f(): return import_module('pk.sub').USE",
    "import_module into a local": "import importlib\n@step\ndef f():\n    m = importlib.import_module('pk.sub')\n    return m.USE",
    "import_module, relative": "import importlib\n@step\ndef f(): return importlib.import_module('.sub', 'pk').USE",
    "__import__": "@step\ndef f(): return __import__('pk.sub').sub.USE",
    "__import__ with fromlist": "@step\ndef f(): return __import__('pk.sub', fromlist=['x']).USE",
    "sys.modules": "import sys\nimport pk.sub\n@step\ndef f(): return sys.modules['pk.sub'].USE",
    "an instance's attribute": "import types\nimport pk.sub as q\nbox = types.SimpleNamespace(m=q)\n@step\ndef f(): return box.m.USE",
    "a default": "import pk.sub as q\n@step\ndef f(m=q): return m.USE",
    "a class attribute": "import pk.sub as q\nclass C:\n    m = q\n@step\ndef f(): return C.m.USE",
    "a method's module": "import pk.sub as q\nclass C:\n    def m(self): return q.USE\n@step\ndef f(): return C().m()",
    "a conditional expression": "import pk.sub as q\nimport json\n@step\ndef f(x=1): return (q if x else json).USE",
    "a walrus": "import pk.sub as q\n@step\ndef f():\n    if m := q: return m.USE",
    "a loop's name": "import pk.sub as q\n@step\ndef f():\n    for m in (q,): return m.USE",
    "a global that is assigned later": "q = None\ndef load():\n    global q\n    import pk.sub as q\nload()\n@step\ndef f(): return q.USE",
    "a function's result": "import pk.sub as q\ndef choose(): return q\n@step\ndef f(): return choose().USE",
    "a try": "@step\ndef f():\n    try:\n        from pk import sub\n    except ImportError:\n        sub = None\n    return sub.USE",
    "a package's attribute": "import pk\nimport pk.sub\n@step\ndef f(): return getattr(pk, 'sub').USE",
    "a partial's module": "import functools\nimport pk.sub as q\ndef use(m): return m.USE\nbound = functools.partial(use, q)\n@step\ndef f(): return bound()",
}  # fmt: skip
"""Ways to a module `pk.sub`, of which USE is then taken."""

USES = {
    "a constant": ("RATE", "RATE = «1|2»"),
    "a function": ("rate()", "def rate(): return «1|2»"),
    "a function's helper": ("rate()", "def rate(): return inner()\ndef inner(): return «1|2»"),
    "a function's constant": ("rate()", "K = «1|2»\ndef rate(): return K"),
    "a method": ("Rate().get()", "class Rate:\n    def get(self): return «1|2»"),
    "a name with underscores": ("__rate__", "__rate__ = «1|2»"),
}

HARMLESS_USES = {
    "another constant": ("RATE", "OTHER = «1|2»\nRATE = 1"),
    "another function": ("rate()", "def rate(): return 1\ndef other(): return «1|2»"),
    "a comment": ("rate()", "def rate(): return 1  # «one|two»"),
}


def _crossed(ways, uses, each):
    """Combine each way with `each` of the uses, in turn."""
    rows, names = [], list(uses)
    for at, (way, text) in enumerate(ways.items()):
        for turn in range(each):
            use = names[(at + turn * (len(names) // each)) % len(names)]
            taken, module = uses[use]
            rows.append(
                Row(
                    f"{use} of a module: {way}",
                    f"{text.replace('USE', taken)}\n>>> f()\n--- pk/__init__.py\n\n--- pk/sub.py\n{module}\n",
                )
            )
    return rows


STRAIGHT = dict(list(WAYS.items())[:7])
"""Ways that can be followed to the name that is taken."""

TEXTS = {
    "a module as an argument": """
import pk.sub as q
@step
def f(m): return m.rate()
>>> f(q)
--- pk/__init__.py
--- pk/sub.py
def rate(): return «1|2»
""",
    "a module in a list of arguments": """
import pk.sub as q
@step
def f(ms): return ms[0].RATE
>>> f([q])
--- pk/__init__.py
--- pk/sub.py
RATE = «1|2»
""",
    "a relative import of a module": """
from pk import main
@step
def f(): return main.go()
>>> f()
--- pk/__init__.py
--- pk/main.py
from . import sub
def go(): return sub.rate()
--- pk/sub.py
def rate(): return «1|2»
""",
    "a relative import of a name": """
from pk import main
@step
def f(): return main.go()
>>> f()
--- pk/__init__.py
--- pk/main.py
from .sub import rate
def go(): return rate()
--- pk/sub.py
def rate(): return «1|2»
""",
    "a relative import in a body": """
from pk import main
@step
def f(): return main.go()
>>> f()
--- pk/__init__.py
--- pk/main.py
def go():
    from . import sub
    return sub.rate()
--- pk/sub.py
def rate(): return «1|2»
""",
    "a relative import of a name in a body": """
from pk import main
@step
def f(): return main.go()
>>> f()
--- pk/__init__.py
--- pk/main.py
def go():
    from .sub import rate as r
    return r()
--- pk/sub.py
def rate(): return «1|2»
""",
    "a relative import from the parent": """
from pk.deep import main
@step
def f(): return main.go()
>>> f()
--- pk/__init__.py
--- pk/sub.py
RATE = «1|2»
--- pk/deep/__init__.py
--- pk/deep/main.py
def go():
    from .. import sub
    return sub.RATE
""",
    "a name of the package's __init__": """
import pk
@step
def f(): return pk.rate()
>>> f()
--- pk/__init__.py
from .sub import rate
--- pk/sub.py
def rate(): return «1|2»
""",
    "a star import": """
from pk.sub import *
@step
def f(): return rate()
>>> f()
--- pk/__init__.py
--- pk/sub.py
def rate(): return «1|2»
""",
    "a module's own __getattr__": """
import pk
@step
def f(): return pk.RATE
>>> f()
--- pk/__init__.py
def __getattr__(name): return «1|2»
""",
    "a namespace package": """
import ns.sub
@step
def f(): return ns.sub.rate()
>>> f()
--- ns/sub.py
def rate(): return «1|2»
""",
    "getattr of a module": """
import tool
@step
def f(): return getattr(tool, "rate")()
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "getattr with a name from elsewhere": """
import tool
@step
def f(name): return getattr(tool, name)()
>>> f("rate")
--- tool.py
def rate(): return «1|2»
""",
    "getattr with a name put together": """
import tool
@step
def f(): return getattr(tool, "ra" + "te")
>>> f()
--- tool.py
rate = «1|2»
""",
    "vars of a module": """
import tool
@step
def f(): return vars(tool)["rate"]()
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "a module's __dict__": """
import tool
@step
def f(): return tool.__dict__["rate"]
>>> f()
--- tool.py
rate = «1|2»
""",
    "attrgetter over a module": """
import operator, tool
get = operator.attrgetter("rate")
@step
def f(): return get(tool)
>>> f()
--- tool.py
rate = «1|2»
""",
    "methodcaller over a module": """
import operator, tool
@step
def f(): return operator.methodcaller("rate")(tool)
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "hasattr of a module": """
import tool
@step
def f(): return hasattr(tool, "extra")
>>> f()
--- tool.py
rate = 1
«|extra = 2»
""",
    "a function that begins with __": """
def __rate(): return «1|2»
@step
def f(): return __rate()
>>> f()
""",
    "a constant that begins with __": """
__rate = «1|2»
@step
def f(): return __rate
>>> f()
""",
    "a constant with __ on both sides": """
__rate__ = «1|2»
@step
def f(): return __rate__
>>> f()
""",
    "a module's __version__": """
import tool
@step
def f(): return tool.__version__
>>> f()
--- tool.py
__version__ = "«1|2»"
""",
    "a module's __all__": """
import tool
@step
def f(): return len(tool.__all__)
>>> f()
--- tool.py
__all__ = ["a"«|, "b"»]
""",
    "a module's docstring that is read": """
import tool
@step
def f(): return tool.__doc__
>>> f()
--- tool.py
'''«one|two»'''
""",
    "a name of a module of a module": """
import outer
@step
def f(): return outer.tool.rate()
>>> f()
--- outer.py
import tool
--- tool.py
def rate(): return «1|2»
""",
    "a module's constant through its second name": """
import outer
@step
def f(): return outer.t.RATE
>>> f()
--- outer.py
import tool
t = tool
--- tool.py
RATE = «1|2»
""",
    "a module imported by a class body": """
class C:
    import tool
@step
def f(): return C.tool.rate()
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "a global in a doubly nested comprehension": """
import tool
@step
def f(): return [[tool.rate() for _ in range(1)] for _ in range(1)]
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "a module in a decorator's closure": """
import functools, tool
def twice(fn):
    q = tool
    @functools.wraps(fn)
    def wrapper(*a): return fn(*a), q.rate()
    return wrapper
@step
@twice
def f(): return 0
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "reload of a module": """
import importlib, tool
@step
def f(): return importlib.reload(tool).rate()
>>> f()
--- tool.py
def rate(): return «1|2»
""",
    "which module an import means": """
@step
def f():
    import «one|two» as tool
    return tool.RATE
>>> f()
--- one.py
RATE = 1
--- two.py
RATE = 2
""",
    "a class of a module imported in the body": """
@step
def f():
    from tool import Rate
    return Rate().get()
>>> f()
--- tool.py
class Base:
    def get(self): return «1|2»
class Rate(Base): pass
""",
    "a module only imported for what it does": """
STATE = {"rate": 0}
@step
def f():
    import tool
    return tool.base.table["rate"]
>>> f()
--- base.py
table = {}
--- tool.py
import base
base.table["rate"] = «1|2»
""",
    "from import of a registry that another import fills": """
import plug
from base import TABLE
@step
def f(): return TABLE["rate"]()
>>> f()
--- base.py
TABLE = {}
--- plug.py
from base import TABLE
def rate(): return «1|2»
TABLE["rate"] = rate
""",
}

NOTICED = [
    *_crossed(WAYS, USES, 2),
    *(Row(name, text) for name, text in TEXTS.items()),
]

HARMLESS = [
    *_crossed(STRAIGHT, HARMLESS_USES, 3),
    Row(
        "a dead branch's import is not executed",
        """
@step
def f(x):
    y = «x + 1|(x + 1)»
    if x > 5:
        import tool
        return tool.run()
    return y
>>> f(1)
--- tool.py
import sys
sys.exit(3)
""",
    ),
    Row(
        "a dead branch's import does nothing, not even before the body runs",
        """
import pathlib
@step
def f(x):
    if x > 5:
        import tool
        return tool.RATE
    return x  # «one|two»
>>> f(1)
>>> assert not pathlib.Path("imported").exists()
--- tool.py
import pathlib
pathlib.Path("imported").touch()
RATE = 1
""",
    ),
    Row(
        "an import error in a dead branch",
        """
@step
def f(x):
    if x > 5:
        import broken
        return broken.run()
    return [x«|»]
>>> f(1)
--- broken.py
raise RuntimeError("do not import this")
""",
    ),
    Row(
        "a module that nothing reaches",
        """
import tool
@step
def f(): return 1
>>> f()
--- tool.py
RATE = «1|2»
""",
    ),
    Row(
        "the order of imports",
        """
«import tool, json|import json, tool»
@step
def f(): return json.dumps(tool.RATE)
>>> f()
--- tool.py
RATE = 1
""",
    ),
    Row(
        "the order of imports in a body",
        """
@step
def f():
    «import json¦import tool»
    «import tool¦import json»
    return json.dumps(tool.RATE)
>>> f()
--- tool.py
RATE = 1
""",
    ),
    Row(
        "a private function that nothing reaches",
        """
import tool
@step
def f(): return tool.rate()
>>> f()
--- tool.py
def __unused(): return «1|2»
def rate(): return 1
""",
    ),
    Row(
        "a module's docstring that nobody reads",
        """
import tool
@step
def f(): return tool.rate()
>>> f()
--- tool.py
'''«one|two»'''
def rate(): return 1
""",
    ),
]

"""Calls told apart: what is inserted, deleted or reordered among them; and ``ignore=``."""

from fingerprint_kit.editing import Row

ASK = "import functools\ndef ask(model, q): return f'{model}: {q}'\n"
STARTS = {
    "partials": ASK + ">>> gather([go(functools.partial(ask, m), 'hi') for m in MODELS]).result()",
    "partials by keyword": ASK + ">>> gather([go(functools.partial(ask, model=m), q='hi') for m in MODELS]).result()",
    "partials of partials": ASK + ">>> gather([go(functools.partial(functools.partial(ask, m), 'hi')) for m in MODELS]).result()",
    "partials of a step": ASK + "asked = step(ask)\n>>> [functools.partial(asked, m)('hi') for m in MODELS]",
    "partials of a method": "import functools\nclass C:\n    def ask(self, m, q): return m + q\n>>> c = C()\n>>> gather([go(functools.partial(c.ask, m), 'hi') for m in MODELS]).result()",
    "lambdas in a comprehension": ASK + ">>> gather([go(lambda m=m: ask(m, 'hi')) for m in MODELS]).result()",
    "lambdas that capture": ASK + "def start(m): return go(lambda: ask(m, 'hi'))\n>>> gather([start(m) for m in MODELS]).result()",
    "lambdas that name a global": ASK + ">>> for m in MODELS:\n>>>     go(lambda: ask(m, 'hi')).result()",
    "local functions": ASK + "def start(m):\n    def one(): return ask(m, 'hi')\n    return go(one)\n>>> gather([start(m) for m in MODELS]).result()",
    "local async functions": "def start(m):\n    async def one(): return m + 'hi'\n    return go(one)\n>>> gather([start(m) for m in MODELS]).result()",
    "closures of closures": "def make(m):\n    def inner(): return m\n    def outer(): return inner() + 'hi'\n    return outer\n>>> gather([go(make(m)) for m in MODELS]).result()",
    "decorated closures": "import functools\ndef loud(fn):\n    @functools.wraps(fn)\n    def w(*a): return fn(*a).upper()\n    return w\ndef make(m):\n    def one(): return m + 'hi'\n    return loud(one)\n>>> gather([go(make(m)) for m in MODELS]).result()",
    "closures over a dict": "def make(c):\n    def one(): return c['m'] + 'hi'\n    return one\n>>> gather([go(make({'m': m})) for m in MODELS]).result()",
    "instances": "class C:\n    def __init__(self, m): self.m = m\n    def __call__(self): return self.m + 'hi'\n>>> gather([go(C(m)) for m in MODELS]).result()",
    "bound methods": "class C:\n    def __init__(self, m): self.m = m\n    def ask(self): return self.m + 'hi'\n>>> gather([go(C(m).ask) for m in MODELS]).result()",
    "plain arguments": "@step\ndef ask(m): return m + 'hi'\n>>> ask.map(list(MODELS)).result()",
    "steps with a name": "def ask(): return 'hi'\n>>> gather([step(ask, name=m).go() for m in MODELS]).result()",
    "steps of a loop": "def make(m):\n    @step\n    def one(): return m + 'hi'\n    return one\n>>> [make(m)() for m in MODELS]",
    "lambdas of equal code in two functions": "def start(m): return go(lambda: m + 'hi')\ndef begin(m): return go(lambda: m + 'hi')\n>>> gather([start(m) for m in MODELS]).result()\n>>> gather([begin(m + '!') for m in 'abc']).result()",
}  # fmt: skip

TWO = "--- one.py\ndef fetch(x): return x + 1\n--- two.py\ndef fetch(x): return x + 2\n"

TEXTS = {
    "equal names of two modules, one more": ("import one, two\n>>> gather([«|go(one.fetch, 1), »go(two.fetch, 1)]).result()\n" + TWO, 1),
    "equal names of two modules, one edited": ("import one, two\n>>> gather([go(one.fetch, 1), go(two.fetch, 1)]).result()\n" + TWO.replace("x + 2", "x + «2|3»"), 1),
    "equal names of two modules, as steps": ("import one, two\n>>> [one.fetch(1), two.fetch(1)]\n--- one.py\nfrom nbdurable import step\n@step\ndef fetch(x): return x + «1|5»\n--- two.py\nfrom nbdurable import step\n@step\ndef fetch(x): return x + 2\n", 1),
    "equal names of the script and a module": ("import one\ndef fetch(x): return x\n>>> gather([«|go(fetch, 1), »go(one.fetch, 1)]).result()\n" + TWO, 1),
    "equal names of two classes": ("class A:\n    @staticmethod\n    def get(): return 1\nclass B:\n    @staticmethod\n    def get(): return 1\n>>> gather([«|go(A.get), »go(B.get)]).result()", 1),
    "one partial's argument": (ASK + ">>> gather([go(functools.partial(ask, m), 'hi') for m in ('a', '«b|c»', 'd')]).result()", 1),
    "one lambda's code": (ASK + ">>> go(lambda: ask('a', 'hi')).result()\n>>> go(lambda: ask('«b|c»', 'hi')).result()", 1),
    "one lambda's captured value": (ASK + "def start(m): return go(lambda: ask(m, 'hi'))\n>>> [start(m).result() for m in ('a', '«b|c»', 'd')]", 1),
    "a lambda before others": (ASK + "«|>>> go(lambda: ask('z', 'hi')).result()»\n>>> go(lambda: ask('a', 'hi')).result()\n>>> go(lambda: ask('b', 'hi')).result()", 1),
    "a partial's function": ("import functools\ndef ask(m): return m + '«1|2»'\n>>> go(functools.partial(ask, 'a')).result()", 1),
    "one of two local functions of a name": ("def a():\n    def one(): return '«1|2»'\n    return one\ndef b():\n    def one(): return '3'\n    return one\n>>> [go(a()).result(), go(b()).result()]", 1),
    "an occurrence more": ("import itertools\n@step\ndef roll(): return 1\n>>> [roll() for _ in range(«2|3»)]", 1),
    "swapped arguments of one new pair": ("@step\ndef f(a, b): return a - b\n>>> [f(1, 2)«|, f(2, 1)»]", 1),
    # ignore=
    "ignore= and a helper's default": ("def g(timeout=«3|5»): return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return g()\n>>> f(1)", None),
    "ignore= and a helper's keyword-only default": ("def g(*, timeout=«3|5»): return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return g()\n>>> f(1)", None),
    "ignore= and a helper's argument": ("def g(timeout): return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return g(timeout=«3|5»)\n>>> f(1)", None),
    "ignore= and a helper's local": ("def g():\n    timeout = «3|5»\n    return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return g()\n>>> f(1)", None),
    "ignore= and a method's default": ("class C:\n    def m(self, timeout=«3|5»): return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return C().m()\n>>> f(1)", None),
    "ignore= and a helper's computed default": ("N = «3|5»\ndef g(timeout=N): return timeout\n@step(ignore=('timeout',))\ndef f(timeout): return g()\n>>> f(1)", None),
    "ignore= and a class attribute": ("class C:\n    timeout = «3|5»\n@step(ignore=('timeout',))\ndef f(timeout): return C.timeout\n>>> f(1)", None),
    "ignore= and an instance's attribute": ("class C:\n    def __init__(self): self.timeout = «3|5»\nc = C()\n@step(ignore=('timeout',))\ndef f(timeout): return c.timeout\n>>> f(1)", None),
    "ignore= and a helper's closure value": ("def make(timeout):\n    def g(): return timeout\n    return g\ng = make(«3|5»)\n@step(ignore=('timeout',))\ndef f(timeout): return g()\n>>> f(1)", None),
    "ignore= and a global of another module": ("import tool\n@step(ignore=('API_KEY',))\ndef f(): return tool.API_KEY\n>>> f()\n--- tool.py\nAPI_KEY = «1|2»\n", None),
    "ignore= and a global that another module's function reads": ("import tool\n@step(ignore=('RATE',))\ndef f(): return tool.g()\n>>> f()\n--- tool.py\nRATE = «1|2»\ndef g(): return RATE\n", None),
    "ignore= and another argument": ("@step(ignore=('client',))\ndef f(client, x): return x\n>>> f(1, «1|2»)", None),
    "ignore= and another global": ("A = 1\nB = «1|2»\n@step(ignore=('A',))\ndef f(): return A, B\n>>> f()", None),
    "ignore= and a dict's key": ("@step(ignore=('client',))\ndef f(d): return d['client']\n>>> f({'client': «1|2»})", None),
    "ignore= and a child's argument": ("@step\ndef g(timeout): return timeout\n@step(ignore=('timeout',))\ndef f(timeout, n): return g(n)\n>>> f(1, «2|3»)", None),
    "ignore= and a nested function's default": ("@step(ignore=('timeout',))\ndef f(timeout):\n    def g(timeout=«3|5»): return timeout\n    return g()\n>>> f(1)", None),
    "version=": ("@step(version=«1|2»)\ndef f(): return «1|2»\n>>> f()", None),
    "key=": ("@step(key=lambda x: x % «10|7»)\ndef f(x): return x\n>>> f(15)", None),
}  # fmt: skip

HARMLESS_TEXTS = {
    "equal names of two modules, reordered": "import one, two\n>>> dict([«('a', go(one.fetch, 1).result()), ('b', go(two.fetch, 1).result())¦('b', go(two.fetch, 1).result()), ('a', go(one.fetch, 1).result())»]) == {'a': 2, 'b': 3}\n" + TWO,
    "equal names of two modules, one fewer": "import one, two\n>>> [«go(one.fetch, 1).result(), |»go(two.fetch, 1).result()][-1]\n" + TWO,
    "lambdas reordered": ASK + ">>> «go(lambda: ask('a', 'hi')).result()|go(lambda: ask('b', 'hi')).result()»\n>>> «go(lambda: ask('b', 'hi')).result()|go(lambda: ask('a', 'hi')).result()»",
    "a lambda before others goes": ASK + "«>>> go(lambda: ask('z', 'hi')).result()|»\n>>> go(lambda: ask('a', 'hi')).result()",
    "a function that moved to a module": "«def fetch(x): return x + 1|from tool import fetch»\n>>> go(fetch, 1).result()\n--- tool.py\n«|def fetch(x): return x + 1»\n",
    "a step that moved to a module": "«@step\ndef fetch(x): return x + 1|from tool import fetch»\n>>> fetch(1)\n--- tool.py\nfrom nbdurable import step\n«|@step\ndef fetch(x): return x + 1»\n",
    "a function that moved to a module, with its helper": "«def g(x): return x + 1\ndef fetch(x): return g(x)|from tool import fetch»\n>>> go(fetch, 1).result()\n--- tool.py\n«|def g(x): return x + 1\ndef fetch(x): return g(x)»\n",
    "an argument that is ignored": "@step(ignore=('client',))\ndef f(client, x): return x\n>>> f(«1|2», 1)",
    "an argument that is ignored, by keyword": "@step(ignore=('client',))\ndef f(x, client): return x\n>>> f(1, client=«1|2»)",
    "an ignored argument's default": "@step(ignore=('timeout',))\ndef f(x, timeout=«3|5»): return x\n>>> f(1)",
    "an ignored global": "API_KEY = '«one|two»'\n@step(ignore=('API_KEY',))\ndef f(): return len(API_KEY)\n>>> f()",
    "an ignored global in a helper": "API_KEY = '«one|two»'\ndef g(): return len(API_KEY)\n@step(ignore=('API_KEY',))\ndef f(): return g()\n>>> f()",
    "an ignored global in a helper's helper": "API_KEY = '«one|two»'\ndef h(): return len(API_KEY)\ndef g(): return h()\n@step(ignore=('API_KEY',))\ndef f(): return g()\n>>> f()",
    "an ignored global in a method": "API_KEY = '«one|two»'\nclass C:\n    def m(self): return len(API_KEY)\n@step(ignore=('API_KEY',))\ndef f(): return C().m()\n>>> f()",
    "an ignored global in a comprehension": "API_KEY = '«one|two»'\n@step(ignore=('API_KEY',))\ndef f(): return [len(API_KEY) for _ in range(2)]\n>>> f()",
    "two ignored names": "API_KEY = '«one|two»'\n@step(ignore=('API_KEY', 'client'))\ndef f(client): return len(API_KEY)\n>>> f(«1|2»)",
    "an ignored global of the step's own module": "import tool\n>>> tool.f()\n--- tool.py\nfrom nbdurable import step\nAPI_KEY = '«one|two»'\ndef g(): return len(API_KEY)\n@step(ignore=('API_KEY',))\ndef f(): return g()\n",
    "version= in place of the code": "@step(version=1)\ndef f(x):\n    y = «x + 0|x»\n    return y\n>>> f(1)",
    "key= in place of the arguments": "@step(key=lambda x: x % 10)\ndef f(x): return x % 10\n>>> f(«15|25»)",
    "more threads": "@step\ndef f(x): return x\n>>> f.map([1, 2, 3]«|, limit=1»).result()",
    "a handle's place": "@step\ndef f(x): return x\n>>> «a, b = f.go(1), f.go(2)|b, a = f.go(2), f.go(1)»\n>>> [a.result(), b.result()]",
}  # fmt: skip


def _models(how, before, after, **options):
    return [
        Row(f"{name}, {how}", text.replace("MODELS", f"'«{before}|{after}»'"), **options)
        for name, text in STARTS.items()
    ]


NOTICED = [
    *_models("one more before them", "abc", "zabc", runs=1),
    *(Row(name, text, runs=runs) for name, (text, runs) in TEXTS.items()),
]
HARMLESS = [
    *_models("reordered", "abc", "cba"),
    *_models("one fewer", "abc", "ac"),
    *(Row(name, text) for name, text in HARMLESS_TEXTS.items()),
]

"""Edits of notebook cells, in a real shell: rows of the other tables, and what only a cell has."""

from dataclasses import replace

from fingerprint_kit.editing import Row
from fingerprint_kit.rows import calls, classes, data, functions, modules, names

TEXTS = {
    "a function of another cell": "def g(): return «1|2»\n# %%\n@step\ndef f(): return g()\n>>> f()",
    "a constant of another cell": "K = «1|2»\n# %%\n@step\ndef f(): return K\n>>> f()",
    "a class of another cell": "class C:\n    def m(self): return «1|2»\n# %%\n@step\ndef f(): return C().m()\n>>> f()",
    "a function that a later cell defines anew": "def g(): return 0\n# %%\n@step\ndef f(): return g()\n# %%\ndef g(): return «1|2»\n>>> f()",
    "a constant that a later cell sets anew": "K = 0\n@step\ndef f(): return K\n# %%\nK = «1|2»\n>>> f()",
    "a method that a later cell patches": "class C:\n    def m(self): return 0\n@step\ndef f(): return C().m()\n# %%\nC.m = lambda self: «1|2»\n>>> f()",
    "a value of Out": "@step\ndef f(x): return x\n# %%\n«1|2»\n# %%\nlast = _\n>>> f(last)",
    "a step in the durable cell": ">>> f = step(lambda: «1|2»)\n>>> f()",
    "a helper of the durable cell": ">>> def g(): return «1|2»\n>>> def f(): return g()\n>>> go(f).result()",
    "a magic's SQL": "import duckdb, pandas as pd\nfrom IPython.core.magic import register_line_magic\n@register_line_magic\ndef sql(line): return int(duckdb.sql(line).fetchall()[0][0])\nsales = pd.DataFrame({'a': [1, 2, «3|5»]})\n# %%\ndef total():\n    x = %sql select sum(a) from sales\n    return x\n>>> go(total).result()",
    "a magic's SQL, put together": "import duckdb, pandas as pd\nfrom IPython.core.magic import register_line_magic\n@register_line_magic\ndef sql(line): return int(duckdb.sql(line).fetchall()[0][0])\nsales = pd.DataFrame({'a': [1, 2, «3|5»]})\n# %%\ndef total(column):\n    x = %sql select sum({column}) from sales\n    return x\n>>> go(total, 'a').result()",
    "SQL over a frame of another cell": "import duckdb, pandas as pd\n# %%\nsales = pd.DataFrame({'a': [1, 2, «3|5»]})\n# %%\n@step\ndef f(): return int(duckdb.sql('select sum(a) from sales').fetchall()[0][0])\n>>> f()",
    "a query with a limit of another cell": "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 3, 4]})\n# %%\nlimit = «2|3»\n# %%\n@step\ndef f(): return len(df.query('a > @limit'))\n>>> f()",
    "eval over a name of another cell": "rate = «1|2»\n# %%\n@step\ndef f(): return eval('rate + 1')\n>>> f()",
    "a registry that cells fill": "R = {}\n# %%\nR['a'] = lambda: «1|2»\n# %%\n@step\ndef f(): return R['a']()\n>>> f()",
    "plug-ins in cells of their own": "class Rule:\n    known = []\n    def __init_subclass__(cls): Rule.known.append(cls)\n# %%\nclass Up(Rule):\n    def apply(self, s): return s.«upper|lower»()\n# %%\n@step\ndef f(s):\n    for rule in Rule.known: s = rule().apply(s)\n    return s\n>>> f('Ab')",
    "a project module": "import tool\n# %%\n@step\ndef f(): return tool.g()\n>>> f()\n--- tool.py\ndef g(): return «1|2»\n",
    "a project module in a closure": "def make():\n    import tool\n    return lambda: tool.g()\ng = make()\n# %%\n@step\ndef f(): return g()\n>>> f()\n--- tool.py\ndef g(): return «1|2»\n",
    "autoreload of a module": "%load_ext autoreload\n%autoreload 2\nimport tool\n# %%\nimport pathlib\npathlib.Path('tool.py').write_text('def g(): return «1|2»  # now\\n')\n# %%\n@step\ndef f(): return tool.g()\n>>> f()\n--- tool.py\ndef g(): return 0\n",
}  # fmt: skip

RELOADED = """
%load_ext autoreload
%autoreload 2
import tool
# %%
import pathlib
«pathlib.Path('tool.py').write_text(TEXT)|»
# %%
@step
def f(): return tool.g(1)
>>> f()
--- tool.py
«def g(x): return 0|WANTED»
"""


def _reloaded(wanted):
    # Written after the import, as an editor does: later by its time, and of another length.
    return RELOADED.replace("TEXT", repr(wanted)).replace("WANTED", wanted.rstrip("\n"))


HARMLESS_TEXTS = {
    "autoreload, then a restart": _reloaded("def g(x):\n    return x + 1\n"),
    "autoreload of a function with a helper, then a restart": _reloaded("def h(x): return x * 3\ndef g(x):\n    return h(x)\n"),
    "autoreload of a class, then a restart": _reloaded("class C:\n    def m(self): return 5\ndef g(x):\n    return C().m()\n"),
    "a cell split in two": "def g(): return 1\n«|# %%\n»@step\ndef f(): return g()\n>>> f()",
    "cells in another order": "«def g(): return 1|def h(): return 2»\n# %%\n«def h(): return 2|def g(): return 1»\n# %%\n@step\ndef f(): return g()\n>>> f()",
    "a cell that is run twice": "def g(): return 1\n«|# %%\ndef g(): return 1\n»# %%\n@step\ndef f(): return g()\n>>> f()",
    "another cell": "@step\ndef f(): return 1\n# %%\nx = «1|2»\n>>> f()",
    "a magic in another cell": "@step\ndef f(): return 1\n# %%\n«|%precision 3»\n>>> f()",
    "a column beside a name of another cell": "import pandas as pd\nprice = «1|2»\n# %%\ndf = pd.DataFrame({'price': [5]})\n# %%\n@step\ndef f(): return int(df['price'].sum())\n>>> f()",
    "a prompt beside a name of another cell": "text = '«one|two»'\n# %%\n@step\ndef f(q): return 'Summarise this text: ' + q\n>>> f('x')",
    "a comment in a cell": "def g(): return 1  # «one|two»\n# %%\n@step\ndef f(): return g()\n>>> f()",
    "a docstring in a cell": "def g():\n    '''«one|two»'''\n    return 1\n# %%\n@step\ndef f(): return g()\n>>> f()",
    "a renamed local in a cell": "def g():\n    «a|b» = 1\n    return «a|b»\n# %%\n@step\ndef f(): return g()\n>>> f()",
    "a line before the durable cell's step": ">>> «|x = 5»\n>>> f = step(lambda: 1)\n>>> f()",
    "another key of CONFIG of another cell": "CONFIG = {'a': 1, 'b': «1|2»}\n# %%\n@step\ndef f(): return CONFIG['a']\n>>> f()",
}  # fmt: skip


def _in_cells(rows, each):
    """Take every so-manieth row that is one file, as cells."""
    plain = [row for row in rows if not row.alone and not row.told]
    return [replace(row, name=f"{row.name}, in cells", notebook=True) for row in plain[::each]]


NOTICED = [
    *(Row(name, text, notebook=True) for name, text in TEXTS.items()),
    *_in_cells(modules.NOTICED, 12),
    *_in_cells(classes.NOTICED, 12),
    *_in_cells(functions.NOTICED, 12),
    *_in_cells(data.NOTICED, 24),
    *_in_cells(names.NOTICED, 10),
    *_in_cells(calls.NOTICED, 10),
]
HARMLESS = [
    *(Row(name, text, notebook=True) for name, text in HARMLESS_TEXTS.items()),
    *_in_cells(classes.HARMLESS, 10),
    *_in_cells(functions.HARMLESS, 10),
    *_in_cells(data.HARMLESS, 15),
    *_in_cells(names.HARMLESS, 10),
    *_in_cells(calls.HARMLESS, 15),
]

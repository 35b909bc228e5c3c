"""Magics and shell lines in a cell, as IPython writes them in Python, and which are known.

Invariant: a magic that isn't on a list here may do anything.
"""

from __future__ import annotations

import ast
from typing import Final, NamedTuple

SETTINGS: Final = frozenset(
    {"matplotlib", "config", "precision", "load_ext", "reload_ext", "autoreload", "aimport",
     "colors", "xmode", "pprint", "autoawait"}
)  # fmt: skip
"""Line magics that set how the session behaves: they are executed in each pass."""

TIMING: Final = frozenset({"time", "timeit", "prun"})
"""Magics that run the code that they are given, and say how long it took."""

_LOOKING: Final = frozenset({"who", "whos", "pwd", "magic", "lsmagic", "history", "hist"})
_SHELL: Final = frozenset({"system", "getoutput"})


class Magic(NamedTuple):
    """A magic's call: ``code`` is the Python that it runs, None if it runs none.

    ``line`` and ``body`` are what stands behind it and below it.
    """

    name: str
    line: str
    body: str
    code: str | None
    whole_cell: bool


def magic_of(node: ast.AST) -> Magic | None:
    """Return the magic that an expression calls, or the ``!`` line that it runs."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=attribute),
            args=arguments,
        ):
            pass
        case _:
            return None
    if attribute in _SHELL:
        return Magic("!", "", "", None, whole_cell=False)
    texts = [one.value for one in arguments if isinstance(one, ast.Constant)]
    if len(texts) != len(arguments) or not all(isinstance(one, str) for one in texts):
        return None
    match attribute, [str(one) for one in texts]:
        case "run_line_magic", [name, line]:
            code = line if name in TIMING and not line.startswith("-") else None
            return Magic(name, line, "", code, whole_cell=False)
        case "run_cell_magic", [name, line, body]:
            code = body if name in TIMING or name == "capture" else None
            if name == "capture" and line.strip():
                code = None  # what it captures gets a name
            return Magic(name, line, body, code, whole_cell=True)
        case _:
            return None


def refused(magic: Magic) -> str:
    """Say why a cell with this magic can't be restored; nothing if it can."""
    if magic.name == "!":
        return "it runs a shell command with `!`"
    known = magic.name in SETTINGS or magic.name in _LOOKING or magic.code is not None
    if known:
        return ""
    mark = "%%" if magic.whole_cell else "%"
    return f"it uses the magic {mark}{magic.name}"

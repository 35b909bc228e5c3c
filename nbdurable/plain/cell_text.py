"""A cell's own text: what it reads, binds, defines, and why it can't be restored, if it can't.

Invariant: read from the syntax tree alone, so it is the same in every kernel, and remembered by
the text.
"""

from __future__ import annotations

import ast
import re
import textwrap
import types
from typing import Final, NamedTuple

from nbdurable.records import digest_of

from .always import Definitions, definitions_of
from .binding import Binding
from .magics import Magic, magic_of, refused

_ALL_NAMES: Final = frozenset(
    {"globals", "locals", "eval", "exec", "In", "Out", "input", "_", "__", "___", "_ih", "_oh",
     "_dh", "_i", "_ii", "_iii", "breakpoint", "exit", "quit", "__import__", "raw_input"}
)  # fmt: skip
_BARE_ONLY: Final = frozenset({"vars", "dir"})
_NUMBERED: Final = re.compile(r"_i?\d+\Z")

_CLOCKS: Final = frozenset(
    {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "time_ns",
     "process_time_ns", "thread_time", "default_timer", "now", "utcnow", "today", "uuid1", "uuid4",
     "urandom", "getrandom", "token_hex", "token_bytes", "token_urlsafe", "randbits", "randbelow",
     "SystemRandom", "gmtime", "localtime", "ctime", "strftime", "getpid", "gethostname"}
)  # fmt: skip
"""Names of functions that give something else at each call, though nothing has changed."""

_TIME: Final = frozenset({"time", "_time"})
_MOMENTS: Final = frozenset({"Timestamp", "to_datetime", "datetime64", "Period", "DatetimeIndex"})
"""Names of what makes a moment of a text, which may be ``now``."""


class CellText(NamedTuple):
    """What the text of a cell says.

    ``reads`` are names that it may read before it binds them, ``binds`` those that it may bind,
    ``rebinds`` those that it may bind otherwise than by a definition or an import, and
    ``definitions`` what is executed in each pass. ``code`` stands for the text, comments and
    layout aside. ``unkept`` says why the cell always runs; nothing if it may be restored.
    ``clocks`` are the names by which it reads a clock or draws from the system.
    """

    code: bytes
    reads: frozenset[str]
    binds: frozenset[str]
    deletes: frozenset[str]
    rebinds: frozenset[str]
    definitions: Definitions
    body: tuple[ast.stmt, ...]
    unkept: str
    clocks: frozenset[str]
    label: str

    @property
    def only_defines(self) -> bool:
        """Whether all of it is executed in each pass anyway."""
        return not self.definitions.rest


_known: dict[bytes, CellText] = {}
_MOST: Final = 2000


def cell_text(body: list[ast.stmt], *, quiet: bool = False) -> CellText:
    """Return what the statements of a cell say.

    Args:
        body: They; the tree is not changed.
        quiet: Whether a semicolon at the end keeps the last value from being shown.
    """
    dumped = ast.dump(ast.Module(body=body, type_ignores=[]))
    code = digest_of(b"plain cell", dumped.encode("utf-8", "surrogatepass"), b"%d" % quiet)
    found = _known.get(code)
    if found is None:
        if len(_known) >= _MOST:
            _known.clear()
        found = _known[code] = _read(code, body)
    return found


def _read(code: bytes, body: list[ast.stmt]) -> CellText:
    magics, fault = _magics_in(body)
    flat, broken = _with_code(body)
    binding = Binding()
    binding.run(flat)
    changing = Binding()
    changing.run([one for one in flat if not isinstance(one, (*_DEFS, *_IMPORTS))])
    definitions = definitions_of(flat, frozenset(changing.binds | changing.deletes))
    names = binding.reads - {"get_ipython"} if magics else binding.reads
    unkept = (
        fault
        or broken
        or next(filter(None, map(refused, magics)), "")
        or _refused_names(flat, names)
        or definitions.fault
    )
    return CellText(
        code,
        frozenset(names),
        frozenset(binding.binds),
        frozenset(binding.deletes),
        frozenset(changing.binds),
        definitions,
        tuple(flat),
        unkept,
        clocks_in(flat),
        _label(body),
    )


_DEFS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


def _magics_in(body: list[ast.stmt]) -> tuple[list[Magic], str]:
    """Return the magics that a cell calls, and what is wrong with another use of the shell."""
    found: list[Magic] = []
    inside: set[int] = set()
    for statement in body:
        for node in ast.walk(statement):
            if (magic := magic_of(node)) is not None:
                found.append(magic)
                inside.add(id(node.func.value.func))  # type: ignore[attr-defined]
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id == "get_ipython" and id(node) not in inside:
                return found, "it uses the shell itself, by `get_ipython`"
    return found, ""


def _with_code(body: list[ast.stmt]) -> tuple[list[ast.stmt], str]:
    """Return statements with the code that a magic runs in the magic's place."""
    found: list[ast.stmt] = []
    for node in body:
        magic = magic_of(node.value) if isinstance(node, ast.Expr) else None
        if magic is None or magic.code is None:
            found.append(node)
            continue
        try:
            inner = ast.parse(textwrap.dedent(magic.code)).body
        except (SyntaxError, ValueError):
            return body, f"what %{magic.name} runs can't be read"
        if any("%" in one or "!" in one for one in _beginnings(magic.code)):
            return body, f"there is another magic in what %{magic.name} runs"
        found += inner
    return found, ""


def _beginnings(text: str) -> list[str]:
    return [line.lstrip()[:1] for line in text.splitlines()]


def _refused_names(body: list[ast.stmt], names: set[str]) -> str:
    """Say which name lets a cell read, or do, what can't be told from its text."""
    for name in sorted(names):
        if name in _ALL_NAMES or _NUMBERED.match(name):
            return f"it uses `{name}`"
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[], keywords=[]) if name in _BARE_ONLY:
                    return f"it uses `{name}()`"
                case ast.Attribute(attr="user_ns"):
                    return "it uses the shell's namespace"
                case _:
                    pass
    return ""


def clock_called(name: str, value: object) -> str:
    """Return the clock, or the source of chance, that a name stands for; nothing if none."""
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", "")
    if module in {"time", "uuid", "secrets"} and (own in _CLOCKS or own == "time"):
        return name
    if isinstance(value, types.ModuleType) and own in {"time", "secrets"} and name != own:
        return name
    return ""


def clocks_in(body: list[ast.stmt] | tuple[ast.stmt, ...]) -> frozenset[str]:
    """Return the names in code by which it may read a clock, or draw from the system."""
    found: set[str] = set()
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.Attribute(attr=attribute, value=ast.Name(id=owner)) if (
                    attribute in _CLOCKS
                    or (owner in _TIME and attribute == "time")
                    or owner == "secrets"
                ):
                    found.add(f"{owner}.{attribute}")
                case ast.Attribute(attr=attribute) if attribute in _CLOCKS:
                    found.add(attribute)
                case ast.Name(id=name) if name in _CLOCKS:
                    found.add(name)
                case ast.Call(
                    func=ast.Attribute(attr=name) | ast.Name(id=name),
                    args=[ast.Constant(value="now" | "today" as text), *_],
                ) if name in _MOMENTS:
                    found.add(f"{name}({text!r})")
                case _:
                    pass
    return frozenset(found)


def _label(body: list[ast.stmt]) -> str:
    """Return the first line of what a cell does, for a person."""
    named = [one for one in body if not isinstance(one, ast.Import | ast.ImportFrom)] or body
    if not named:
        return "empty cell"
    node = named[0]
    magic = magic_of(node.value) if isinstance(node, ast.Expr) else None
    if magic is not None:
        mark = "" if magic.name == "!" else "%%" if magic.whole_cell else "%"
        return f"{mark}{magic.name} {magic.line}".strip()
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_LONGEST: Final = 60

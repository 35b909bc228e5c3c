"""Single edits of real code: what they may be, and where in a file they are.

An edit replaces a piece of one line: a constant, an operator, a comparison, a default,
the name of what is called. It is never made in a docstring, a bare string or an annotation, which a step that only calls
the function doesn't depend on.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "+"),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}

CALLEES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "str": "repr",
    "len": "bool", "tuple": "list", "list": "tuple", "sum": "max", "set": "list",
    "startswith": "endswith", "endswith": "startswith", "lower": "upper", "upper": "lower",
    "strip": "lstrip", "rstrip": "lstrip", "split": "rsplit", "partition": "rpartition",
    "append": "extend", "extend": "append", "find": "rfind", "keys": "values", "values": "keys",
    "match": "fullmatch", "search": "match", "ljust": "rjust", "isdigit": "isalpha",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One edit of one file: the bytes from `start` to `end` become `text`.

    `line` is where it is; `seen_at`, the line whose execution makes it count: that in
    which the function begins, for a default.
    """

    file: str
    line: int
    seen_at: int
    kind: str
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """Return the edited file."""
        return source[: self.start] + self.text.encode() + source[self.end :]


class _Places:
    """Where a syntax node's place is in a file's bytes."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def between(self, left: ast.expr, right: ast.expr, text: str) -> int | None:
        """Return where `text` stands between two operands, if it stands there once."""
        start, end = self.end(left), self.start(right)
        piece = self._source[start:end]
        if piece.count(text.encode()) != 1 or b"#" in piece:
            return None
        return start + piece.index(text.encode())


def mutants_of(file: str, source: bytes, lines: set[int], functions: set[int]) -> list[Mutant]:
    """Return the edits of a file that lie in executed lines, or in executed functions' defaults.

    Args:
        file: The file's name, for the report.
        source: Its bytes.
        lines: Numbers of the lines that were executed.
        functions: Numbers of the lines in which executed functions begin, decorators included.
    """
    tree = ast.parse(source)
    places = _Places(source)
    left_out = _unread(tree)
    found: list[Mutant] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one)]
            if first in functions:
                found += [
                    Mutant(file, default.lineno, first, "default", *edit)
                    for default in defaults
                    for edit in _constant(default, places)
                ]
        if isinstance(node, ast.expr) and node.lineno in lines and id(node) not in left_out:
            found += [
                Mutant(file, node.lineno, node.lineno, *edit) for edit in _edits(node, places)
            ]
    return list(dict.fromkeys(found))


def _unread(tree: ast.Module) -> set[int]:
    """Return what a step that only calls a function doesn't depend on."""
    left_out = set()
    for node in ast.walk(tree):
        roots: list[ast.AST | None] = []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node.value)
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots.append(node.returns)
            # Defaults are edits of a kind of their own.
            roots += [*node.args.defaults, *node.args.kw_defaults]
        if isinstance(node, ast.Compare):
            # `x is None` is no constant of the code's but a question.
            roots += [
                one
                for one in node.comparators
                if isinstance(one, ast.Constant) and one.value is None
            ]
        if isinstance(node, ast.JoinedStr):
            roots.append(node)  # constants in it have no place of their own before 3.12
        left_out |= {id(one) for root in roots if root for one in ast.walk(root)}
    return left_out


def _edits(node: ast.expr, places: _Places) -> Iterator[tuple[str, int, int, str]]:
    if isinstance(node, ast.Constant):
        for edit in _constant(node, places):
            yield "constant", *edit
    elif isinstance(node, ast.BinOp):
        yield from _operator("operator", node.left, node.op, node.right, places)
    elif isinstance(node, ast.Compare):
        for left, op, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            yield from _operator("comparison", left, op, right, places)
    elif isinstance(node, ast.BoolOp):
        yield from _operator("operator", node.values[0], node.op, node.values[1], places)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operator", places.start(node), places.start(node.operand), ""
    elif isinstance(node, ast.Call):
        yield from _callee(node.func, places)


def _constant(node: ast.expr, places: _Places) -> Iterator[tuple[int, int, str]]:
    if not isinstance(node, ast.Constant) or node.lineno != node.end_lineno:
        return
    value = node.value
    if isinstance(value, bool):
        yield places.start(node), places.end(node), repr(not value)
    elif isinstance(value, int | float):
        yield places.start(node), places.end(node), repr(value + 1)
    elif isinstance(value, str):
        yield places.start(node), places.end(node), repr(f"{value}x")
    elif value is None:
        yield places.start(node), places.end(node), "0"


def _operator(
    kind: str, left: ast.expr, op: ast.AST, right: ast.expr, places: _Places
) -> Iterator[tuple[str, int, int, str]]:
    if type(op) in OPERATORS:
        old, new = OPERATORS[type(op)]
        start = places.between(left, right, old)
        if start is not None:
            yield kind, start, start + len(old), new


def _callee(function: ast.expr, places: _Places) -> Iterator[tuple[str, int, int, str]]:
    name = getattr(function, "id", None) or getattr(function, "attr", "")
    if name in CALLEES:
        end = places.end(function)
        yield "callee", end - len(name), end, CALLEES[name]


def compiles(source: bytes) -> bool:
    """Tell whether an edited file is still one of Python's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True

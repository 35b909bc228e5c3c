"""The source of a durable cell: its header read, its body put inside the run.

Two steps, both pure. `mark` works on the text: line 1 becomes a string literal
on one line, so every line number stays, and whether the cell awaits is decided
by its body alone, as for a plain cell. `wrap` works on the tree: what follows
the literal moves into ``with`` (``async with`` if the body awaits at its top
level), the value of the last expression is kept until the run has ended, and
``from __future__`` imports stay in front. A wrapped cell reads ::

    from __future__ import annotations
    with DOOR.enter("quotes --new", "quote"):
        ...
        DOOR.keep(<last expression>)
    DOOR.kept()

where ``DOOR`` is an import of `nbdurable.notebook.durable_cell`: no name enters the namespace.

Invariant: no IPython here, and nothing here runs user code except the
expressions in a NAME.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, Final

from nbdurable.errors import UsageError

from .header import suggest_name

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = "%%durable"
STEP: Final = "%%step"


_HEADER = re.compile(r"(?P<magic>%%durable|%%step)(?:[ \t]+(?P<line>\S.*?))?\s*\Z")
_INNER_MAGIC = re.compile(r"%%(?P<name>[^\s?]+)(?:[ \t]+(?P<line>.*?))?\s*\Z")
_ASKED = re.compile(r"\A(\s*%durable[ \t]+[a-z]+)[ \t]*\?{1,2}(?=\s*\Z)")

# --- The header -----------------------------------------------------------------


# --- The text -------------------------------------------------------------------


def mark(lines: list[str]) -> list[str]:
    """Turn a ``%%durable`` or ``%%step`` line into a literal that is recognised in the tree.

    Blank lines and comments may come before it. A cell magic on the first line
    of the body (``%%time``) gets the rest, as if it stood in a cell of its own.
    Anything else is returned as it is, ``%%durable?`` included.

    Raises:
        UsageError: The line stands further down.
    """
    at = _first(lines, comments=True)
    if at is None or (header := _HEADER.match(lines[at])) is None:
        _refuse_later(lines, at or 0)
        return lines
    # The prefix u, which nobody writes, tells the literal from a docstring.
    literal = f"u{(header['magic'] + ' ' + (header['line'] or '')).rstrip()!r}\n"
    return [*lines[:at], literal, *_inner_magic(lines[at + 1 :])]


def _refuse_later(lines: list[str], first: int) -> None:
    """Refuse a ``%%durable`` line below code; in a string, or another magic's body, it is text."""
    if lines[first : first + 1] and lines[first].startswith("%%"):
        return
    for at, line in enumerate(lines):
        if line.startswith((MAGIC, STEP)) and (found := _HEADER.match(line)) is not None:
            before = "".join("pass\n" if one[:1] in {"%", "!"} else one for one in lines[:at])
            if _is_whole(before):
                magic = f"{found['magic']} {found['line'] or 'NAME'}"
                raise UsageError(
                    f"{magic} has to be the first line of its cell: put "
                    f"what stands before it into a cell of its own; an .ipy file is one cell: use "
                    f"a notebook, or `with nbdurable.workflow(...):`"
                )


def _is_whole(text: str) -> bool:
    """Tell whether a text is statements to its end, so that what follows is outside of strings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def asked(lines: list[str]) -> list[str]:
    """Turn ``%durable gc?`` into ``%durable gc --help``; IPython would look for a `gc`."""
    return [_ASKED.sub(r"\1 --help", line) for line in lines]


def header_of(source: str) -> str | None:
    """Return what follows ``%%durable`` in a cell's source; None if it is no such cell."""
    lines = source.splitlines()
    at = _first(lines, comments=True)
    found = None if at is None else _HEADER.match(lines[at])
    return None if found is None else found["line"] or ""


def headers_in(source: str) -> set[str]:
    """Return what follows ``%%durable`` in each line that begins so: another magic may be first."""
    found = (_HEADER.match(line) for line in source.splitlines())
    return {(one["line"] or "").strip() for one in found if one is not None}


def _first(lines: Sequence[str], *, comments: bool = False) -> int | None:
    """Find the first line that isn't blank, nor a comment if ``comments`` are passed over."""
    for at, line in enumerate(lines):
        said = line.strip()
        if said and not (comments and said.startswith("#")):
            return at
    return None


def _inner_magic(body: list[str]) -> list[str]:
    """Translate a cell magic at the top of ``body`` into its call, on its line."""
    at = _first(body)
    if at is None or (magic := _INNER_MAGIC.match(body[at])) is None:
        return body
    rest = "".join(body[at + 1 :])
    call = f"get_ipython().run_cell_magic({magic['name']!r}, {magic['line'] or ''!r}, {rest!r})\n"
    return [*body[:at], call]


# --- The tree -------------------------------------------------------------------


def wrap(
    tree: ast.Module, *, autoawait: bool = True, interactivity: str = "last_expr"
) -> ast.Module:
    """Put the body of a marked cell inside its run; leave any other tree alone.

    Args:
        tree: The parsed cell.
        autoawait: Whether the shell lets a cell await. Where it doesn't, the
            body's own ``await`` is the syntax error, as in a plain cell.
        interactivity: The shell's ``ast_node_interactivity``.
    """
    match tree.body:
        case [ast.Expr(value=ast.Constant(value=str(text), kind="u") as marker), *body] if (
            text == MAGIC or text.startswith(MAGIC + " ")
        ):
            header = text[len(MAGIC) :].strip()
        case _:
            return tree
    awaits = autoawait and awaits_at_top(body)
    suggestion = suggest_name(body)
    front: list[ast.stmt] = [
        s for s in body if isinstance(s, ast.ImportFrom) and s.module == "__future__"
    ]
    if len(body) > 1 and ast.get_docstring(ast.Module(body=body, type_ignores=[])) is not None:
        front.insert(0, body[0])
    inside = [s for s in body if s not in front]
    if interactivity == "last_expr_or_assign":
        inside += _shown_assignment(inside)
    if interactivity == "all":
        inside = [_passing("show", s) if isinstance(s, ast.Expr) else s for s in inside[:-1]] + (
            inside[-1:]
        )
    after: list[ast.stmt] = []
    if inside and isinstance(last := inside[-1], ast.Expr) and interactivity != "none":
        inside[-1] = _passing("keep", last)
        after = [ast.copy_location(ast.Expr(_door("kept", last)), last)]
    items = [ast.withitem(context_expr=_door("enter", marker, header, suggestion))]
    block = (ast.AsyncWith if awaits else ast.With)(items=items, body=inside or [ast.Pass()])
    ast.copy_location(block, marker)
    wrapped = ast.Module(body=[*front, block, *after], type_ignores=tree.type_ignores)
    return ast.fix_missing_locations(wrapped)


def awaits_at_top(body: Sequence[ast.stmt]) -> bool:
    """Tell whether a cell of these statements is a coroutine, as Python sees it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the shell compiles the cell again, and warns then
            code = compile(
                ast.Module(body=list(body), type_ignores=[]),
                "<cell>",
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE


def _door(function: str, where: ast.expr | ast.stmt, *arguments: str) -> ast.Call:
    """Call a function of `nbdurable.notebook.durable_cell` without a name in the namespace."""
    texts = ", ".join(repr(argument) for argument in arguments)
    source = (
        f"__import__('nbdurable.notebook.durable_cell', None, None, ('enter',)).{function}({texts})"
    )
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    for node in ast.walk(call):
        ast.copy_location(node, where)
    return call


def _passing(function: str, expression: ast.Expr) -> ast.Expr:
    """Pass the value of a statement through a function of the door."""
    call = _door(function, expression)
    call.args.append(expression.value)
    return ast.copy_location(ast.Expr(call), expression)


def _shown_assignment(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Return the expression that shows what the last statement assigned."""
    match body[-1:]:
        case (
            [ast.Assign(targets=[ast.Name(id=name)]) as last]
            | [ast.AugAssign(target=ast.Name(id=name)) as last]
            | [ast.AnnAssign(target=ast.Name(id=name)) as last]
        ):
            shown = ast.copy_location(ast.Expr(ast.Name(name, ast.Load())), last)
            return [ast.fix_missing_locations(shown)]
        case _:
            return []


# --- Its errors -----------------------------------------------------------------

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

where ``DOOR`` is an import of `nbdurable.magic`: no name enters the namespace.

Invariant: no IPython here, and nothing here runs user code except the
expressions in a NAME.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import DurableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

MAGIC: Final = "%%durable"

_FLAGS: Final = {
    "--new": "new",
    "--keep": "keep",
    "--tee": "tee",
    "--quiet": "quiet",
    "--strict": "strict",
}
_VALUED: Final = {"--max-age": "AGE", "--executor": "NAME", "--limit": "N"}

_HEADER = re.compile(r"%%durable(?:[ \t]+(?P<line>\S.*?))?\s*\Z")
_INNER_MAGIC = re.compile(r"%%(?P<name>[^\s?]+)(?:[ \t]+(?P<line>.*?))?\s*\Z")
_ASKED = re.compile(r"\A(\s*%durable[ \t]+[a-z]+)[ \t]*\?{1,2}(?=\s*\Z)")
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NAME = re.compile(r"[^\W_](?:[\w .:/-]*[\w.:/-])?\Z")
_NAME_LENGTH: Final = 120

# --- The header -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What line 1 asks for.

    ``name`` may still hold ``{expressions}``; ``max_age`` is in seconds;
    ``executor`` is a word, its meaning the session's.
    """

    name: str
    new: bool = False
    max_age: float | None = None
    keep: bool = False
    executor: str | None = None
    limit: int | None = None
    tee: bool = False
    quiet: bool = False
    strict: bool = False


def parse_header(line: str, suggestion: str = "my-workflow") -> CellOptions:
    """Read what follows ``%%durable``.

    Args:
        line: The rest of line 1.
        suggestion: A name for the cell, for the message when there is none.

    Raises:
        UsageError: One line that says what is wrong and what to write.
    """
    names: list[str] = []
    found: dict[str, bool | float | int | str] = {}
    words = iter(split(line))
    for word in words:
        if not word.startswith("--"):
            names.append(word)
            continue
        option, equals, value = word.partition("=")
        if option in _FLAGS and not equals:
            found[_FLAGS[option]] = True
        elif option in _VALUED:
            value = value if equals else next(words, "")
            found[option[2:].replace("-", "_")] = _value(option, value)
        else:
            raise UsageError(_unknown_option(option, flag=option in _FLAGS))
    if not names:
        raise UsageError(
            f"%%durable needs a name, under which its steps are found again: "
            f"try `%%durable {suggestion}`"
        )
    if len(names) > 1:
        joined = " ".join(names)
        raise UsageError(
            f"%%durable takes one name and got {len(names)}: "
            f'try `%%durable {"-".join(names)}`, or `%%durable "{joined}"`'
        )
    if "{" not in names[0]:
        check_name(names[0])
    return CellOptions(names[0], **found)  # type: ignore[arg-type]


def parse_age(text: str, option: str = "--max-age") -> float:
    """Turn ``90``, ``90s``, ``30m``, ``12h``, ``7d`` or ``1h30m`` into seconds.

    Raises:
        UsageError: The text is no age.
    """
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    if not text or _AGE.sub("", text):
        raise UsageError(
            f"{option} {text}: not an age; write seconds, or a number with s, m, h, d or w: "
            f"90, 30m, 12h, 7d, 1h30m"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _AGE.findall(text))


def check_name(name: str) -> str:
    """Give ``name`` back if it may name a run.

    Raises:
        UsageError: It may not; the message says what is allowed.
    """
    if len(name) > _NAME_LENGTH or not _NAME.match(name):
        shown = name if len(name) <= _NAME_LENGTH else name[:40] + "..."
        raise UsageError(
            f"%%durable {shown!r}: a name starts with a letter or a digit and goes on with "
            f"letters, digits, - _ . : / and, in quotes, spaces: {_NAME_LENGTH} characters at most"
        )
    return name


def expand_name(template: str, namespace: Mapping[str, object]) -> str:
    """Evaluate the ``{expressions}`` of a NAME, as an f-string does.

    Raises:
        UsageError: An expression fails, or what comes out is no name.
    """
    if "{" not in template and "}" not in template:
        return check_name(template)
    quote = '"""' if "'" in template else "'''"
    try:
        code = compile(f"f{quote}{template}{quote}", "<name>", "eval")
        name = str(eval(code, dict(namespace)))  # noqa: S307 - the user's own expression
    except Exception as error:  # noqa: BLE001 - the user's expression raises what it likes
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise UsageError(
            f"%%durable {template}: the name could not be made: {type(error).__name__}: {reason}"
        ) from None
    return check_name(name)


def suggest_name(body: Sequence[ast.stmt]) -> str:
    """Derive a name from what a cell defines: a step, a function, a variable."""
    functions = [s for s in body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]
    steps = [f for f in functions if any("step" in ast.unparse(d) for d in f.decorator_list)]
    words = [f.name for f in steps + functions]
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=word), *_]) | ast.ClassDef(name=word):
                words.append(word)
            case ast.Expr(value=ast.Call(func=ast.Name(id=word))) if word != "print":
                words.append(word)
    word = next((w for w in words if w.strip("_")), "my-workflow")
    return word.strip("_").replace("_", "-")


def split(line: str) -> Iterator[str]:
    """Yield the words of a magic's line; quotes and braces hold spaces together.

    Raises:
        UsageError: A quote or a brace is never closed.
    """
    word, started, depth, quote = "", False, 0, ""
    for letter in line:
        if quote:
            if letter == quote:
                quote = ""
                word += letter if depth else ""
            else:
                word += letter
        elif letter in "'\"":
            quote, started = letter, True
            word += letter if depth else ""
        elif letter.isspace() and not depth:
            if started:
                yield word
            word, started = "", False
        elif letter == "#" and not started:
            return
        else:
            depth += (letter == "{") - (letter == "}" and depth > 0)
            word, started = word + letter, True
    if quote or depth:
        raise UsageError(f"{line}: {quote or '{'} is never closed")
    if started:
        yield word


def _value(option: str, text: str) -> float | int | str:
    """Read the value of ``option``."""
    if not text or text.startswith("--"):
        raise UsageError(f"{option} needs a value: {option} {_VALUED[option]}")
    if option == "--max-age":
        return parse_age(text)
    if option == "--limit":
        if not text.isdecimal() or int(text) == 0:
            raise UsageError(f"--limit {text}: a number of concurrent steps, 1 or more")
        return int(text)
    return text


def _unknown_option(option: str, *, flag: bool) -> str:
    """Name the nearest option that exists."""
    if flag:
        return f"{option} takes no value"
    known = [*_FLAGS, *_VALUED]
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    if near:
        return f"%%durable has no option {option}: did you mean {near[0]}?"
    return f"%%durable has no option {option}; it has {' '.join(sorted(known))}"


# --- The text -------------------------------------------------------------------


def mark(lines: list[str]) -> list[str]:
    """Turn a ``%%durable`` line into a literal that `wrap` recognises.

    Blank lines and comments may come before it. A cell magic on the first line
    of the body (``%%time``) gets the rest, as if it stood in a cell of its own.
    Anything else is returned as it is, ``%%durable?`` included.
    """
    at = _first(lines, comments=True)
    if at is None or (header := _HEADER.match(lines[at])) is None:
        return lines
    # The prefix u, which nobody writes, tells the literal from a docstring.
    literal = f"u{(MAGIC + ' ' + (header['line'] or '')).rstrip()!r}\n"
    return [*lines[:at], literal, *_inner_magic(lines[at + 1 :])]


def asked(lines: list[str]) -> list[str]:
    """Turn ``%durable gc?`` into ``%durable gc --help``; IPython would look for a `gc`."""
    return [_ASKED.sub(r"\1 --help", line) for line in lines]


def header_of(source: str) -> str | None:
    """Give what follows ``%%durable`` in a cell's source; None if it is no such cell."""
    lines = source.splitlines()
    at = _first(lines, comments=True)
    found = None if at is None else _HEADER.match(lines[at])
    return None if found is None else found["line"] or ""


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
    """Call a function of `nbdurable.magic` without a name in the namespace."""
    texts = ", ".join(repr(argument) for argument in arguments)
    source = f"__import__('nbdurable.magic', None, None, ('enter',)).{function}({texts})"
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
    """Give the expression that shows what the last statement assigned."""
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

_PACKAGE: Final = str(Path(__file__).parent)


def prune(error: BaseException) -> None:
    """Take nbdurable's frames out of an error's traceback, and of those it hangs on.

    What is left reads as if the cell had called its functions itself. A frame
    of ours stays where an error that is not ours ends in it: that is a defect,
    and hiding it would help nobody.
    """
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = _pruned(current)
        pending += [e for e in (current.__cause__, current.__context__) if e is not None]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions


def _pruned(error: BaseException) -> TracebackType | None:
    """Relink the traceback around the frames that are nbdurable's."""
    frames: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    others = [at for at, frame in enumerate(frames) if not _is_ours(frame)]
    if not others:
        return error.__traceback__
    # Ours alone are a step's error or an interrupted wait; anything else is a defect.
    defect = isinstance(error, Exception) and not isinstance(error, DurableError)
    kept = [
        frame
        for at, frame in enumerate(frames)
        if not _is_ours(frame) or (defect and at > others[-1] and not _is_hidden(frame))
    ]
    for frame, following in zip(kept, [*kept[1:], None], strict=True):
        frame.tb_next = following
    return kept[0]


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _is_hidden(entry: TracebackType) -> bool:
    return bool(entry.tb_frame.f_locals.get("__tracebackhide__"))

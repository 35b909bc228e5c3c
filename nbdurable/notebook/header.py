"""The first line of a durable cell: the name and options of `%%durable`.

Invariant: what can't be meant is refused with what can.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nbdurable.errors import UsageError
from nbdurable.steps.options import EXECUTORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_FLAGS: Final = {
    "--new": "new",
    "--keep": "keep",
    "--tee": "tee",
    "--quiet": "quiet",
    "--strict": "strict",
}


_VALUED: Final = {"--max-age": "AGE", "--limit": "N", "--executor": "E"}


_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


_NAME = re.compile(r"[^\W_](?:[\w .:/-]*[\w.:/-])?\Z")


_NAME_LENGTH: Final = 120

AUTO: Final = "auto"
"""The name of the run of plain cells."""


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What line 1 asks for.

    ``name`` may still hold ``{expressions}``; ``max_age`` is in seconds.
    """

    name: str
    new: bool = False
    max_age: float | None = None
    keep: bool = False
    limit: int | None = None
    executor: str | None = None
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
    if names[0] == AUTO:
        raise UsageError(
            f"%%durable {AUTO}: that is the run of `%durable auto`; give the cell another name"
        )
    if "{" not in names[0]:
        check_name(names[0])
    return CellOptions(names[0], **found)  # type: ignore[arg-type]


def parse_step(line: str, suggestion: str) -> str:
    """Read what follows ``%%step``: a name, which may hold ``{expressions}``.

    Args:
        line: The rest of line 1.
        suggestion: A name for the cell, for the message when there is none.

    Raises:
        UsageError: One line that says what is wrong and what to write.
    """
    words = list(split(line))
    options = [word for word in words if word.startswith("--")]
    if options:
        raise UsageError(f"%%step has no option {options[0]}: write `%%step NAME`")
    if not words:
        raise UsageError(
            f"%%step needs a name, under which the cell is found again: try `%%step {suggestion}`"
        )
    if len(words) > 1:
        raise UsageError(
            f"%%step takes one name and got {len(words)}: try `%%step {'-'.join(words)}`, or "
            f'`%%step "{" ".join(words)}"`'
        )
    if words[0] == AUTO:
        raise UsageError(
            f"%%step {AUTO}: that is the run of `%durable auto`; give the cell another name"
        )
    if "{" not in words[0]:
        check_name(words[0], "%%step")
    return words[0]


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


def check_name(name: str, magic: str = "%%durable") -> str:
    """Return ``name`` back if it may name a run.

    Raises:
        UsageError: It may not; the message says what is allowed.
    """
    if len(name) > _NAME_LENGTH or not _NAME.match(name):
        shown = name if len(name) <= _NAME_LENGTH else name[:40] + "..."
        raise UsageError(
            f"{magic} {shown!r}: a name starts with a letter or a digit and goes on with "
            f"letters, digits, - _ . : / and, in quotes, spaces: {_NAME_LENGTH} characters at most"
        )
    return name


def expand_name(template: str, namespace: Mapping[str, object], magic: str = "%%durable") -> str:
    """Evaluate the ``{expressions}`` of a NAME, as an f-string does.

    Raises:
        UsageError: An expression fails, or what comes out is no name.
    """
    if "{" not in template and "}" not in template:
        return check_name(template, magic)
    quote = '"""' if "'" in template else "'''"
    try:
        code = compile(f"f{quote}{template}{quote}", "<name>", "eval")
        name = str(eval(code, dict(namespace)))  # noqa: S307 - the user's own expression
    except Exception as error:  # noqa: BLE001 - the user's expression raises what it likes
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise UsageError(
            f"{magic} {template}: the name could not be made: {type(error).__name__}: {reason}"
        ) from None
    return check_name(name, magic)


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
    if text not in EXECUTORS:
        raise UsageError(
            f"--executor {text}: give {', '.join(EXECUTORS)}; an executor of your own is given by "
            f"nbdurable.configure(executor=...)"
        )
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

"""Short labels for calls: a name and what it was given, safe to take and to show.

Invariant: runs no code of a user's class (a repr or an attribute could block, fetch
or be enormous), masks what looks like a secret by its parameter's name or by its own
shape, and gives one line that any terminal, store or page can hold.
"""

from __future__ import annotations

import functools
import itertools
import re
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|key|token|secret|passw(or)?d|pwd|auth|credentials?|bearer)($|_)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"(sk|pk|rk|hf|gh[oprsu]|github_pat|glpat|xox[abp])[-_][-_A-Za-z0-9.]{12}"
    r"|AKIA[A-Z0-9]{12}"
    r"|eyJ[-_A-Za-z0-9.]{12}"
    r"|(Bearer|Basic) \S"
    r"|[A-Za-z][-+.A-Za-z0-9]*://[^/@\s]*:[^/@\s]+@"  # a password in an address
)
_MASK = "***"
_SHORT = 24
_LONG = 300
_SHOWN_ITEMS = 12
_SHOWN_ARGUMENTS = 4
_SHOWN_BITS = 64
_LOOKED_AT = 256
_FUNCTIONS = frozenset({types.FunctionType, types.BuiltinFunctionType})
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
_SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow"})
"""Whose own classes tell their shape without computing anything."""

_name_of_class = type.__dict__["__name__"].__get__  # a metaclass may have a `__name__` of its own


def label_of(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any], parameters: Sequence[str] = ()
) -> str:
    """Return ``name(short arguments)`` in one line."""
    parts = [
        _short(value, parameters[at] if at < len(parameters) else "")
        for at, value in enumerate(arguments[:_SHOWN_ARGUMENTS])
    ]
    parts += [
        f"{key}={_short(value, key)}"
        for key, value in list(keywords.items())[: _SHOWN_ARGUMENTS - len(parts)]
    ]
    if len(arguments) + len(keywords) > len(parts):
        parts.append("...")
    return printable(f"{name}({', '.join(parts)})")


def printable(text: str) -> str:
    """Return `text` in one line: line ends, control characters and lone surrogates escaped.

    The store holds UTF-8, which has no surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def described(value: Any, parameter: str = "") -> str:
    """Return a value in a line, longer than in a label and as safely."""
    if parameter and _is_secret(parameter):
        return _MASK
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        parts = [_item(one) for one in itertools.islice(value, _SHOWN_ITEMS)]
        more = [f"... {len(value) - len(parts):,} more"] if len(value) > len(parts) else []
        begin, end = "[]" if kind is list else "()" if kind is tuple else "{}"
        return printable(_cut(f"{begin}{', '.join(parts + more)}{end}"))
    if kind is dict:
        shown = itertools.islice(value.items(), _SHOWN_ITEMS)
        parts = [
            f"{_item(key)}: {_short(one, key if type(key) is str else '')}" for key, one in shown
        ]
        more = [f"... {len(value) - len(parts):,} more"] if len(value) > len(parts) else []
        return printable(_cut("{" + ", ".join(parts + more) + "}"))
    return printable(_item(value))


@functools.lru_cache(maxsize=1024)
def _is_secret(parameter: str) -> bool:
    return _SECRET_NAME.search(parameter) is not None


def _item(value: Any) -> str:
    kind = type(value)
    if kind in _PLAIN:
        return _plain(value, _LONG)
    if kind.__module__.partition(".")[0] in _SHAPED:
        shape = getattr(value, "shape", None)
        if type(shape) is tuple and all(type(one) is int for one in shape):
            element = getattr(value, "dtype", None)
            said = f" of {element}" if element is not None else ""
            return f"<{_name_of_class(kind)} {' x '.join(map(str, shape)) or 'scalar'}{said}>"
    return _short(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _short(value: Any, parameter: str = "") -> str:
    if parameter and _is_secret(parameter):
        return _MASK
    kind = type(value)
    if kind in _PLAIN:
        return _plain(value)
    if kind in (list, tuple, set, frozenset, dict):
        return _collection(value)
    if hasattr(kind, "__nbdurable_identity__"):
        return str(value.name)
    return _named(value)


def _plain(value: Any, longest: int = _SHORT) -> str:
    if isinstance(value, int):
        bits = value.bit_length()
        return repr(value) if bits <= _SHOWN_BITS else f"<int of {bits} bits>"
    if not isinstance(value, str | bytes):
        return repr(value)
    start = value[:_LOOKED_AT]
    if _SECRET_VALUE.match(start if isinstance(start, str) else start.decode("latin-1")):
        return _MASK
    if len(value) <= longest:
        return repr(value)
    cut = repr(value[: longest - 3])
    return f"{cut[:-1]}...{cut[-1]}"


def _collection(value: Any) -> str:
    kind = type(value)
    if kind is list or kind is tuple:
        shown = value[:_SHOWN_ARGUMENTS]
        if all(type(one) in _PLAIN for one in shown):
            parts = [_plain(one) for one in shown]
            if len(value) > len(shown):
                parts.append("...")
            text = ", ".join(parts)
            text = f"[{text}]" if kind is list else f"({text}{',' * (len(value) == 1)})"
            if len(text) <= _SHORT:
                return text
    return f"<{kind.__name__} of {len(value)}>"


def _named(value: Any) -> str:
    """Return the name of a function, class or step, else the name of the value's class."""
    kind = type(value)
    if issubclass(kind, type):
        return str(_name_of_class(value))
    function = value.__func__ if kind is types.MethodType else value
    if type(function) in _FUNCTIONS or hasattr(type(function), "__nbdurable_step__"):
        return str(function.__name__)
    return f"<{_name_of_class(kind)}>"


def duration(seconds: float) -> str:
    """Say a duration in at most two units: ``40 ms``, ``4.2 s``, ``3 min 05 s``."""
    if seconds < 0.0995:  # noqa: PLR2004 - from here on the tenth of a second shows
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, word, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {word} {whole % size // small:02d} {below}"
    return f"{whole // 60} min {whole % 60:02d} s"


_UNITS: Final = ((86_400 * 2, 86_400, "days"), (3_600 * 2, 3_600, "h"), (120, 60, "min"))


def share(done: float, total: float) -> str:
    """Write how far something is, as ``37 of 90``; a total of 0 is not known."""
    said = _number(done)
    return f"{said} of {_number(total)}" if total else said


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def ago(seconds: float) -> str:
    """Say how long ago something was, in one unit: ``26 h ago``."""
    for least, unit, word in _UNITS:
        if seconds >= least:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def left(seconds: float) -> str:
    """Say how long something may still take, no more exactly than it can be known."""
    for least, step in ((3600, 600), (600, 60), (60, 15), (10, 5), (0, 1)):
        if seconds >= least:
            rounded = max(step, round(seconds / step) * step)
            return f"~{duration(rounded).removesuffix(' 00 s').replace('.0 s', ' s')} left"
    return ""

"""Short labels for calls: a name and what it was given, safe to take and to show.

Invariant: runs no code of a user's class (a repr or an attribute could block, fetch
or be enormous), masks what looks like a secret by its parameter's name or by its own
shape, and gives one line that any terminal, store or page can hold.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import re
import sys
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "authorization", "authtoken", "bearer", "cookie", "cookies", "credential",
     "credentials", "dsn", "jwt", "passphrase", "passwd", "password", "passwords", "pwd", "secret",
     "secrets"}
)  # fmt: skip
_OPENING = frozenset({"key", "keys", "token", "tokens"})
_OPENS_WHAT = frozenset(
    {"access", "account", "api", "bot", "client", "csrf", "encryption", "id", "license", "private",
     "refresh", "session", "shared", "signing", "ssh"}
)  # fmt: skip
"""Before a word of `_OPENING`: an `api_key` is secret, the `key` of a dictionary is not."""
_RANDOM = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[-_+/=.A-Za-z0-9]{20,}")
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
_MOST_ITEMS = 6
_LONGEST_DICT = 48
_PLACE = re.compile(r"(/|\.{1,2}/|~/|[A-Za-z]:[\\/]|[a-z][a-z0-9+.-]*://)?[^\s'\"]*[/\\][^\s'\"]*")
_LOOKED_AT = 256
_FUNCTIONS = frozenset({types.FunctionType, types.BuiltinFunctionType})
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
_SHAPED = frozenset({"numpy", "pandas", "polars", "pyarrow", "torch"})
"""Whose own classes tell their shape without computing anything."""

# A metaclass may have a `__name__` of its own.
_name_of_class = type.__dict__["__name__"].__get__
_module_of_class = type.__dict__["__module__"].__get__


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


def telling(keywords: Mapping[str, Any], same: Collection[str]) -> Mapping[str, Any]:
    """Return the named arguments that tell one call of a map from calls elsewhere.

    What is the ``same`` for all of the map does so only if it can be read in a label.
    """
    return {key: one for key, one in keywords.items() if key not in same or type(one) in _PLAIN}


def printable(text: str) -> str:
    """Return `text` in one line: line ends, control characters and lone surrogates escaped.

    The store holds UTF-8, which has no surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


_COMMANDING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What a terminal obeys, or what turns the letters behind it round; ends of lines aside."""


def harmless(text: str) -> str:
    """Return a text of several lines that no terminal obeys and that reads as it is stored."""
    return _COMMANDING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def described(value: Any, parameter: str = "") -> str:
    """Return a value in a line, longer than in a label and as safely."""
    if parameter and _is_secret(parameter, value):
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


def _is_secret(parameter: str, value: Any) -> bool:
    """Tell whether a value is not to be shown, by its name; of a mere `key`, by its look, too."""
    named = _names_secret(parameter)
    if named is None:
        return type(value) is str and _RANDOM.fullmatch(value[:_LOOKED_AT]) is not None
    return named


@functools.lru_cache(maxsize=1024)
def _names_secret(parameter: str) -> bool | None:
    """Tell whether a name is a secret's; None where only the value can tell."""
    words = [word.lower() for word in _WORDS.findall(parameter)]
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    pairs = itertools.pairwise(words)
    if any(word in _OPENING and before in _OPENS_WHAT for before, word in pairs):
        return True
    return False if _OPENING.isdisjoint(words) else None


def names_secret(parameter: str) -> bool:
    """Tell whether a parameter is one whose value is masked by its name."""
    return _names_secret(parameter) is True


def _item(value: Any) -> str:
    return _plain(value, _LONG) if type(value) in _PLAIN else _short(value, longest=_LONG)


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def _short(value: Any, parameter: str = "", longest: int = _SHORT) -> str:
    if parameter and _is_secret(parameter, value):
        return _MASK
    kind = type(value)
    if kind in _PLAIN:
        return _plain(value)
    if kind in (list, tuple, set, frozenset, dict):
        return _collection(value)
    if hasattr(kind, "__nbdurable_identity__"):
        return str(value.name)
    return _of_library(value, longest) or _of_fields(value) or _named(value)


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
    if isinstance(value, str) and len(value) <= _LOOKED_AT and _PLACE.fullmatch(value):
        return repr(_elided(value, longest))
    cut = repr(value[: longest - 3])
    return f"{cut[:-1]}...{cut[-1]}"


def _elided(place: str, longest: int) -> str:
    """Return a path or an address without what is in its middle: its end tells it apart.

    What is asked for with an address is not shown: there can be a secret.
    """
    if "://" in place and "?" in place:
        place = f"{place.partition('?')[0]}?..."
    if len(place) <= longest:
        return place
    scheme = place[: place.index("://") + 3] if "://" in place[:12] else ""
    parts = place[len(scheme) :].replace("\\", "/").split("/")
    kept = parts.pop()
    while parts and len(scheme) + len(kept) + len(parts[-1]) + 3 <= longest:
        kept = f"{parts.pop()}/{kept}"
    if len(kept) > longest:
        kept = f"{kept[: longest // 2 - 2]}...{kept[-(longest // 2 - 1) :]}"
    return f"{scheme}…/{kept}"


def _collection(value: Any) -> str:
    """Return a few small values as they are, of more their number."""
    kind = type(value)
    if len(value) <= _MOST_ITEMS or kind in {list, tuple}:
        if kind is dict:
            parts = [f"{_plain_key(key)}: {_inside(one, key)}" for key, one in value.items()]
        else:
            parts = [_inside(one) for one in itertools.islice(value, _SHOWN_ARGUMENTS)]
            if kind in {set, frozenset}:
                parts.sort()  # it has no order that another process would give it
        if all(parts) and not any(part.endswith(": ") or part.startswith(": ") for part in parts):
            if kind is not dict and len(value) > len(parts):
                parts.append("...")
            text = ", ".join(parts)
            if len(text) <= (_LONGEST_DICT if kind is dict else _SHORT):
                return _bracketed(kind, text, len(value))
    return f"<{kind.__name__} of {len(value)}>"


def _bracketed(kind: type, text: str, count: int) -> str:
    if kind is tuple:
        return f"({text}{',' * (count == 1)})"
    if kind is list:
        return f"[{text}]"
    if kind is dict or count:
        return f"{{{text}}}" if kind is not frozenset else f"frozenset({{{text}}})"
    return f"{kind.__name__}()"


def _plain_key(key: Any) -> str:
    return _plain(key) if type(key) in _PLAIN else ""


def _inside(value: Any, key: Any = "") -> str:
    """Return a value inside another, if it is small; else nothing."""
    if type(key) is str and key and _is_secret(key, value):
        return _MASK
    if type(value) in _PLAIN:
        return _plain(value)
    if type(value) in {list, tuple, set, frozenset, dict}:
        return "[]" if type(value) is list and not value else ""
    return _of_library(value, _SHORT)


def _of_library(value: Any, longest: int) -> str:
    """Return what an instance of a known library's own class is; of any other, nothing."""
    kind = type(value)
    module = _module_of_class(kind)
    root = module.partition(".")[0] if type(module) is str else ""
    if root in _SAID:
        known = getattr(sys.modules.get(root), _name_of_class(kind), None) is kind
        if not known or issubclass(kind, type):
            return ""
        zone = type(getattr(value, "tzinfo", None)) if root == "datetime" else type(None)
        if zone.__module__ not in {"builtins", "datetime", "zoneinfo"}:
            value = value.replace(tzinfo=None)  # a zone of the user's has code
        return _elided(str(value), max(longest, _LONGEST_DICT))
    if root not in _SHAPED or issubclass(kind, type):
        return ""
    if kind.__name__ == "Timestamp":
        return str(value.isoformat())
    shape: Any = getattr(value, "shape", None)
    if not issubclass(type(shape), tuple) or not all(type(one) is int for one in shape):
        return ""
    if not shape:
        item = value.item() if root == "numpy" else None
        return _plain(item) if type(item) in _PLAIN else ""
    element = getattr(value, "dtype", None) if longest == _LONG else None
    said = f" of {element}" if element is not None else ""
    return f"<{_name_of_class(kind)} {' x '.join(map(str, shape))}{said}>"


_SAID: Final = frozenset({"datetime", "decimal", "fractions", "pathlib", "uuid", "zoneinfo"})
"""Modules of the standard library whose own instances say what they are."""


def _held_by(kind: Any) -> Any:
    """Return what a class holds itself, nobody's metaclass asked."""
    return type.__dict__["__dict__"].__get__(kind)


def _of_fields(value: Any) -> str:
    """Return a member of an enum, or a record by its fields: a dataclass, a model, a named tuple.

    Looked at is what the instance holds itself: no attribute is asked for.
    """
    kind = type(value)
    if issubclass(kind, type):
        return ""
    state = _state_of(value)
    if issubclass(type(kind), enum.EnumMeta):
        name = state.get("_name_")
        return f"{_name_of_class(kind)}.{name}" if type(name) is str else ""
    held = _held_by(kind)
    names = held.get("_fields")
    if issubclass(kind, tuple) and type(names) is tuple and all(type(n) is str for n in names):
        pairs: list[tuple[str, Any]] = [*zip(names, tuple.__iter__(value), strict=False)]
    else:
        names = held.get("__dataclass_fields__", held.get("__pydantic_fields__"))
        if type(names) is not dict:
            return ""
        pairs = [(name, state[name]) for name in names if name in state]
    shown = [f"{name}={_inside(one, name) or '...'}" for name, one in pairs[:_SHOWN_ARGUMENTS]]
    text = ", ".join(shown + ["..."] * (len(pairs) > len(shown)))
    return f"{_name_of_class(kind)}({text})" if shown and len(text) <= _LONGEST_DICT else ""


def _state_of(value: Any) -> dict[str, Any]:
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return state if type(state) is dict else {}


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
    if not math.isfinite(seconds):
        return "an unknown time"  # as a store says it that somebody has changed
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
    if not math.isfinite(value):
        return "?"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def ago(seconds: float) -> str:
    """Say how long ago something was, in one unit: ``26 h ago``."""
    if not math.isfinite(seconds):
        return "at an unknown time"
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

"""Short labels for calls: a name and what it was given, safe to take and to show.

Invariant: never calls a user's repr (it could block, fetch or be enormous), and
masks what looks like a secret by its parameter's name or by its own shape.
"""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|key|token|secret|passw(or)?d|pwd|auth|credentials?|bearer)($|_)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"^(sk|pk|rk|ghp|gho|github_pat|xox[abp]|hf|glpat|AKIA|eyJ)[-_A-Za-z0-9.]{12,}$"
)
_MASK = "***"
_SHORT = 24
_SHOWN_ARGUMENTS = 4


def label_of(
    name: str, arguments: Sequence[Any], keywords: Mapping[str, Any], parameters: Sequence[str] = ()
) -> str:
    """Give ``name(short arguments)`` in one line."""
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
    return f"{name}({', '.join(parts)})"


def _short(value: Any, parameter: str) -> str:
    kind = type(value)
    if kind is int or kind is float or kind is bool or value is None:
        return _MASK if parameter and _SECRET_NAME.search(parameter) else repr(value)
    if parameter and _SECRET_NAME.search(parameter):
        return _MASK
    if kind is str or kind is bytes:
        return _text(value)
    if kind in (list, tuple, set, frozenset, dict):
        return _collection(value)
    given = getattr(kind, "__nbdurable_identity__", None)
    if given is not None:
        return str(value.name)
    if isinstance(value, type) or callable(value):
        return str(getattr(value, "__name__", kind.__name__))
    return f"<{kind.__name__}>"


def _text(value: str | bytes) -> str:
    if isinstance(value, str) and _SECRET_VALUE.match(value):
        return _MASK
    return repr(value) if len(value) <= _SHORT else repr(value[: _SHORT - 3])[:-1] + "...'"


def _collection(value: Any) -> str:
    plain = type(value) in (list, tuple) and all(
        type(one) in (int, float, bool, str, type(None)) for one in value[:_SHOWN_ARGUMENTS]
    )
    if plain and not any(isinstance(one, str) and _SECRET_VALUE.match(one) for one in value[:4]):
        text = reprlib.repr(value[: _SHOWN_ARGUMENTS + 1])
        if len(text) <= _SHORT:
            return text
    return f"<{type(value).__name__} of {len(value)}>"

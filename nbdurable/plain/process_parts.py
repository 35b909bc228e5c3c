"""Parts of the process's state that are Python's own: paths, warnings, logging, decimals, random.

Invariant: each is read by reference to nothing that changes later.
"""

from __future__ import annotations

import logging
import os
import random
import re
import sys
import warnings
from typing import Any, Final

from nbdurable.labels import names_secret

from .table import MISSING, Edit, Part, edited

_SESSION = re.compile(
    r"_|PWD|OLDPWD|SHLVL|LINES|COLUMNS|WINDOWID|JPY_.*|SSH_.*|XDG_.*|DBUS_.*|PYDEVD_.*|VSCODE_.*"
    r"|INVOCATION_ID|JOURNAL_STREAM|PYTEST_.*|NBDURABLE_.*"
)
"""Variables of the environment that are the session's own."""

_STREAMS: Final = ("stdout", "stderr")
_EVERYBODY: Final = "all loggers"
_last: tuple[dict[Any, Any], dict[str, str]] = ({}, {})


def _environment() -> dict[str, str]:
    global _last  # noqa: PLW0603 - what was decoded last; a torn read decodes again
    raw = dict(os.environ._data)  # type: ignore[attr-defined] # noqa: SLF001 - decoding is slow
    known = _last
    if raw == known[0]:
        return known[1]
    found = {name: value for name, value in os.environ.items() if not _SESSION.fullmatch(name)}
    _last = raw, found
    return found


def _set_environment(_: Any, new: dict[str, str]) -> None:
    for name, value in new.items():
        if value == MISSING:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _secret(name: Any, value: Any) -> str:
    hidden = value != MISSING and names_secret(str(name))
    return "what looks like a secret is not stored" if hidden else ""


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - text is what is compared
    except OSError:
        return ""


def _set_path(_: Any, edit: Edit) -> None:
    sys.path[:] = edited(sys.path, edit)


def _filters() -> tuple[Any, ...]:
    return tuple(warnings.filters)


def _set_filters(_: Any, edit: Edit) -> None:
    warnings.filters[:] = edited(warnings.filters, edit)  # type: ignore[index] # a list
    for name in ("_filters_mutated_lock_held", "_filters_mutated"):
        if (told := getattr(warnings, name, None)) is not None:
            told()
            return


# --- logging --------------------------------------------------------------------------------


def _loggers() -> dict[str, Any]:
    root = logging.root
    found: dict[str, Any] = {"root": _logger(root), _EVERYBODY: root.manager.disable}
    for name, one in list(root.manager.loggerDict.items()):
        if isinstance(one, logging.Logger) and (
            one.level or one.handlers or one.disabled or not one.propagate
        ):
            found[name] = _logger(one)
    return found


def _logger(one: logging.Logger) -> tuple[Any, ...]:
    handlers = [_handler(live) for live in one.handlers if not _is_packages_own(one.name, live)]
    return one.level, one.disabled, one.propagate, tuple(handlers)


def _is_packages_own(name: str, handler: logging.Handler) -> bool:
    """Tell whether a package's import has put a handler on its own logger: it does so again."""
    package = name.partition(".")[0]
    kinds = type(handler), type(handler.formatter)
    return any(kind.__module__.partition(".")[0] == package for kind in kinds)


def _handler(one: logging.Handler) -> tuple[Any, ...]:
    kind = f"{type(one).__module__}.{type(one).__qualname__}"
    stream = getattr(one, "stream", None)
    where = next((name for name in _STREAMS if stream is getattr(sys, name)), "")
    form = one.formatter
    style = type(getattr(form, "_style", None)).__name__
    said = (getattr(form, "_fmt", None), form.datefmt, style) if type(form) is _PLAIN else None
    plain = form is None or type(form) is _PLAIN
    return kind, one.level, where, said, plain and not one.filters


_PLAIN = logging.Formatter
_STYLES: dict[str, Any] = {"PercentStyle": "%", "StrFormatStyle": "{", "StringTemplateStyle": "$"}
_MADE = {"logging.StreamHandler": logging.StreamHandler, "logging.NullHandler": logging.NullHandler}


def _unmakable(_: Any, new: Any) -> str:
    """Say why the handlers of a logger can't be made again; nothing if they can."""
    for kind, _level, where, _form, plain in new[3] if isinstance(new, tuple) else ():
        if kind not in _MADE or not plain or (not where and kind == "logging.StreamHandler"):
            return f"a handler ({kind}) can't be made again"
    return ""


def _set_loggers(old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, state in new.items():
        if name == _EVERYBODY:
            logging.disable(state)
            continue
        one = logging.root if name == "root" else logging.getLogger(name)
        level, disabled, propagate, handlers = (0, False, True, ()) if state == MISSING else state
        one.setLevel(level)
        one.disabled, one.propagate = disabled, propagate
        before = old[name][3] if isinstance(old.get(name), tuple) else ()
        if handlers != before:
            _set_handlers(one, before, handlers)


def _set_handlers(one: logging.Logger, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    for live in [live for live in one.handlers if _handler(live) in before]:
        if _handler(live) not in after:
            one.removeHandler(live)
    present = [_handler(live) for live in one.handlers]
    for said in after:
        if said in present:
            continue
        kind, level, where, form, _ = said
        made: Any = _MADE[kind](*([getattr(sys, where)] if where else []))
        made.setLevel(level)
        if form is not None:
            made.setFormatter(_PLAIN(form[0], form[1], _STYLES[form[2]]))
        one.addHandler(made)


# --- decimals, locale, random -----------------------------------------------------------------


def _decimals() -> tuple[Any, ...]:
    context = sys.modules["decimal"].getcontext()
    traps = tuple(sorted(kind.__name__ for kind, on in context.traps.items() if on))
    return (
        context.prec, context.rounding, context.Emin, context.Emax, context.capitals,
        context.clamp, traps,
    )  # fmt: skip


def _set_decimals(_: Any, new: tuple[Any, ...]) -> None:
    context = sys.modules["decimal"].getcontext()
    (
        context.prec, context.rounding, context.Emin, context.Emax, context.capitals,
        context.clamp, traps,
    ) = new  # fmt: skip
    for kind in context.traps:
        context.traps[kind] = kind.__name__ in traps


def _locale() -> str:
    module = sys.modules["locale"]
    found: str = module.setlocale(module.LC_ALL)
    return found


def _set_locale(_: Any, new: str) -> None:
    module = sys.modules["locale"]
    module.setlocale(module.LC_ALL, new)


PARTS: Final = (
    Part("os.environ", _environment, _set_environment, keyed=True, refuse=_secret),
    Part("working folder", _folder, lambda _, new: os.chdir(new)),
    Part("sys.path", lambda: tuple(sys.path), _set_path, edits=True),
    Part("warnings", _filters, _set_filters, edits=True),
    Part("logging", _loggers, _set_loggers, keyed=True, refuse=_unmakable),
    Part("decimal", _decimals, _set_decimals, "decimal"),
    Part("locale", _locale, _set_locale, "locale"),
    Part("recursion limit", sys.getrecursionlimit, lambda _, new: sys.setrecursionlimit(new)),
    Part("random", random.getstate, lambda _, new: random.setstate(new), draws=True),
)

"""Plain data of the standard library that looks like a client, to canonical bytes.

Invariant: nothing is used up by looking. What changes only by being used (a position, what an
iterator has given) counts when a call is made, and is left out when it is compared again.
"""

from __future__ import annotations

import datetime as dt
import decimal
import gc
import io
import itertools
import os
import queue
import re
import sqlite3
import struct
import subprocess
import sys
import types
from collections import OrderedDict
from typing import Any
from zoneinfo import ZoneInfo

from nbdurable.errors import UsageError
from nbdurable.fingerprint.builtin import tagged
from nbdurable.fingerprint.values import EXACT, Encoder, Walk, sequence, text_of, unordered

_DAYS = range(dt.date(1950, 1, 1).toordinal(), dt.date(2050, 1, 1).toordinal(), 14)
_SESSIONS = re.compile(
    r"_|PWD|OLDPWD|SHLVL|LINES|COLUMNS|WINDOWID|PYTHONHASHSEED|TERM.*|JPY_.*|SSH_.*|XDG_.*|DBUS_.*"
    r"|PYDEVD_.*|VSCODE_.*|INVOCATION_ID|JOURNAL_STREAM|GIT_.*|PYTEST_.*"
)
_ONCE = (types.GeneratorType, types.AsyncGeneratorType)


def _view(name: str) -> Encoder:
    def encode(walk: Walk, value: Any) -> bytes:
        walk.mutable = True
        return walk.within(lambda: b"o" + text_of(name) + sequence(walk, b"l", list(value)))

    return encode


def _buffer(walk: Walk, value: Any) -> bytes:
    walk.mutable = True
    name = type(value).__name__
    if value.closed:
        return tagged(walk, name, None)
    if walk.settled:
        return tagged(walk, name, value.getvalue())
    walk.used = True
    return tagged(walk, name, value.getvalue(), value.tell())


def _zone(walk: Walk, value: ZoneInfo) -> bytes:
    if value.key is not None:
        return walk.within(lambda: tagged(walk, "ZoneInfo", value.key))
    known: list[object] = []
    for day in _DAYS:
        at = dt.datetime.fromordinal(day).replace(tzinfo=value)
        state = (at.utcoffset(), at.dst(), at.tzname())
        if not known or known[-1] != state:
            known += [day, state]
    return walk.within(lambda: tagged(walk, "ZoneInfo", *known))


def _context(walk: Walk, value: decimal.Context) -> bytes:
    walk.mutable = True
    traps = sorted(kind.__name__ for kind, on in value.traps.items() if on)
    return tagged(
        walk, "decimal.Context", value.prec, value.rounding, value.Emin, value.Emax,
        value.capitals, value.clamp, traps,
    )  # fmt: skip


def _queue(walk: Walk, value: Any) -> bytes:
    walk.mutable = walk.used = True
    if walk.settled:
        return walk.opaque(value)
    held = [one for one in gc.get_referents(value) if type(one) is list]
    return walk.opaque(value) + walk.within(lambda: sequence(walk, b"l", held))


def _environment(walk: Walk, value: Any) -> bytes:
    walk.mutable = walk.used = True
    if walk.settled:
        return b"x" + text_of("os.environ")
    kept = {name: value[name] for name in sorted(value) if not _SESSIONS.fullmatch(name)}
    return b"x" + text_of("os.environ") + walk.encode(kept)


def _row(walk: Walk, value: sqlite3.Row) -> bytes:
    return walk.within(lambda: tagged(walk, "sqlite3.Row", tuple(value.keys()), tuple(value)))


def _match(walk: Walk, value: re.Match[Any]) -> bytes:
    fields = (value.re, value.string, value.pos, value.endpos, value.regs)
    return walk.within(lambda: tagged(walk, "re.Match", *fields))


def _completed(walk: Walk, value: subprocess.CompletedProcess[Any]) -> bytes:
    walk.mutable = True
    fields = (value.args, value.returncode, value.stdout, value.stderr)
    return walk.within(lambda: tagged(walk, "CompletedProcess", *fields))


def _set_iterator(walk: Walk, value: Any) -> bytes:
    walk.mutable = walk.used = True
    if walk.settled:
        return text_of("set_iterator")
    _, (items,) = value.__reduce__()
    return b"o" + text_of("set_iterator") + unordered(walk, b"S", items)


def _sentinel(walk: Walk, value: object) -> bytes:
    return b"J" + text_of("builtins.object") + text_of(name_of(walk, value))


def name_of(walk: Walk, value: object) -> str:
    """Return the global name of what has no state, where another like it is bound beside it."""
    if walk.names is None:
        walk.names = {}
        for module in walk.owner.places.modules():
            alike: dict[type, dict[int, str]] = {}
            for name, one in [*vars(module).items()]:
                if type(one) is object or type(one).__module__ == module.__name__:
                    known = alike.setdefault(type(one), {})
                    known[id(one)] = min(name, known.get(id(one), name))
            for names in alike.values():
                walk.names.update(names if len(names) > 1 else ())
    return walk.names.get(id(value), "")


def refuse_once(walk: Walk, value: Any) -> None:
    """Refuse what can be read only once, and not be looked at without that.

    Raises:
        UsageError: it is an argument, or in one.
    """
    if walk.own is None and not walk.library and hasattr(type(value), "__next__"):
        if isinstance(value, io.IOBase):
            return
        where, kind = ".".join(walk.path), type(value).__name__
        raise UsageError(
            f"`{where}` is a {kind}, which can be read once: what it gives can't be compared "
            f"without using it up. Pass its items: list({walk.path[0]})"
        )


def is_iterator(cls: type) -> bool:
    """Tell whether a builtin iterator of this class can be looked at: by what it would give."""
    if not hasattr(cls, "__next__") or cls in _ONCE:
        return False
    return cls.__module__ == "builtins" or (
        cls.__module__ == "itertools" and sys.version_info < (3, 12)
    )


_EMPTY: dict[Any, Any] = {}
EXACT.update(
    {
        type(_EMPTY.keys()): _view("dict_keys"),
        type(_EMPTY.values()): _view("dict_values"),
        type(_EMPTY.items()): _view("dict_items"),
        type(OrderedDict().keys()): _view("odict_keys"),
        type(OrderedDict().values()): _view("odict_values"),
        type(OrderedDict().items()): _view("odict_items"),
        io.StringIO: _buffer,
        io.BytesIO: _buffer,
        sqlite3.Row: _row,
        re.Match: _match,
        subprocess.CompletedProcess: _completed,
        ZoneInfo: _zone,
        struct.Struct: lambda walk, v: tagged(walk, "struct.Struct", v.format),
        decimal.Context: _context,
        queue.SimpleQueue: _queue,
        type(os.environ): _environment,
        type(iter(set())): _set_iterator,
        object: _sentinel,
        itertools.count: lambda walk, v: tagged(walk, "itertools.count", repr(v)),
    }
)

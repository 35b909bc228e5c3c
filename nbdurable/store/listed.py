"""Which stores this user has used: the only ones that are opened before anybody asks for one.

Invariant: being on the list makes nothing one's own; that is told by the signatures in a
store. The list lies beside the signing key, and one that can't be kept costs a line at load.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from nbdurable.errors import StoreError

from .keys import key_path
from .paths import MEMORY

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20
"""Bytes: so much of a list is read, its end."""
_here: set[str] = set()


def note(place: str) -> None:
    """Take a store in."""
    if place == MEMORY or place in _here:
        return
    _here.add(place)
    if place in _listed():
        return
    with contextlib.suppress(OSError, StoreError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_path(), flags | os.O_NONBLOCK, 0o600)
        try:
            os.write(descriptor, place.encode("utf-8", "surrogateescape") + b"\n")
        finally:
            os.close(descriptor)


def is_listed(place: str) -> bool:
    """Tell whether this user has used a store, or made it, under this path."""
    return place in _here or place in _listed()


def _listed() -> frozenset[str]:
    try:
        descriptor = os.open(_path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, StoreError):
        return frozenset()
    with os.fdopen(descriptor, "rb") as file, contextlib.suppress(OSError):
        if os.fstat(descriptor).st_uid != os.geteuid():
            return frozenset()
        file.seek(max(0, os.fstat(descriptor).st_size - _LARGEST))
        text = file.read(_LARGEST).decode("utf-8", "surrogateescape")
        return frozenset(text.split("\n"))
    return frozenset()


def _path() -> Path:
    key = key_path()
    return key.with_name(f"{key.name}.stores")

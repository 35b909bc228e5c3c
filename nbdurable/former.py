"""The identity of a call, and that which it had before its function moved to a module.

Invariant: a call is found under a former name only where the code is equal, and where the
former name stands for nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fingerprint import still_defined
from .handles import digest_of

if TYPE_CHECKING:
    from .store import ReplayIndex

NAME_MARK = "@"
"""Before the qualified names that stand among the parts of a code."""


def call_id(namespace: bytes, called: str, inputs: bytes, occurrence: int) -> bytes:
    """Return the identity of a call: what is asked for, without the code."""
    return digest_of(namespace, called.encode(), inputs, b"%d" % occurrence)


def digest_of_version(version: str | None) -> bytes:
    """Return what stands in place of a code's digest where a version was given."""
    return digest_of(b"version", str(version).encode())


def former_call(  # noqa: PLR0917 - what a call is made of
    index: ReplayIndex, namespace: bytes, called: str, inputs: bytes, occurrence: int, code: bytes
) -> bytes | None:
    """Return the identity under which an outcome of equal code was saved before it moved."""
    for part in index.code_parts.get(code, ()):
        name = part.removeprefix(NAME_MARK)
        if name in {part, called} or _short(name) != _short(called):
            continue
        if still_defined(name):
            continue
        identity = call_id(namespace, name, inputs, occurrence)
        if any(found.code == code for found in index.checkpoints.versions(identity)):
            return identity
    return None


def _short(called: str) -> str:
    return called.rpartition(".")[2]

"""The identity of a call, and that which it had before its function moved to a module.

Invariant: a call is found under a former name only where the code is equal, and where the
former name stands for nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdurable.fingerprint import still_defined
from nbdurable.records import digest_of

if TYPE_CHECKING:
    from nbdurable.store import ReplayIndex

    from .scope import Scope

NAME_MARK = "@"
"""Before the qualified names that stand among the parts of a code."""


def call_id(namespace: bytes, called: str, inputs: bytes, occurrence: int) -> bytes:
    """Return the identity of a call: what is asked for, without the code."""
    return digest_of(namespace, called.encode(), inputs, b"%d" % occurrence)


def received_as(where: Scope, called: str, inputs: bytes, identity: bytes) -> bytes:
    """Return what stands for a call among another's arguments: without an inner function's code.

    What received an equal value of it does not run again because its code changed.
    """
    name, own, captured = (*called.split("#"), "", "")[:3]
    if not own:
        return identity
    name = f"{name}#{captured}"
    count, _ = where.occurrences.get((name, inputs), (0, None))
    where.occurrences[name, inputs] = (count + 1, where.strand())
    return call_id(where.namespace, name, inputs, count)


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

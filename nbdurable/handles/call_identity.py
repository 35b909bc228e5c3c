"""The identity of a call, and that which it had before its function moved to a module.

Invariant: a call is found under a former name only where the code is equal, and where the
former name stands for nothing any more.
"""

from __future__ import annotations

import functools
import types
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint import still_defined
from nbdurable.records import digest_of
from nbdurable.store import verify_amendment

if TYPE_CHECKING:
    from nbdurable.store import ReplayIndex

    from .scope import Scope

NAME_MARK = "@"
"""Before the qualified names that stand among the parts of a code."""
BODY_PART = f"{NAME_MARK}="
"""The part of a code by which a function is known again under another name."""


def call_id(namespace: bytes, called: str, inputs: bytes, occurrence: int) -> bytes:
    """Return the identity of a call: what is asked for, without the code."""
    return digest_of(namespace, called.encode(), inputs, b"%d" % occurrence)


def received_as(where: Scope, called: str, inputs: bytes, identity: bytes) -> bytes:
    """Return what stands for a call among another's arguments: without an inner function's code.

    What received an equal value of it does not run again because its code changed.
    """
    if "#" not in called:
        return identity
    name, own, captured = (*called.split("#"), "")[:3]
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
        if name in {part, called} or short_name(name) != short_name(called):
            continue
        if still_defined(name):
            continue
        identity = call_id(namespace, name, inputs, occurrence)
        if any(found.code == code for found in index.checkpoints.versions(identity)):
            return identity
    return None


def call_renamed(
    index: ReplayIndex, namespace: bytes, called: str, inputs: bytes, occurrence: int
) -> bytes | None:
    """Return the identity that a call had before its step was given another name."""
    for one in reversed(index.renamed):
        if is_called(called, one.new) and one.old != called:
            cure = "`%durable restart NAME` starts a run without it"
            verify_amendment(index, one, f"that {one.old} was renamed", cure)
            identity = call_id(namespace, one.old, inputs, occurrence)
            if index.checkpoints.knows(identity) or identity in index.saves:
                return identity
    return None


def is_called(called: str, name: str) -> bool:
    """Tell whether a qualified name is that of a step shown as `name`."""
    return called == name or called.endswith(f".{name}")


def short_name(called: str) -> str:
    """Return a step's name as it is shown: without its module."""
    return called.rpartition(".")[2]


def body_of(function: Any) -> bytes:
    """Return the digest of a function's instructions without any name of its own; or nothing.

    By it a function that has another name now is known again.
    """
    while not isinstance(function, types.FunctionType):
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif (wrapped := getattr(function, "__wrapped__", None)) is not None:
            function = wrapped
        else:
            return b""
    while isinstance(wrapped := vars(function).get("__wrapped__"), types.FunctionType):
        function = wrapped
    return blake2b(_laid(function.__code__), digest_size=8).digest()


def _laid(code: types.CodeType) -> bytes:
    consts = [
        _laid(one) if isinstance(one, types.CodeType) else _text(one).encode("utf-8", "replace")
        for one in code.co_consts
    ]
    names = repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode()
    parts = (code.co_code, names, *consts)
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _text(constant: object) -> str:
    # Sort a set, because another process would give it another order.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)

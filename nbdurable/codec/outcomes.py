"""What a step ended with, as payload: its value or error as replay will give it.

Invariant: what is handed out on the first pass is what the payload gives back.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable.errors import DecodeError, EncodeError, StoreError
from nbdurable.records import Kind, Payload

from . import definitions, failures
from .values import ATOMS, Objects, Shared, decode, encode, pickled, type_name

if TYPE_CHECKING:
    from collections.abc import Callable


def settle_value(value: object, objects: Objects | None = None) -> tuple[Payload, Any]:
    """Encode ``value`` and return the payload with what replay will give for it.

    Raises:
        EncodeError: The value can't be pickled, or not restored from its pickle.
        StoreError: What is large of it can't be written.
    """
    if type(value) in ATOMS:
        return encode(value, objects), value
    shared = Shared()
    payload = pickled(value, objects, shared)
    try:
        if shared.classes:
            definitions.prove(shared.definitions, shared.classes, pickle.loads)
        return payload, decode(payload.data, payload.pieces, objects, known=shared.classes)
    except DecodeError as error:
        raise EncodeError(f"{type_name(value)} pickles but does not unpickle: {error}") from error


class SettledError(NamedTuple):
    """An error as its payload, as replay will raise it, and what of it is kept as text only."""

    payload: Payload
    error: BaseException
    as_text: tuple[str, ...]


def settle_error(error: BaseException) -> SettledError:
    """Encode an exception with all that it hangs on; return it as replay will, with live frames.

    An attribute that can't be pickled is replaced by its text and named: the type, the
    message and everything else of the error are worth keeping without it.

    Raises:
        EncodeError: The exception's class or arguments can't be pickled, or what comes
            back would have other words.
    """
    errors = failures.chain(error)
    places = {id(one): at for at, one in enumerate(errors)}
    shared = Shared()
    shared.texts = {}
    shared.linked = places.keys()
    shared.whole = {id(one) for one in failures.members_of(error)}
    links = [
        (places.get(id(cause)), places.get(id(context)), suppress)
        for cause, context, suppress in map(failures.links_of, errors)
    ]
    fields = {
        "errors": errors,
        "links": links,
        "frames": [failures.frames_of(one) for one in errors],
        "traceback": failures.told(error),
    }
    payload = pickled(fields, None, shared)
    try:
        if shared.classes:
            definitions.prove(shared.definitions, shared.classes, pickle.loads)
        found = _errors(decode(payload.data, known=shared.classes))
    except DecodeError as failure:
        raise EncodeError(f"{type(error).__name__} can't be restored: {failure}") from failure
    for live, one in zip(errors, found, strict=True):
        said, before = failures.words(one), failures.words(live)
        if said[0] != before[0] or (said[1] != before[1] and id(live) not in shared.reworded):
            if id(live) in shared.whole:
                name = type(live).__name__
                raise EncodeError(f"{name} would come back with other words than {before[0]!r}")
            shared.texts[id(live)] = f"str({type(live).__name__})"
        BaseException.with_traceback(one, live.__traceback__)
    return SettledError(payload, found[-1], tuple(dict.fromkeys(shared.texts.values())))


def encode_error(error: BaseException) -> Payload:
    """Encode an exception, as `settle_error` does.

    Raises:
        EncodeError: It can't be stored, or would come back as another.
    """
    return settle_error(error).payload


def decode_error(data: bytes, *, say: Callable[[str], object] | None = None) -> BaseException:
    """Restore an exception that `encode_error` stored, with what it hangs on.

    Raises:
        DecodeError: Its class is gone, or can't be made without its ``__init__``.
    """
    fields = decode(data, say=say)
    errors = _errors(fields)
    for error, frames in zip(errors, fields["frames"], strict=True):
        BaseException.with_traceback(error, failures.traceback_of(frames))
    return errors[-1]


def loading_fault(kind: Kind, data: bytes, pieces: bytes, objects: Objects) -> str:
    """Say why what is installed here can't load an outcome; nothing if it can.

    Nothing either if another thing is in the way: a notebook class that is not defined
    yet, or an object file. The caller has verified the signature.
    """
    try:
        if kind is Kind.VALUE:
            decode(data, pieces, objects)
        else:
            decode_error(data)
    except DecodeError as error:
        cause = error.__cause__
        return "" if cause is None or isinstance(cause, DecodeError) else str(error)
    except StoreError:
        pass  # it is told of where the value is asked for
    return ""


def traceback_text(data: bytes) -> str:
    """Return the traceback, as text, of an error that `encode_error` stored."""
    text: str = decode(data)["traceback"]
    return text


def _errors(fields: dict[str, Any]) -> list[BaseException]:
    """Return restored errors, each hung on what it hung on."""
    errors: list[Any] = fields["errors"]
    for error, (cause, context, suppress) in zip(errors, fields["links"], strict=True):
        if not isinstance(error, BaseException):
            raise DecodeError(f"the saved error came back as a {type_name(error)}")
        failures.link(
            error,
            None if cause is None else errors[cause],
            None if context is None else errors[context],
            suppress,
        )
    return errors

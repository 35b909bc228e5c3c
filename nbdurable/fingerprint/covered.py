"""What a fingerprint of code has read: its functions, and the texts among constants and data.

Invariant: holds the code objects themselves, so that none is taken for another at its address.
"""

from __future__ import annotations

import os
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint import strings
from nbdurable.fingerprint.following import MISSING

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable, Iterator

    from nbdurable.fingerprint.following import Slot

_DEEPEST = 3
_MOST_ITEMS = 100
NOT_TEXTS = frozenset({int, float, bool, bytes, complex, type(None), CodeType})
"""Classes of values in which there is no text."""


class Covered:
    """The code that one fingerprint is of; looked into when somebody asks."""

    __slots__ = ("_codes", "_ids", "_names", "_slots", "_texts", "_variables")

    def __init__(
        self,
        codes: Iterable[tuple[weakref.ref[Any], CodeType | None]],
        slots: Iterable[Slot],
    ) -> None:
        self._codes = tuple(codes)
        self._slots = tuple(slots)
        self._ids: frozenset[int] | None = None
        self._texts: frozenset[str] | None = None
        self._names: frozenset[str] | None = None
        self._variables: frozenset[str] | None = None

    def functions(self) -> list[FunctionType]:
        """Return the functions that are still there."""
        found = [ref() for ref, _ in self._codes]
        return [one for one in found if isinstance(one, FunctionType)]

    @property
    def ids(self) -> frozenset[int]:
        """The identities of all code objects, nested ones included."""
        if self._ids is None:
            roots = [code for _, code in self._codes if code is not None]
            self._ids = frozenset(id(one) for root in roots for one in nested(root))
        return self._ids

    @property
    def places(self) -> frozenset[tuple[str, str, int]]:
        """Where each code object stands: file, name there, first line."""
        roots = [code for _, code in self._codes if code is not None]
        return frozenset(place_of(one) for root in roots for one in nested(root))

    @property
    def names(self) -> frozenset[str]:
        """The global names, attributes and modules that the code names."""
        if self._names is None:
            roots = [code for _, code in self._codes if code is not None]
            self._names = frozenset(
                name for root in roots for one in nested(root) for name in one.co_names
            )
        return self._names

    @property
    def variables(self) -> frozenset[str]:
        """What may name environment variables among the code's constants."""
        if self._variables is None:
            roots = [code for _, code in self._codes if code is not None]
            self._variables = frozenset(
                text
                for root in roots
                for one in nested(root)
                for text in texts_in(one.co_consts)
                if text.isidentifier() and text.isupper()
            )
        return self._variables

    @property
    def texts(self) -> frozenset[str]:
        """What may name files among the code's constants and the data that it reads by name."""
        if self._texts is None:
            found: set[str] = set()
            for _, code in self._codes:
                for one in nested(code) if code is not None else ():
                    found.update(texts_in(one.co_consts))
            for slot in self._slots:
                value = slot.get()
                if value is not MISSING:
                    found.update(texts_in(value))
            found.update([piece for text in found for piece in strings.files_in(text)])
            self._texts = frozenset(filter(_may_name_file, found))
        return self._texts


def place_of(code: CodeType) -> tuple[str, str, int]:
    """Return where a code object stands, which is the same in another process."""
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _may_name_file(text: str) -> bool:
    return ("." in text or "/" in text or "\\" in text) and text.isprintable()


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all that are inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from nested(const)


def texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the strings and paths in a value: alone, or in plain containers."""
    if type(value) is str:
        yield value
    elif type(value) in NOT_TEXTS:
        return
    elif isinstance(value, os.PathLike):
        try:
            path = os.fspath(value)
        except Exception:  # noqa: BLE001 - a class of the user's answers
            return
        if isinstance(path, str):
            yield path
    elif depth < _DEEPEST and type(value) in {tuple, list, set, frozenset, dict}:
        items = value.values() if type(value) is dict else value
        for at, item in enumerate(items):
            if at >= _MOST_ITEMS:
                return
            yield from texts_in(item, depth + 1)

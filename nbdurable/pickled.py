"""The names by which pickles in a store ask for code of ours: never moved, never renamed.

Invariant: a pickle names ``nbdurable.<public name>``, or a name that `frozen` gave; where
the function behind such a name lies, and what it is called there, is nobody's data. A name
may be added. One that goes makes the stores that hold it unreadable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., object]")


def frozen(name: str) -> Callable[[F], F]:
    """Return a decorator that makes a function known to pickles as ``nbdurable.pickled.<name>``.

    Raises:
        ValueError: The name is taken.
    """

    def name_it(function: F) -> F:
        if name in globals():
            raise ValueError(f"pickles know {name} already")
        function.__module__, function.__qualname__ = __name__, name
        globals()[name] = function
        return function

    return name_it

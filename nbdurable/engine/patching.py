"""Functions of other modules that are replaced while they are wanted, and put back after.

Invariant: replaced once, however many want it; with the last one gone each is as it was,
and what somebody else has put in its place meanwhile stays.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Point = tuple[Any, str, "Callable[..., Any]"]
"""A class or module, the name of its function, and what is called with that one before its
own arguments."""


class Patches:
    """Replaces functions; `points` is asked for them each time."""

    def __init__(self, points: Callable[[], Iterable[Point]]) -> None:
        self._points = points
        self._lock = threading.Lock()
        self._users = 0
        self._made: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Replace them; each call wants one `remove`."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                for owner, name, instead in self._points():
                    before = vars(owner)[name]
                    patched = _patched(before, instead)
                    setattr(owner, name, patched)
                    self._made.append((owner, name, before, patched))

    def remove(self) -> None:
        """Put them back with the last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for owner, name, before, patched in reversed(self._made):
                    if vars(owner).get(name) is patched:
                        setattr(owner, name, before)
                self._made.clear()


def _patched(before: Any, instead: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return instead(before, *args, **kwargs)

    return patched

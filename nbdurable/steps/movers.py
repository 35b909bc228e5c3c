"""Who moved an input, as far as that is known, and what to do about it.

Invariant: a body is named only where its own text says that it changes the input, or nobody
else had a chance to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.fingerprint import contains, is_plain, purposes_of, root_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.fingerprint import Print

    from .uses import Moved


class Work(Protocol):
    """What is asked of a step's work."""

    @property
    def function(self) -> Callable[..., Any]: ...  # noqa: D102
    @property
    def code(self) -> Print | None: ...  # noqa: D102
    @property
    def here(self) -> bool: ...  # noqa: D102


def named(moved: Moved) -> str:
    """Return the names of inputs, to be read."""
    return ", ".join(f"`{name}`" for name, _ in moved)


def is_part_of(work: Work, value: Any, moved: Moved) -> bool:
    """Tell whether a result holds all the objects that were changed, and none is another now."""
    if not all(contains(value, thing) for _, thing in moved):
        return False
    return _rebound(work).isdisjoint(name for name, _ in moved)


def moved_before(work: Work, moved: Moved) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the inputs that moved before a body ran, how, and which of them can be ignored."""
    rebound = _rebound(work)
    how = "changed"
    if all(name in rebound for name, _ in moved):
        how = "was bound to something else" if len(moved) == 1 else "were bound to something else"
    return tuple(f"`{name}`" for name, _ in moved), how, ignorable(moved)


def moved_meanwhile(work: Work, value: Any, moved: Moved) -> tuple[str, str]:
    """Return who changed inputs that are no part of the result, and the cure."""
    rebound = _rebound(work)
    others = tuple(one for one in moved if one[0] in rebound)
    rest = tuple(one for one in moved if one[0] not in rebound)
    said, cures = [], []
    if others:
        be = "was" if len(others) == 1 else "were"
        said.append(
            f"{named(others)} {be} bound to something else while it ran, and not by its body"
        )
        cures.append("wait for the step before binding it anew, or pass it as an argument")
    if rest:
        purposes = purposes_of(work.function, value, frozenset())
        of_body = work.here or all(root_of(name) in purposes for name, _ in rest)
        who = "its body changed" if of_body else "its body, or code that ran beside it, changed"
        said.append(f"{who} {named(rest)}, which is no part of its result")
        cures.append("return what it changed")
    if names := ignorable(rest):
        cures.append(f"or leave it out of the comparison with ignore={_tuple(names)}")
    return "; ".join(said), ", ".join(cures)


def ignorable(moved: Moved) -> tuple[str, ...]:
    """Return the names of the inputs that `ignore=` is the cure for: objects, and no data."""
    return tuple(
        sorted(
            {root_of(name) for name, thing in moved if thing is not None and not is_plain(thing)}
        )
    )


def _tuple(names: tuple[str, ...]) -> str:
    return "(" + "".join(f'"{name}", ' for name in names).rstrip(" ") + ")"


def _rebound(work: Work) -> frozenset[str]:
    return work.code.rebound() if work.code is not None else frozenset()

"""Which row stands below which: branches below their combinator, children below their step.

Invariant: each row is in one family, the rows of one name below one place, and each
family knows how many of its rows are in which state without looking through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Row(Protocol):
    """What stands in the tree. ``first`` is the lowest place of what stands below it."""

    place: int
    name: str
    kind: str
    parent: int | None
    state: Any
    first: int
    family: Family[Any] | None


R = TypeVar("R", bound=Row)

FOLDED: Final = 8
"""A family of so many rows is shown as one row that can be opened, while the run is live."""


class Family(Generic[R]):
    """The rows of one name below one row (``home``), or below none.

    ``first`` is where it stands among what is below ``home``; ``began`` and ``ended``
    are when the first of its attempts began and the last ended, ``ran`` how many of its
    rows ended after one.
    """

    __slots__ = ("began", "by_state", "ended", "first", "home", "name", "ran", "rows")

    def __init__(self, home: int | None, name: str, first: int) -> None:
        self.home = home
        self.name = name
        self.first = first
        self.rows: dict[int, R] = {}
        self.by_state: dict[str, dict[int, R]] = {}
        self.began: float | None = None
        self.ended = 0.0
        self.ran = 0

    @property
    def key(self) -> str:
        """What names the family among all that a window shows."""
        return f"{'' if self.home is None else self.home}:{self.name}"

    def count(self, state: str) -> int:
        """Return how many of its rows are in ``state``."""
        return len(self.by_state.get(state, ()))

    def take(self, row: R) -> None:
        """Take a row in."""
        self.rows[row.place] = row
        self._enter(row)
        row.family = self

    def let_go(self, row: R) -> None:
        """Give a row away."""
        del self.rows[row.place]
        del self.by_state[row.state][row.place]

    def moved(self, row: R, before: str) -> None:
        """Note that a row has left the state ``before``."""
        del self.by_state[before][row.place]
        self._enter(row)

    def _enter(self, row: R) -> None:
        of_state = self.by_state.get(row.state)
        if of_state is None:
            self.by_state[row.state] = {row.place: row}
        else:
            of_state[row.place] = row


class Tree(Generic[R]):
    """All rows of a run by what they stand below."""

    def __init__(self) -> None:
        self._below: dict[int | None, dict[str, Family[R]]] = {}

    def add(self, row: R) -> None:
        """Put a new row below the step that started it."""
        self._put(row, row.parent)

    def gather(self, combinator: R, branches: Iterable[R]) -> None:
        """Put below a combinator those of its branches that stand below no other one.

        A branch that another step's body started stays where it is.
        """
        home = combinator.parent
        moving: dict[Family[Any], list[R]] = {}
        for branch in branches:
            family = branch.family
            if family is not None and branch.parent == home == family.home:
                moving.setdefault(family, []).append(branch)
        for family, rows in moving.items():
            combinator.first = min(combinator.first, *[row.first for row in rows])
            if len(rows) < len(family.rows):
                for row in rows:
                    family.let_go(row)
                    self._put(row, combinator.place)
            else:
                self._move(family, combinator.place)
        if combinator.family is not None:
            combinator.family.first = min(combinator.family.first, combinator.first)

    def _move(self, family: Family[R], home: int) -> None:
        """Put a whole family below a row that has none of its name."""
        del self._below[family.home][family.name]
        self._below.setdefault(home, {})[family.name] = family
        family.home = home

    def families(self, home: int | None) -> list[Family[R]]:
        """Return what stands below a row, or below none."""
        return list(self._below.get(home, {}).values())

    def _put(self, row: R, home: int | None) -> None:
        families = self._below.get(home)
        if families is None:
            families = self._below[home] = {}
        name = row.name or row.kind
        family = families.get(name)
        if family is None:
            family = families[name] = Family(home, name, row.first)
        elif row.first < family.first:
            family.first = row.first
        family.take(row)

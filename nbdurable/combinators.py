"""select and gather: handles on handles.

Invariant: what a combinator ends with is a function of its branches' numbers
alone. A select ends with the lowest number among its branches; a gather with
its lowest-numbered failure, or with the highest number when all have values. So
live, replayed, nested and re-opened, the answer is the same (CONTRACT section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .errors import StoreError, UsageError
from .handles import Handle, Order, StepHandle, digest_of
from .records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .handles import Demand
    from .records import Decision
    from .store import Identity, Member

T_co = TypeVar("T_co", covariant=True)


class Combinator(Handle[T_co]):
    """A handle on several branches."""

    __slots__ = ("branches",)

    def __init__(
        self, order: Order, place: int, identity: bytes, branches: tuple[Handle[Any], ...]
    ) -> None:
        super().__init__(order, place, self.kind, identity)
        self.branches = branches

    @property
    def label(self) -> str:
        """The combinator and its branches, shortened."""
        shown = ", ".join(branch.label for branch in self.branches[:3])
        more = f", ... {len(self.branches) - 3} more" if len(self.branches) > 3 else ""  # noqa: PLR2004 - three are shown
        return f"{self.kind}({shown}{more})"

    def leaves(self) -> Iterable[StepHandle[Any]]:
        """Give the steps and timers below, each once, in order."""
        return leaves_of(self.branches)

    def observe(self) -> None:
        """Watch the branches, and take note of those that have ended. The run's lock is held."""
        for branch in {branch.place: branch for branch in self.branches}.values():
            if branch.number:
                self.notice(branch)
            else:
                branch.observed_by(self)

    def notice(self, branch: Handle[Any]) -> None:
        """`branch` has its number."""
        raise NotImplementedError

    def evaluate(self) -> bool:
        """Tell whether this ends now, and if so take its number."""
        raise NotImplementedError

    def breaks(self, error: BaseException) -> bool:
        """Tell whether `error`, which is no outcome, in a branch leaves this without an end."""
        raise NotImplementedError

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Give what is to be started below."""
        self.asked = self.asked or asked
        return [] if self.number else [(branch, asked, rearm) for branch in self.branches]


class Gather(Combinator[T_co]):
    """All results in argument order, or the first failure."""

    __slots__ = ("_failed", "_highest", "_keys", "_left", "return_exceptions")

    kind = "gather"

    def __init__(
        self,
        order: Order,
        place: int,
        branches: tuple[Handle[Any], ...],
        *,
        keys: tuple[Any, ...] | None = None,
        return_exceptions: bool = False,
    ) -> None:
        mode = b"exceptions" if return_exceptions else b""
        identity = digest_of(b"gather", mode, *[branch.identity for branch in branches])
        super().__init__(order, place, identity, branches)
        self.received_as = digest_of(b"gather", mode, *[one.received_as for one in branches])
        self._keys = keys
        self.return_exceptions = return_exceptions
        self._left = len({branch.place for branch in branches})
        self._highest = 0
        self._failed: Handle[Any] | None = None

    def notice(self, branch: Handle[Any]) -> None:
        """Count `branch`; keep the failure with the lowest number."""
        self._left -= 1
        self._highest = max(self._highest, branch.number)
        if branch.ended is not Kind.VALUE and not self.return_exceptions:
            failed = self._failed
            if failed is None or (branch.number, branch.place) < (failed.number, failed.place):
                self._failed = branch

    def evaluate(self) -> bool:
        """End with a failure at once, or with the last value."""
        if self._failed is not None:
            self.number, self.ended = self._failed.number, self._failed.ended
        elif self._left == 0:
            # Numbers begin at 1: a gather of nothing ends before everything.
            self.number, self.ended = self._highest or 1, Kind.VALUE
        else:
            return False
        return True

    def breaks(self, error: BaseException) -> bool:
        """A gather needs every branch."""
        del error
        return True

    def receive(self) -> T_co:
        """Give a list (or a dict), or raise the lowest-numbered failure."""
        if self._failed is not None:
            self._order.show_before(self)
            self._failed.receive()
        values = [
            self._settled(branch) if self.return_exceptions else branch.receive()
            for branch in self.branches
        ]
        result: Any = values if self._keys is None else dict(zip(self._keys, values, strict=True))
        return result  # type: ignore[no-any-return] # the type is the caller's

    def fresh(self) -> Any:
        """Give a list (or a dict) of values decoded anew; errors among them are seen by that."""
        for branch in self.branches:
            if branch.ended is not Kind.VALUE:
                branch.see()
        values = [branch.fresh() for branch in self.branches]
        return values if self._keys is None else dict(zip(self._keys, values, strict=True))

    @staticmethod
    def _settled(branch: Handle[Any]) -> Any:
        outcome = branch.received()
        return outcome.value if outcome.ok else outcome.error

    def error(self) -> BaseException | None:
        """Give the lowest-numbered failure."""
        return self._failed.error() if self._failed is not None else None

    def see(self) -> None:
        """The failure is what the cell knows of."""
        if self._failed is not None:
            self._failed.see()

    def mark_known(self) -> None:
        """All branches have been waited for, or the one that failed."""
        self.known = True
        for branch in (self._failed,) if self._failed is not None else self.branches:
            branch.mark_known()


class Select(Combinator[T_co]):
    """The branch with the lowest number."""

    __slots__ = (
        "_best", "_group", "_highest", "_left", "_positions", "_success", "chosen", "replayed",
    )  # fmt: skip

    kind = "select"
    cancels = False

    def __init__(
        self, order: Order, place: int, branches: tuple[Handle[Any], ...], *, success: bool = False
    ) -> None:
        mode = b"success" if success else b""
        identity = digest_of(
            self.kind.encode(), mode, *sorted(branch.identity for branch in branches)
        )
        super().__init__(order, place, identity, branches)
        self._success = success
        self._positions = {branch.place: at for at, branch in enumerate(branches)}
        self._best: Handle[Any] | None = None
        self._left = len(branches)
        self._highest = 0
        self._group: BaseException | None = None
        self.chosen: Handle[Any] | None = None
        self.replayed = False

    def set_members(self) -> tuple[Member, ...]:
        """Give call, version and code of every step below, sorted: what a decision belongs to."""
        return tuple(sorted((*leaf.pair, leaf.code_digest) for leaf in self.leaves()))

    def losing_leaves(self) -> list[StepHandle[Any]]:
        """Give every step and timer below the branches that lost, and not below the winner."""
        kept = set() if self.chosen is None else {leaf.place for leaf in self.chosen.leaves()}
        return [leaf for leaf in self.leaves() if leaf.place not in kept]

    def losers(self) -> tuple[Identity, ...]:
        """Give the (call, version) of every step below the branches that lost."""
        return tuple(sorted(leaf.pair for leaf in self.losing_leaves()))

    def apply(self, decision: Decision) -> None:
        """Take a stored decision. The run's lock is held."""
        self.chosen = next(branch for branch in self.branches if branch.identity == decision.winner)
        self.replayed = True
        self._mark_losers()
        if self.chosen.number:
            self.number, self.ended = decision.number, self.chosen.ended

    def notice(self, branch: Handle[Any]) -> None:
        """Keep the branch that would win now."""
        self._left -= 1
        self._highest = max(self._highest, branch.number)
        if self._success and branch.ended is not Kind.VALUE:
            return
        # What has one number (a step and a combinator that it ended) goes by its place: not
        # by the order of the arguments, for a decision is over a set.
        best = self._best
        if best is None or (branch.number, branch.place) < (best.number, best.place):
            self._best = branch

    def evaluate(self) -> bool:
        """End with the lowest number there is."""
        if self.chosen is not None:
            # A stored decision whose winner was not saved and has now run again.
            if not self.chosen.number:
                return False
            self.number, self.ended = self.chosen.number, self.chosen.ended
            return True
        if self._best is not None:
            self.chosen = self._best
            self.number, self.ended = self._best.number, self._best.ended
            self._mark_losers()
            return True
        if self._left == 0:
            self.number, self.ended = self._highest, Kind.ERROR
            return True
        return False

    def breaks(self, error: BaseException) -> bool:
        """Another branch can still win, unless it is the store that failed."""
        open_ends = (self.chosen,) if self.chosen is not None else self.branches
        return isinstance(error, StoreError) or all(one.broken is not None for one in open_ends)

    @property
    def winner(self) -> Handle[Any]:
        """The winning handle itself; waits."""
        self._decided()
        if self.chosen is None:
            self.receive()
            raise AssertionError("unreachable: a select without winner raises")
        return self.chosen

    @property
    def index(self) -> int:
        """The winner's place among the arguments; waits."""
        return self._positions[self.winner.place]

    def receive(self) -> T_co:
        """Give the winner's value or raise its error."""
        if self.chosen is None:
            self.see()
            raise self._all_failed()
        value: T_co = self.chosen.receive()
        return value

    def fresh(self) -> Any:
        """Give the winner's value decoded anew; without a winner, the group of all errors."""
        if self.chosen is None:
            return self._group_of([branch.fresh() for branch in self.branches])
        return self.chosen.fresh()

    def error(self) -> BaseException | None:
        """Give the winner's error, or the group of all."""
        if self.chosen is None:
            return self._all_failed() if self.number else None
        return self.chosen.error()

    def see(self) -> None:
        """The winner's error is what the cell knows of; without winner, all errors."""
        for branch in self.branches if self.chosen is None else (self.chosen,):
            branch.see()

    def mark_known(self) -> None:
        """The winner has been waited for."""
        self.known = True
        if self.chosen is not None:
            self.chosen.mark_known()

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Give the winner, or while it is undecided all branches, none of them asked for."""
        del rearm
        self.asked = self.asked or asked
        if self.chosen is not None:
            return [(self.chosen, asked, False)]
        return [] if self.number else [(branch, False, True) for branch in self.branches]

    def _decided(self) -> None:
        if self.chosen is None or not self.replayed:
            self._order.wait(self)
        if self.number:
            self.see()

    def _mark_losers(self) -> None:
        for leaf in self.losing_leaves():
            leaf.lost = True

    def _all_failed(self) -> BaseException:
        if self._group is None:
            errors = [error for branch in self.branches if (error := branch.error()) is not None]
            self._group = self._group_of(errors)
        return self._group

    def _group_of(self, errors: list[BaseException]) -> BaseException:
        message = f"{self.kind}: all {len(self.branches)} branches failed"
        return BaseExceptionGroup(message, errors)


class Race(Select[T_co]):
    """A select whose losers are cancelled with its decision."""

    __slots__ = ()

    kind = "race"
    cancels = True


def leaves_of(branches: Sequence[Handle[Any]]) -> Iterable[StepHandle[Any]]:
    """Give the steps and timers at or below `branches`, each once, in order."""
    found: dict[int, StepHandle[Any]] = {}
    stack: list[Handle[Any]] = list(reversed(branches))
    while stack:
        handle = stack.pop()
        if isinstance(handle, Combinator):
            stack.extend(reversed(handle.branches))
        elif isinstance(handle, StepHandle):
            found.setdefault(handle.place, handle)
    return found.values()


def flatten(handles: Sequence[Any], combinator: str) -> tuple[Handle[Any], ...]:
    """Give the handles of a combinator call, which takes them in place or in one iterable.

    Raises:
        UsageError: One of them is no handle.
    """
    if len(handles) == 1 and not isinstance(handles[0], Handle):
        try:
            handles = tuple(handles[0])
        except TypeError:
            raise _no_handle(handles[0], combinator) from None
    for handle in handles:
        if not isinstance(handle, Handle):
            raise _no_handle(handle, combinator)
    return tuple(handles)


def refuse_twice(handles: Sequence[Handle[Any]], combinator: str) -> None:
    """Refuse the same handle twice: it can't compete with itself.

    Raises:
        UsageError: It is there twice.
    """
    seen: set[int] = set()
    for handle in handles:
        if handle.place in seen:
            raise UsageError(f"{combinator}: {handle.label} is given twice; give each handle once")
        seen.add(handle.place)


def _no_handle(thing: object, combinator: str) -> UsageError:
    return UsageError(
        f"{combinator}: {type(thing).__name__} is not a handle; start it with `.go(...)` or "
        f"`go(function, ...)` and give what that returns"
    )

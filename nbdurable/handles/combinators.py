"""select and gather: handles on handles.

Invariant: what a combinator ends with is a function of its branches' numbers
alone. A select ends with the lowest number among its branches; a gather with
its lowest-numbered failure, or with the highest number when all have values. What was
chosen is stored, so that live, replayed, nested and re-opened, the answer is the same
(CONTRACT section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from nbdurable.errors import StoreError, UsageError
from nbdurable.records import HandleKind, Kind, digest_of
from nbdurable.store import same_set

from .handle import Handle, Order, StepHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from nbdurable.records import Decision
    from nbdurable.store import Identity, Member

    from .handle import Demand

T_co = TypeVar("T_co", covariant=True)

Part = tuple[Any, BaseException | None]
"""A value, or an error."""

_SHOWN = 3
_LONGEST = 80
"""So many branches, each in so many characters, are in a combinator's label."""


class Combinator(Handle[T_co]):
    """A handle on several branches; ``chosen`` is the branch that it ends with.

    Nothing here calls itself for the branches: combinators may be nested by the thousand.
    """

    __slots__ = ("_label", "_leaves", "branches", "chosen", "replayed")

    cancels = False

    def __init__(
        self, order: Order, place: int, identity: bytes, branches: tuple[Handle[Any], ...]
    ) -> None:
        super().__init__(order, place, self.kind.value, identity)
        self.branches = branches
        self._leaves: Collection[StepHandle[Any]] | None = None
        self.chosen: Handle[Any] | None = None
        self.replayed = False
        shown = ", ".join(_cut(branch.label) for branch in branches[:_SHOWN])
        more = f", ... {len(branches) - _SHOWN} more" if len(branches) > _SHOWN else ""
        self._label = f"{self.kind}({shown}{more})"

    @property
    def label(self) -> str:
        """The combinator and its branches, shortened."""
        return self._label

    def leaves(self) -> Iterable[StepHandle[Any]]:
        """Return the steps and timers below, each once, in order."""
        if self._leaves is None:
            self._leaves = leaves_of(self.branches)
        return self._leaves

    def known_leaves(self) -> Iterable[StepHandle[Any]] | None:
        """Return what `leaves` gave before; None if it was not asked."""
        return self._leaves

    def set_members(self) -> tuple[Member, ...]:
        """Return call, version and code of every step below, sorted: what a decision belongs to."""
        return tuple(sorted((*leaf.identity, leaf.code_digest) for leaf in self.leaves()))

    def losing_leaves(self) -> list[StepHandle[Any]]:
        """Return every step and timer below the branches that lost, and not below the winner."""
        return []

    def losers(self) -> tuple[Identity, ...]:
        """Return the (call, version) of every step below the branches that lost."""
        return tuple(sorted(leaf.identity for leaf in self.losing_leaves()))

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

    def joined(self, parts: list[Part]) -> Part:
        """Make a value or an error of what its branches gave."""
        raise NotImplementedError

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Return what is to be started below."""
        self.asked = self.asked or asked
        return [] if self.number else [(branch, asked, rearm) for branch in self.branches]

    def receive(self) -> T_co:
        """Return the value or raise the error of the branch that it ends with, or all values."""
        value, error = _collected(self, _received, show=True)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return] # the type is the caller's

    def fresh(self) -> Any:
        """Return the value decoded anew, or the error; errors inside it are seen by that."""
        value, error = _collected(self, _decoded_anew, show=False)
        return value if error is None else error

    def error(self) -> BaseException | None:
        """Return the error of the branch that it ends with, or the group of all."""
        end = _end_of(self)
        if isinstance(end, Select):
            return end.all_failed() if end.number else None
        return None if isinstance(end, Gather) else end.error()

    def see(self) -> None:
        """The error that it ends with is what the cell knows of; without a winner, all errors."""
        stack: list[Handle[Any]] = [self]
        while stack:
            end = _end_of(stack.pop())
            if isinstance(end, Select):
                stack += reversed(end.branches)
            elif not isinstance(end, Gather):
                end.see()

    def mark_known(self) -> None:
        """What it ends with has been waited for: one branch, or all of a gather."""
        stack: list[Handle[Any]] = [self]
        while stack:
            handle = stack.pop()
            if not isinstance(handle, Combinator):
                handle.mark_known()
            elif not handle.known:
                Handle.mark_known(handle)
                if handle.chosen is not None:
                    stack.append(handle.chosen)
                elif isinstance(handle, Gather):
                    stack += handle.branches


class Gather(Combinator[T_co]):
    """All results in argument order, or the first failure."""

    __slots__ = ("_highest", "_keys", "_left", "_stored", "return_exceptions")

    kind = HandleKind.GATHER

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
        identity = digest_of(b"gather", mode, *[branch.call_id for branch in branches])
        super().__init__(order, place, identity, branches)
        self.received_as = digest_of(b"gather", mode, *[one.received_as for one in branches])
        self._keys = keys
        self.return_exceptions = return_exceptions
        self._left = len({branch.place for branch in branches})
        self._highest = 0
        self._stored: Decision | None = None

    def apply(self, decision: Decision) -> None:
        """Take the failure that an earlier execution ended with. The run's lock is held."""
        self._stored = decision
        self.replayed = True
        self.chosen = next(one for one in self.branches if one.call_id == decision.winner)

    def notice(self, branch: Handle[Any]) -> None:
        """Count `branch`; keep the failure with the lowest number."""
        self._left -= 1
        self._highest = max(self._highest, branch.number)
        if not self.replayed and branch.ended is not Kind.VALUE and not self.return_exceptions:
            failed = self.chosen
            if failed is None or (branch.number, branch.place) < (failed.number, failed.place):
                self.chosen = branch

    def evaluate(self) -> bool:
        """End with a failure at once, or with the last value."""
        if self._stored is not None and self.chosen is not None:
            if not self.chosen.number:
                return False  # wait until the failure that was decided has come again
            stands = same_set(self.set_members(), self._stored.branches)
            if not stands or self.chosen.ended is Kind.VALUE:
                self._open_again()
        if self.chosen is not None:
            self.resolve(self.chosen.number, self.chosen.ended)
        elif self._left == 0:
            # Numbers begin at 1: a gather of nothing ends before everything.
            self.resolve(self._highest or 1, Kind.VALUE)
        else:
            return False
        return True

    def _open_again(self) -> None:
        """Go by the numbers: what the decision was over has changed meanwhile."""
        self._stored = None
        self.replayed = False
        failed = [one for one in self.branches if one.number and one.ended is not Kind.VALUE]
        self.chosen = min(failed, key=lambda one: (one.number, one.place), default=None)

    def breaks(self, error: BaseException) -> bool:
        """A gather needs every branch."""
        del error
        return True

    def joined(self, parts: list[Part]) -> Part:
        """Make a list (or a dict); an error in it is a value, for else it would have failed."""
        values = [value if error is None else error for value, error in parts]
        return values if self._keys is None else dict(zip(self._keys, values, strict=True)), None

    def show_before_failure(self) -> None:
        """Show what had come in its order before the failure that it ends with."""
        if self.chosen is not self.branches[0]:
            self._order.show_before(self)


class Select(Combinator[T_co]):
    """The branch with the lowest number."""

    __slots__ = ("_best", "_group", "_highest", "_left", "_positions", "_success")

    kind = HandleKind.SELECT

    def __init__(
        self, order: Order, place: int, branches: tuple[Handle[Any], ...], *, success: bool = False
    ) -> None:
        mode = b"success" if success else b""
        identity = digest_of(
            self.kind.encode(), mode, *sorted(branch.call_id for branch in branches)
        )
        super().__init__(order, place, identity, branches)
        self._success = success
        self._positions = {branch.place: at for at, branch in enumerate(branches)}
        self._best: Handle[Any] | None = None
        self._left = len(branches)
        self._highest = 0
        self._group: BaseException | None = None

    def losing_leaves(self) -> list[StepHandle[Any]]:
        """Return every step and timer below the branches that lost, and not below the winner."""
        kept = set() if self.chosen is None else {leaf.place for leaf in self.chosen.leaves()}
        return [leaf for leaf in self.leaves() if leaf.place not in kept]

    def apply(self, decision: Decision) -> None:
        """Take a stored decision. The run's lock is held."""
        self.chosen = next(branch for branch in self.branches if branch.call_id == decision.winner)
        self.replayed = True
        self._mark_losers()
        if self.chosen.number:
            self.resolve(decision.number, self.chosen.ended)

    def notice(self, branch: Handle[Any]) -> None:
        """Keep the branch that would win now."""
        self._left -= 1
        self._highest = max(self._highest, branch.number)
        if self._success and branch.ended is not Kind.VALUE:
            return
        # A step and the combinator that it ended share a number: then the one made first wins.
        # The order of the arguments does not count, because a decision is over a set.
        best = self._best
        if best is None or (branch.number, branch.place) < (best.number, best.place):
            self._best = branch

    def evaluate(self) -> bool:
        """End with the lowest number there is."""
        if self.chosen is not None:
            # The decision is stored, but its winner was not saved and has to run again first.
            if not self.chosen.number:
                return False
            self.resolve(self.chosen.number, self.chosen.ended)
            return True
        if self._best is not None:
            self.chosen = self._best
            self.resolve(self._best.number, self._best.ended)
            self._mark_losers()
            return True
        if self._left == 0:
            self.resolve(self._highest, Kind.ERROR)
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

    def joined(self, parts: list[Part]) -> Part:
        """Make the group of all errors."""
        return None, self._group_of([error for _, error in parts if error is not None])

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Return the winner, or while it is undecided all branches, none of them asked for."""
        del rearm
        self.asked = self.asked or asked
        if self.chosen is not None:
            return [(self.chosen, asked, False)]
        return [] if self.number else [(branch, False, True) for branch in self.branches]

    def all_failed(self) -> BaseException:
        """Return the group of all errors, of a select that has no winner: always the same one."""
        stack: list[Select[Any]] = [self]
        while stack:
            inner = stack[-1].failed_below()
            if inner:
                stack += inner
            else:
                stack.pop().group_errors()
        assert self._group is not None
        return self._group

    def failed_below(self) -> list[Select[Any]]:
        """Return the selects without winner below this whose groups are to be made first."""
        if self._group is not None:
            return []
        inner = [_end_of(branch) for branch in self.branches]
        return [one for one in inner if isinstance(one, Select) and not one.is_grouped()]

    def is_grouped(self) -> bool:
        """Tell whether the group of all errors has been made."""
        return self._group is not None

    def group_errors(self) -> None:
        """Make the group of all errors, once; those below this have theirs."""
        if self._group is None:
            errors = [error for one in self.branches if (error := one.error()) is not None]
            self._group = self._group_of(errors)

    def _decided(self) -> None:
        if self.chosen is None or not self.replayed:
            # Asking for the winner delivers no output, so this wait shows none live.
            self._order.wait(self, show=False)
        if self.number:
            self.see()

    def _mark_losers(self) -> None:
        for leaf in self.losing_leaves():
            leaf.life.lose()

    def _group_of(self, errors: list[BaseException]) -> BaseException:
        message = f"{self.kind}: all {len(self.branches)} branches failed"
        return BaseExceptionGroup(message, errors)


class Race(Select[T_co]):
    """A select whose losers are cancelled with its decision."""

    __slots__ = ()

    kind = HandleKind.RACE
    cancels = True


def _end_of(handle: Handle[Any]) -> Handle[Any]:
    """Follow the chosen branches: give what a handle ends with, itself if nothing is chosen."""
    while isinstance(handle, Combinator) and handle.chosen is not None:
        handle = handle.chosen
    return handle


def _collected(top: Handle[Any], part_of: Callable[[Handle[Any]], Part], *, show: bool) -> Part:
    """Return the value or the error of a handle; `part_of` gives those of what is in it.

    With `show` the output that comes before a gather's failure is shown.
    """
    open_ends: list[tuple[Combinator[Any], list[Part]]] = []
    handle = top
    while True:
        while isinstance(handle, Combinator) and handle.chosen is not None:
            if show and isinstance(handle, Gather):
                handle.show_before_failure()
            handle = handle.chosen
        # A select without winner has one group of errors, and returns that each time. Only
        # values that are decoded anew are taken apart here.
        if isinstance(handle, Gather if show else Combinator) and handle.branches:
            open_ends.append((handle, []))
            handle = handle.branches[0]
            continue
        part = handle.joined([]) if isinstance(handle, Gather) else part_of(handle)
        while open_ends:
            combinator, parts = open_ends[-1]
            parts.append(part)
            if len(parts) < len(combinator.branches):
                handle = combinator.branches[len(parts)]
                break
            open_ends.pop()
            part = combinator.joined(parts)
        else:
            return part


def _received(handle: Handle[Any]) -> Part:
    if isinstance(handle, Select):
        handle.see()
        return None, handle.all_failed()
    try:
        return handle.receive(), None
    except BaseException as error:
        if error is not handle.error():
            raise
        return None, error


def _decoded_anew(handle: Handle[Any]) -> Part:
    if handle.ended is Kind.VALUE:
        return handle.fresh(), None
    handle.see()
    return None, handle.fresh()


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 3]}..."


def leaves_of(branches: Sequence[Handle[Any]]) -> Collection[StepHandle[Any]]:
    """Return the steps and timers at or below `branches`, each once, in order."""
    found: dict[int, StepHandle[Any]] = {}
    visited: set[int] = set()
    stack: list[Handle[Any]] = list(reversed(branches))
    while stack:
        handle = stack.pop()
        if isinstance(handle, Combinator):
            if (known := handle.known_leaves()) is not None:
                for leaf in known:
                    found.setdefault(leaf.place, leaf)
            elif handle.place not in visited:
                visited.add(handle.place)
                stack.extend(reversed(handle.branches))
        elif isinstance(handle, StepHandle):
            found.setdefault(handle.place, handle)
    return tuple(found.values())


def flatten(handles: Sequence[Any], combinator: str) -> tuple[Handle[Any], ...]:
    """Return the handles of a combinator call, which takes them in place or in one iterable.

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

"""Outcomes taken out to be made again, with all that hung on them, in one transaction.

Invariant: what is found is what is taken out, and nothing is unpickled for it. A step that
received another's value through a handle stays: its version holds that value's digest, so
it runs again if the new value is another, and replays if it is equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbdurable.records import NOBODY, Kind, Redone

from .amendments import add_amendment, drop_saves
from .changes import conclude
from .index import unpack, unpack_members
from .runs import last_execution, load_index, newest_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.records import Checkpoint

    from .database import Store
    from .index import Member, ReplayIndex
    from .journal import Batch
    from .packed import Identity

AS_COMPLETED = "as_completed"
"""The label of the decisions of an `as_completed`."""


@dataclass(frozen=True, slots=True)
class Made:
    """A decision, as far as it tells what it hangs on."""

    key: bytes
    packed: bytes
    branches: tuple[Member, ...]
    winner: bytes
    losers: frozenset[Identity]
    number: int
    label: str
    seconds: float


@dataclass(slots=True)
class Redo:
    """What a redo takes out of a run.

    ``asked`` are the outcomes that were named, ``above`` those of the bodies that started
    them, ``cancelled`` the cancellations that decisions over them caused; ``saves`` are the
    calls whose saves are dropped, ``bodies`` how many of the outcomes started steps that stay.
    """

    run: str
    index: ReplayIndex
    asked: list[Checkpoint]
    above: list[Checkpoint] = field(default_factory=list)
    cancelled: list[Checkpoint] = field(default_factory=list)
    decisions: list[Made] = field(default_factory=list)
    saves: set[bytes] = field(default_factory=set)
    bodies: int = 0

    @property
    def taken(self) -> list[Checkpoint]:
        """Every outcome that is taken out."""
        return [*self.asked, *self.above, *self.cancelled]


def plan_redo(
    store: Store, name: str, chosen: Callable[[str, str], bool], *, errors: bool
) -> Redo | None:
    """Find what a redo takes out of the newest run called `name`; None if there is no such run.

    Args:
        store: Where the run is; nothing is changed.
        name: The run's name.
        chosen: Tells by its name and its label whether a step is meant.
        errors: Only outcomes that are errors.
    """
    run = newest_run(store, name)
    if run is None:
        return None
    index = load_index(store, run[0])
    store.heads.verify(run[0], name, index.checkpoints.sum)
    asked = [
        one
        for one in index.checkpoints
        if chosen(one.name, one.label or one.name) and (one.kind is Kind.ERROR or not errors)
    ]
    found = Redo(run[0], index, asked)
    calls = {one.call for one in asked}
    found.saves |= {
        save.call
        for save in index.saves.values()
        if save.call in calls or (not errors and chosen(save.name, save.label))
    }
    _add_bodies_above(found)
    _add_consequences(found, _decisions(store, run[0]))
    taken = {one.call for one in found.taken}
    spaces = {one.namespace for one in index.checkpoints if one.call not in taken}
    found.bodies = len({one.call for one in found.asked} & spaces)
    return found


def _add_bodies_above(found: Redo) -> None:
    """Add the outcomes of the bodies that started what is redone: they received it."""
    taken = {(one.call, one.version) for one in found.asked}
    stack = [one.namespace for one in found.asked]
    while stack:
        for parent in found.index.checkpoints.versions(stack.pop()):
            if (parent.call, parent.version) not in taken:
                taken.add((parent.call, parent.version))
                found.above.append(parent)
                stack.append(parent.namespace)


def _add_consequences(found: Redo, made: list[Made]) -> None:
    """Add the decisions over what is taken, the cancellations they caused, and so on from there."""
    by_cause: dict[int, list[Checkpoint]] = {}
    for one in found.index.checkpoints.without_value():
        if one.cause:
            by_cause.setdefault(one.cause, []).append(one)
    taken = {(one.call, one.version): one for one in found.taken}
    standing = made
    while True:
        gone = [one for one in standing if _hangs_on(one, taken)]
        if not gone:
            return
        standing = [one for one in standing if one not in gone]
        found.decisions += gone
        for decision in gone:
            for one in by_cause.get(decision.number, ()):
                identity = one.call, one.version
                if identity in decision.losers and identity not in taken:
                    taken[identity] = one
                    found.cancelled.append(one)


def _hangs_on(decision: Made, taken: dict[Identity, Checkpoint]) -> bool:
    """Tell whether a decision was won or lost by one of these, or comes after it in an order."""
    for call, version, _ in decision.branches:
        one = taken.get((call, version))
        if one is None:
            continue
        ordered = decision.winner == NOBODY or decision.label == AS_COMPLETED
        ordered = ordered and not decision.seconds  # what was not waited for any longer lost
        if not ordered or decision.number >= one.number:
            return True
    return False


def _decisions(store: Store, run: str) -> list[Made]:
    rows = store.rows(
        "SELECT key, branches, winner, losers, number, label, seconds FROM nbdurable.decision_log "
        "WHERE execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)",
        [run],
    )
    return [
        Made(key, packed, unpack_members(packed), winner, frozenset(unpack(losers)), *rest)
        for key, packed, winner, losers, *rest in rows
    ]


def redo(store: Store, found: Redo, now: float) -> None:
    """Take out what `plan_redo` found, in one transaction.

    Raises:
        StoreError: It could not be written; nothing is gone.
    """
    execution = last_execution(store, found.run)
    asked = {one.call for one in found.asked} | found.saves
    rest = {one.call for one in found.taken} - asked

    def write(batch: Batch) -> None:
        if found.taken:
            conclude(batch, found.taken)
        if found.decisions:
            _remove(batch, found)
        if found.saves or asked:
            drop_saves(batch, [*found.saves, *asked])
        for call in (*asked, *rest):
            before = found.index.redone.get(call)
            # Whoever runs again for another's sake keeps the key under which it acts.
            times = (before.ordinal if before is not None else 0) + (call in asked)
            row = Redone(found.run, call, times, execution, now, b"")
            add_amendment(batch, found.index, row)

    store.commit(write)


def _remove(batch: Batch, found: Redo) -> None:
    batch.take_out(
        "DELETE FROM nbdurable.decision_log d USING (SELECT unnest(?::BLOB[]) AS key, "
        "unnest(?::BLOB[]) AS branches, unnest(?::BIGINT[]) AS number) t "
        "WHERE d.key = t.key AND d.branches = t.branches AND d.number = t.number "
        "AND d.execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?) "
        "RETURNING d.execution, d.signature",
        [
            [one.key for one in found.decisions],
            [one.packed for one in found.decisions],
            [one.number for one in found.decisions],
            found.run,
        ],
    )

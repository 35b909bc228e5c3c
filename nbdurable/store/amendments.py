"""What stands beside outcomes: saves, redone calls, acceptances, new names, places of calls.

Invariant: a row that code can branch on is signed, and what its signature does not cover
is used for nothing that code could branch on. One call has one save at most.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from nbdurable.codec.signing import sign, signature_holds
from nbdurable.errors import UntrustedCheckpointError
from nbdurable.records import Accepted, Placed, Redone, Renamed, Save

from .heads import own
from .index import unpack_used
from .rows import TABLE_OF, Amendment, ProgressRow, columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .database import Store
    from .index import ReplayIndex
    from .journal import Batch
    from .packed import Identity

A = TypeVar("A", Save, Redone, Accepted, Renamed, Placed)


_CALL = [*columns_of("saves")].index("call")


def amendment_message(store: str, row: Amendment) -> bytes:
    """Return what an amendment's signature covers, each field with its length before it."""
    fields: tuple[bytes, ...]
    others: tuple[str | float, ...]
    match row:
        case Save():
            fields = (b"save", row.call, row.state, row.code, row.payload, row.pieces)
            others = row.name, row.label, row.execution, row.attempt, float(row.saved)
        case Redone():
            fields = (b"redo", row.call)
            others = row.run, row.ordinal, row.execution, float(row.asked)
        case Accepted():
            # What ended the telling of it is added later.
            fields = (b"accept", row.before, row.after)
            others = row.run, row.kind, row.name, row.what, row.outcomes, row.execution
        case Renamed():
            fields = (b"rename",)
            others = row.run, row.old, row.new, float(row.renamed)
        case Placed():
            fields = (b"place", row.call, row.path)
            others = row.run, row.position, row.execution
    texts = [str(one).encode("utf-8", "surrogatepass") for one in others]
    laid = (b"amendment", store.encode(), *fields, *texts)
    return b"".join([b"%d:%b" % (len(one), one) for one in laid])


def signed_amendment(store: str, key: bytes, row: Amendment) -> tuple[object, ...]:
    """Return an amendment as a row of its table, signed."""
    signature = sign(key, amendment_message(store, row))
    return (*[getattr(row, name) for name in _names(type(row))[:-1]], signature)


def verify_amendment(index: ReplayIndex, row: Amendment, what: str, cure: str) -> None:
    """Make sure that this user's key signed an amendment, before it is used.

    Raises:
        UntrustedCheckpointError: It did not, or a byte has changed since.
    """
    if not signature_holds(index.key, row.signature, amendment_message(index.store, row)):
        raise UntrustedCheckpointError(
            f"{what} is not signed by your key: it was changed, damaged, or written by somebody "
            f"else. Nothing of it was unpickled; {cure}"
        )


def add_amendment(batch: Batch, index: ReplayIndex, row: Amendment) -> None:
    """Sign an amendment and add it to a transaction."""
    batch.lay(TABLE_OF[type(row)], signed_amendment(index.store, index.key, row))


def replace_save(batch: Batch, index: ReplayIndex, save: Save, *, before: bool) -> None:
    """Put a save in the place of the one `before` it, where there is one."""
    if before:
        batch.take_out(
            "DELETE FROM nbdurable.saves WHERE call = ? RETURNING execution, signature", [save.call]
        )
    if rows := batch.rows.get("saves"):  # of two at once the later one stays
        rows[:] = [row for row in rows if row[_CALL] != save.call]
    add_amendment(batch, index, save)


def replace_progress(batch: Batch, row: ProgressRow, *, before: bool) -> None:
    """Put what an attempt has said of its progress in the place of what was said `before`."""
    if before:
        batch.execute("DELETE FROM nbdurable.progress WHERE call = ?", [row.call])
    if rows := batch.rows.get("progress"):
        rows[:] = [one for one in rows if ProgressRow._make(one).call != row.call]
    batch.add(row)


def drop_saves(batch: Batch, calls: Sequence[bytes]) -> None:
    """Take out what steps have saved of their work, and how far they said that they are."""
    these = "WHERE call IN (SELECT unnest(?::BLOB[]))"
    batch.take_out(
        f"DELETE FROM nbdurable.saves {these} RETURNING execution, signature",  # noqa: S608 - ours
        [list(calls)],
    )
    batch.execute(f"DELETE FROM nbdurable.progress {these}", [list(calls)])  # noqa: S608 - ours


def settle_acceptances(batch: Batch, run: str, before: int, execution: int) -> None:
    """End the telling of what executions before `before` accepted."""
    batch.execute(
        "UPDATE nbdurable.acceptances SET settled = ? "
        "WHERE run = ? AND settled = 0 AND execution < ?",
        [execution, run, before],
    )


def unasked_of(store: Store, run: str) -> frozenset[Identity]:
    """Return the outcomes that the last finished execution of a run did not ask for."""
    found = store.rows(
        "SELECT x.reused FROM nbdurable.execution_log e "
        "JOIN nbdurable.execution_ends x ON x.execution = e.id "
        "WHERE e.run = ? AND x.status = 'finished' ORDER BY e.id DESC LIMIT 1",
        [run],
    )
    return unpack_used(found[0][0])[1] if found else frozenset()


def load_amendments(store: Store, run: str, index: ReplayIndex) -> None:
    """Take in what stands beside a run's outcomes; nothing of it is verified yet."""
    of_run = "WHERE execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"
    for save in _rows(store, Save, of_run, run):
        index.saves[save.call] = save
    found = store.rows(f"SELECT call FROM nbdurable.progress {of_run}", [run])  # noqa: S608 - ours
    index.progressed.update(call for (call,) in found)
    for redone in _rows(store, Redone, "WHERE run = ? ORDER BY ordinal", run):
        index.redone[redone.call] = redone
    index.accepted += _rows(store, Accepted, "WHERE run = ? ORDER BY execution", run)
    for placed in _rows(store, Placed, "WHERE run = ? ORDER BY execution", run):
        index.placed[placed.call] = placed
    index.renamed += _rows(store, Renamed, "WHERE run = ? ORDER BY renamed", run)


def amendments(store: Store, kind: type[Amendment]) -> Iterable[tuple[int, Amendment]]:
    """Yield every amendment of a kind with the id of its row."""
    names = ", ".join(_names(kind))
    for row, *fields in store.rows(f"SELECT rowid, {names} FROM nbdurable.{TABLE_OF[kind]}"):  # noqa: S608 - ours
        yield row, kind(*(*fields[:-1], own(fields[-1])))


def _rows(store: Store, kind: type[A], which: str, run: str) -> list[A]:
    names = ", ".join(_names(kind))
    found = store.rows(f"SELECT {names} FROM nbdurable.{TABLE_OF[kind]} {which}", [run])  # noqa: S608 - ours
    return [_made(kind, fields) for fields in found]


def _made(kind: type[A], fields: Sequence[Any]) -> A:
    made: Callable[..., A] = kind
    *rest, signature = fields
    return made(*rest, own(signature))


def _names(kind: type[Amendment]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]

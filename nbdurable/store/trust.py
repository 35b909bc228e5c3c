"""`survey` and `trust_store`: what is in somebody else's store, and making it one's own.

Invariant: nothing is unpickled, and nothing in the file is run: it is open with
external access off, and its schema holds our tables alone (`structure`). A
signature says that whoever holds the key believes every byte, so a store that
contradicts itself is not signed, and what is signed is what was shown: the same file,
still open, or one with the same digest. A store that is signed gets another id, so
that nothing that was signed for another one fits into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbdurable.codec.globals_in import UNREADABLE, globals_in
from nbdurable.codec.signing import sign, signature_holds
from nbdurable.errors import DecodeError, StoreCorruptError
from nbdurable.records import Checkpoint, RunSummary

from .amendments import amendment_message, amendments
from .connection import forget
from .database import Store
from .heads import own
from .index import DECIDED, checkpoint_message, decision_message, decision_of, store_message
from .paths import LOCK_WAIT_SECONDS
from .rows import AMENDMENTS, KINDS, TABLE_OF, columns_of
from .runs import summaries
from .schema import BYTES
from .signed import REMEMBERED, remembered_message
from .verify import check_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .journal import Batch
    from .rows import Amendment

_ROWS_AT_A_TIME = 10_000
_MOST_OTHERS = 200
"""Of what lies in a file beside the store, so many names are shown."""


@dataclass(frozen=True, slots=True)
class SavedStep:
    """What a checkpoint says of itself; ``bytes`` is the size of its value."""

    workflow: str
    label: str
    kind: str
    started: float
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in a store, by its columns alone.

    ``ours`` tells whether this user's key signed the store; ``unsigned`` how many
    rows it did not sign; ``problems`` what contradicts itself. ``digest`` stands for all
    that would be signed, in hexadecimal. ``globals`` are the names that its pickles look up;
    ``others`` what lies in the file beside the store, by its kind and its name.
    """

    path: str
    ours: bool
    unsigned: int
    runs: tuple[RunSummary, ...]
    steps: tuple[SavedStep, ...]
    problems: tuple[str, ...]
    digest: str
    globals: tuple[str, ...]
    others: tuple[str, ...]


def survey(path: str | Path, *, wait: float = LOCK_WAIT_SECONDS) -> Survey:
    """Tell what is in a store, whatever key signed it; the file stays as it is.

    Args:
        path: The DuckDB file.
        wait: How many seconds to wait for another process to let go of the file.

    Raises:
        StoreError: There is none, or it can't be read; as `Store.open`.
    """
    store = Store.open_foreign(path, wait=wait)
    try:
        return _survey(store)
    finally:
        store.close()


def trust_store(path: str | Path, *, wait: float = LOCK_WAIT_SECONDS, digest: str = "") -> Survey:
    """Sign everything in a store with this user's key, in one transaction.

    Args:
        path: The DuckDB file.
        wait: As of `survey`.
        digest: What a survey gave; nothing is signed if what is there is something else now.

    Returns:
        What was signed.

    Raises:
        StoreCorruptError: It contradicts itself, or is not what was shown; nothing was signed.
        StoreError: As `survey`; or it can't be written.
    """
    with contextlib.closing(Store.open_foreign(path, wait=wait, write=True)) as store:
        try:
            found = _survey(store)
            _refuse(store, found, digest)
        except BaseException:
            store.forsake()
            raise
        runs = [run for (run,) in store.rows("SELECT id FROM nbdurable.run_log")]
        store.id = uuid.uuid4().hex
        signed = {
            table: [(row, sign(store.key, message)) for row, message, _ in rows]
            for table, rows in _signed_rows(store).items()
        }
        store.commit(lambda batch: _write_signatures(store, signed, runs, batch))
        return found


def untrust_store(path: str | Path, *, wait: float = LOCK_WAIT_SECONDS) -> None:
    """Take back that a store is this user's: no signature in it holds any more.

    Raises:
        StoreError: There is none, or it can't be written.
    """
    with contextlib.closing(Store.open_foreign(path, wait=wait, write=True)) as store:
        store.commit(lambda batch: _write_meta(batch, uuid.uuid4().hex, b""))
    forget(store.path)


def _refuse(store: Store, found: Survey, digest: str) -> None:
    if found.problems:
        raise StoreCorruptError(
            f"{store.path} contradicts itself, so nothing of it was signed: "
            f"{found.problems[0]}{_more(found.problems)}"
        )
    if digest and digest != found.digest:
        raise StoreCorruptError(
            f"{store.path} holds something else than what was shown as {digest:.40}, so nothing "
            f"of it was signed: look at it again, it is {found.digest} now"
        )


def _more(problems: tuple[str, ...]) -> str:
    return f", and {len(problems) - 1} more" if len(problems) > 1 else ""


def _survey(store: Store) -> Survey:
    problems = tuple(check_content(store))
    steps = store.rows(
        f"""
        SELECT COALESCE(r.name, ''), c.label, c.kind, c.started, c.seconds, {BYTES}
        FROM nbdurable.checkpoints c
        LEFT JOIN nbdurable.execution_log e ON e.id = c.execution
        LEFT JOIN nbdurable.run_log r ON r.id = e.run
        ORDER BY c.started, c.number
        """  # noqa: S608 - a constant
    )
    unsigned = 0
    for rows in _signed_rows(store).values():
        for _, message, signature in rows:
            unsigned += not signature_holds(store.key, signature, message)
    return Survey(
        path=store.path,
        ours=store.is_ours,
        unsigned=unsigned,
        # What is in an unknown state is no run that could be told of.
        runs=() if problems else tuple(summaries(store)),
        steps=tuple(SavedStep(*row) for row in steps),
        problems=problems,
        digest=_digest(store),
        globals=tuple(sorted(_globals(store))),
        others=tuple(store.foreign_objects(_MOST_OTHERS)),
    )


_CONTENT = {
    table: [
        name for name in columns_of(table) if name != "signature"
    ]
    for table in KINDS
    if table not in {"meta", "heads"}
}  # fmt: skip


def _digest(store: Store) -> str:
    """Return what stands for every row of a store, signatures aside."""
    content = hashlib.blake2b(digest_size=16)
    for table, columns in _CONTENT.items():
        for row in _rows(store, table, columns):
            content.update(remembered_message(store.id, table, row[1:]))
    for other in store.foreign_objects(_MOST_OTHERS):
        content.update(other.encode("utf-8", "surrogatepass"))
    return content.hexdigest()


def _globals(store: Store) -> set[str]:
    """Return the names that the pickles of a store look up."""
    found: set[str] = set()
    for table in ("checkpoints", "saves"):
        for _, payload, pieces in _rows(store, table, ["payload", "pieces"]):
            found |= globals_in(payload)
            if not payload and pieces:
                try:
                    found |= globals_in(bytes(store.objects.restore(pieces, proven=1)[0]))
                except DecodeError:
                    found.add(UNREADABLE)
    for _, states in _rows(store, "draws", ["states"]):
        found |= globals_in(states)
    return found


def _write_signatures(
    store: Store, signed: dict[str, list[tuple[int, bytes]]], runs: list[str], batch: Batch
) -> None:
    for table, rows in signed.items():
        batch.execute(
            f"UPDATE nbdurable.{table} SET signature = t.signature FROM "  # noqa: S608 - ours
            "(SELECT unnest(?::BIGINT[]) AS id, unnest(?::BLOB[]) AS signature) t "
            f"WHERE {table}.rowid = t.id",
            [[row for row, _ in rows], [signature for _, signature in rows]],
        )
    batch.execute("DELETE FROM nbdurable.heads", [])
    _write_meta(batch, store.id, sign(store.key, store_message(store.id)))
    for run in runs:
        batch.recount(run)


def _write_meta(batch: Batch, identity: str, signature: bytes) -> None:
    for key, value in (("store", identity.encode("ascii")), ("signature", signature)):
        batch.execute("UPDATE nbdurable.meta SET value = ? WHERE key = ?", [value, key])


_Signed = tuple[int, bytes, bytes]
"""(row, message, signature)"""


def _signed_rows(store: Store) -> dict[str, Iterator[_Signed]]:
    return {
        "checkpoints": _checkpoints(store),
        "decision_log": _decisions(store),
        **{table: _remembered(store, table) for table in REMEMBERED},
        **{TABLE_OF[kind]: _amendments(store, kind) for kind in AMENDMENTS},
    }


def _remembered(store: Store, table: str) -> Iterator[_Signed]:
    names = [*REMEMBERED[table], "signature"]
    for row, *fields, signature in _rows(store, table, names):
        yield row, remembered_message(store.id, table, tuple(fields)), own(signature)


def _amendments(store: Store, kind: type[Amendment]) -> Iterator[_Signed]:
    for row, found in amendments(store, kind):
        yield row, amendment_message(store.id, found), found.signature


def _checkpoints(store: Store) -> Iterator[_Signed]:
    names = [field.name for field in dataclasses.fields(Checkpoint)]
    for row, *fields in _rows(store, "checkpoints", names):
        checkpoint = Checkpoint(*fields)
        yield row, checkpoint_message(store.id, checkpoint), own(checkpoint.signature)


def _decisions(store: Store) -> Iterator[_Signed]:
    for row, *fields in _rows(store, "decision_log t", list(DECIDED)):
        decision = decision_of(fields)
        yield row, decision_message(store.id, decision), decision.signature


def _rows(store: Store, table: str, names: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table, a bounded number of payloads in memory at a time."""
    after = -1
    query = (
        f"SELECT rowid, {', '.join(names)} FROM nbdurable.{table} "  # noqa: S608 - names of ours
        f"WHERE rowid > ? ORDER BY rowid LIMIT {_ROWS_AT_A_TIME}"
    )
    while found := store.rows(query, [after]):
        yield from found
        after = found[-1][0]

"""Heads: which rows a run consists of, signed anew in the last row of each transaction.

A row's signature says that its content is this user's; nothing in it says that the row is
still there, or is there once. So each run has a *head*: how many rows it has, and the sum
of their signatures, signed under the store's id and the run's. It stands behind the
signature of the last row that a transaction adds to the run, or in a row of `heads` where a
transaction only takes rows out. It costs no statement, and a row is never there without it.

Invariant: of a run's heads the one with the highest ordinal counts; rows that were taken
out, put back, doubled, or that come from another run, store or time don't add up to it.
"""

from __future__ import annotations

import functools
import struct
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from nbdurable.codec.signing import sign, signature_holds
from nbdurable.errors import UntrustedCheckpointError
from nbdurable.labels import printable

from .rows import KINDS, ExecutionRow, HeadRow, columns_of
from .signed import REMEMBERED, remembered_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .journal import Batch, Row

SIGNATURE_BYTES: Final = 32
"""Of a row's signature; what stands behind it is a head."""
_HEAD = struct.Struct(">Q16s")  # ordinal, the first half of its HMAC (RFC 2104, section 5)
_COUNTED = struct.Struct(">QQ32s")
_SUM = (1 << (8 * SIGNATURE_BYTES)) - 1

Gone = tuple[int, bytes]
"""(execution, signature) of a row that a statement took out"""


def own(signature: bytes) -> bytes:
    """Return a row's signature without the head that may stand behind it."""
    return signature[:SIGNATURE_BYTES]


class _Layout(NamedTuple):
    """Where a table has its signature, and by what column it is known whose row it is."""

    width: int
    signature: int
    owner: int
    by_run: bool


class Connection(Protocol):
    """The connection that writes the transaction."""

    def execute(self, query: str, parameters: Sequence[object]) -> Any:
        """Run a query."""


class Asked(Protocol):
    """An open store, which answers a query of ours."""

    id: str

    def rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows."""

    def streamed(self, query: str, parameters: Sequence[object]) -> Iterable[tuple[Any, ...]]:
        """Yield the rows, a bounded number in memory at a time."""


def _layouts() -> dict[str, _Layout]:
    found = {}
    for table in KINDS:
        names = [*columns_of(table)]
        if "signature" not in names:
            continue
        owner = "id" if table == "run_log" else "run" if "run" in names else "execution"
        at = names.index(owner) if owner in names else -1
        by_run = owner != "execution"
        found[table] = _Layout(len(names), names.index("signature"), at, by_run)
    return found


_LAYOUTS: Final = _layouts()
_KINDS: Final = {
    table: [columns_of(table)[name] for name in names] for table, names in REMEMBERED.items()
}
# A row of `heads` is no part of what it counts.
_COVERED: Final = {
    table: one for table, one in _LAYOUTS.items() if one.owner >= 0 and table != "heads"
}
_OF_EXECUTIONS: Final = tuple(table for table, one in _COVERED.items() if not one.by_run)
_OF_RUNS: Final = tuple(
    table for table, one in _COVERED.items() if one.by_run and table != "run_log"
)


def _is_unsigned(row: Row, layout: _Layout) -> bool:
    """Tell whether a row is to be signed as it is written.

    One that is laid as it stood in the store, as a plain tuple, keeps the signature that it
    had: where that is empty, nobody signed it.
    """
    return len(row) < layout.width or (type(row) is not tuple and not row[layout.signature])


class Head:
    """One run's count and sum, as its last transaction left them."""

    __slots__ = ("begun", "count", "ordinal", "total")

    def __init__(self, store: str, run: str) -> None:
        fields = b"head", store.encode(), run.encode("utf-8", "surrogatepass")
        self.begun = b"".join([b"%d:%b" % (len(one), one) for one in fields])
        self.ordinal = self.count = self.total = 0

    def add(self, signature: bytes) -> None:
        """Take in a row."""
        self.count += 1
        self.total += int.from_bytes(signature[:SIGNATURE_BYTES])

    def signed(self, key: bytes) -> bytes:
        """Return the head as it stands behind a signature."""
        total = (self.total & _SUM).to_bytes(SIGNATURE_BYTES)
        message = self.begun + _COUNTED.pack(self.ordinal, self.count, total)
        return _HEAD.pack(self.ordinal, sign(key, message)[:16])


class Sum:
    """What rows add up to, and the newest head that one of them has."""

    __slots__ = ("count", "newest", "total")

    def __init__(self) -> None:
        self.count = self.total = 0
        self.newest = b""

    def take(self, count: int, total: int, newest: bytes) -> None:
        """Take in what other rows add up to."""
        self.count += count
        self.total += total
        self.newest = max(self.newest, newest)

    def add(self, signatures: Iterable[bytes]) -> None:
        """Take in rows."""
        for signature in signatures:
            self.count += 1
            self.total += int.from_bytes(signature[:SIGNATURE_BYTES])
            if len(signature) > SIGNATURE_BYTES:
                self.newest = max(self.newest, signature[SIGNATURE_BYTES:])


class Heads:
    """The heads of the runs of one open store."""

    def __init__(self, store: Asked, key: bytes, connection: Connection) -> None:
        self._store = store
        self._key = key
        self._connection = connection
        self._heads: dict[str, Head] = {}
        self._run_of: dict[int, str] = {}

    # --- written ----------------------------------------------------------------------

    def seal(self, batch: Batch, gone: Iterable[Gone]) -> None:
        """Sign the rows of a transaction that are not signed yet, and the heads of its runs.

        Args:
            batch: Its statements have been executed, its rows are to come.
            gone: What the statements took out.
        """
        last: dict[str, tuple[list[Row], int, int] | None] = {}
        for execution, signature in gone:
            run = self._run_of[execution]
            head = self._heads[run]
            head.count -= 1
            head.total -= int.from_bytes(signature[:SIGNATURE_BYTES])
            last[run] = None
        for run in batch.recounted:
            self._recount(run)
            last[run] = None
        for table, rows in batch.rows.items():
            if (layout := _LAYOUTS.get(table)) is None:
                continue
            for at in range(len(rows)):
                row = rows[at]
                if _is_unsigned(row, layout):
                    row = rows[at] = self._signed(table, row)
                if (owner := self._run(table, layout, row)) is not None:
                    self._heads[owner].add(row[layout.signature])  # type: ignore[arg-type] # bytes
                    last[owner] = rows, at, layout.signature
        for run, place in last.items():
            head = self._heads[run]
            head.ordinal += 1
            signed = head.signed(self._key)
            if place is None:
                batch.add(HeadRow(run, bytes(SIGNATURE_BYTES) + signed))
                continue
            rows, at, where = place
            row = rows[at]
            rows[at] = (*row[:where], row[where] + signed, *row[where + 1 :])  # type: ignore[operator] # bytes

    def _signed(self, table: str, row: Row) -> Row:
        names = REMEMBERED[table]
        # A clock may give whole seconds; the store gives them back as it keeps them.
        covered = tuple(
            float(one) if kind == "DOUBLE" else one  # type: ignore[arg-type] # so it is a number
            for one, kind in zip(row[: len(names)], _KINDS[table], strict=True)
        )
        unsigned = row if len(row) < _LAYOUTS[table].width else row[:-1]
        return (*unsigned, sign(self._key, remembered_message(self._store.id, table, covered)))

    def _run(self, table: str, layout: _Layout, row: Row) -> str | None:
        """Return the run that a new row belongs to, if it is one that is counted."""
        if table == "heads" or layout.owner < 0:
            return None
        owner: Any = row[layout.owner]
        run: str | None = owner if layout.by_run else self._run_of.get(owner)
        if table == "run_log" and run is not None and run not in self._heads:
            self._heads[run] = Head(self._store.id, run)
        if run not in self._heads:
            return None
        if table == "execution_log":
            self._run_of[ExecutionRow._make(row).id] = run
        return run

    def _recount(self, run: str) -> None:
        """Count a run's rows anew, within the transaction whose statements changed them."""

        def rows(query: str) -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = self._connection.execute(query, [run]).fetchall()
            return found

        # A head made anew: where a store is trusted, it has another id than when it was opened.
        before, head = self._heads.get(run), Head(self._store.id, run)
        head.ordinal = 0 if before is None else before.ordinal
        self._heads[run] = head
        found = Sum()
        found.add(signature for (signature,) in rows(_signatures(())))
        head.count, head.total = found.count, found.total
        self._run_of.update((execution, run) for (execution,) in rows(_EXECUTIONS))

    # --- read -------------------------------------------------------------------------

    def fault(self, run: str, outcomes: Sum | None = None) -> str:
        """Say why a run is not as it was committed last; nothing if it is, and go on from there.

        Args:
            run: Its id.
            outcomes: What its checkpoints add up to, where they have been read already.
        """
        if fault := self._unsigned(run):
            return fault
        if outcomes is None:
            found = self._sum(run, ())
        else:
            found = self._sum(run, ("checkpoints",))
            found.take(outcomes.count, outcomes.total, outcomes.newest)
        if len(found.newest) != _HEAD.size:
            return "it has no signed head"
        head = Head(self._store.id, run)
        head.ordinal, head.count, head.total = (
            _HEAD.unpack(found.newest)[0],
            found.count,
            found.total,
        )
        if not compare_digest(head.signed(self._key), found.newest):
            return "rows of it were taken out, put back, doubled or exchanged since"
        self._heads[run] = head
        self._take_executions(run)
        return ""

    def verify(self, run: str, name: str, outcomes: Sum | None = None) -> None:
        """Make sure that a run consists of the rows that were committed last; as `fault`.

        Raises:
            UntrustedCheckpointError: It does not.
        """
        if fault := self.fault(run, outcomes):
            raise UntrustedCheckpointError(
                f"what is saved of {printable(name)} is not what your key signed: {fault}. Nothing "
                f"of it was unpickled or changed: restore the store from a copy, look at it with "
                f"`%durable trust`, or let `%durable restart NAME` start a run without it"
            )

    def knows(self, run: str) -> bool:
        """Tell whether a run was found to be as it was committed last, or was begun here."""
        return run in self._heads

    def _unsigned(self, run: str) -> str:
        """Say which row of those that tell what a run is has a wrong signature."""
        for table, query in _TELLING.items():
            for *row, signature in self._store.rows(query, [run]):
                if not self.holds(table, tuple(row), signature):
                    return f"a row of {table} is not signed by it, or was changed since"
        return ""

    def holds(self, table: str, row: Row, signature: bytes) -> bool:
        """Tell whether this user's key signed a row, given by the columns that are covered."""
        message = remembered_message(self._store.id, table, row)
        return signature_holds(self._key, signature[:SIGNATURE_BYTES], message)

    def _sum(self, run: str, but: tuple[str, ...]) -> Sum:
        """Add up the rows of a run, those of some tables left out."""
        found, alone = Sum(), Sum()
        found.add(one for (one,) in self._store.streamed(_signatures(but), [run]))
        heads = self._store.rows("SELECT signature FROM nbdurable.heads WHERE run = ?", [run])
        alone.add(one for (one,) in heads)
        found.take(0, 0, alone.newest)
        return found

    def _take_executions(self, run: str) -> None:
        rows = self._store.rows(_EXECUTIONS, [run])
        self._run_of.update((execution, run) for (execution,) in rows)

    def forget(self) -> None:
        """Know nothing of any run: the store has another id, or other content, now."""
        self._heads.clear()
        self._run_of.clear()


_EXECUTIONS: Final = "SELECT id FROM nbdurable.execution_log WHERE run = ?"
_TELLING: Final = {
    table: f"SELECT {', '.join(REMEMBERED[table])}, signature FROM nbdurable.{table} WHERE {which}"  # noqa: S608 - constants
    for table, which in (
        ("run_log", "id = ?"),
        ("execution_log", "run = ?"),
        ("execution_ends", f"execution IN ({_EXECUTIONS})"),
    )
}


@functools.cache
def _signatures(but: tuple[str, ...]) -> str:
    """Return the query for the signatures of a run's rows."""
    of_run = "(SELECT id FROM nbdurable.execution_log WHERE run = $1)"
    parts = ["SELECT signature FROM nbdurable.run_log WHERE id = $1"]
    parts += [f"SELECT signature FROM nbdurable.{one} WHERE run = $1" for one in _OF_RUNS]  # noqa: S608 - constants
    parts += [
        f"SELECT signature FROM nbdurable.{one} WHERE execution IN {of_run}"  # noqa: S608 - constants
        for one in _OF_EXECUTIONS
        if one not in but
    ]
    return " UNION ALL ".join(parts)

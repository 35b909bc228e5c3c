"""The outcomes of single calls of a run, asked and added one by one: for who needs no whole index.

Invariant: what is returned is verified by whoever uses it; what is added is signed here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbdurable.codec.signing import sign
from nbdurable.records import Part, digest_of_parts

from .index import checkpoint_message
from .packed import COLUMNS, checkpoint_of
from .rows import EvidenceRow, checkpoint_row

if TYPE_CHECKING:
    from nbdurable.records import Checkpoint

    from .database import Store
    from .journal import Batch

_OF_RUN = "execution IN (SELECT id FROM nbdurable.execution_log WHERE run = $1)"
_COLUMNS = ", ".join(COLUMNS)


def outcomes_of_call(store: Store, run: str, call: bytes) -> list[Checkpoint]:
    """Return the outcomes of a call, the newest first."""
    rows = store.rows(
        f"SELECT {_COLUMNS} FROM nbdurable.checkpoints WHERE call = $2 AND {_OF_RUN} "  # noqa: S608 - constants
        "ORDER BY number DESC",
        [run, call],
    )
    found = [checkpoint_of(row) for row in rows]
    for one in found:
        if one.pieces:
            store.objects.remember(one.pieces)
    return found


def calls_of(store: Store, run: str) -> list[bytes]:
    """Return the calls of a run that have an outcome."""
    query = f"SELECT DISTINCT call FROM nbdurable.checkpoints WHERE {_OF_RUN}"  # noqa: S608 - constants
    return [call for (call,) in store.rows(query, [run])]


def last_number(store: Store, run: str) -> int:
    """Return the highest number of a run's outcomes, 0 if it has none."""
    query = f"SELECT COALESCE(max(number), 0) FROM nbdurable.checkpoints WHERE {_OF_RUN}"  # noqa: S608 - constants
    return int(store.rows(query, [run])[0][0])


def evidence_of(store: Store, digest: bytes) -> tuple[Part, ...] | None:
    """Return the parts that a digest stands for; None if they are not there, or others."""
    if not digest:
        return ()
    rows = store.rows(
        "SELECT kind, part, state FROM nbdurable.evidence WHERE evidence = $1", [digest]
    )
    parts = {Part(*row) for row in rows}
    return tuple(sorted(parts)) if digest_of_parts(parts) == digest else None


def parts_since(
    store: Store, run: str, kind: str, execution: int
) -> list[tuple[Part, float, float]]:
    """Return the parts of a kind of a run's outcomes of later executions, in commit order.

    Each with the times at which its body began and ended.
    """
    rows: list[tuple[Any, ...]] = store.rows(
        "SELECT e.kind, e.part, e.state, c.started, c.started + c.seconds "  # noqa: S608 - constants
        "FROM nbdurable.checkpoints c JOIN nbdurable.evidence e ON e.evidence = c.file_evidence "
        f"WHERE e.kind = $2 AND c.execution > $3 AND c.{_OF_RUN} ORDER BY c.number",
        [run, kind, execution],
    )
    return [(Part(*row[:3]), row[3], row[4]) for row in rows]


def add_outcome(batch: Batch, store: Store, unsigned: Checkpoint, why: str) -> Checkpoint:
    """Sign an outcome, add it to a transaction, and return it as it is there."""
    signature = sign(store.key, checkpoint_message(store.id, unsigned))
    signed = replace(unsigned, signature=signature)
    batch.add(checkpoint_row(signed, why, signature))
    return signed


def add_evidence(batch: Batch, parts: set[Part]) -> bytes:
    """Add parts to a transaction and return the digest that stands for them."""
    digest = digest_of_parts(parts)
    for part in sorted(parts):
        batch.add(EvidenceRow(digest, *part))
    return digest

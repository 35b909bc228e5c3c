"""What a run remembers beside its outcomes, and what the signature of such a row covers.

Invariant: each row is signed, and one whose signature does not hold is as if it were not
there: the step that it speaks of runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nbdurable.codec.signing import sign

from .rows import (
    TABLE_OF,
    CodeRow,
    ContentRow,
    DrawRow,
    FormerCallRow,
    SeenErrorRow,
    UsedAttributeRow,
    columns_of,
    listed,
)
from .signed import remembered_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .database import Store
    from .index import ReplayIndex
    from .journal import Batch
    from .rows import RememberedRow

R = TypeVar("R", UsedAttributeRow, FormerCallRow, DrawRow, ContentRow, SeenErrorRow, CodeRow)


def remember(batch: Batch, store: Store, row: RememberedRow) -> None:
    """Sign a row and add it to the transaction."""
    message = remembered_message(store.id, TABLE_OF[type(row)], row[:-1])
    batch.add(row._replace(signature=sign(store.key, message)))


def load_remembered(store: Store, run: str, index: ReplayIndex) -> None:
    """Take in what earlier executions of a run remembered, in the order in which they did."""
    used: dict[bytes, dict[int, dict[tuple[str, str, str, str], set[bytes]]]] = {}
    for one in signed_rows(store, UsedAttributeRow):
        known = used.setdefault(one.code, {}).setdefault(one.generation, {})
        key = one.root, one.holder, one.class_, one.attribute
        known.setdefault(key, set()).add(one.text)
    for code, generations in used.items():
        index.used_attributes[code] = [generations[one] for one in sorted(generations)]
    for former in signed_rows(store, FormerCallRow, run):
        saved = former.saved_call, former.saved_code
        index.former_calls.setdefault((former.call, former.code), []).append(saved)
    for draw in signed_rows(store, DrawRow, run):
        index.draws[draw.call, draw.version] = draw.states
    for content in signed_rows(store, ContentRow, run):
        index.contents.setdefault(content.name, {})[content.content] = content.base


def signed_rows(store: Store, kind: type[R], run: str = "") -> Iterator[R]:
    """Yield the rows of a table, or of a run, whose signature holds, in order."""
    table = TABLE_OF[kind]
    query = f"SELECT {listed(columns_of(table))} FROM nbdurable.{table}"  # noqa: S608 - constants
    of_run = " WHERE execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"
    found = store.rows(f"{query}{of_run if run else ''} ORDER BY rowid", [run] if run else [])
    for fields in found:
        row = kind(*fields)
        if store.heads.holds(table, row[:-1], row.signature):
            yield row

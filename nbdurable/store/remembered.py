"""What a run remembers beside its outcomes, and what the signature of such a row covers.

Invariant: each row is signed, and one whose signature does not hold is as if it were not
there: the step that it speaks of runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.codec.signing import sign

from .signed import REMEMBERED, remembered_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .database import Store
    from .index import ReplayIndex
    from .journal import Batch


def remember(batch: Batch, store: Store, table: str, row: tuple[object, ...]) -> None:
    """Sign a row and add it to the transaction."""
    batch.add(table, (*row, sign(store.key, remembered_message(store.id, table, row))))


def load_remembered(store: Store, run: str, index: ReplayIndex) -> None:
    """Take in what earlier executions of a run remembered, in the order in which they did."""
    used: dict[bytes, dict[int, dict[tuple[str, str, str, str], set[bytes]]]] = {}
    for code, generation, root, holder, cls, attribute, text in signed_rows(
        store, "used_attributes"
    ):
        known = used.setdefault(code, {}).setdefault(generation, {})
        known.setdefault((root, holder, cls, attribute), set()).add(text)
    for code, generations in used.items():
        index.used_attributes[code] = [generations[one] for one in sorted(generations)]
    for call, code, saved_call, saved_code, _ in signed_rows(store, "former_calls", run):
        index.former_calls.setdefault((call, code), []).append((saved_call, saved_code))
    for call, version, _, states in signed_rows(store, "draws", run):
        index.draws[call, version] = states
    for name, content, base, _ in signed_rows(store, "contents", run):
        index.contents.setdefault(name, {})[content] = base


def signed_rows(store: Store, table: str, run: str = "") -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table, or of a run, whose signature holds, in order, without it."""
    query = f"SELECT {', '.join(REMEMBERED[table])}, signature FROM nbdurable.{table}"  # noqa: S608 - constants
    of_run = " WHERE execution IN (SELECT id FROM nbdurable.execution_log WHERE run = ?)"
    found = store.rows(f"{query}{of_run if run else ''} ORDER BY rowid", [run] if run else [])
    for *row, signature in found:
        if store.heads.holds(table, tuple(row), signature):
            yield tuple(row)

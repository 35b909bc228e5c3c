"""What the signature of a row covers, where the row is no outcome and no decision.

Invariant: two rows have one message only if they are of one store and one table, and equal
in each column that is covered.
"""

from __future__ import annotations

import struct

from .rows import columns_of

_OF_WHERE_IT_RAN = {"python", "packages"}
"""Of these replay only tries whether they can read a value, so no signature covers them."""

REMEMBERED = {
    table: tuple(
        name for name in columns_of(table) if name not in {"signature", *_OF_WHERE_IT_RAN}
    )
    for table in (
        "used_attributes", "former_calls", "draws", "contents", "run_log", "execution_log",
        "execution_ends", "starts", "attempt_ends", "seen_errors", "codes",
    )
}  # fmt: skip
"""The columns of each table that its signatures cover, in their order."""


def remembered_message(store: str, table: str, row: tuple[object, ...]) -> bytes:
    """Return what a row's signature covers: the table, and each field with its length."""
    fields = [table.encode(), store.encode("ascii"), *map(_bytes, row)]
    return struct.pack(f">{len(fields)}Q", *map(len, fields)) + b"".join(fields)


def _bytes(field: object) -> bytes:
    if isinstance(field, bytes):
        return field
    return str(field).encode("utf-8", "surrogatepass")

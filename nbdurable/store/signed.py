"""What the signature of a row covers, where the row is no outcome and no decision.

Invariant: two rows have one message only if they are of one store and one table, and equal
in each column that is covered.
"""

from __future__ import annotations

import struct

REMEMBERED = {
    "used_attributes": ("code", "generation", "root", "holder", "class", "attribute", "text"),
    "former_calls": ("call", "code", "saved_call", "saved_code", "execution"),
    "draws": ("call", "version", "execution", "states"),
    "contents": ("name", "content", "base", "execution"),
    "run_log": ("id", "name", "created"),
    # Of Python and packages replay only tries whether they can read a value.
    "execution_log": ("id", "run", "started", "pid", "host"),
    "execution_ends": ("execution", "status", "ended", "error", "listed", "reused", "told"),
    "starts": ("call", "version", "attempt", "execution", "name", "label", "started"),
    "attempt_ends": (
        "call",
        "version",
        "attempt",
        "execution",
        "name",
        "label",
        "started",
        "seconds",
        "ending",
        "error",
        "concluded",
    ),
    "seen_errors": ("call", "version", "execution"),
    "codes": ("code", "part", "digest"),
}
"""The columns of each table that its signatures cover, in their order."""


def remembered_message(store: str, table: str, row: tuple[object, ...]) -> bytes:
    """Return what a row's signature covers: the table, and each field with its length."""
    fields = [table.encode(), store.encode("ascii"), *map(_bytes, row)]
    return struct.pack(f">{len(fields)}Q", *map(len, fields)) + b"".join(fields)


def _bytes(field: object) -> bytes:
    if isinstance(field, bytes):
        return field
    return str(field).encode("utf-8", "surrogatepass")

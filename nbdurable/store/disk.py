"""What the system says of a disk, as the store's errors: what, where, and what to do.

Invariant: a full disk is a `StoreFullError` wherever it shows, whoever noticed it.
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from nbdurable.errors import StoreError, StoreFullError

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_WORDS = ("no space left", "disk is full", "disk quota exceeded", "file too large")
_READ_ONLY_WORDS = ("Permission denied", "Read-only file system", "Operation not permitted")
_FILE = re.compile(r'(?:Could not|Cannot) .{,40}?file "(.+?)": (.+)')


def file_error(error: OSError, where: Path, otherwise: str) -> StoreError:
    """Return the store's error for a file or folder at `where` that could not be written.

    Args:
        error: What the system said.
        where: Named if the disk is full.
        otherwise: The sentence if it is not.
    """
    if error.errno in _FULL or _says_full(str(error)):
        return _full(str(error.filename or where), error.strerror or str(error))
    return StoreError(otherwise)


def as_store_error(error: duckdb.Error) -> StoreError:
    """Return the store error that tells a person what a DuckDB error means."""
    text = str(error)
    first, *_ = text.splitlines() or [type(error).__name__]
    told = _FILE.search(text)
    if _says_full(text):
        return _full(*told.groups()) if told else _full("the store", first)
    if told and any(words in text for words in _READ_ONLY_WORDS):
        file, reason = told.groups()
        return StoreError(
            f"the store could not be written: {file}: {reason}; what was acknowledged is kept: "
            f"make its folder writable and run the cell again to resume"
        )
    return StoreError(f"the store could not be written: {first}")


def _says_full(text: str) -> bool:
    return any(words in text.lower() for words in _FULL_WORDS)


def _full(what: str, reason: str) -> StoreFullError:
    return StoreFullError(
        f"the disk is full: {what} could not be written ({reason}); what was acknowledged is kept: "
        f"free some space on that disk and run the cell again to resume"
    )

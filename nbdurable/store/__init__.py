"""The store: one DuckDB file, its schema, its group commit, its replay index.

Invariant: the only package that imports duckdb; it knows rows and order, and
nothing of handles, threads that run steps, or notebooks. `Store` and `check` are
looked up when they are first used (PEP 562): importing DuckDB takes a tenth of a
second, which loading the extension must not cost.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .index import Identity, PastAttempts, ReplayIndex, checkpoint_message, decision_message, pack

if TYPE_CHECKING:
    from .database import Opened, Store
    from .journal import Batch, Entry, Journal
    from .verify import check

MEMORY = ":memory:"

__all__ = [
    "MEMORY",
    "Batch",
    "Entry",
    "Identity",
    "Journal",
    "Opened",
    "PastAttempts",
    "ReplayIndex",
    "Store",
    "check",
    "checkpoint_message",
    "decision_message",
    "pack",
]

_LAZY = {"Store": "database", "Opened": "database", "check": "verify", "Batch": "journal",
         "Entry": "journal", "Journal": "journal"}  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)

"""The store: one DuckDB file, its schema, its group commit, its replay index.

Invariant: the only package that imports duckdb; it knows rows and order, and
nothing of handles, threads that run steps, or notebooks. `Store` and `check` are
looked up when they are first used (PEP 562): importing DuckDB takes a tenth of a
second, which loading the extension must not cost.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbdurable.records import NOT_SAVED

from .amendments import (
    add_amendment,
    amendment_message,
    drop_saves,
    replace_progress,
    replace_save,
    settle_acceptances,
    unasked_of,
    verify_amendment,
)
from .changes import conclude, correct_whys, drop_decisions, record_packages, take_out, undo, unsee
from .index import (
    Member,
    PastAttempts,
    ReplayIndex,
    checkpoint_message,
    decision_message,
    pack,
    pack_used,
    same_set,
)
from .listed import is_listed
from .packed import Group, Identity
from .paths import (
    LOCK_WAIT_SECONDS,
    MEMORY,
    QUESTION_WAIT_SECONDS,
    RUN_ENDING,
    file_stem,
    folder_for,
    place_of,
    run_stem,
)

if TYPE_CHECKING:
    from .adopt import hand_over
    from .calls import (
        add_evidence,
        add_outcome,
        calls_of,
        evidence_of,
        last_number,
        outcomes_of_call,
        parts_since,
    )
    from .collect import Garbage, compact, garbage, remove, remove_files, spare_files
    from .database import Store, forked_sentence
    from .history import Past, outcome_of, past_of
    from .journal import Batch, Entry, Journal
    from .keys import key_path
    from .lock import describe
    from .named import mentions
    from .objects import Objects
    from .parquet import write_parquet
    from .remembered import remember
    from .renaming import (
        codes_of_step,
        parts_of_codes,
        rename_run,
        rename_step,
        renamed_to,
        runs_of_step,
    )
    from .retaken import Redo, plan_redo, redo
    from .runs import Opened, begin_execution, load_index, restart, summaries
    from .status_file import (
        MOST_STATUS_BYTES,
        owner_of,
        read_status,
        remove_status,
        write_status,
    )
    from .trust import SavedStep, Survey, survey, trust_store, untrust_store
    from .verify import check

__all__ = [
    "LOCK_WAIT_SECONDS",
    "MEMORY",
    "MOST_STATUS_BYTES",
    "NOT_SAVED",
    "QUESTION_WAIT_SECONDS",
    "RUN_ENDING",
    "Batch",
    "Entry",
    "Garbage",
    "Group",
    "Identity",
    "Journal",
    "Member",
    "Objects",
    "Opened",
    "Past",
    "PastAttempts",
    "Redo",
    "ReplayIndex",
    "SavedStep",
    "Store",
    "Survey",
    "add_amendment",
    "add_evidence",
    "add_outcome",
    "amendment_message",
    "begin_execution",
    "calls_of",
    "check",
    "checkpoint_message",
    "codes_of_step",
    "compact",
    "conclude",
    "correct_whys",
    "decision_message",
    "describe",
    "drop_decisions",
    "drop_saves",
    "evidence_of",
    "file_stem",
    "folder_for",
    "forked_sentence",
    "garbage",
    "hand_over",
    "is_listed",
    "key_path",
    "last_number",
    "load_index",
    "mentions",
    "outcome_of",
    "outcomes_of_call",
    "owner_of",
    "pack",
    "pack_used",
    "parts_of_codes",
    "parts_since",
    "past_of",
    "place_of",
    "plan_redo",
    "read_status",
    "record_packages",
    "redo",
    "remember",
    "remove",
    "remove_files",
    "remove_status",
    "rename_run",
    "rename_step",
    "renamed_to",
    "replace_progress",
    "replace_save",
    "restart",
    "run_stem",
    "runs_of_step",
    "same_set",
    "settle_acceptances",
    "spare_files",
    "summaries",
    "survey",
    "take_out",
    "trust_store",
    "unasked_of",
    "undo",
    "unsee",
    "untrust_store",
    "verify_amendment",
    "write_parquet",
    "write_status",
]

_LAZY = {"add_evidence": "calls", "add_outcome": "calls", "calls_of": "calls",
         "evidence_of": "calls",
         "last_number": "calls", "outcomes_of_call": "calls", "parts_since": "calls",
         "codes_of_step": "renaming", "parts_of_codes": "renaming", "rename_run": "renaming",
         "rename_step": "renaming", "renamed_to": "renaming", "runs_of_step": "renaming",
         "Redo": "retaken", "plan_redo": "retaken", "redo": "retaken",
         "Garbage": "collect", "compact": "collect", "garbage": "collect", "remove": "collect",
         "remove_files": "collect", "forked_sentence": "database",
         "spare_files": "collect", "hand_over": "adopt", "Store": "database",
         "Objects": "objects",
         "Opened": "runs", "begin_execution": "runs", "load_index": "runs", "restart": "runs",
         "summaries": "runs", "check": "verify", "Batch": "journal", "Entry": "journal",
         "Journal": "journal", "SavedStep": "trust", "Survey": "trust", "survey": "trust",
         "trust_store": "trust", "untrust_store": "trust", "mentions": "named", "key_path": "keys",
         "write_parquet": "parquet", "remember": "remembered", "Past": "history",
         "outcome_of": "history", "past_of": "history", "MOST_STATUS_BYTES": "status_file",
         "describe": "lock", "owner_of": "status_file",
         "read_status": "status_file", "remove_status": "status_file",
         "write_status": "status_file"}  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)

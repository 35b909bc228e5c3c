"""Durable computation for Jupyter notebooks.

Concurrent steps are checkpointed into DuckDB as they finish; a race that was
decided stays decided; a notebook whose kernel died is run again from the top,
and only what was still in flight runs. In a notebook ::

    %load_ext nbdurable

    %%durable quotes
    fast = quote.go("alpha")
    slow = quote.go("beta")
    first = select(fast, slow)

and without one ``with nbdurable.workflow("quotes"): ...``.

Architecture
------------

A wing imports itself and the lines above it. Imports that are only for types count, too, and
no modules of a wing import each other in a circle; one list in ``tests/test_architecture.py``
holds it. The first line of a wing's ``__init__.py`` (or of its file) says its duty::

    errors records events labels interrupts isolation pickled   ground: words as data
    executors                          threads, loops, processes, Dask; limits, the clock
    output fingerprint            each step's prints kept apart; code and arguments to digests
    codec evidence                values and errors to bytes, signatures; what bodies ran and read
    store steps view              DuckDB; one step, its attempts; events to a view
    handles                       what a cell holds; select, gather; where code stands
    commit                        outcome numbers and decisions; what is told after
    engine                        one execution: program order, attempts, waits, the end
    api                           what user code calls; settings; the stores that are open
    inspection                    a store, asked and put in order from outside a run
    plain                         plain cells: what they read and change, saved and put back
    notebook headless demo        the IPython extension; without a front end; the demonstrations
    cli testing                   the command line; kill points and clocks for tests

The way of a value: cell text -> `notebook.source` -> `api.workflow` -> `engine.claims` (the
call, in program order, at `go`) -> `steps` -> `executors` -> `codec` (in the thread or process
that ran the body) -> `store` (group commit) -> handle resolved -> event -> `view`.
No value goes back: the view reads neither store nor run, and what a person clicks goes through
`engine.control`. "Done" is told only after the commit, so a screen never shows what a crash can
undo.

Importing this package imports no IPython, no widget library and no DuckDB.
"""

from __future__ import annotations

from typing import Any

from nbdurable.api.configuration import configure
from nbdurable.api.current import current_step
from nbdurable.api.operations import after, as_completed, gather, race, select, sleep
from nbdurable.api.recorded import now, rng, uuid4
from nbdurable.api.step import go, step
from nbdurable.api.workflow import workflow

from .errors import (
    CodecError,
    DecodeError,
    DurableError,
    EncodeError,
    FingerprintError,
    InputMovedError,
    NotInRunError,
    RetriesExhaustedError,
    StepCancelledError,
    StepError,
    StepTimeoutError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
    UntrustedCheckpointError,
    UsageError,
    WaitTimeoutError,
)

__all__ = [
    "CodecError",
    "DecodeError",
    "DurableError",
    "EncodeError",
    "FingerprintError",
    "InputMovedError",
    "NotInRunError",
    "RetriesExhaustedError",
    "StepCancelledError",
    "StepError",
    "StepTimeoutError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreVersionError",
    "UntrustedCheckpointError",
    "UsageError",
    "WaitTimeoutError",
    "after",
    "as_completed",
    "configure",
    "current_step",
    "gather",
    "go",
    "now",
    "race",
    "rng",
    "select",
    "sleep",
    "step",
    "uuid4",
    "workflow",
]

__version__ = "0.1.0"

# Pickles name a public function or class by where it is imported from, not by its module.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name


def load_ipython_extension(shell: Any) -> None:
    """Load the magics: what ``%load_ext nbdurable`` calls."""
    from nbdurable.notebook.extension import load  # noqa: PLC0415 - IPython only where IPython asks for it

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics out again: what ``%unload_ext nbdurable`` calls."""
    from nbdurable.notebook.extension import unload  # noqa: PLC0415

    unload(shell)

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

A module imports lower floors only (``tests/test_architecture.py`` holds it).

===== =================================== ===========================================
floor modules                             duty
===== =================================== ===========================================
0     `errors`, `records`                 the exception tree; calls, outcomes, events
1     `codec`, `reductions`               value <-> payload, signature; without copies
1     `fingerprint`                       code and arguments -> digests
1     `output`, `pieces`, `streams`       each step's prints and displays, kept apart
1     `live`, `screen`                    shown while they come, and taken back
1     `libraries`                         what others keep per process, made one per step
1     `progress`, `label`                 events -> how a run stands; short labels
1     `versions`                          what outcomes were saved with
1     `words`, `tree`                     how that reads; which row is below which
1     `timeline`, `summary`               what a window shows; a saved notebook
1     `drawing`, `region`                 a run in a terminal, drawn below what is printed
1     `tables`                            rows, for a notebook and for a terminal
1     `interrupts`                        SIGINT held back where it would do harm
2     `store`                             DuckDB: schema, group commit, replay index;
                                          object files for what is large
2     `executors`                         runs opaque callables: threads, loops
3     `step`                              one step: its options, its attempts
4     `handles`, `combinators`, `scope`   what a cell holds; where code stands
4     `former`                            a call's identity, before and after a move
4     `ledger`, `entries`                 outcome numbers, decisions, what is committed
4     `delivery`                          which step's output is shown when
4     `bodies`                            attempts started, retried, stopped, adopted
4     `received`                          what code gets of an ended step
4     `waiting`, `completion`             waits; handles in the order in which they end
4     `cancellation`, `dataflow`          what is cancelled; handles as arguments
4     `news`, `reasons`                   what people are told; why a step ran
4     `control`                           what a person asks about a run, and does to it
4     `run`                               program order, combinators, the end of a run
4     `configuration`, `holding`          what `configure` sets; the stores that are open
5     `session`                           joins the parts; `workflow`
5     `questions`, `upkeep`, `recall`     a store, asked; put in order; a past run
5     `api`, `recorded`                   the functions that a cell calls
5     `reports`, `doctor`, `export`       a store, asked from outside a notebook
5     `settings`                          what `configure` has set, and why it is so
6     `publisher`                         the live view: when it is told
6     `widget`, `terminal`                where: in a notebook, outside of one
6     `cell`                              a cell's source -> its source inside a run
6     `notice`                            what is unfinished, told at load
6     `testing`, `demo`                   kill points and clocks; the demonstration
6     `lab`, `provider`                   the one in JupyterLab, and whom it pays
7     `magic`, `kernel`, `cli`            a line is parsed, the session called, the
                                          view shown
7     `commands`, `owners`                `%durable`; which cell has which name
===== =================================== ===========================================

The way of a value: cell text -> `cell` -> `session` -> `run` (the call, in
program order, at `go`) -> `step` -> `executors` -> `codec` (in the worker) ->
`store` (group commit) -> handle resolved -> event -> `progress` -> `widget`.
There is no way back: the view reads neither store nor run, and "done" is told
only after the commit, so a screen never shows what a crash can undo.

Importing this package imports no IPython, no widget library and no DuckDB.
"""

from __future__ import annotations

from typing import Any

from .api import after, as_completed, gather, go, race, select, sleep, step
from .configuration import configure
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
from .recorded import now, rng, uuid4
from .session import workflow

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


def load_ipython_extension(shell: Any) -> None:
    """Load the magics: what ``%load_ext nbdurable`` calls."""
    from .magic import load  # noqa: PLC0415 - IPython only where IPython asks for it

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take the magics out again: what ``%unload_ext nbdurable`` calls."""
    from .magic import unload  # noqa: PLC0415

    unload(shell)

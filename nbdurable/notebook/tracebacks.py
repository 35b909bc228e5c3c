"""Tracebacks as a person wants them: without our own frames, errors of use in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nbdurable.errors import DurableError

if TYPE_CHECKING:
    from types import TracebackType

import functools
import linecache
from typing import TYPE_CHECKING, Any

from nbdurable.errors import CodecError, FingerprintError, StoreError, UsageError
from nbdurable.labels import harmless

from . import source as cell

if TYPE_CHECKING:
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell


def interrupted(shell: InteractiveShell, error: BaseException) -> KeyboardInterrupt:
    """Make the KeyboardInterrupt that a stopped wait shows as, where it waited."""
    trace = _at_its_line(shell, error.__traceback__)
    raised = KeyboardInterrupt() if trace else KeyboardInterrupt("the cell waited for its steps")
    # Raised from the end of a `with`, it would be shown at its first line.
    raised.__dict__["_render_traceback_"] = functools.partial(
        shell.InteractiveTB.structured_traceback, KeyboardInterrupt, raised, trace, tb_offset=0
    )
    return raised


def tell_stop(error: BaseException, name: str) -> None:
    """Let an interrupt that a person asked for in the view show as one line: how to go on."""
    said = f"KeyboardInterrupt: {name} was stopped; run this cell again to resume, {_SAVED}"
    error.__dict__["_render_traceback_"] = lambda: [said]


_SAVED: Final = "and what is saved is not run again"


def _at_its_line(shell: InteractiveShell, trace: TracebackType | None) -> TracebackType | None:
    """Copy a cell's traceback so that its frame stays at the line that it names.

    IPython asks the frame for its line, and a frame moves on to its last one.
    None if the cell waited at its end, where there is no line to show.
    """
    if trace is None or trace.tb_frame.f_globals is not shell.user_global_ns:
        return None
    code = trace.tb_frame.f_code
    source = "\n" * (trace.tb_lineno - 1) + "raise KeyboardInterrupt"
    copied: TracebackType | None = None
    try:
        exec(compile(source, code.co_filename, "exec"), {"__name__": "__main__"})  # noqa: S102
    except KeyboardInterrupt as stand_in:
        copied = stand_in.__traceback__
    if copied is None or (copied := copied.tb_next) is None:
        return None
    copied.tb_next = trace.tb_next
    return copied


def one_line(error: DurableError) -> list[str]:
    """Render an error that its sentence explains: what IPython shows for its traceback."""
    place = ""
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if entry.tb_frame.f_globals.get("__name__") == "__main__":
            lines = linecache.getlines(code.co_filename)
            marked = lines[entry.tb_lineno - 1 : entry.tb_lineno]
            place = (
                f" (line {entry.tb_lineno})"
                if len(lines) > 1 and not any(cell.MAGIC in text for text in marked)
                else ""
            )
        entry = entry.tb_next
    return [harmless(f"{type(error).__name__}: {error}{place}")]


# Mistakes in using nbdurable, and trouble with its store: no line of code is at fault.
SENTENCES: Final[tuple[Any, ...]] = (UsageError, StoreError, CodecError, FingerprintError)

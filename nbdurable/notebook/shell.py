"""The process around a cell: which notebook, which cell, who looks, the interrupt.

Everything that differs between a Jupyter kernel and terminal IPython is asked
here, of the running shell; so ipykernel itself is never imported, and none of
this fails where there is no kernel.
"""

from __future__ import annotations

import functools
import json
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

SESSION_NAME: Final = "JPY_SESSION_NAME"
"""The variable in which the Jupyter server tells a kernel its notebook's path."""

_DIM: Final = "opacity:.65;font-size:90%"


def in_kernel(shell: InteractiveShell) -> bool:
    """Tell whether a Jupyter kernel runs the shell."""
    return getattr(shell, "kernel", None) is not None


def cell_id(shell: InteractiveShell) -> str | None:
    """Return the front end's id of the running cell, where it tells cells apart.

    JupyterLab and VS Code do; nbclient, nbval and a terminal don't.
    """
    get_parent = getattr(shell, "get_parent", None)
    if get_parent is None:
        return None
    found = get_parent().get("metadata", {}).get("cellId")
    return str(found) if found else None


def listens(shell: InteractiveShell) -> bool:
    """Tell whether the kernel takes a widget's messages while a cell blocks it.

    Since ipykernel 7 they come in a thread of their own, a subshell.
    """
    return bool(getattr(getattr(shell, "kernel", None), "_supports_kernel_subshells", False))


def busy_announcer(shell: InteractiveShell) -> Callable[[], None]:
    """Return what tells the front ends that the running cell goes on, from any thread.

    A kernel that has answered a widget's message in mid-cell says that it is idle.
    """
    running: Any = getattr(shell, "kernel")  # noqa: B009 - only a kernel's shell has one
    untyped: Any = shell
    parent = untyped.get_parent()

    def announce() -> None:
        running.session.send(
            running.iopub_socket, "status", {"execution_state": "busy"}, parent=parent
        )

    return announce


def watched(shell: InteractiveShell) -> bool:
    """Tell whether a person looks at the outputs while they come."""
    return not in_kernel(shell) or cell_id(shell) is not None


def notebook(shell: InteractiveShell) -> Path | None:
    """Return the path of the notebook that the kernel serves, as far as is known.

    The path at the kernel's start: after a rename it is stale until a restart. A path that
    was told to the process that started this kernel is that one's own: a notebook may run
    another one.
    """
    told = os.environ.get(SESSION_NAME) if in_kernel(shell) else None
    inherited = told is not None and told == _told_to_parent()
    candidates = (
        shell.user_ns.get("__vsc_ipynb_file__"),
        None if inherited else shell.user_ns.get("__session__"),
        None if inherited else told,
    )
    for candidate in candidates:
        if isinstance(candidate, str) and candidate.endswith(".ipynb"):
            path = Path(candidate).absolute()
            if path.parent.is_dir():
                return path
    return None


@functools.cache
def _told_to_parent() -> str | None:
    """Return the notebook's path that the parent process was started with."""
    try:
        parent = psutil.Process().parent()
        return None if parent is None else parent.environ().get(SESSION_NAME)
    except (psutil.Error, OSError):
        return None  # another user's process: what it was told can't be seen


def sources(shell: InteractiveShell) -> list[str]:
    """Return the cells that have run in this kernel as they were typed, the running one last."""
    untyped: Any = shell
    ran = [source for source in untyped.history_manager.input_hist_raw if source]
    running = running_source(shell)
    if running and (not ran or ran[-1] != running):
        ran.append(running)
    return ran


def running_source(shell: InteractiveShell) -> str:
    """Return the cell that the front end is running; empty where there is no front end."""
    get_parent = getattr(shell, "get_parent", None)
    return "" if get_parent is None else str(get_parent().get("content", {}).get("code") or "")


def saved_sources(path: Path) -> list[str]:
    """Return the sources of a saved notebook's code cells; none if it can't be read as one."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def saved_cells(path: Path) -> dict[str, str]:
    """Read the sources of a saved notebook's cells, by cell id.

    Empty if the file can't be read as a notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {cell["id"]: "".join(cell["source"]) for cell in cells}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def say(shell: InteractiveShell, text: str) -> None:
    """Show the person at the screen a line of nbdurable's own."""
    if in_kernel(shell):
        html = f'<div style="{_DIM}">{escape(text)}</div>'
        publisher: Any = shell.display_pub
        publisher.publish({"text/html": html, "text/plain": text})
    else:
        print(text)  # noqa: T201 - the terminal is where it belongs


def log(shell: InteractiveShell, text: str) -> None:
    """Write a line to the console of whoever runs the kernel, not into the notebook."""
    getattr(shell, "kernel").log.warning(f"nbdurable: {text}")  # noqa: B009 - only a kernel's shell has one

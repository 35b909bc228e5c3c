"""The process around a cell: which notebook, which cell, who looks, the interrupt.

Everything that differs between a Jupyter kernel and terminal IPython is asked
here, of the running shell; so ipykernel itself is never imported, and none of
this fails where there is no kernel.
"""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

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


def watched(shell: InteractiveShell) -> bool:
    """Tell whether a person looks at the outputs while they come."""
    return not in_kernel(shell) or cell_id(shell) is not None


def notebook(shell: InteractiveShell) -> Path | None:
    """Return the path of the notebook that the kernel serves, as far as is known.

    The path at the kernel's start: after a rename it is stale until a restart.
    """
    candidates = (
        shell.user_ns.get("__vsc_ipynb_file__"),
        shell.user_ns.get("__session__"),
        os.environ.get("JPY_SESSION_NAME") if in_kernel(shell) else None,
    )
    for candidate in candidates:
        if isinstance(candidate, str) and candidate.endswith(".ipynb"):
            path = Path(candidate).absolute()
            if path.parent.is_dir():
                return path
    return None


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
    getattr(shell, "kernel").log.warning(text)  # noqa: B009 - only a kernel's shell has one

"""Which cell of the notebook runs under which name.

Invariant: where the front end tells cells apart, a name is one cell's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nbdurable.errors import UsageError

from . import shell as kernel
from . import source as cell

if TYPE_CHECKING:
    from pathlib import Path

    from IPython.core.interactiveshell import InteractiveShell


@dataclass(slots=True)
class _Owner:
    name: str
    count: int


class _Names:
    """Which cell of the notebook runs under which name."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}

    def claim(self, name: str, header: str, shell: InteractiveShell) -> None:
        """Let the running cell own ``name``, where the front end tells cells apart.

        Raises:
            UsageError: Another cell has it, and is still there.
        """
        if (running := kernel.cell_id(shell)) is None:
            return
        source = kernel.running_source(shell)
        if header not in cell.headers_in(source):
            return  # `%run other.ipynb`: this is no cell of the front end's
        for other, owner in list(self._owners.items()):
            if owner.name != name or other == running:
                continue
            path = kernel.notebook(shell)
            if path is None or not _is_gone(other, running, source, name, path):
                raise UsageError(
                    f"{name} is the name of another cell of this notebook, the one run as "
                    f"In [{owner.count}]: give one of the two another name, or, if that cell "
                    f"is gone, {'save the notebook' if path else 'restart the kernel'} and run "
                    f"this one again"
                )
            del self._owners[other]
        self._owners[running] = _Owner(name, shell.execution_count - 1)


def _is_gone(other: str, running: str, source: str, name: str, path: Path) -> bool:
    """Tell whether the saved notebook has lost the other cell, or its name.

    A file that doesn't know the running cell is older than both: it can't tell. VS Code calls
    cells otherwise than the file does: there the file tells by what its cells hold.
    """
    cells = kernel.saved_cells(path)
    if running in cells:
        return other not in cells or not _may_be_called(cells[other], name)
    saved = kernel.saved_sources(path)
    if ":" not in running or source.strip() not in {one.strip() for one in saved}:
        return False
    return sum(_may_be_called(one, name) for one in saved) == 1


def _may_be_called(source: str, name: str) -> bool:
    """Tell whether a cell's header gives it this name, or an expression might."""
    header = cell.header_of(source)
    return header is not None and ("{" in header or name in header)


_NAMES: Final = _Names()


def claim(name: str, header: str, shell: InteractiveShell) -> None:
    """Let the running cell own ``name``, where the front end tells cells apart.

    Args:
        name: The run's name.
        header: What stands behind ``%%durable`` in the cell that is executed.
        shell: The running shell.

    Raises:
        UsageError: Another cell has it, and is still there.
    """
    _NAMES.claim(name, header, shell)

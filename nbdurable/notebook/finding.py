"""Which notebook a kernel serves where nobody tells it: the one that holds what it runs.

Asked are the notebooks that the command lines of the kernel's ancestors name (`jupyter
nbconvert`, `jupyter execute`, `papermill`), then those in the working folder.

Invariant: a notebook is named only if it is the one among these that holds the source of
the running cell; where two do, or none, no notebook is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from . import shell as kernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from IPython.core.interactiveshell import InteractiveShell

_MOST: Final = 500
"""In a folder of more notebooks than that, none is looked for."""

_LARGEST: Final = 100 * 2**20
"""A larger notebook is not read."""

_OUTPUTS: Final = ("--output", "--output-dir", "-o")


@dataclass(slots=True)
class _State:
    """What was found in this process; one instance, `_state`."""

    path: Path | None = None
    decided: bool = False


_state = _State()


def notebook(shell: InteractiveShell, *, decide: bool = False) -> Path | None:
    """Return the notebook that the kernel serves: the one it was told, or the one found.

    Args:
        shell: The running shell.
        decide: Whether what is found now holds until the kernel ends, nothing included: a
            durable cell is about to choose its store.
    """
    if (told := kernel.notebook(shell)) is not None:
        return told
    if not _state.decided and kernel.in_kernel(shell):
        if _state.path is None:
            _state.path = found(kernel.sources(shell), (_named_by_ancestors(), _beside()))
        _state.decided = decide or _state.path is not None
    return _state.path


def is_told(shell: InteractiveShell) -> bool:
    """Tell whether the front end has named the notebook, so that nothing was looked for."""
    return kernel.notebook(shell) is not None


def found(sources: Sequence[str], places: Iterable[Iterable[Path]]) -> Path | None:
    """Return the notebook that holds the last of the sources, if there is exactly one.

    Of several that hold it, the one that holds all of them.

    Args:
        sources: The cells that ran in this kernel, the running one last.
        places: Notebooks; each group is looked at only if no earlier one holds the cell.
    """
    ran = {source.strip() for source in sources}
    running = sources[-1].strip() if sources else ""
    if not running:
        return None
    for notebooks in places:
        paths = dict.fromkeys(path.resolve() for path in notebooks)
        held = {path: _cells(path, running) for path in paths}
        holding = [path for path, cells in held.items() if running in cells]
        if len(holding) > 1:
            holding = [path for path in holding if ran <= held[path]] or holding
        if holding:
            return holding[0] if len(holding) == 1 else None
    return None


def _cells(path: Path, running: str) -> set[str]:
    """Return the sources of a notebook's cells; none if it can't be the one."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return set()
        text = path.read_text(encoding="utf-8")
        first = running.splitlines()[0]
        if not any(json.dumps(first, ensure_ascii=asc)[1:-1] in text for asc in (True, False)):
            return set()
        return {
            "".join(cell["source"]).strip()
            for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "code"
        }
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # what is no notebook is not this one


def _beside() -> Iterator[Path]:
    """Yield the notebooks of the working folder; none of so many that reading them takes long."""
    try:
        there = sorted(Path.cwd().glob("*.ipynb"))
    except OSError:  # the folder was removed
        return
    if len(there) <= _MOST:
        yield from there


def _named_by_ancestors() -> Iterator[Path]:
    """Yield the notebooks that the command lines of the kernel's ancestors name."""
    try:
        ancestors = psutil.Process().parents()
    except psutil.Error:
        return
    for ancestor in ancestors:
        try:
            yield from named_by(ancestor.cmdline(), Path(ancestor.cwd()))
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's


def named_by(command: Sequence[str], folder: Path) -> list[Path]:
    """Return the notebooks that a command line names, as it runs in a folder.

    Where a command says to write its output elsewhere, that is not meant. Of papermill
    the last one is: it makes a notebook of its own for each set of parameters.
    """
    paths: list[Path] = []
    before = ""
    for word in command[1:]:
        if word.endswith(".ipynb") and not word.startswith("-") and before not in _OUTPUTS:
            path = folder / word
            paths += [path] if path.is_file() else sorted(path.parent.glob(path.name))
        before = word
    named = [Path(word).name for word in command[:3]]
    if "papermill" in named or "papermill.__main__" in named:
        return paths[-1:]
    return paths

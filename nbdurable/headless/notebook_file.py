"""A notebook as a file: read, given parameters, written while it runs.

Invariant: the file is a whole notebook at every moment, and what somebody else has written
to it meanwhile is never overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Any, Final

import nbformat

from nbdurable.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PARAMETERS: Final = "parameters"
"""The tag of the cell that holds a notebook's defaults, by papermill's convention."""

INJECTED: Final = "injected-parameters"
"""The tag of the cell after it that sets other values."""


def read(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at `path`, in the present format.

    Raises:
        UsageError: There is none, or it can't be read as one.
    """
    if not path.exists():
        raise UsageError(f"there is no notebook {path}")
    untyped: Any = nbformat
    try:
        notebook: nbformat.NotebookNode = untyped.read(str(path), as_version=4)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is no notebook: {reason}") from error
    return notebook


def inject(notebook: nbformat.NotebookNode, given: Iterable[tuple[str, str]], name: str) -> None:
    """Put a cell that sets parameters behind the cell that holds their defaults.

    One that an earlier run has put there is replaced.

    Args:
        notebook: The notebook; it is changed.
        given: Names and values as they were written; the last value of a name counts.
        name: What to call the notebook in an error.

    Raises:
        UsageError: No cell is tagged so, or a name can't be a variable's.
    """
    values = dict(given)
    if not values:
        return
    for word in values:
        if not word.isidentifier():
            raise UsageError(f"-p {word}: a parameter is a variable's name, like `day` or `n_rows`")
    notebook.cells[:] = [cell for cell in notebook.cells if not _tagged(cell, INJECTED)]
    at = [place for place, cell in enumerate(notebook.cells) if _tagged(cell, PARAMETERS)]
    if not at:
        raise UsageError(
            f"{name} has no cell for parameters: give the cell that sets {', '.join(values)} the "
            f"tag `{PARAMETERS}`; the values of -p are set behind it"
        )
    lines = [f"{word} = {parameter(text)!r}" for word, text in values.items()]
    untyped: Any = nbformat.v4
    cell = untyped.new_code_cell("\n".join(["# Parameters", *lines]), metadata={"tags": [INJECTED]})
    if not notebook.get("nbformat_minor", 5) >= _WITH_IDS:
        cell.pop("id", None)
    notebook.cells.insert(at[0] + 1, cell)


_WITH_IDS: Final = 5
"""From this minor version of format 4 on cells have ids."""


def _tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])


def parameter(text: str) -> object:
    """Return the value that a parameter's text stands for, as papermill reads it."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    with contextlib.suppress(ValueError):
        number = float(text)
        # repr() of these is a name that nothing has.
        if number == number and number not in {float("inf"), float("-inf")}:  # noqa: PLR0124 - not a number
            return number
    return text


class Output:
    """The file to which a notebook is written after every cell.

    ``path`` is where it goes; it changes where somebody else has written to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._seen = _digest(self.path)

    def write(self, notebook: nbformat.NotebookNode) -> str:
        """Write the notebook, whole or not at all.

        Returns:
            A line for the person at the screen; nothing where all is as it should be.
        """
        said = ""
        untyped: Any = nbformat
        text: str = untyped.writes(notebook)
        data = (text if text.endswith("\n") else text + "\n").encode("utf-8", "surrogatepass")
        try:
            now = _digest(self.path)
            if now and now != self._seen:  # one that was deleted is written again
                changed, self.path = self.path, _free(self.path)
                said = (
                    f"{changed.name} was changed meanwhile by somebody else and stays as it is: "
                    f"the executed notebook goes to {self.path.name}"
                )
            _replace(self.path, data)
        except OSError as error:
            return f"{self.path} can't be written: {error.strerror or error}"
        self._seen = hashlib.blake2b(data).digest()
        return said


def _digest(path: Path) -> bytes:
    """Return a digest of a file's content; empty if there is none."""
    try:
        return hashlib.blake2b(path.read_bytes()).digest()
    except FileNotFoundError:
        return b""


def _free(path: Path) -> Path:
    """Return the first name beside `path` that nothing has."""
    number = 1
    while (free := path.with_name(f"{path.stem}.executed-{number}{path.suffix}")).exists():
        number += 1
    return free


def _replace(path: Path, data: bytes) -> None:
    """Replace the content of a file in one step; keep its permissions."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(stat.S_IMODE(path.stat().st_mode))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

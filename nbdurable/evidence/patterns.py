"""The files that a name stands for: itself, those in a folder, those that match a pattern.

Invariant: a folder that is looked into is among what is found, so that a new file there counts.
"""

from __future__ import annotations

import glob
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST: Final = 1_000
"""Of a folder or a pattern with more files only the folder counts."""


def files_of(name: str) -> Iterator[tuple[str, bool]]:
    """Yield the files that a name stands for, and the folders that were looked into.

    Returns:
        Pairs of a name and whether it is a folder's; nothing for what names nothing.
    """
    if not name.isprintable():
        return
    if os.path.isfile(name):  # noqa: PTH113 - a text of any kind
        yield name, False
        return
    if os.path.isdir(name):  # noqa: PTH112
        folder, pattern = name, os.path.join(glob.escape(name), "**", "*")  # noqa: PTH118
    else:
        folder, pattern = str(Path(name).parent), name
        if not glob.has_magic(Path(name).name) or not os.path.isdir(folder):  # noqa: PTH112
            return
    yield folder, True
    found = list(islice(glob.iglob(pattern, recursive=True), MOST + 1))  # noqa: PTH207
    if len(found) <= MOST:
        for one in found:
            yield one, os.path.isdir(one)  # noqa: PTH112

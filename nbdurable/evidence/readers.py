"""Libraries that open files where no audit event tells of it: what their functions are given.

Their readers are written in C++, Rust or C, behind functions of Python: these are seen to
start by `starts`, and the names of files are among their arguments.

Invariant: nothing of the user's runs here; only strings and paths of pathlib are looked at.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from nbdurable.fingerprint import files_in, is_statement

from .patterns import files_of
from .recorder import LIST, READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

    from .recorder import Recorder

_CONSTRUCTOR = "__init__"
_READERS: Final[dict[str, tuple[str, ...]]] = {
    "/polars/io/": ("read_", "scan_"),
    "/pyarrow/parquet/core.py": (
        "read_",
        f"ParquetFile.{_CONSTRUCTOR}",
        f"ParquetDataset.{_CONSTRUCTOR}",
    ),
    "/pyarrow/dataset.py": ("dataset", "parquet_dataset"),
    "/pyarrow/feather.py": ("read_",),
    "/pyarrow/orc.py": ("read_", f"ORCFile.{_CONSTRUCTOR}"),
    "/h5py/_hl/files.py": (f"File.{_CONSTRUCTOR}",),
    "/tables/file.py": ("open_file",),
    "/pandas/io/parquet.py": ("read_parquet",),
    "/pandas/io/pytables.py": ("read_hdf", f"HDFStore.{_CONSTRUCTOR}"),
    "/xarray/backends/api.py": ("open_", "load_"),
    "/pyogrio/": ("read_", "open_"),
    "/rasterio/__init__.py": ("open",),
    "/soundfile.py": (f"SoundFile.{_CONSTRUCTOR}",),
    "/deltalake/table.py": (f"DeltaTable.{_CONSTRUCTOR}",),
    "/duckdb/": (
        *("module_sql", "module_read_", "_connection_sql", "_connection_read_"),
        *("sql", "query", "read_", "from_"),
    ),
}
"""By a part of the name of the library's file: how the qualified names of readers begin."""


def readers_in(filename: str) -> tuple[str, ...]:
    """Return how the names of the functions begin that read files, in a library's own file."""
    path = filename.replace(os.sep, "/")
    for part, names in _READERS.items():
        if part in path:
            return names
    return ()


def meet(recorders: Iterable[Recorder], code: CodeType, frame: Any) -> None:
    """Take note of the files that a reader is given, which is about to start."""
    given = frame.f_locals
    use = _use(given.get("mode"))
    meet_given(recorders, [given[name] for name in code.co_varnames if name in given], use)


def meet_given(recorders: Iterable[Recorder], values: Iterable[Any], use: int) -> None:
    """Take note of the files that texts and paths among some values name, SQL's too."""
    names = list(_names(values))
    for recorder in recorders:
        if not recorder.quiet:
            for name, is_folder in names:
                recorder.meet(name, LIST if is_folder else use)


def _use(mode: Any) -> int:
    """Return what a mode of opening does; reading is what a reader does that has none."""
    if type(mode) is not str or (mode.startswith("r") and "+" not in mode):
        return READ
    return WRITE if mode.startswith(("w", "x")) else READ | WRITE


def _names(values: Iterable[Any]) -> Iterator[tuple[str, bool]]:
    for value in values:
        if type(value) in {list, tuple, set}:
            yield from _names(list(value))
        elif type(value) is dict:
            yield from _names(list(value.values()))
        elif type(value) is str or isinstance(value, PurePath):
            text = str(value)
            for name in files_in(text) if is_statement(text) else (text,):
                yield from files_of(name)

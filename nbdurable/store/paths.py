"""Where the store of a folder's notebooks lies, and what DuckDB can't take for a path.

Invariant: a path that DuckDB would take for another one is never handed to it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import platformdirs

from nbdurable.errors import StoreError

from .files import FOLDER, follow

MEMORY = ":memory:"
LOCK_WAIT_SECONDS = 10.0
"""How long a durable cell waits for a store that another process holds."""
QUESTION_WAIT_SECONDS = 0.7
"""How long a question waits for it: until a cell that has just ended there lets go."""


def place_of(path: str | Path) -> str:
    """Return the one name under which a process holds a store: its absolute path, or MEMORY.

    Raises:
        StoreError: It can't be the path of a file, or is a link that is not followed.
    """
    if str(path) == MEMORY:
        return MEMORY
    try:
        return str(follow(Path(path).expanduser()))
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(f"{str(path)!r} can't be the path of a store: {error}") from error


def folder_for(notebooks: Path) -> Path:
    """Return the folder that holds the stores of the notebooks in a folder: one beside them.

    DuckDB can't keep a file in some folders (see `refuse_misread`). The stores of such a
    folder's notebooks are in the user's data folder, under its name and a digest of its path.

    Raises:
        StoreError: The user's data folder is needed, and not known.
    """
    beside = notebooks / FOLDER
    if not _misread(str(beside / "x.duckdb")):
        return beside
    digest = hashlib.blake2b(str(notebooks).encode(errors="surrogateescape"), digest_size=6)
    name = re.sub(r"[^\w.-]+", "_", notebooks.name).strip("_") or "folder"
    return user_folder("a store") / "stores" / f"{name}-{digest.hexdigest()}" / FOLDER


def file_stem(notebook_stem: str) -> str:
    """Return what the store of a notebook of this name is called, without its ending."""
    stem = notebook_stem.replace("\\", "%5C").replace("?", "%3F")
    return f"_{stem}" if taken_by_schema(stem) else stem


def run_stem(run: str) -> str:
    """Return what the store of a run is called where no notebook is known, without its ending.

    Letters that a file's name can't have are written in hexadecimal; a long name is cut,
    and told from others by a digest.
    """
    name = _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", run)
    if len(name.encode()) > _STEM_BYTES:
        digest = hashlib.blake2b(run.encode(), digest_size=6).hexdigest()
        short = name.encode()[: _STEM_BYTES - len(digest) - 1].decode(errors="ignore")
        name = f"{short}-{digest}"
    return file_stem(f"{name}{RUN_ENDING}")


RUN_ENDING = ".run"
"""What tells the store of a run from that of a notebook, whose store is called as it is."""


_UNFIT = re.compile(r"[^\w .,+=@(){}\[\]~!#$&'-]")
_STEM_BYTES = 150
"""With what is put behind it, such a name is shorter than what every file system allows."""


def taken_by_schema(filename: str) -> bool:
    """Tell whether DuckDB would call a file of this name as our schema, and confuse the two."""
    return filename.split(".", maxsplit=1)[0].casefold() == "nbdurable"


def user_folder(what: str) -> Path:
    """Return the user's data folder of nbdurable, which holds `what`.

    Raises:
        StoreError: The user has no home folder, as in a container with an unknown user id.
    """
    try:
        found = platformdirs.user_data_path("nbdurable", appauthor=False)
    except (RuntimeError, KeyError) as error:
        raise _homeless(what, str(error)) from error
    if not found.is_absolute():  # some versions take "~" as it stands where there is no home
        raise _homeless(what, f"it would be {found}")
    return found


def _homeless(what: str, why: str) -> StoreError:
    return StoreError(
        f"this user has no home folder, where {what} would lie ({why}): set HOME, or point "
        f"NBDURABLE_KEY_FILE at a file outside the project for the signing key and "
        f"NBDURABLE_STORE at one for the store"
    )


def refuse_misread(place: str) -> None:
    """Refuse a path that DuckDB takes for another one, before anything is made.

    Raises:
        StoreError: It is such a path; says why, and what to do.
    """
    if reason := _misread(place):
        raise StoreError(
            f"{place} can't be a store: {reason}; name another store with configure(store=...) or "
            f"NBDURABLE_STORE, or rename what is called so"
        )


def _misread(place: str) -> str:
    """Say how DuckDB misreads a path; nothing where it doesn't."""
    if "\\" in place:
        return "DuckDB takes the backslash in it for a slash"
    if "?" in place:
        return "DuckDB takes the question mark in it for the end of a URL"
    if taken_by_schema(Path(place).name):
        return "it is called `nbdurable`, and DuckDB could not tell the file from the schema in it"
    return ""

"""Machines that are thrown away with their files: a store on one of them is lost, too.

Invariant: only what a known service says of itself counts; nothing is guessed from a folder's
name alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCRATCH: Final = ("/tmp", "/var/tmp", "/scratch", "/dev/shm")  # noqa: S108 - told, not used
"""Folders that hubs empty."""


def told(store: str | Path, variables: Mapping[str, str] = os.environ) -> str:
    """Say that a store dies with its machine, and how to put it elsewhere; nothing if it doesn't.

    Args:
        store: The store's path, or that of its folder.
        variables: The environment, by which services make themselves known.
    """
    path = Path(store)
    if "COLAB_RELEASE_TAG" in variables or "COLAB_GPU" in variables:
        if path.is_relative_to("/content/drive"):
            return ""
        return (
            f"Colab throws {path} away with its machine; to keep the checkpoints in your Drive, "
            f"before the first durable cell: `from google.colab import drive; "
            f"drive.mount('/content/drive'); import nbdurable; nbdurable.configure("
            f"store='/content/drive/MyDrive/{_name(path)}')`"
        )
    if "KAGGLE_KERNEL_RUN_TYPE" in variables:
        return (
            f"Kaggle throws {path} away when the session ends, unless Persistence is set to "
            f"`Files` in the notebook's session options; what a saved version has written is found "
            f"below /kaggle/input when it is added as input: copy its .nbdurable here first"
        )
    if "BINDER_LAUNCH_HOST" in variables or "BINDER_SERVICE_HOST" in variables:
        return (
            f"Binder throws {path} away with this session: to go on later, download the folder "
            f"{path.parent.name if path.suffix else path.name} and put it beside the notebook again"
        )
    scratch = [*_SCRATCH, *(variables.get(name, "") for name in ("SCRATCH", "TMPDIR"))]
    emptied = [one for one in scratch if one and path.is_relative_to(one)]
    if "JUPYTERHUB_USER" in variables and emptied:
        return (
            f"{path} is in {emptied[0]}, which hubs empty; to keep the checkpoints, before the "
            f"first durable cell: `import nbdurable; nbdurable.configure("
            f"store='~/{_name(path)}')`, or move the notebook to your home folder"
        )
    return ""


def _name(path: Path) -> str:
    return path.name if path.suffix == ".duckdb" else "checkpoints.duckdb"

"""Kernels that are told which notebook they serve, as the Jupyter server tells its own.

For whatever is built on nbclient (nbconvert, papermill, testbook), which don't tell::

    NotebookClient(notebook, kernel_manager_class=kernels_for("analysis.ipynb")).execute()

Invariant: nothing but the kernel's environment differs from what the base class starts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from jupyter_client.manager import AsyncKernelManager

SESSION_NAME: Final = "JPY_SESSION_NAME"
"""The variable in which a kernel is told its notebook's path."""


def kernels_for(
    notebook: str | Path, base: type[AsyncKernelManager] = AsyncKernelManager
) -> type[AsyncKernelManager]:
    """Return a class whose kernels serve a notebook: they use the store beside it.

    Args:
        notebook: The notebook's path; it need not exist yet.
        base: The class to derive it from.
    """
    path = str(Path(notebook).absolute())

    class ServingKernels(base):  # type: ignore[misc, valid-type, unused-ignore]
        """Starts kernels that know their notebook."""

        async def start_kernel(self, **options: Any) -> None:
            """Start the kernel; `env` is its environment, by default this process's."""
            env = dict(options.pop("env", None) or os.environ)
            await super().start_kernel(env=env | {SESSION_NAME: path}, **options)

    return ServingKernels

"""Kernels that are told which notebook they serve, as the Jupyter server tells its own.

For whatever is built on nbclient (nbconvert, papermill, testbook), which don't tell::

    NotebookClient(notebook, kernel_manager_class=kernels_for("analysis.ipynb")).execute()

Invariant: nothing but the kernel's environment differs from what the base class starts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

from jupyter_client.kernelspec import KernelSpec
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


class OwnKernels(AsyncKernelManager):  # type: ignore[misc, no-any-unimported, unused-ignore]
    """Starts kernels of this very interpreter, whatever kernelspecs are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:  # type: ignore[no-any-unimported, unused-ignore]
        """The kernel that ipykernel gives for the running Python."""
        return KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3 (ipykernel)",
            language="python",
        )


def process_of(manager: Any) -> Any:
    """Return the process of a started kernel, with its `pid` and `poll()`; None if it has none.

    Jupyter-client has a provisioner for that from version 7 on.
    """
    provisioner = getattr(manager, "provisioner", None)
    return getattr(manager, "kernel", None) if provisioner is None else provisioner.process

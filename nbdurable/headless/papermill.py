"""The papermill engine: ``papermill in.ipynb out.ipynb --engine nbdurable``.

Invariant: the store is the *output* notebook's, so that runs of one input with other
parameters go on side by side, and each resumes from what it has saved itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .kernels import kernels_for

if TYPE_CHECKING:
    from nbformat import NotebookNode


class DurableEngine:
    """Papermill's own engine, whose kernels are told which notebook they serve.

    Papermill loads it while it is itself being imported, so it imports papermill late.
    """

    @classmethod
    def execute_notebook(
        cls, nb: NotebookNode, kernel_name: str, output_path: object = None, **options: Any
    ) -> NotebookNode:
        """Execute the notebook; papermill calls it.

        Where the output is no local file the store is the input's, and where that isn't
        either, the kernel finds its notebook as any other does.
        """
        path = local(output_path) or local(options.get("input_path"))
        if path is not None:
            options["kernel_manager_class"] = kernels_for(path)
        done: NotebookNode = _engine().execute_notebook(nb, kernel_name, output_path, **options)
        return done

    @classmethod
    def nb_kernel_name(cls, nb: NotebookNode, name: str | None = None) -> str:
        """Return the kernel that the notebook names, or `name`."""
        return str(_engine().nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: NotebookNode, language: str | None = None) -> str:
        """Return the language that the notebook names, or `language`."""
        return str(_engine().nb_language(nb, language))


def _engine() -> Any:
    from papermill.engines import NBClientEngine  # noqa: PLC0415 - see the class

    return NBClientEngine


def local(place: object) -> Path | None:
    """Return the path of a notebook that papermill reads or writes; None if it is no local file."""
    named = str(place or "")
    if not named.endswith(".ipynb") or "://" in named:
        return None
    return Path(named)

"""The pytest plugin: a notebook that nbval runs has its own store, as in JupyterLab.

It is installed beside the package, not in it: pytest loads it in every run, and most runs have
no notebook, so it imports nothing of nbdurable.

Invariant: a run without ``--nbval`` is as it would be without this.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSION_NAME = "JPY_SESSION_NAME"


def pytest_configure(config: Any) -> None:
    """Let xdist give all cells of a notebook to one worker: they share a kernel."""
    option = config.option
    runs_notebooks = getattr(option, "nbval", False) or getattr(option, "nbval_lax", False)
    if runs_notebooks and getattr(option, "dist", "no") == "load":
        option.dist = "loadfile"


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    """While a notebook's cell is set up and run, tell the kernel that it starts the notebook."""
    if type(item).__module__.partition(".")[0] != "nbval":
        yield
        return
    before = os.environ.get(SESSION_NAME)
    os.environ[SESSION_NAME] = str(item.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[SESSION_NAME]
        else:
            os.environ[SESSION_NAME] = before

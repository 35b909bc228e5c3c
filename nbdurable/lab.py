"""The demonstration in JupyterLab: 200 paid questions, a killed kernel, nothing paid twice.

Opens the shipped notebook in this environment's JupyterLab, with a simulated provider
and its meter beside it, in the process of the command: the kernel may die, the meter
goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .demo import DemoError
from .provider import Provider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTEBOOK: Final = "hedged.ipynb"
PROVIDER: Final = "NBDURABLE_DEMO_PROVIDER"
"""The variable in which the notebook's kernels find the provider's address."""

_QUIET: Final = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def check() -> None:
    """Refuse to begin where there is no JupyterLab.

    Raises:
        DemoError: It isn't installed in this environment.
    """
    if importlib.util.find_spec("jupyterlab") is None:
        raise DemoError(
            f"this needs JupyterLab: {sys.executable} -m pip install 'nbdurable[lab]', then again"
        )


def serve(notebook: Path, tell: Callable[[str], None], *, browser: bool = True) -> int:
    """Open the notebook in JupyterLab until that ends, or is ended by Ctrl-C.

    Args:
        notebook: A copy made by `demo.prepare`.
        tell: Called with each line for the person at the terminal.
        browser: Whether JupyterLab opens one.

    Returns:
        JupyterLab's exit code; 0 after Ctrl-C.
    """
    config = notebook.parent / ".jupyter"
    (config / "labconfig").mkdir(parents=True)
    # A page that asks about news would stand before the notebook.
    (config / "labconfig" / "page_config.json").write_text(json.dumps(_QUIET), encoding="utf-8")
    with Provider() as provider:
        paths = [str(config), os.environ.get("JUPYTER_CONFIG_PATH", "")]
        environment = os.environ | {
            "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths)),
            PROVIDER: provider.url,
        }
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            str(notebook),
            "--JupyterApp.answer_yes=True",
        ]
        tell(f"a simulated provider charges at {provider.url}/meter")
        tell("JupyterLab opens; in it: Run > Run All Cells. Ctrl-C here ends both.")
        lab = subprocess.Popen(  # noqa: S603 - this environment's own JupyterLab
            [*command, *([] if browser else ["--no-browser"])],
            cwd=notebook.parent,
            env=environment,
        )
        try:
            return lab.wait()
        except KeyboardInterrupt:
            # The terminal has told JupyterLab, too, which ends its kernels first.
            with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                lab.wait(20)
            return 0
        finally:
            if lab.poll() is None:
                lab.kill()
                lab.wait()

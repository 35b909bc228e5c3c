"""The demonstration in JupyterLab: 200 paid questions, a killed kernel, nothing paid twice.

Opens the shipped notebook in this environment's JupyterLab, with a simulated provider
and its meter beside it, in the process of the command: the kernel may die, the meter
goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from .provider import Provider
from .story import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NOTEBOOK: Final = "hedged.ipynb"
PROVIDER: Final = "NBDURABLE_DEMO_PROVIDER"
"""The variable in which the notebook's kernels find the provider's address."""

_PATIENCE: Final = 20
"""How many seconds JupyterLab may take to end its kernels."""

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


def serve(
    notebook: Path,
    tell: Callable[[str], None],
    *,
    browser: bool = True,
    options: Sequence[str] = (),
) -> int:
    """Open the notebook in JupyterLab until that ends, or is ended by Ctrl-C.

    Args:
        notebook: A copy made by `demo.prepare`.
        tell: Called with each line for the person at the terminal.
        browser: Whether JupyterLab opens one.
        options: What JupyterLab gets besides, as on its own command line.

    Returns:
        JupyterLab's exit code; 0 after Ctrl-C.
    """
    config = notebook.parent / ".jupyter"
    (config / "labconfig").mkdir(parents=True)
    # A page that asks about news would stand before the notebook.
    (config / "labconfig" / "page_config.json").write_text(json.dumps(_QUIET), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--JupyterApp.answer_yes=True"]
    # So the address that it prints is the notebook's, too.
    command += [f"--LabApp.default_url=/lab/tree/{notebook.name}"]
    command += [f"--ServerApp.root_dir={notebook.parent}"]
    command += [] if browser else ["--no-browser"]
    with Provider() as provider, _endings():
        tell(f"a simulated provider charges at {provider.url}/meter")
        tell("JupyterLab opens; in it: Run > Run All Cells. Ctrl-C here ends both.")
        lab = subprocess.Popen(  # noqa: S603 - this environment's own JupyterLab
            [*command, *options],
            cwd=notebook.parent,
            env=_environment(config, provider.url),
        )
        try:
            return lab.wait()
        except KeyboardInterrupt:
            # The terminal has told JupyterLab, too, which ends its kernels first.
            with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                lab.wait(_PATIENCE)
            return 0
        finally:
            _end(lab)


def _environment(config: Path, provider: str) -> dict[str, str]:
    """Return the variables that lead the notebook to this Python, its provider, its own store."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "NBDURABLE_STORE" and not name.startswith("JPY_")
    }
    paths = [str(config), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return kept | {
        "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths)),
        # A kernel of the same name in the user's home may be that of another Python.
        "JUPYTER_PREFER_ENV_PATH": "1",
        PROVIDER: provider,
    }


@contextmanager
def _endings() -> Iterator[None]:
    """Let a closed terminal and a plain kill end this process as an exception would."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(lab: subprocess.Popen[bytes]) -> None:
    """See that JupyterLab has ended: asked first, then killed."""
    if lab.poll() is None:
        lab.terminate()
        with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            lab.wait(_PATIENCE)
    if lab.poll() is None:
        lab.kill()
        lab.wait()

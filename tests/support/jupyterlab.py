"""JupyterLab with an open notebook, driven in a browser; its folders and its port."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from playwright.sync_api import Locator, Page, expect

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 30_000  # ms, for what a loaded machine may take to show


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: where it listens, and the folder that it serves."""

    url: str
    token: str
    root: Path
    pid: int

    def kernel_pid(self, kernel: str) -> int:
        """Find the process of a kernel by the connection file that it was given."""
        for child in psutil.Process(self.pid).children(recursive=True):
            if any(f"kernel-{kernel}.json" in word for word in child.cmdline()):
                return child.pid
        msg = f"no process of kernel {kernel} below {self.pid}"
        raise LookupError(msg)


def free_port():
    """Find a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def jupyter_folders(home):
    """Return the variables that keep all that Jupyter reads and writes below one folder."""
    return {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }


class Lab:
    """One notebook in JupyterLab, driven through its own commands."""

    def __init__(self, page: Page, server: Server, pictures: Path) -> None:
        self.page = page
        self.app = "lab/tree"
        self.repository = REPOSITORY
        self.server = server
        self.pictures = pictures
        self.path = ""

    def open(self, *cells: str) -> None:
        """Write a notebook of code cells, open it, and wait for its kernel."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        notebook.metadata.kernelspec = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        self.open_notebook(notebook)

    def open_notebook(self, notebook: nbformat.NotebookNode) -> None:
        """Write a notebook, open it, and wait for its kernel."""
        self.path = f"{secrets.token_hex(4)}.ipynb"
        nbformat.write(notebook, self.server.root / self.path)
        self.show()
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info"
            ".then(() => null)"
        )

    def show(self) -> None:
        """Load the page with the open notebook; again, if it was loaded."""
        self.page.goto(f"{self.server.url}/{self.app}/{self.path}?reset&token={self.server.token}")
        self.page.wait_for_function(
            "name => window.jupyterapp?.shell.currentWidget?.context?.path === name",
            arg=self.path,
        )
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.revealed;
                await panel.sessionContext.ready;
                window.jupyterapp.shell.collapseLeft?.();
            }"""
        )

    def command(self, name: str, *, wait: bool = True, **arguments: Any) -> None:
        """Execute a JupyterLab command, and wait for its promise unless told not to."""
        self.page.evaluate(
            """([name, wait, arguments_]) => {
                const promise = window.jupyterapp.commands.execute(name, arguments_);
                return wait ? promise.then(() => null) : null;
            }""",
            [name, wait, arguments],
        )

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell."""
        self.page.evaluate(
            """index => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.deselectAll();
                notebook.activeCellIndex = index;
            }""",
            index,
        )
        self.command("notebook:run-cell", wait=wait)

    def run_all(self, *, wait: bool = True) -> None:
        """Run all cells."""
        self.command("notebook:run-all-cells", wait=wait)

    def output(self, index: int) -> Locator:
        """Return what a cell shows below its source."""
        return (
            self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-OutputArea-output")
        )

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget"
            ".sessionContext.session?.kernel?.status === 'idle'"
        )

    def kill_kernel(self) -> None:
        """End the kernel's process with SIGKILL, as the machine would."""
        kernel = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"
        )
        os.kill(self.server.kernel_pid(kernel), signal.SIGKILL)

    def theme(self, name: str) -> None:
        """Change the theme, ``Light`` or ``Dark``, and wait until it is on."""
        self.command("apputils:change-theme", theme=f"JupyterLab {name}")
        light = "true" if name == "Light" else "false"
        expect(self.page.locator(f"body[data-jp-theme-light={light}]")).to_be_attached()
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def saved(self) -> Any:
        """Save the notebook and read it from disk."""
        self.command("docmanager:save")
        return nbformat.read(self.server.root / self.path, as_version=4)

    def picture(self, name: str, part: Locator | None = None) -> Path:
        """Take a screenshot, of the page or of a part of it, into the test's folder."""
        path = self.pictures / f"{name}.png"
        (self.page if part is None else part).screenshot(path=path)
        return path

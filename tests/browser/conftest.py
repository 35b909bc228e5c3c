"""JupyterLab in headless Chromium, for tests that look at the screen.

The `lab` fixture opens notebooks in a JupyterLab of its own: loopback, a token,
every Jupyter folder below a temporary one. NBDURABLE_TEST_KERNEL names the Python of
another environment, in which the kernels run. In CI a missing browser fails the test: a
screen that nobody looked at is not a screen that works. Elsewhere it is skipped, and said.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from support.jupyterlab import PATIENCE, REPOSITORY, Lab, Server, free_port, jupyter_folders

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def repository():
    """Return the repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Start JupyterLab once; stop it and its kernels at the end."""
    home = tmp_path_factory.mktemp("jupyter")
    root = home / "notebooks"
    root.mkdir()
    config = home / "config"
    (config / "labconfig").mkdir(parents=True)
    (config / "labconfig" / "page_config.json").write_text(
        '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
    )
    port = free_port()
    token = secrets.token_hex(16)
    environment = os.environ | jupyter_folders(home)
    if (python := os.environ.get("NBDURABLE_TEST_KERNEL")) is not None:
        spec = home / "data" / "kernels" / "python3"
        spec.mkdir(parents=True)
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"})
        )
    environment["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY), str(Path(__file__).parent)))
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
        *("--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    process = subprocess.Popen(
        command, env=environment, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    log: list[str] = []
    listening = threading.Event()

    def read() -> None:
        for said in process.stderr:
            log.append(said.decode(errors="replace"))
            if f"127.0.0.1:{port}/lab" in log[-1]:
                listening.set()
        listening.set()  # it ended

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not listening.wait(90) or process.poll() is not None:
            pytest.fail("JupyterLab did not start:\n" + "".join(log))
        yield Server(f"http://127.0.0.1:{port}", token, root, process.pid)
    finally:
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for kernel in kernels:
            if kernel.is_running():
                kernel.kill()
        reader.join(10)
        process.stderr.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start Chromium, with an empty profile.

    For a module and no longer: as long as Playwright's synchronous interface is open, the
    main thread has a running event loop, and no test could start another.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        lacking = f"no browser: one of {', '.join(BROWSERS)} is needed"
        pytest.fail(lacking) if os.environ.get("CI") else pytest.skip(lacking)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def lab(server, browser: Browser, tmp_path):
    """Yield a fresh page; its kernels are shut down with the page."""
    context = browser.new_context(viewport={"width": 1180, "height": 860})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    driven = Lab(page, server, tmp_path)
    yield driven
    page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")
    context.close()

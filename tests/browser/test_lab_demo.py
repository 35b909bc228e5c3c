"""`nbdurable demo --lab`, played through as a person plays it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect
from support.jupyterlab import PATIENCE, REPOSITORY, Lab, Server, free_port, jupyter_folders

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions

ASK = 6  # where the cell is that costs money
SAVED = "SELECT label, execution FROM steps WHERE name = 'answer' AND status = 'finished'"
DECIDED = "SELECT label, winner FROM decisions ORDER BY ALL"
CALLS = "SELECT count(*) AS calls FROM attempts WHERE name = 'ask' AND execution = 2"
STARTS = 90


@dataclass
class Command:
    """The command, and the JupyterLab that it has started."""

    process: subprocess.Popen
    server: Server
    log: Path


@contextlib.contextmanager
def started(tmp_path):
    """Start the command as a user does, in a home of its own."""
    port = free_port()
    token = secrets.token_hex(16)
    home = tmp_path / "home"
    config = home / "config"
    config.mkdir(parents=True)
    # What a user's own configuration may hold; the command's own comes beside it.
    told = {
        "ServerApp": {"port": port, "port_retries": 0, "ip": "127.0.0.1"},
        "IdentityProvider": {"token": token},
        "LabApp": {
            "expose_app_in_browser": True,
            "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        },
    }
    (config / "jupyter_config.json").write_text(json.dumps(told))
    environment = os.environ | jupyter_folders(home)
    environment |= {
        "PYTHONPATH": str(REPOSITORY),
        "NBDURABLE_STORE": str(tmp_path / "elsewhere.duckdb"),  # not the demonstration's
    }
    folder = tmp_path / "demo"
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "nbdurable.cli",
            "demo",
            "--lab",
            "--no-browser",
            f"--folder={folder}",
            "--",
            "--allow-root",
        ],
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        wait_for(lambda: f":{port}/lab" in Path(log.name).read_text(), process, log)
        server = Server(f"http://127.0.0.1:{port}", token, folder, process.pid)
        yield Command(process, server, Path(log.name))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


@pytest.fixture
def demo(tmp_path):
    """Yield the command's JupyterLab; at the end a Ctrl-C ends it as a terminal does."""
    with started(tmp_path) as command:
        yield command.server
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.process.wait(60) == 0


def wait_for(condition, process, log):
    """Wait until it holds; the command must not end before."""
    end = time.monotonic() + STARTS
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail("the command did not start:\n" + Path(log.name).read_text())
        time.sleep(0.1)


def charged(provider):
    """Return the calls that the meter has counted, by model."""
    with urllib.request.urlopen(f"{provider}/meter.json") as reply:
        return json.load(reply)["calls"]


def counts(said):
    """Take apart ``12 replayed, 3 ran``."""
    return {word: int(number) for number, word in re.findall(r"(\d+) ([a-z ]+)", said)}


def look(page):
    """Scroll so that the meter is on top of what is seen, and wait until it tells something."""
    expect(page.frame_locator("iframe").get_by_text("calls of the cheap model")).to_be_visible()
    page.locator("iframe").evaluate("frame => frame.scrollIntoView({block: 'start'})")


def rows(sql, folder):
    """Ask the store, which no kernel has open, and let go of it."""
    try:
        return questions.query(sql, folder / ".nbdurable" / "hedged.duckdb").to_dict("records")
    finally:
        open_stores.close_stores()


@pytest.mark.timeout(300)
def test_nothing_is_paid_twice(demo, browser, tmp_path):
    """Killed in the middle, run again, edited: what was answered is charged once."""
    pictures = Path(os.environ.get("NBDURABLE_PICTURES") or tmp_path)
    context = browser.new_context(viewport={"width": 1180, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(2 * PATIENCE)
    expect.set_options(timeout=2 * PATIENCE)
    lab = Lab(page, demo, pictures)
    lab.path = "hedged.ipynb"
    lab.show()
    lab.picture("lab-opened")
    lab.run_all(wait=False)
    output = lab.output(ASK)
    view = output.locator(".nbd-view")
    said = view.locator(".nbd-said")
    expect(said).to_contain_text(re.compile(r"\d\d ran, \d+ running"))
    # Two seconds are over for the first: the dear model is asked.
    expect(view.locator("tr", has_text="ask('dear'").first).to_be_visible()
    lab.picture("lab-as-seen")
    look(page)
    lab.picture("lab-running")

    expect(view.locator(".nbd-silence")).to_contain_text("run the notebook again to resume")
    look(page)
    lab.picture("lab-killed")
    page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    look(page)
    lab.picture("lab-gone")
    provider = page.locator("iframe").get_attribute("src").removesuffix("/meter")
    before, saved, decided = charged(provider), rows(SAVED, demo.root), rows(DECIDED, demo.root)
    assert sum(before.values()) >= 80
    # Ten are asked at once, and ten may have been answered and not be committed yet.
    assert 40 < len(saved) <= before["cheap"] <= len(saved) + 20
    assert {row["execution"] for row in saved} == {1}
    assert any(row["winner"].startswith("ask('dear'") for row in decided)

    lab.run_all(wait=False)
    # What was answered is there at once, before the first new answer.
    # So are the few single questions whose answer had not been chosen yet.
    kept = range(len(saved), len(saved) + 21)
    expect(said).to_contain_text(re.compile("|".join(rf"\b{many} replayed" for many in kept)))
    expect(said).to_contain_text(re.compile(r"\d\d ran"))
    expect(view.locator(".nbd-mark", has_text="★ won").first).to_be_visible()
    page.mouse.move(0, 0)
    look(page)
    lab.picture("lab-resuming")
    lab.picture("demo-lab", page.locator(".jp-Cell").nth(ASK).locator(".jp-OutputArea").first)
    expect(output.filter(has_text="200 answers, 31 of them from the dear model")).to_have_count(1)
    lab.idle()
    after = charged(provider)
    # What the second pass was charged for is what it asked: nothing of what was replayed.
    asked = rows(CALLS, demo.root)[0]["calls"]
    assert sum(after.values()) - sum(before.values()) == asked
    assert 200 - len(saved) - 20 <= after["cheap"] - before["cheap"] <= 200 - len(saved)
    first_pass = [row for row in rows(SAVED, demo.root) if row["execution"] == 1]
    assert sorted(map(str, first_pass)) == sorted(map(str, saved))
    still = {str(row) for row in rows(DECIDED, demo.root)}
    assert {str(row) for row in decided} <= still
    expect(output.filter(has_text=f"{len(saved)} replayed")).to_have_count(1)
    look(page)
    lab.picture("lab-resumed")

    page.evaluate(
        """index => {
            const cell = window.jupyterapp.shell.currentWidget.content.widgets[index];
            const source = cell.model.sharedModel.getSource();
            cell.model.sharedModel.setSource(source.replace('# said', 'said'));
        }""",
        ASK,
    )
    lab.run(ASK)
    lab.idle()
    expect(output.filter(has_text="200 replayed, 1 ran")).to_have_count(1)
    expect(output.filter(has_text="46 numbers are prime")).to_have_count(1)
    assert charged(provider) == after
    look(page)
    lab.picture("lab-edited")
    assert not (tmp_path / "elsewhere.duckdb").exists()
    context.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_the_command_ends_jupyterlab(tmp_path, number):
    """A plain kill, or the terminal's end, reaches the server that it has started."""
    with started(tmp_path) as command:
        assert f"{command.server.url}/lab/tree/hedged.ipynb?token=" in command.log.read_text()
        (lab,) = psutil.Process(command.process.pid).children()
        command.process.send_signal(number)
        assert command.process.wait(60) == 128 + number
        assert not lab.is_running()


def test_without_jupyterlab_the_command_says_what_to_install(tmp_path):
    """One line, no traceback, nothing left behind."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: "
        "None if name == 'jupyterlab' else found(name, *more)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "nbdurable.cli", "demo", "--lab", "--folder", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(blocked), str(REPOSITORY)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: this needs JupyterLab: ")
    assert "-m pip install 'nbdurable[lab]'" in ran.stderr
    assert not (tmp_path / "demo").exists()
    shutil.rmtree(blocked)

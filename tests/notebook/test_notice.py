"""The notice of unfinished runs: its lines, its panels."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from support.emulated import Terminal

from nbdurable.records import RunStatus, RunSummary
from nbdurable.view.notice import LISTED, Notice

REPOSITORY = Path(__file__).parents[2]
NOW = 1_000_000.0


def summary(name="quotes", status=RunStatus.DIED, saved=3, in_flight=2, ended=None):
    """Make a run's line, begun 130 seconds ago."""
    return RunSummary("r", name, status, NOW - 999, 1, NOW - 130, ended, saved, in_flight)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (summary(), "quotes: 3 of 5 steps saved, died 2 min ago; run its cell to resume"),
        (
            summary(status=RunStatus.FAILED, in_flight=0, ended=NOW - 30),
            "quotes: 3 steps saved, failed 30 s ago; run its cell to resume",
        ),
        (
            summary(status=RunStatus.INTERRUPTED, saved=0, in_flight=0, ended=NOW - 7200),
            "quotes: no step saved, interrupted 2 h ago; run its cell to resume",
        ),
        (
            summary(status=RunStatus.RUNNING, saved=1, in_flight=0),
            "quotes: 1 step saved, running; its execution began 2 min ago",
        ),
        (
            summary(saved=3_000, in_flight=1_000),
            "quotes: 3,000 of 4,000 steps saved, died 2 min ago; run its cell to resume",
        ),
    ],
)
def test_a_line_a_run(run, says):
    """What is saved, since when it stands, and how to go on; a running one is left to run."""
    assert str(Notice([run], NOW)) == says


def test_many_are_counted():
    """The newest are named, the others counted."""
    lines = str(Notice([summary(f"etl-{n}") for n in range(50)], NOW)).splitlines()
    assert len(lines) == LISTED + 1
    assert lines[0].startswith("etl-0: ")
    assert lines[-1] == "… 42 more: %durable status lists them"


def test_the_panel_of_a_notebook():
    """It says what the lines say, escaped, with neither script nor button."""
    bundle = Notice([summary("<a> & b"), summary("c")], NOW).bundle
    html = bundle["text/html"]
    assert "<strong>&lt;a&gt; &amp; b</strong>: 3 of 5 steps saved, died 2 min ago; run its" in html
    assert html.count("<li>") == 2
    assert not re.search("<script|<button|onclick", html)
    assert bundle["text/plain"] == str(Notice([summary("<a> & b"), summary("c")], NOW))


class Stream(io.StringIO):
    """A stdout that says what it is."""

    encoding = "utf-8"
    tty = True

    def isatty(self):
        """As set."""
        return self.tty


@pytest.mark.parametrize("what", ["pipe", "ascii", "dumb"])
def test_lines_where_no_frame_can_be(monkeypatch, what):
    """A pipe, an encoding without the shapes, a dumb terminal: plain lines."""
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "dumb" if what == "dumb" else "xterm")
    if what == "pipe":
        stream.tty = False
    elif what == "ascii":
        stream.encoding = "ascii"
    notice = Notice([summary("[bold]")], NOW)
    notice.print()
    assert stream.getvalue() == f"{notice}\n"


def test_a_frame_on_a_terminal(monkeypatch):
    """A terminal shows the lines in a frame; names are no markup."""
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    Notice([summary("[bold]")], NOW).print()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert "unfinished: what is saved is not run again" in shown[0]
    assert "│ [bold]: 3 of 5 steps saved, died 2 min ago; run its cell to resume │" in shown[1]
    assert len(shown) == 3


def test_in_ipython(tmp_path, monkeypatch):
    """A run that died is told of at load, and running its cell resumes it."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "steps.py").write_text(
        "import os\nfrom nbdurable import step\n"
        "@step\ndef first():\n    return 6\n"
        "@step\ndef dies():\n"
        "    if os.path.exists('done'): return 7\n"
        "    open('done', 'w').close()\n    os.kill(os.getpid(), 9)\n"
    )
    options = ["-m", "IPython", "--no-banner", "--colors=nocolor", "--no-confirm-exit"]
    options += ["--TerminalInteractiveShell.autosuggestions_provider=None"]
    cell = "%%durable quotes\rfirst() * dies()\x1b\r"

    terminal = Terminal(options, tmp_path)
    with contextlib.closing(terminal):
        terminal.wait("In [1]:")
        terminal.child.send("from steps import *\r")
        terminal.wait("In [2]:")
        terminal.child.send("%load_ext nbdurable\r")
        assert "unfinished" not in terminal.wait("In [3]:")
        terminal.child.send(cell)
        terminal.end()

    terminal = Terminal(options, tmp_path)
    with contextlib.closing(terminal):
        terminal.wait("In [1]:")
        terminal.child.send("from steps import *\r")
        terminal.wait("In [2]:")
        terminal.child.send("%load_ext nbdurable\r")
        seen = terminal.wait("unfinished: what is saved is not run again", "In [3]:")
        assert re.search(r"│ quotes: 1 step saved, died \d+ s ago; run its cell to resume +│", seen)
        terminal.child.send(cell)
        seen = terminal.wait("Out[3]: 42", "In [4]:")
        assert "quotes: 1 replayed, 1 ran" in seen

"""The view outside notebooks: real scripts and real IPython in pseudo-terminals."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.emulated import Screen, Terminal

import nbdurable
from nbdurable.errors import UsageError
from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    RunFinished,
    RunStarted,
    StepCreated,
    StepFinished,
    StepReplayed,
)
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.view.progress import RunView
from nbdurable.view.terminal.drawing import Artist
from nbdurable.view.terminal.region import Region
from nbdurable.view.terminal.screen import PlainScreen, view_for

REPOSITORY = Path(__file__).parents[2]

PRELUDE = """
import sys, threading, time
import nbdurable
from nbdurable import gather, go, select, step
from nbdurable.evidence import starts
from pathlib import Path

starts.install()
starts._state["why"] = ""  # these scripts are as on a Python that shows which code runs

def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.005)

@step
def held(name):
    wait_for(name)
    return name
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Run a script, in a pseudo-terminal or with its streams in pipes."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    with contextlib.ExitStack() as ends:

        def run(body, *, piped=False, options=(), **env):
            (tmp_path / "script.py").write_text(PRELUDE + textwrap.dedent(body))
            if piped:
                plain = {k: v for k, v in os.environ.items() if k != "NBDURABLE_PROGRESS"}
                return subprocess.run(
                    [sys.executable, "script.py"],
                    cwd=tmp_path,
                    env=plain | env,
                    capture_output=True,
                    encoding=env.get("PYTHONIOENCODING", "utf-8"),
                    check=False,
                )
            terminal = Terminal(["script.py", *options], tmp_path, **env)
            ends.callback(terminal.close)
            return terminal

        yield run


def told(*events):
    """Fold events into a view."""
    view = RunView("quotes")
    for event in events:
        view.apply(event)
    return view


def created(place, kind="step", name="quote", branches=()):
    """Make the event of a new row."""
    label = f"{name}({place})" if kind == "step" else kind
    return StepCreated(place, kind, name if kind == "step" else kind, label, 100.0, None, branches)


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        """It is."""
        return True


@pytest.fixture
def artist(monkeypatch):
    """Return what draws for a terminal without colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return Artist(Tty())


def plain(lines):
    """Drop styles and blanks at the ends."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]


# --- What is drawn -------------------------------------------------------------------


def test_rows_tell_state_time_error_and_winner(artist):
    """A header, then a row each: shape, word, time; a retry's error, the winner, a failure."""
    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        *(created(place) for place in range(4)),
        created(4, "select", branches=(0, 1)),
        AttemptStarted(0, 1, Why.NEW, "", 100.0),
        AttemptStarted(1, 1, Why.CODE_CHANGED, "quote()", 101.0),
        AttemptStarted(2, 1, Why.NEW, "", 100.0),
        AttemptFailed(1, 1, "TimeoutError: no\nanswer", 5.0, 102.0),
        StepFinished(2, Kind.ERROR, 1, 2.0, True, "ValueError: broken", 102.0),
        StepFinished(0, Kind.VALUE, 2, 1.5, True, "", 102.0),
        Decided(4, 0, Kind.VALUE, 2, False, 102.0),
    )
    header, *rows = plain(artist.live(view, 103.0, columns=120, room=20))
    assert header == "quotes: 2 of 4 steps (1 ran, 1 failed, 1 retrying, 1 waiting), 3.0 s"
    assert [re.split(r"  +", row.strip()) for row in rows] == [
        ["✓ select", "done", "★ quote(0) won"],
        ["✓ quote(0)", "done, ★ won", "1.5 s"],
        [
            "↻ quote(1)",
            "retrying, lost",
            "again in 4.0 s",
            "attempt 1 failed: TimeoutError: no answer",
        ],
        ["✗ quote(2)", "failed", "2.0 s", "ValueError: broken"],
        ["○ quote(3)", "waiting"],
    ]


def test_height_and_width_are_bounded(artist):
    """However many steps, however narrow: no more lines and columns than there are."""
    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        *(created(place, name="q" * 50) for place in range(5000)),
        *(AttemptStarted(place, 1, Why.NEW, "", 100.0) for place in range(30)),
    )
    for room, columns in ((22, 80), (5, 30), (2, 10), (1, 80)):
        lines = plain(artist.live(view, 103.0, columns=columns, room=room))
        assert 1 <= len(lines) <= room
        assert all(len(line) < columns for line in lines), lines
    lines = plain(artist.live(view, 103.0, columns=80, room=22))
    assert "30 running, 4,970" in lines[1]
    assert sum("▶" in line for line in lines) == 8
    assert lines[-1].strip() == "22 running, 4,970 waiting"


def test_a_map_tells_how_long_it_will_take(artist):
    """By the pace of what ran; what was replayed is no measure."""
    places = tuple(range(100))
    view = told(
        RunStarted("quotes", "r", 1, 50, 100.0),
        *(created(place) for place in places),
        created(100, "gather", branches=places),
        *(StepReplayed(place, Kind.VALUE, place, 9.0, 1, 100.0) for place in range(50)),
    )

    def last_row(now):
        rows = plain(artist.live(view, now, columns=100, room=22))
        (found,) = [row for row in rows if "quote \N{MULTIPLICATION SIGN} 100" in row]
        return found

    assert last_row(100.0).endswith("50 replayed, 50 waiting")
    for place in range(50, 60):
        view.apply(AttemptStarted(place, 1, Why.NEW, "", 100.0))
        view.apply(StepFinished(place, Kind.VALUE, place, 1.0, True, "", 101.0))
    assert "left" not in last_row(101.0)  # a second tells nothing yet
    assert "20 s left, 50 replayed, 10 ran, 40 waiting" in last_row(105.0)


def test_what_moves_comes_first_where_not_all_can_be_shown(artist):
    """In a low window what moves and what failed stays; what ended well is counted."""
    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        *(created(place) for place in range(12)),
        *(StepFinished(place, Kind.VALUE, place, 1.0, True, "", 101.0) for place in range(10)),
        StepFinished(10, Kind.ERROR, 11, 1.0, True, "ValueError: broken", 101.0),
        AttemptStarted(11, 1, Why.NEW, "", 100.0),
    )
    lines = plain(artist.live(view, 102.0, columns=80, room=4))
    assert [line.split()[:2] for line in lines[1:]] == [
        ["✗", "quote(10)"],
        ["▶", "quote(11)"],
        ["…", "10"],
    ]


def test_a_second_attempt_tells_of_the_first(artist):
    """While it runs again, the error of the attempt before is shown; and the deaths it saw."""
    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        created(0),
        AttemptStarted(0, 1, Why.NEW, "", 100.0),
        AttemptFailed(0, 1, "OSError: no", 1.0, 101.0),
        AttemptStarted(0, 2, Why.NEW, "", 102.0, deaths=2),
    )
    (_, row) = plain(artist.live(view, 103.0, columns=120, room=9))
    assert "in flight at 2 deaths of its process, attempt 2, before it: OSError: no" in row


def test_shapes_in_ascii():
    """Where the encoding has no shapes, all is ASCII, labels too."""

    class Narrow(Tty):
        encoding = "ascii"

    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        created(0, name="größe"),
        AttemptStarted(0, 1, Why.NEW, "", 100.0),
    )
    artist = Artist(Narrow())
    lines = artist.live(view, 101.0, columns=80, room=9)
    assert "\n".join(lines).isascii()
    assert re.search(r"> gr\\xf6\\xdfe\(0\) +running", plain(lines)[1])
    assert artist.left(view).isascii()


def test_text_of_steps_cannot_move_the_cursor(artist):
    """Escape codes in labels and errors are shown as nothing, never obeyed."""
    view = told(
        RunStarted("quotes", "r", 1, 0, 100.0),
        created(0, name="a\x1b[2Jb\nc"),
        StepFinished(0, Kind.ERROR, 1, 2.0, True, "E: \x1b[31m\x07red\n\x1b[5Aup", 102.0),
        RunFinished(RunStatus.FINISHED, 103.0, ("note \x1b[2J",)),
    )
    for text in (*artist.live(view, 103.0, columns=80, room=9), artist.left(view)):
        assert not re.search(r"\x1b\[[0-9;]*[A-HJ-KST]|\x07", text), text


# --- Lines ----------------------------------------------------------------------------


def test_plain_lines_tell_what_matters_and_no_more():
    """Start, retries, decisions, failures, the end; 10,000 steps are a few dozen lines."""
    stream = io.StringIO()
    screen = PlainScreen(stream, Artist(stream))
    view = told(RunStarted("quotes", "r", 1, 7, 0.0))
    screen.open(view, 0.0)
    now = 0.0
    for place in range(10_000):
        now = place * 0.05
        view.apply(created(place))
        view.apply(AttemptStarted(place, 1, Why.NEW, "", now))
        view.apply(AttemptFailed(place, 1, "OSError: again", 1.0, now))
        if place % 2:
            view.apply(StepFinished(place, Kind.ERROR, place, 1.0, True, "OSError: no", now))
        if not place % 4:
            screen.send(view, now)
    view.apply(RunFinished(RunStatus.FINISHED, now))
    screen.summarise(view)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "quotes: started, 7 outcomes saved"
    assert "quotes: ↻ quote(0): attempt 1 failed: OSError: again" in lines
    assert "quotes: ✗ quote(1) failed: OSError: no" in lines
    assert any(re.fullmatch(r"quotes: … \d+ more", line) for line in lines)
    assert any(line.startswith("quotes: 5,000 failed, 5,000 not finished, ") for line in lines)
    assert len(lines) < 400
    assert all(len(line) < 200 for line in lines)


def test_nothing_is_said_twice():
    """A row that changes without news of its own gets no second line."""
    stream = io.StringIO()
    screen = PlainScreen(stream, Artist(stream))
    view = told(
        RunStarted("quotes", "r", 1, 0, 0.0),
        created(0),
        created(1),
        created(2, "select", branches=(0, 1)),
        StepFinished(0, Kind.ERROR, 1, 1.0, True, "OSError: no", 1.0),
        Decided(2, 0, Kind.ERROR, 1, False, 1.0),
    )
    screen.open(view, 0.0)
    for now in range(1, 60):
        screen.send(view, float(now))
        view.apply(StepFinished(1, Kind.VALUE, 2, 1.0, True, "", 1.0))
    lines = stream.getvalue().splitlines()
    assert lines.count("quotes: select: quote(0) won over quote(1)") == 1
    assert lines.count("quotes: ✗ quote(0) failed: OSError: no") == 1


def test_a_closed_stream_is_nobodys_loss():
    """A stderr that is closed in mid-run ends the telling, not the run."""
    stream = io.StringIO()
    screen = PlainScreen(stream, Artist(stream))
    view = told(RunStarted("quotes", "r", 1, 0, 0.0))
    stream.close()
    screen.open(view, 0.0)
    screen.summarise(view)


# --- Who sees it ----------------------------------------------------------------------

LASTING = """
with nbdurable.workflow("quotes", store=":memory:"):
    print("before")
    go(time.sleep, 0.9).result()
    print("after")
"""


def test_nobody_asked_where_no_terminal_is(script):
    """In pipes a script's output is the script's; no rich is loaded."""
    done = script(LASTING + "print('rich' in sys.modules)\n", piped=True)
    assert (done.stdout, done.stderr) == ("before\nafter\nFalse\n", "")


@pytest.mark.parametrize("how", ["environment", "configure", "workflow"])
def test_asked_for_in_a_pipe(script, how):
    """Asked for in one of three ways, lines go to stderr, and stdout stays the script's."""
    body, env = LASTING, {}
    if how == "environment":
        env = {"NBDURABLE_PROGRESS": "1"}
    elif how == "configure":
        body = "nbdurable.configure(progress=True)\n" + body
    else:
        body = body.replace('":memory:"', '":memory:", progress=True')
    done = script(body, piped=True, **env)
    assert done.stdout == "before\nafter\n"
    first, last = done.stderr.splitlines()
    assert first == "quotes: started, nothing saved yet"
    assert re.fullmatch(r"quotes: 1 ran, \d\.\d s", last)
    assert "\x1b" not in done.stderr


def test_a_pipe_that_cannot_hold_the_shapes(script):
    """An ASCII stderr gets ASCII."""
    body = LASTING.replace("go(time.sleep, 0.9).result()", "go(print, end='ä').result(); 1/0")
    done = script(
        body.replace('"quotes"', '"größe"'),
        piped=True,
        NBDURABLE_PROGRESS="1",
        PYTHONIOENCODING="ascii",
    )
    assert "gr\\xf6\\xdfe: failed, 1 ran" in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("how", ["environment", "configure", "workflow"])
def test_refused_on_a_terminal(script, how):
    """Refused in one of three ways, a terminal shows the script's output and nothing else."""
    body, env = LASTING, {}
    if how == "environment":
        env = {"NBDURABLE_PROGRESS": "0"}
    elif how == "configure":
        body = "nbdurable.configure(progress=False)\n" + body
    else:
        body = body.replace('":memory:"', '":memory:", progress=False')
    terminal = script(body, **env)
    terminal.end()
    assert terminal.written == "before\r\nafter\r\n"


def test_a_short_run_shows_nothing_unless_asked(script):
    """A run that ends at once leaves a terminal alone; asked for, it leaves its line."""
    body = """
        with nbdurable.workflow("quotes", store=":memory:", progress=None):
            go(int).result()
    """
    assert script(body).end() == ""
    assert "quotes: 1 ran, " in script(body.replace("=None", "=True")).end()


def test_a_decorated_function_shows_itself_too(script):
    """The decorator's runs are shown as those of the context manager."""
    terminal = script("""
        @nbdurable.workflow("load", store=":memory:")
        def load(n):
            return held.go(n).result()
        print(load("go1"))
    """)
    terminal.wait("load(", "held('go1')", "running")
    Path(terminal.child.cwd, "go1").touch()
    assert re.search(r"^load\(.*: 1 ran, ", terminal.end(), re.MULTILINE)


def test_progress_is_true_or_false(monkeypatch, tmp_path):
    """Anything else is a mistake in one sentence, in each of its places."""
    with pytest.raises(UsageError, match="progress='yes'"):
        nbdurable.configure(progress="yes")
    with pytest.raises(UsageError, match="progress=1"):
        nbdurable.workflow("w", progress=1)
    monkeypatch.setenv("NBDURABLE_PROGRESS", "maybe")
    run = nbdurable.workflow("w", store=tmp_path / "w.duckdb")
    with pytest.raises(UsageError, match="NBDURABLE_PROGRESS=maybe"), run:
        pass
    assert list(tmp_path.iterdir()) == []


def test_no_stderr_at_all(monkeypatch):
    """Under pythonw there is no stderr, and nobody to show anything to."""
    monkeypatch.setattr(sys, "stderr", None)
    assert view_for("w", asked=True) is None


# --- On a terminal --------------------------------------------------------------------


def test_live_and_then_a_few_lines(script):
    """The view moves while the run does, and leaves its line, its decision, its failure."""
    terminal = script("""
        @step(retries=3, backoff=30)
        def flaky():
            raise OSError("no answer")
        @step
        def broken():
            raise ValueError("broken")
        with nbdurable.workflow("quotes", store=":memory:"):
            first = select(held.go("go1"), held.go("go2"))
            bad, again = broken.go(), flaky.go()
            print("the winner:", first.result())
            wait_for("end")
            again.cancel()
    """)
    folder = Path(terminal.child.cwd)
    terminal.wait(
        "again in",
        "attempt 1 failed: OSError: no answer",
        re.compile(r"ValueError: broken \(broken\(\), line \d+ of "),
        re.compile(r"▶ held\('go1'\) +running +\d"),
        re.compile(r"○ select +0 of 2"),
    )
    (folder / "go1").touch()
    terminal.wait(
        "★ held('go1') won",
        "the winner: go1",
        re.compile(r"✓ held\('go1'\) +done, ★ won"),
        re.compile(r"▶ held\('go2'\) +running, lost"),
    )
    (folder / "end").touch()
    left = terminal.end().splitlines()
    assert left[0] == "the winner: go1"
    assert re.fullmatch(r"quotes: 1 ran, 1 failed, 1 cancelled, 1 not finished, .* s", left[1])
    assert left[2] == "  select: held('go1') won over held('go2')"
    assert left[3].startswith("  ✗ broken() failed: ValueError: broken (broken(), line ")
    assert not any("▶" in line for line in left)


PRINTS = """
import logging, warnings
from tqdm import tqdm
logging.basicConfig(format="%(message)s")
held_stdout = sys.stdout
@step
def talks(n):
    for i in range(20):
        print("step", n, "line", i)
        time.sleep(0.01)
    return n
with nbdurable.workflow("quotes", store=":memory:"):
    waits = held.go("go")
    for i in range(200):
        print("line", i)
        if i % 20 == 0:
            time.sleep(0.06)
    a, b = talks.go("a"), talks.go("b")
    a.result(), b.result()
    print("no newline ", end="", flush=True)
    time.sleep(1)
    print("yet", end="")
    print(", now")
    print("\\x1b[31mred " + "x" * 250, end="", flush=True)
    time.sleep(1)
    print("\\x1b[0m|")
    logging.warning("a warning")
    held_stdout.write("by an old hand\\n")
    sys.stderr.write("to stderr ")
    time.sleep(1)
    sys.stderr.write("in parts\\n")
    for i in tqdm(range(5), ascii=True, bar_format="{n}/{total}", mininterval=0):
        time.sleep(0.1)
    Path("go").touch()
    waits.result()
print("end")
"""
EXPECTED = [
    *(f"line {i}" for i in range(200)),
    *(f"step {n} line {i}" for n in "ab" for i in range(20)),
    "no newline yet, now",
]
AFTER = ["a warning", "by an old hand", "to stderr in parts", "5/5"]


def test_prints_come_out_whole_and_in_order(script):
    """Lines, parts of lines, long ones, steps' output, logging, tqdm: none lost, none torn."""
    terminal = script(PRINTS)
    left = terminal.end().splitlines()
    at = len(EXPECTED)
    assert left[:at] == EXPECTED
    assert "".join(left[at : at + 3]) == "red " + "x" * 250 + "|"
    assert left[at + 3 : at + 7] == AFTER
    assert re.fullmatch(r"quotes: 3 ran, .* s", left[at + 7])
    assert left[at + 8 :] == ["end"]
    drawn = [text for text in terminal.seen if "held('go')" in text and "running" in text]
    assert any("no newline\nquotes" in text for text in drawn)
    assert any("to stderr\nquotes" in text for text in drawn)
    assert any("xx\nquotes" in text for text in drawn)


def test_stdout_in_a_pipe_stays_clean(script, tmp_path):
    """The view is on the terminal, and the file has what the script printed, to the letter."""
    (tmp_path / "script.py").write_text(PRELUDE + PRINTS)
    launch = (
        "import subprocess, sys;"
        "sys.exit(subprocess.call([sys.executable, 'script.py'], stdout=open('out', 'w')))"
    )
    terminal = Terminal(["-c", launch], tmp_path)
    left = terminal.end()
    out = (tmp_path / "out").read_text().splitlines()
    assert out == [*EXPECTED, "\x1b[31mred " + "x" * 250 + "\x1b[0m|", "by an old hand", "end"]
    assert any("held('go')" in text and "running" in text for text in terminal.seen)
    lines = left.splitlines()
    assert lines[:3] == ["a warning", "to stderr in parts", "5/5"]
    assert re.fullmatch(r"quotes: 3 ran, .* s", lines[3])
    assert lines[4:] == []


def test_what_stood_on_the_line_stays(script):
    """A line begun before the run is not written over."""
    terminal = script("""
        print("working ... ", end="", flush=True)
        with nbdurable.workflow("quotes", store=":memory:"):
            held.go("go").result()
        print("done")
    """)
    terminal.wait("held('go')")
    Path(terminal.child.cwd, "go").touch()
    left = terminal.end().splitlines()
    assert left[0] == "working ..."
    assert left[1].startswith("quotes: 1 ran")
    assert left[2] == "done"


def test_another_live_display_of_the_cells_own(script):
    """A rich progress bar of the script's own is left alone, and what follows is whole."""
    terminal = script("""
        from rich.progress import Progress, TextColumn
        with nbdurable.workflow("quotes", store=":memory:"):
            waits = held.go("go")
            time.sleep(0.6)
            with Progress(TextColumn("{task.description} {task.completed}")) as bars:
                one, two = bars.add_task("one", total=8), bars.add_task("two", total=8)
                for i in range(8):
                    bars.advance(one), bars.advance(two)
                    time.sleep(0.1)
            print("after")
            Path("go").touch()
            waits.result()
    """)
    left = terminal.end().splitlines()
    assert left[:3] == ["one 8", "two 8", "after"]
    assert left[3].startswith("quotes: 1 ran")
    assert len(left) == 4


def test_input_is_asked_in_peace(script):
    """While `input` waits nothing is drawn; what was typed arrives, and the view comes back."""
    terminal = script("""
        with nbdurable.workflow("quotes", store=":memory:"):
            waits = held.go("go")
            time.sleep(0.6)
            name = input("Name? ")
            print("hello", name)
            waits.result()
    """)
    terminal.wait("held('go')")
    seen = terminal.wait("Name?")
    assert "held" not in seen
    written = len(terminal.written)
    time.sleep(1.2)  # two beats, in which it would have been drawn
    terminal.child.send("Ada\r")
    terminal.wait("hello Ada", "held('go')")
    assert terminal.written[written:].startswith("Ada\r\n")
    Path(terminal.child.cwd, "go").touch()
    left = terminal.end().splitlines()
    assert left[:2] == ["Name? Ada", "hello Ada"]


def test_an_awaiting_run(script):
    """``async with`` shows itself as ``with`` does."""
    terminal = script("""
        import asyncio
        async def main():
            async with nbdurable.workflow("quotes", store=":memory:"):
                print(await held.go("go"))
        asyncio.run(main())
    """)
    terminal.wait("held('go')", "running")
    Path(terminal.child.cwd, "go").touch()
    left = terminal.end().splitlines()
    assert left[0] == "go"
    assert left[1].startswith("quotes: 1 ran")


def test_several_runs_share_the_terminal(script):
    """Runs in several threads are drawn one below the other, and each leaves its line."""
    terminal = script("""
        def run(name):
            with nbdurable.workflow(name, store=":memory:"):
                held.go(name).result()
        threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
        [thread.start() for thread in threads]
        wait_for("one")
        threads[0].join()
        print("one is over")
        threads[1].join()
        print("end")
    """)
    terminal.wait(
        re.compile(r"held\('one'\) +running +\d"), re.compile(r"held\('two'\) +running +\d")
    )
    Path(terminal.child.cwd, "one").touch()
    terminal.wait("one is over", "held('two')")
    Path(terminal.child.cwd, "two").touch()
    left = terminal.end().splitlines()
    assert [line.partition(":")[0] for line in left] == ["one", "one is over", "two", "end"]


def test_ctrl_c_leaves_the_terminal_in_order(script):
    """The view goes, the run's line and the interrupt stay; the cursor was never hidden."""
    terminal = script("""
        with nbdurable.workflow("quotes", store=":memory:"):
            held.go("never").result()
    """)
    terminal.wait("held('never')")
    terminal.child.sendintr()
    left = terminal.end()
    assert "▶" not in left
    assert re.search(r"^quotes: interrupted", left, re.MULTILINE)
    assert left.rstrip().endswith("KeyboardInterrupt")
    assert terminal.screen.column == 0
    assert {code for code in terminal.screen.asked_for if not code.startswith("m")} == set()


def test_kill_leaves_the_cursor_below(script):
    """SIGKILL can't be tidied up after: the lines stay, and the prompt comes below them."""
    terminal = script("""
        with nbdurable.workflow("quotes", store=":memory:"):
            held.go("never").result()
    """)
    terminal.wait("held('never')")
    terminal.child.kill(9)
    terminal.end()
    assert terminal.screen.column == 0
    assert terminal.screen.lines[terminal.screen.row] == ""


def test_no_color(script):
    """NO_COLOR keeps shapes and words, and drops the colours."""
    terminal = script(LASTING, NO_COLOR="1")
    terminal.wait("running")
    terminal.end()
    assert "▶" in terminal.written
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9)\d", terminal.written)


def test_a_dumb_terminal_gets_no_codes(script):
    """TERM=dumb shows nothing by itself, and plain lines when asked."""
    terminal = script(LASTING, TERM="dumb")
    assert terminal.end().splitlines() == ["before", "after"]
    terminal = script(LASTING, TERM="dumb", NBDURABLE_PROGRESS="1")
    terminal.end()
    assert "quotes: started, nothing saved yet" in terminal.written
    assert "\x1b" not in terminal.written


def test_a_narrow_terminal(script):
    """What is too long for the window is cut, and nothing is wrapped."""
    terminal = script(
        """
        with nbdurable.workflow("quotes", store=":memory:"):
            print("before")
            held.go("go").result()
    """,
        columns=40,
        rows=8,
    )
    seen = terminal.wait("held(")
    assert all(len(line) < 40 for line in seen.splitlines())
    assert len(seen.splitlines()) <= 8
    Path(terminal.child.cwd, "go").touch()
    assert terminal.end().splitlines()[0] == "before"


def test_a_window_that_gets_narrower(monkeypatch):
    """Lines that the window has wrapped since are taken off whole."""
    stream = Tty()
    region = Region(stream)
    sizes = [os.terminal_size((40, 24))]
    monkeypatch.setattr(Region, "size", lambda _: sizes[-1])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    region.show("a run", ["x" * 30, "y" * 5])
    sizes.append(os.terminal_size((20, 24)))
    before = stream.tell()
    region.show("a run", [])
    assert stream.getvalue()[before:] == "\r\x1b[3A\x1b[J"


# --- IPython --------------------------------------------------------------------------


def test_in_ipython(tmp_path, monkeypatch):
    """Real IPython, its own prompt included: live while the cell runs, a line when it ended."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "held.py").write_text(PRELUDE)
    options = [
        "--no-banner",
        "--colors=nocolor",
        "--no-confirm-exit",
        "--TerminalInteractiveShell.autosuggestions_provider=None",
    ]
    terminal = Terminal(["-m", "IPython", *options], tmp_path)
    with contextlib.closing(terminal):
        terminal.wait("In [1]:")
        terminal.child.send("from held import *; print(7 * 6)\r")
        terminal.wait("42", "In [2]:")
        terminal.child.send("%load_ext nbdurable\r")
        terminal.wait("In [3]:")
        terminal.child.send(
            "%%durable quotes\rfor i in range(3): print('line', i * 11)\r\r"
            "held.go('go').result()\x1b\r"
        )
        seen = terminal.wait("held('go')", "running")
        assert "line 22" in seen
        (tmp_path / "go").touch()
        seen = terminal.wait("quotes: 1 ran", "In [4]:")
        assert "running" not in seen
        assert re.search(r"line 0\nline 11\nline 22\nquotes: 1 ran", seen), seen
        assert "Out[3]: 'go'" in seen
        terminal.child.send("%%durable quotes\rheld.go('go').result()\x1b\r")
        seen = terminal.wait("replayed: saved", "In [5]:")
        assert re.search(r"quotes: 1 replayed, .*\n  replayed: saved", seen)
        terminal.child.send("%%durable quotes --quiet\rheld.go('go').result()\x1b\r")
        seen = terminal.wait("In [6]:")
        assert seen.count("replayed: saved") == 1


def test_the_emulator_of_these_tests():
    """What the tests look through shows what a terminal would."""
    screen = Screen(10, 3)
    screen.feed("abc\r\nd\x1b[1Ae\x1b[K\n\x1b[31mf\x1b[0m")
    assert screen.text == "ae\nd f"
    screen.feed("\r\n1\r\n2\r\n3\x1b[9Ax\x1b[J")
    assert screen.lines == ["ae", "d f", "1x"]
    screen.feed("\r123456789012")
    assert screen.text.endswith("\n1234567890\n12")
    screen.feed("\r\x1b")
    screen.feed("[1")
    screen.feed("A6\x1b]0;a ti")
    screen.feed("tle\x1b")
    screen.feed("\\7")
    assert screen.text.endswith("\n6734567890\n12")

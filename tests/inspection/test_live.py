"""A store's status file: what another process sees of runs that are under way, and believes."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner  # noqa: TID251 - the runner of what click made
from support.emulated import Terminal

import nbdurable
from nbdurable import cli, gather, select, step, workflow
from nbdurable.api import live_status, open_stores
from nbdurable.events import RunStarted
from nbdurable.inspection import watching
from nbdurable.inspection.live import LiveRun, live_runs, view_of
from nbdurable.store import status_file
from nbdurable.view.progress import RunView

WATCH = ["-c", "from nbdurable.cli import main; main()", "watch", "--store"]
ROOT = Path(nbdurable.__file__).parents[1]

TOLD = (
    "kind", "label", "state", "parent", "branches", "number", "winners", "won", "lost", "outcome",
    "replayed", "attempts", "error", "where",
)  # fmt: skip
"""What of a row the status file tells as the events do."""

BUSY = """
import sys, threading, time
from pathlib import Path
from nbdurable import gather, step, workflow

@step
def ask(number):
    if number > 2:
        while not Path(sys.argv[2]).exists():
            time.sleep(0.01)
    return number

with workflow("quotes", store=sys.argv[1]):
    gather(ask.map(range(6), limit=5)).result()
"""


@pytest.fixture
def busy(tmp_path):
    """A process whose run is half done, until `go_on` is made; its store, and how to end it."""
    place, go_on = tmp_path / "s.duckdb", tmp_path / "go on"
    command = [sys.executable, "-c", BUSY, str(place), str(go_on)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        until(lambda: [one.counts.get("done") for one in live_runs(str(place))] == [3])
        yield place, go_on, process
        process.kill()


def until(holds):
    """Wait for what another process does."""
    end = time.monotonic() + 60
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end
        pause.wait(0.02)


def call(*words):
    """Run the command line in this process."""
    return CliRunner().invoke(cli.main, list(words), prog_name="nbdurable")


# --- who looks ------------------------------------------------------------------------


def test_runs_and_steps_of_a_store_that_is_held(busy):
    """They come at once, from beside the store, and it is said what they are."""
    place, _, process = busy
    runs = call("runs", "--json", "--store", str(place))
    (row,) = json.loads(runs.stdout)
    assert (row["name"], row["status"], row["saved"]) == ("quotes", "running", 3)
    assert row["in_flight"] >= 2
    assert f"held by process {process.pid}" in runs.stderr
    steps = json.loads(call("steps", "quotes", "--json", "--store", str(place)).stdout)
    assert [one["status"] for one in steps[:4]] == ["done", "done", "done", "running"]
    assert steps[3]["step"] == "ask(3)"
    wrong = call("steps", "quote", "--store", str(place))
    assert "did you mean quotes?" in wrong.stderr


def test_the_lock_is_not_waited_for(busy, monkeypatch):
    """A store that is held is not opened at all."""
    place, _, _ = busy
    monkeypatch.setattr(open_stores, "acquire", None)
    assert call("runs", "--store", str(place)).exit_code == 0


def test_the_file_is_the_users_alone_and_goes_with_the_run(busy):
    """Mode 0600; when the run has ended the store itself is asked."""
    place, go_on, process = busy
    path = status_file.status_path(str(place))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    go_on.touch()
    assert process.wait(60) == 0
    assert not path.exists()
    (row,) = json.loads(call("runs", "--json", "--store", str(place)).stdout)
    assert (row["status"], row["saved"]) == ("finished", 6)


def test_what_an_owner_left_that_died_is_not_believed(busy):
    """The file outlives a SIGKILL, and the store is asked."""
    place, _, process = busy
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert status_file.status_path(str(place)).exists()
    assert live_runs(str(place)) == []
    runs = call("runs", "--json", "--store", str(place))
    (row,) = json.loads(runs.stdout)
    assert (row["status"], row["saved"]) == ("died", 3)
    assert not runs.stderr


def test_watch_in_a_pipe_ends_with_the_run(busy):
    """Plain lines: that it goes on, and how it ended."""
    place, go_on, process = busy
    command = [sys.executable, *WATCH, str(place)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout.readline().startswith("quotes: started")
        go_on.touch()
        rest = watching.stdout.read()
        assert watching.wait(60) == 0
    assert process.wait(60) == 0
    assert "quotes: 6 ran" in rest


def test_watch_on_a_terminal_draws_each_step(busy):
    """As it is drawn beside a script, until the run has ended."""
    place, go_on, process = busy
    shown = Terminal([*WATCH, place], ROOT)
    try:
        shown.wait("quotes", "ask(3)")
        go_on.touch()
        assert "quotes: 6 ran" in shown.end()
    finally:
        shown.close()
    assert process.wait(60) == 0


def test_watch_waits_for_the_next_owner(tmp_path, monkeypatch):
    """Between two runs of a store there is none for a moment; both are shown."""
    begun = RunStarted("one", "a", 1, 0, 1.0), RunStarted("two", "b", 1, 0, 2.0)
    one, two = (LiveRun("process 1", 1, run, {}, (), ()) for run in begun)
    looks = iter([[], [one], [], [], [two], [], [], []])
    monkeypatch.setattr(watching, "PERIOD_SECONDS", 0.0)
    monkeypatch.setattr(watching, "live_runs", lambda _: next(looks))
    monkeypatch.setattr(watching, "recall", lambda *_: None)
    told = io.StringIO()
    assert watching.watch(str(tmp_path / "s.duckdb"), told)
    assert [line.split(":")[0] for line in told.getvalue().splitlines() if "started" in line] == [
        "one",
        "two",
    ]
    assert next(looks, None) is None


def test_watch_where_nothing_is_live(tmp_path):
    """It says so, and where to look."""
    place = tmp_path / "s.duckdb"
    with workflow("w", store=place):
        pass
    open_stores.close_stores()
    watched = call("watch", "--store", str(place))
    assert watched.exit_code == 0
    assert "no run of" in watched.stderr
    assert "nbdurable runs" in watched.stderr


# --- what is told -----------------------------------------------------------------------


def test_it_tells_what_the_events_told(tmp_path):
    """In mid-run, the view that is folded from the file is the one that saw every event."""
    seen, ends = RunView("w"), threading.Event()

    @step
    def done(number):
        return number

    @step
    def fails():
        raise OSError("no route to host")

    @step
    def waits(_):
        assert ends.wait(60)

    @step
    def outer(_):
        done.go(10).result()
        assert ends.wait(60)

    run = workflow("w", store=tmp_path / "s.duckdb", observers=[seen.apply])
    for again in (False, True):
        ends.clear()
        with run:
            gather(done.map(range(5))).result()
            assert select(done.go(1), done.go(2)).winner is not None
            failed = fails.go()
            failed.outcome()
            handles = [waits.go(int(again)), outer.go(int(again))]
            state = None
            until(lambda: seen.counts["running"] == 2)
            until(lambda: [row.label for row in seen.steps.values()].count("done(10)") == 1)
            state = run.control.so_far(1000)
            view = RunView("w")
            view.apply_all(state.events)
            for place, row in seen.steps.items():
                told = view.steps[place]
                for what in TOLD:
                    assert getattr(told, what) == getattr(row, what), (row.label, what)
            assert {w: n for w, n in seen.counts.items() if n} == state.counts
            ends.set()
            gather(handles).result()


def test_of_many_steps_some_are_told_and_all_are_counted(tmp_path, monkeypatch):
    """What is under way or has failed comes first; the file stays small."""
    ends = threading.Event()

    @step
    def ask(number):
        if number == 3:
            raise OSError("no route")
        if number == 900:
            assert ends.wait(60)
        return number

    run = workflow("w", store=tmp_path / "s.duckdb", limit=32)
    with run:
        handles = [ask.go(number) for number in range(1000)]
        until(lambda: sum(one.durable for one in handles) == 999)
        state = run.control.so_far(100)
        monkeypatch.setattr(status_file, "MOST_STATUS_BYTES", 20_000)
        data = live_status._data(str(tmp_path / "s.duckdb"), [run.control])
        ends.set()
        handles[3].outcome()
    assert state.counts == {"done": 998, "failed": 1, "running": 1}
    labels = {one.label for one in state.events if hasattr(one, "label")}
    assert len(labels) == 100
    assert {"ask(3)", "ask(900)", "ask(999)"} <= labels
    assert len(data) <= 20_000
    assert json.loads(data)["runs"][0]["counts"]["done"] == 998


def test_a_short_run_leaves_nothing(tmp_path):
    """No file is written for what ends at once."""
    with workflow("w", store=tmp_path / "s.duckdb"):
        pass
    assert not list(tmp_path.glob("*.status*"))


def test_a_folder_that_takes_no_file_is_no_matter(tmp_path, monkeypatch):
    """The run goes on without."""
    monkeypatch.setattr(live_status, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(live_status, "PERIOD_SECONDS", 0.01)
    tried = threading.Event()

    def refuse(*_):
        tried.set()
        return False

    monkeypatch.setattr("nbdurable.store.write_status", refuse, raising=False)
    with workflow("w", store=tmp_path / "s.duckdb"):
        assert tried.wait(60)


ASKS = """
from IPython.core.interactiveshell import InteractiveShell
from nbdurable import step, workflow

@step
def mine():
    return 1

with workflow("finished"):
    mine()
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbdurable")
for asked in ("status", "status finished", "status quotes"):
    print(repr(shell.run_line_magic("durable", asked)), end="\\n---\\n")
"""


def test_one_store_that_is_held_hides_no_other(busy):
    """Where a folder has several stores, `%durable status` tells of the others, too."""
    place, _, _ = busy
    folder = place.parent / ".nbdurable"
    folder.mkdir()
    for path in place.parent.glob("s.duckdb*"):
        (folder / path.name).hardlink_to(path)
    command = [sys.executable, "-W", "ignore", "-c", ASKS]
    told = subprocess.run(command, cwd=place.parent, capture_output=True, text=True, check=True)
    every, finished, quotes, _ = told.stdout.split("\n---\n")
    assert {line.split()[0] for line in every.splitlines()} >= {"finished", "quotes"}
    assert finished.startswith("finished: 1 ran")
    assert quotes.startswith("quotes: 3 ran, 3 running"), quotes


# --- a stranger's file ---------------------------------------------------------------------


@pytest.fixture
def forged(busy):
    """A function that puts something else in the place of a living owner's status file."""
    place, _, process = busy
    path = status_file.status_path(str(place))
    os.kill(process.pid, signal.SIGSTOP)  # so that it writes no other meanwhile
    kept = path.read_bytes()

    def forge(change):
        path.unlink(missing_ok=True)
        told = json.loads(kept)
        changed = change(told)
        path.write_bytes(json.dumps(told if changed is None else changed).encode())
        return live_runs(str(place))

    yield forge
    os.kill(process.pid, signal.SIGCONT)


def replaced(at, value):
    """Make a change of the second event's field."""

    def change(told):
        told["runs"][0]["events"][1][at] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda told: [],
        lambda told: {"owner": told["owner"]},
        lambda told: told.update(owner=[1, 1]),
        lambda told: told.update(runs=[[]]),
        lambda told: told["runs"][0].update(counts={"done": "many"}),
        lambda told: told["runs"][0].update(counts={"done": 1e300}),
        lambda told: told["runs"][0].update(counts=[]),
        lambda told: told["runs"][0].update(events=[]),
        lambda told: told["runs"][0]["events"][0].__setitem__(-1, 1e300),
        lambda told: told["runs"][0]["events"].insert(0, ["__import__", "os"]),
        lambda told: told["runs"][0]["events"].append(told["runs"][0]["events"][0]),
        replaced(0, "RunView"),
        replaced(1, "0"),
        replaced(1, True),
        replaced(2, ""),
        replaced(4, ""),
        replaced(4, None),
        replaced(5, float("nan")),
        replaced(6, 0),
        replaced(7, [[]]),
        replaced(7, list(range(20_000))),
    ],
)
def test_what_has_not_the_form_is_not_believed(forged, change):
    """Nothing is shown of it, and nothing is raised."""
    assert len(forged(lambda told: told)) == 1
    assert forged(change) == []


def test_texts_are_escaped_and_bounded(forged):
    """No control character of a label reaches a terminal."""
    (run,) = forged(replaced(4, "\x1b[2Jask\u202e" + "x" * 5000))
    label = view_of(run).steps[0].label
    assert "\x1b" not in label
    assert "\u202e" not in label
    assert len(label) < 2000


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "huge"])
def test_what_is_no_small_file_is_not_read(busy, tmp_path, what):
    """Links are not followed, pipes not waited for."""
    place, _, process = busy
    os.kill(process.pid, signal.SIGSTOP)
    path = status_file.status_path(str(place))
    other = tmp_path / "other"
    path.rename(other)
    if what == "link":
        path.symlink_to(other)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.write_bytes(other.read_bytes() + b" " * status_file.MOST_STATUS_BYTES)
    assert live_runs(str(place)) == []
    os.kill(process.pid, signal.SIGCONT)

"""What a run looks like: the folds, and each way to say it."""

from __future__ import annotations

import html as html_module
import json
import typing
from html.parser import HTMLParser

import pytest

from nbdurable import progress, summary, timeline, words
from nbdurable.progress import RunView, State, fold
from nbdurable.records import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    Event,
    Kind,
    Noticed,
    RunFinished,
    RunStarted,
    RunStatus,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
    Why,
)

START = RunStarted("quotes", "run-1", 1, 0, 100.0)
END = RunFinished(RunStatus.FINISHED, 104.2)


def viewed(*events):
    """Fold events into a fresh view."""
    view = RunView()
    for event in events:
        assert fold(view, event) is view
    return view


def made(place, label="quote('alpha')", kind="step", **more):
    """Make the event of a new row."""
    return StepCreated(place, kind, more.pop("name", label.split("(")[0]), label, 100.0, **more)


def began(place, attempt=1, why=Why.NEW, reason=""):
    """Make the event of an attempt's begin."""
    return AttemptStarted(place, attempt, why, reason, 101.0)


def done(place, kind=Kind.VALUE, *, saved=True, error="", number=1, seconds=1.5):
    """Make the event of a step's end."""
    return StepFinished(place, kind, number, seconds, saved, error, 103.0)


FIRST = (
    START,
    made(0),
    made(1, "quote('beta')"),
    made(2, "select(...)", "select", branches=(0, 1)),
    began(0),
    began(1),
    done(0),
    Decided(2, 0, Kind.VALUE, 1, False, 103.0),
    made(3, "parse(<b>)"),
    began(3),
    done(3, Kind.ERROR, error="ValueError('<b>')", number=2),
    StepLetGo(1, "still running", 104.0),
    END,
)
AGAIN = (
    RunStarted("quotes", "run-1", 2, 2, 500.0),
    made(0),
    StepReplayed(0, Kind.VALUE, 1, 1.5, 1, 500.0),
    made(1, "quote('beta')"),
    made(2, "select(...)", "select", branches=(0, 1)),
    Decided(2, 0, Kind.VALUE, 1, True, 500.0),
    StepDeferred(1, 500.0),
    made(3, "parse(<b>)"),
    StepReplayed(3, Kind.ERROR, 2, 1.5, 1, 500.0),
    RunFinished(RunStatus.FINISHED, 500.01, ("replayed: saved 2 h ago",)),
)


def test_run_started_begins_a_new_view():
    """A new execution forgets the rows of the one before, and counts on in revisions."""
    view = viewed(*FIRST)
    revision = view.revision
    fold(view, RunStarted("quotes", "run-1", 2, 3, 500.0))
    assert (view.name, view.run, view.execution, view.saved) == ("quotes", "run-1", 2, 3)
    assert view.steps == {}
    assert view.live
    assert view.revision == revision + 1


def test_step_created_waits():
    """A new row waits, below the step that started it."""
    view = viewed(START, made(0), made(1, parent=0), made(2, parent=1))
    assert [row.state for row in view.steps.values()] == [State.WAITING] * 3
    assert [row.depth for row in view.steps.values()] == [0, 1, 2]
    assert view.counts[State.WAITING] == 3


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Kind.VALUE, State.REPLAYED),
        (Kind.ERROR, State.FAILED),
        (Kind.CANCELLED, State.CANCELLED),
    ],
)
def test_step_replayed(kind, state):
    """A replayed outcome shows what it is, and what it spared."""
    view = viewed(START, made(0), StepReplayed(0, kind, 7, 12.1, 3, 100.0))
    row = view.steps[0]
    assert (row.state, row.replayed, row.number, row.attempts) == (state, True, 7, 3)
    assert view.seconds_saved == 12.1


def test_a_replayed_timer_saves_no_work():
    """Seconds saved are those of steps: a timer's are nobody's work."""
    view = viewed(START, made(0, "after(30)", "timer"), StepReplayed(0, Kind.VALUE, 1, 30, 1, 1.0))
    assert view.seconds_saved == 0
    assert not any(view.counts.values())


def test_step_deferred_is_not_started():
    """A decided select's loser says that it did not run."""
    row = viewed(START, made(0), StepDeferred(0, 100.0)).steps[0]
    assert row.state is State.NOT_STARTED


def test_attempts():
    """Attempts run, fail, wait, and run again; the first begin counts."""
    view = viewed(START, made(0), began(0, why=Why.CODE_CHANGED, reason="clean()"))
    row = view.steps[0]
    assert (row.state, row.attempts, row.why) == (State.RUNNING, 1, "code changed: clean()")
    fold(view, AttemptFailed(0, 1, "OSError('x')", 2.0, 102.0))
    assert (row.state, row.again, row.error) == (State.RETRYING, 104.0, "OSError('x')")
    fold(view, AttemptStarted(0, 2, Why.NEW, "", 104.0))
    assert (row.state, row.attempts, row.started, row.again) == (State.RUNNING, 2, 101.0, None)
    fold(view, done(0))
    assert (row.state, row.error, row.seconds) == (State.DONE, "", 1.5)


@pytest.mark.parametrize(
    ("kind", "saved", "state"),
    [
        (Kind.VALUE, True, State.DONE),
        (Kind.VALUE, False, State.NOT_SAVED),
        (Kind.ERROR, True, State.FAILED),
        (Kind.ERROR, False, State.FAILED),
        (Kind.CANCELLED, True, State.CANCELLED),
    ],
)
def test_step_finished(kind, saved, state):
    """An outcome shows its kind, and a value whether it was saved."""
    view = viewed(START, made(0), began(0), done(0, kind, saved=saved))
    assert view.steps[0].state is state
    assert view.counts[state] == 1
    assert sum(view.counts.values()) == 1


def test_decided_marks_winner_and_losers():
    """The winner is marked, and all that is below the other branches has lost."""
    view = viewed(
        START,
        made(0),
        made(1),
        made(2),
        made(3, "gather(...)", "gather", branches=(1, 2)),
        made(4, "select(...)", "select", branches=(0, 3)),
        Decided(4, 0, Kind.VALUE, 1, False, 103.0),
    )
    assert view.steps[0].won == 4
    assert view.steps[0].lost is None
    assert [view.steps[place].lost for place in (1, 2, 3)] == [4, 4, 4]
    assert (view.steps[4].state, view.steps[4].winners) == (State.DONE, [0])


def test_decided_without_a_winner():
    """A gather is done or failed, and makes nobody a loser."""
    view = viewed(
        START, made(0), made(1, "gather(...)", "gather", branches=(0,)),
        Decided(1, None, Kind.ERROR, 1, True, 103.0),
    )  # fmt: skip
    assert view.steps[1].state is State.FAILED
    assert view.steps[0].lost is None


def test_as_completed_keeps_its_order():
    """Each of its decisions adds one winner, and nobody has lost."""
    view = viewed(
        START,
        made(0, "a()"),
        made(1, "b()"),
        made(2, "as_completed(...)", "as_completed", branches=(0, 1)),
        Decided(2, 1, Kind.VALUE, 1, False, 103.0),
        Decided(2, 0, Kind.VALUE, 2, False, 103.0),
    )
    assert view.steps[2].winners == [1, 0]
    assert view.steps[0].lost is None
    assert "as_completed: b(), then a()" in words.text(view)


def test_a_combinator_counts_its_branches():
    """Branches that end before and after the combinator was built both count, once."""
    view = viewed(START, made(0), made(1), made(2), began(0), done(0))
    fold(view, made(3, "gather(...)", "gather", branches=(0, 1, 2)))
    assert view.steps[3].settled == 1
    fold(view, began(1))
    fold(view, done(1))
    fold(view, StepLetGo(2, "", 104.0))
    assert view.steps[3].settled == 2
    (said,) = [r for r in timeline.snapshot(view, now=1.0)["rows"] if r["place"] == 3]
    assert said["remark"] == "2 of 3 done"


def test_step_let_go():
    """A step that the execution left says why, and how long it had run."""
    row = viewed(START, made(0), began(0), StepLetGo(0, "still running", 104.0)).steps[0]
    assert (row.state, row.why, row.seconds) == (State.LET_GO, "still running", 3.0)


def test_run_finished():
    """The end stops the clock and keeps the notes."""
    view = viewed(START, RunFinished(RunStatus.DIED, 104.0, ("a note",)))
    assert (view.status, view.live, view.notes) == (RunStatus.DIED, False, ("a note",))
    assert view.elapsed(now=999.0) == 4.0


def test_notes_are_shown_while_the_run_goes_on():
    """A line said in mid-run shows at once, and once: the end repeats it."""
    view = viewed(START, Noticed("clean() changed", 101.0))
    assert timeline.snapshot(view, now=101.0)["notes"] == ["clean() changed"]
    fold(view, RunFinished(RunStatus.FINISHED, 104.0, ("clean() changed", "one more")))
    assert view.notes == ("clean() changed", "one more")


def test_every_event_has_a_fold():
    """An event that the view doesn't know would end it."""
    assert set(progress._FOLDS) == set(typing.get_args(Event))


def test_events_of_unknown_rows_are_left_out():
    """A view that was attached in mid-run ignores what it never saw begin."""
    view = viewed(
        START,
        StepReplayed(9, Kind.VALUE, 1, 1.0, 1, 1.0),
        StepDeferred(9, 1.0),
        began(9),
        AttemptFailed(9, 1, "", 1.0, 1.0),
        done(9),
        Decided(9, 1, Kind.VALUE, 1, False, 1.0),
        StepLetGo(9, "", 1.0),
        made(0, "select(...)", "select", branches=(7, 8)),
        Decided(0, 7, Kind.VALUE, 1, False, 1.0),
    )
    assert list(view.steps) == [0]
    words.text(view)
    summary.html(view)
    timeline.snapshot(view, now=1.0)


def test_take_changes_gives_each_row_once():
    """Rows that changed are told once, the ones above them too."""
    view = viewed(START, made(0), made(1), made(2, "gather(...)", "gather", branches=(0,)))
    assert [row.place for row in view.take_changes()] == [0, 1, 2]
    assert view.take_changes() == []
    fold(view, began(0))
    fold(view, done(0))
    assert [row.place for row in view.take_changes()] == [0, 2]


def test_text_of_a_replay_is_the_text_of_the_first_run():
    """Neither times nor marks of replay nor losers' fates are in the durable text."""
    first, again = viewed(*FIRST), viewed(*AGAIN)
    assert words.text(first).splitlines() == [
        "quotes: 3 steps, finished",
        "select: quote('alpha') won over quote('beta')",
        "parse(<b>) failed",
    ]
    assert words.text(again) == words.text(first)
    assert summary.html(again, times=False) == summary.html(first, times=False)
    assert words.text(again, times=True) != words.text(first, times=True)


def test_text_leaves_out_what_may_differ():
    """A loser that failed, and all below a step, appear in one execution only."""
    end = (Decided(2, 0, Kind.VALUE, 1, False, 103.0), END)
    start = (START, made(0), made(1), made(2, "race(...)", "race", branches=(0, 1)), done(0))
    with_more = viewed(
        *start,
        made(3, "inner()", parent=0),
        done(3, Kind.ERROR),
        done(1, Kind.ERROR, error="late"),
        *end,
    )
    assert words.text(with_more) == words.text(viewed(*start, StepDeferred(1, 1.0), *end))


def test_text_caps_many_decisions():
    """Ten decisions are named and the others counted."""
    events = [START]
    for n in range(0, 600, 3):
        events += [
            made(n, f"a({n})"),
            made(n + 1, f"b({n})"),
            made(n + 2, "select(...)", "select", branches=(n, n + 1)),
            Decided(n + 2, n, Kind.VALUE, n, False, 103.0),
        ]
    lines = words.text(viewed(*events)).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "… 190 more decisions"


def test_text_names_few_of_many_losers():
    """A race of a hundred fits on a line."""
    view = viewed(
        START,
        *(made(n, f"q({n})") for n in range(100)),
        made(100, "race(...)", "race", branches=tuple(range(100))),
        Decided(100, 42, Kind.VALUE, 1, False, 103.0),
    )
    said = words.text(view).splitlines()[1]
    assert said == "race: q(42) won over q(0), q(1), q(2), q(3), q(4), q(5) and 93 more"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((), ": no steps, not started"),
        ((START,), "quotes: no steps, running"),
        ((START, made(0), END), "quotes: 1 step, finished"),
    ],
)
def test_text_of_little(events, said):
    """A run without steps has a text, too."""
    assert words.text(viewed(*events)) == said


def test_line():
    """One line counts what happened, how long it took, and what it spared."""
    view = viewed(*FIRST)
    assert words.line(view) == "quotes: 1 ran, 1 failed, 1 let go, 4.2 s"
    assert words.line(viewed(*AGAIN)) == (
        "quotes: 1 replayed, 1 failed, 1 not started, 10 ms; saved 3.0 s"
    )
    assert words.line(viewed(START, made(0), began(0)), now=101.0) == "quotes: 1 running, 1.0 s"
    stopped = viewed(START, RunFinished(RunStatus.INTERRUPTED, 101.0))
    assert words.line(stopped) == "quotes: interrupted, 1.0 s"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.04, "40 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (4.24, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (93600, "1 d 02 h"),
    ],
)
def test_duration(seconds, said):
    """Durations are said in at most two units, without a seam between them."""
    assert words.duration(seconds) == said


class Tags(HTMLParser):
    """Collects tags, and checks that each is closed in turn."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes, self.said = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        """Note the tag; all but a line break must be closed."""
        self.seen.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Check that the innermost open tag is the one closed."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Collect the text."""
        self.said += data


@pytest.mark.parametrize("times", [False, True])
def test_html_escapes_everything(times):
    """Names, labels, errors, reasons and notes are text, whatever they hold."""
    evil = '<script>alert("1")</script>&\''
    view = viewed(
        RunStarted(evil, "r", 1, 0, 100.0),
        made(0, evil, name=evil),
        made(1, evil, name=evil),
        made(2, evil, "select", name=evil, branches=(0, 1)),
        began(0, reason=evil),
        AttemptFailed(0, 1, evil, 1.0, 101.0),
        Decided(2, 1, Kind.VALUE, 1, False, 103.0),
        StepLetGo(1, evil, 104.0),
        done(0, Kind.ERROR, error=evil),
        RunFinished(RunStatus.FAILED, 104.0, (evil,)),
    )
    made_html = summary.html(view, times=times)
    tags = Tags()
    tags.feed(made_html)
    assert tags.open == []
    assert "script" not in tags.seen
    assert set(tags.attributes) <= {"style", "scope", "open"}
    assert evil in tags.said
    assert html_module.escape(evil) in made_html


def test_html_tells_winner_and_fates_without_colour():
    """Stripped of all styles, the words still say who won and what became of whom."""
    tags = Tags()
    tags.feed(summary.html(viewed(*AGAIN)))
    assert "select: ★ quote('alpha') won over quote('beta') (not started)" in tags.said
    assert "quote('alpha') ★ won" in tags.said
    assert "↩ replayed" in tags.said
    assert "replayed: saved 2 h ago" in tags.said


def test_html_caps_its_rows():
    """A long run shows two hundred rows and counts the others."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(1000)))
    made_html = summary.html(view)
    assert made_html.count("<tr>") == 202
    assert "… 800 more rows" in made_html
    assert "<details>" in made_html


def test_shown_prefers_what_moves():
    """Of many rows the moving, the failed and the chosen are shown, in tree order."""
    events = [START, *(made(n, f"f({n})") for n in range(1000)), *(done(n) for n in range(990))]
    events += [began(995), made(1000, "inner()", parent=995), began(1000), done(3, Kind.ERROR)]
    events += [made(1001, "select(...)", "select", branches=(1, 2))]
    view = viewed(*events)
    places = [row.place for row in view.shown()]
    assert len(places) == 200
    assert {3, 995, 1000, 1001} <= set(places)
    assert places.index(1000) == places.index(995) + 1
    places.remove(1000)
    assert places == sorted(places)


def test_shown_keeps_to_its_limit():
    """A deep row brings the rows above it, and never more than the limit."""
    events = [START, made(0)]
    events += [made(n, parent=n - 1) for n in range(1, 30)]
    assert len(viewed(*events, *(began(n) for n in range(30))).shown(limit=7)) == 7


def test_snapshot_is_json_and_leaves_out_what_is_empty():
    """The live view's state survives JSON and says which branch won."""
    view = viewed(*FIRST)
    state = json.loads(json.dumps(timeline.snapshot(view, now=104.2)))
    assert (state["name"], state["status"], state["live"]) == ("quotes", "finished", False)
    assert (state["total"], state["hidden"], state["elapsed"]) == (4, 0, pytest.approx(4.2))
    first, second, select, failed = state["rows"]
    assert first["won"]
    assert second["lost"]
    assert "lost" not in first
    assert first["place"] == 0
    assert [branch["won"] for branch in select["branches"]] == [True, False]
    assert failed["remark"] == "ValueError('<b>') (new)"
    assert failed["time"] == "1.5 s"


def test_snapshot_lets_the_front_end_tick():
    """What moves says since when, and when a retry is due; nothing does after the end."""
    view = viewed(START, made(0), began(0), AttemptFailed(0, 1, "OSError", 5.0, 102.0))
    (row,) = timeline.snapshot(view, now=103.0)["rows"]
    assert (row["since"], row["again"], row["state"]) == (101.0, 107.0, "retrying")
    fold(view, END)
    (row,) = timeline.snapshot(view, now=105.0)["rows"]
    assert "since" not in row


def test_every_state_has_a_shape_and_a_word():
    """No two states look the same, even without colour."""
    assert len(set(progress.GLYPHS.values())) == len(State)
    assert set(words.COUNTED) == set(State)


def test_twenty_thousand_events_end_where_they_should():
    """A large run folds to the same counts as a small one, whatever the order."""
    view = viewed(START)
    for n in range(6666):
        for event in (made(n, f"f({n})"), began(n), done(n)):
            fold(view, event)
    fold(view, made(6666, "gather(...)", "gather", branches=tuple(range(6666))))
    assert view.counts[State.DONE] == 6666
    assert view.steps[6666].settled == 6666
    assert len(timeline.snapshot(view, now=1.0)["rows"]) == 200

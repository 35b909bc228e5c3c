"""How a run reads."""

from __future__ import annotations

import pytest
from support.stories import AGAIN, END, FIRST, START, began, done, made, viewed

from nbdurable import labels
from nbdurable.events import Decided, RunFinished, StepDeferred
from nbdurable.records import Kind, RunStatus
from nbdurable.view import summary, words


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
    assert words.line(view) == "quotes: 1 ran, 1 failed, 1 not finished, 4.2 s"
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
    assert labels.duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "~1 s left"),
        (7.4, "~7 s left"),
        (17, "~15 s left"),
        (100, "~1 min 45 s left"),
        (119, "~2 min left"),
        (1000, "~17 min left"),
        (5000, "~1 h 20 min left"),
    ],
)
def test_left(seconds, said):
    """What may still take is said no more exactly than it is known."""
    assert labels.left(seconds) == said

"""The static summary: HTML for a saved notebook."""

from __future__ import annotations

import html as html_module
from html.parser import HTMLParser

import pytest
from support.stories import AGAIN, FIRST, START, began, done, made, viewed

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    RunFinished,
    RunStarted,
    StepLetGo,
    StepReplayed,
)
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.view import summary, words


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
    drawn = {"width", "height", "viewbox", "aria-hidden", "x", "y", "rx", "fill"}
    assert set(tags.attributes) <= {"style", "scope", "open"} | drawn
    assert evil in tags.said
    assert html_module.escape(evil) in made_html


def read(view, **how):
    """Return the words of a view's summary."""
    tags = Tags()
    tags.feed(summary.html(view, **how))
    return tags


def test_html_tells_winner_and_fates_without_colour():
    """Stripped of all styles, the words still say who won and what became of whom."""
    said = read(viewed(*AGAIN)).said
    assert "select: ★ quote('alpha') won over quote('beta') (not started)" in said
    assert "quote('alpha') ★ won" in said
    assert "quote('beta') (lost)" in said
    assert "↩ replayed" in said
    assert "replayed: saved 2 h ago" in said


def test_html_draws_attempts_on_one_axis():
    """Each attempt is a bar, as long and as late as it was."""
    view = viewed(
        START,
        made(0),
        AttemptStarted(0, 1, Why.NEW, "", 101.0),
        AttemptFailed(0, 1, "OSError", 1.0, 102.0),
        AttemptStarted(0, 2, Why.NEW, "", 103.0),
        done(0),
        RunFinished(RunStatus.FINISHED, 104.0),
    )
    made_html = summary.html(view)
    assert made_html.count("<svg") == 1
    assert '<rect x="60.0" y="3" width="60.0"' in made_html
    assert '<rect x="180.0" y="3" width="2.0"' in made_html
    assert "2 attempts" in read(view).said


def test_what_failed_and_was_caught_can_be_tried_again():
    """A finished run says how; one that its error ended tries it again without being told."""
    caught = viewed(*FIRST)
    said = "to try parse(<b>) again, run %durable redo quotes --errors and this cell"
    assert said in read(caught).said
    assert said not in read(caught, times=False).said
    assert said not in read(viewed(*FIRST[:-1], RunFinished(RunStatus.FAILED, 104.0))).said


def test_html_says_how_a_replayed_failure_failed():
    """Its message and its line, as on the first pass."""
    saved = StepReplayed(0, Kind.ERROR, 1, 1.5, 1, 100.0, "OSError: no", "parse(), line 3")
    view = viewed(START, made(0, "parse(1)"), saved, RunFinished(RunStatus.FINISHED, 104.0))
    assert "OSError: no (parse(), line 3)" in read(view).said
    assert "parse(1) failed: OSError: no (parse(), line 3)" in words.text(view, times=True)
    assert "OSError" not in words.text(view)


def test_html_without_times_draws_nothing():
    """What nbval compares has no bars."""
    assert "svg" not in read(viewed(*FIRST), times=False).seen


def test_html_of_a_large_run_is_short():
    """A thousand steps of one name are a row, their failures are named."""
    events = [START, *(made(n, f"f({n})") for n in range(1000))]
    events += [event for n in range(1000) for event in (began(n), done(n))]
    view = viewed(*events, done(7, Kind.ERROR, error="KeyError('x')"))
    said = read(view).said
    assert "f \N{MULTIPLICATION SIGN} 1,000" in said
    assert "999 ran, 1 failed" in said
    assert "KeyError('x')" in said
    assert "999 done" in said
    assert summary.html(view).count("<tr>") == 4


def test_html_caps_its_rows():
    """A run of very many names shows three hundred rows and counts the others."""
    view = viewed(START, *(made(n, f"f{n}(1)") for n in range(1000)))
    made_html = summary.html(view)
    assert made_html.count("<tr>") == 302
    assert "… 700 more rows" in made_html
    assert "<details>" in made_html


def test_what_more_there_is_to_say_of_a_row():
    """Rows can be opened: failed ones before others, a bounded number; markup in them is text."""
    asked = []

    def facts(place):
        asked.append(place)
        return [("Saved", "value, number 1", False), ("Output", "<b>" + "x" * 3_000, True)]

    rows = range(20)
    view = viewed(
        START,
        *(made(n, f"f({n})") for n in rows),
        *(began(n) for n in rows),
        *(done(n) for n in rows[:-1]),
        done(19, Kind.ERROR, error="ValueError('no')"),
    )
    said = summary.html(view, facts=facts)
    assert asked[0] == 19
    assert sorted(asked) == list(rows)
    assert said.count("<details><summary>more</summary>") == 19
    assert "<summary>ValueError(&#x27;no&#x27;)</summary>" in said
    assert "<b>" not in said
    assert f">…{'x' * 2_000}</pre>" in said
    Tags().feed(said)
    many = viewed(START, *(made(n, f"f{n}({n})") for n in range(100)))
    asked.clear()
    summary.html(many, facts=facts)
    assert len(asked) == 60
    assert "<details><summary>more" not in summary.html(view, facts=lambda _: [])

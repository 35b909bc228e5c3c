"""What a window shows of a run: which rows, in which order, and news on top of news."""

from __future__ import annotations

import json
import random

import pytest
from support.stories import END, FIRST, START, began, done, made, viewed

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    RunFinished,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepProgressed,
    StepReplayed,
)
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.view import timeline, words
from nbdurable.view.timeline import PAGE, PICKED, ROWS, Timeline


def shown(view, now=104.0):
    """Return what a window shows, as pairs of depth and label."""
    items = Timeline(view).items(now)
    return [(item["depth"], item["label"]) for item in items.values()]


def apply(told, news):
    """Do what the front end does with news."""
    rows = told["rows"] | news["rows"]
    order = news.get("order", told["order"])
    return news | {"rows": {key: rows[key] for key in order}, "order": order}


def test_news_are_json_and_leave_out_what_is_empty():
    """The first news hold everything, and say which branch won."""
    line = Timeline(viewed(*FIRST))
    news = json.loads(json.dumps(line.news(104.2)))
    head = news["head"]
    assert (head["name"], head["status"], head["live"]) == ("quotes", "finished", False)
    assert (head["total"], head["cut"], head["elapsed"]) == (4, 0, pytest.approx(4.2))
    assert news["order"] == ["2", "0", "1", "3"]
    select, first, second, failed = (news["rows"][key] for key in news["order"])
    assert select["chosen"] == "quote('alpha')"
    assert first["won"]
    assert "lost" not in first
    assert second["lost"]
    assert (failed["error"], failed["why"]) == ("ValueError('<b>')", "runs for the first time")
    assert "remark" not in failed
    assert failed["time"] == "1.5 s"
    assert (failed["place"], failed["depth"]) == (3, 0)


def test_branches_are_below_their_combinator():
    """Nested combinators nest; the row stands where its first branch stood."""
    view = viewed(
        START,
        made(0, "a()"),
        made(1, "b()"),
        made(2, "other()"),
        made(3, "gather(...)", "gather", branches=(0, 1)),
        made(4, "after(30)", "timer"),
        made(5, "select(...)", "select", branches=(3, 4)),
    )
    assert shown(view) == [
        (0, "select"),
        (1, "gather"),
        (2, "a()"),
        (2, "b()"),
        (1, "after(30)"),
        (0, "other()"),
    ]


def test_a_branch_is_below_its_first_combinator():
    """A handle in two selects has one row; the second select says whom it chose."""
    view = viewed(
        START,
        made(0, "a()"),
        made(1, "b()"),
        made(2, "select(...)", "select", branches=(0, 1)),
        made(3, "select(...)", "select", branches=(1, 0)),
        Decided(3, 1, Kind.VALUE, 1, False, 103.0),
    )
    assert shown(view) == [(0, "select"), (1, "a()"), (1, "b()"), (0, "select")]
    assert Timeline(view).items(1.0)["3"]["chosen"] == "b()"


def test_children_are_below_their_step():
    """A sub-workflow's steps are below it; a handle from outside stays outside."""
    view = viewed(
        START,
        made(0, "outside()"),
        made(1, "answer(7)"),
        began(1),
        made(2, "ask('cheap')", parent=1),
        made(3, "ask('dear')", parent=1),
        made(4, "select(...)", "select", parent=1, branches=(2, 3, 0)),
    )
    assert shown(view) == [
        (0, "outside()"),
        (0, "answer(7)"),
        (1, "select"),
        (2, "ask('cheap')"),
        (2, "ask('dear')"),
    ]


def test_many_of_one_name_are_one_row():
    """A large family counts its rows by state, and shows those that a person would look for."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(1000)))
    for n in range(990):
        view.apply(began(n))
        view.apply(done(n))
    view.apply(done(3, Kind.ERROR, error="KeyError('x')"))
    for n in range(990, 993):
        view.apply(began(n))
    assert shown(view) == [
        (0, "f \N{MULTIPLICATION SIGN} 1,000"),
        (1, "f(3)"),
        (1, "f(990)"),
        (1, "f(991)"),
        (1, "f(992)"),
        (1, "989 done, 7 waiting"),
    ]
    family = Timeline(view).items(104.0)[":f"]
    assert family["counts"] == [["done", 989], ["failed", 1], ["running", 3], ["waiting", 7]]
    assert family["remark"] == "989 ran, 1 failed, 3 running, 7 waiting"


def test_a_combinator_stands_for_its_large_family():
    """A map is one row that names what it maps, large or small; no second one for its gather."""
    small = viewed(START, made(0, "f(0)"), made(1, "f(1)"))
    small.apply(made(2, "gather(...)", "gather", branches=(0, 1)))
    assert shown(small) == [(0, "f \N{MULTIPLICATION SIGN} 2"), (1, "f(0)"), (1, "f(1)")]
    assert Timeline(small).items(1.0)["2"]["word"] == "0 of 2"
    small.apply(made(3, "f(3)"))
    small.apply(made(4, "gather(...)", "gather", branches=(0, 3)))
    assert shown(small)[-2:] == [(0, "gather"), (1, "f(3)")]
    view = viewed(START, *(made(n, f"f({n})") for n in range(100)))
    view.apply(made(100, "gather(...)", "gather", branches=tuple(range(100))))
    assert shown(view) == [(0, "f \N{MULTIPLICATION SIGN} 100")]
    item = Timeline(view).items(1.0)["100"]
    assert (item["counts"], item["open"]) == ([["waiting", 100]], False)


def test_a_large_race_shows_its_winner():
    """Folded, the winner still has its row."""
    view = viewed(START, *(made(n, f"q({n})") for n in range(100)))
    view.apply(made(100, "race(...)", "race", branches=tuple(range(100))))
    view.apply(Decided(100, 42, Kind.VALUE, 1, False, 103.0))
    assert shown(view) == [
        (0, "race: q \N{MULTIPLICATION SIGN} 100"),
        (1, "q(42)"),
        (1, "99 waiting"),
    ]


def test_opening_and_closing_a_family():
    """An opened family shows a page of its rows, and a page more each time; closed, few."""
    line = Timeline(viewed(START, *(made(n, f"f({n})") for n in range(1000))))
    assert len(line.items(1.0)) == 1
    line.open(":f")
    assert [*line.items(1.0)][:3] == [":f", "0", "1"]
    assert len(line.items(1.0)) == PAGE + 2
    assert line.items(1.0)[":f+"]["label"] == "900 waiting"
    line.open(":f")
    assert len(line.items(1.0)) == 2 * PAGE + 2
    line.close(":f")
    assert len(line.items(1.0)) == 1


def test_opening_and_closing_a_step():
    """What a step started can be hidden, and what is hidden be shown."""
    events = [START, made(0, "a()"), *(made(n, f"b{n}()", parent=0) for n in range(1, 8))]
    line = Timeline(viewed(*events))
    assert len(line.items(1.0)) == 8
    line.close("0")
    assert [*line.items(1.0)] == ["0"]
    assert not line.items(1.0)["0"]["open"]
    line.open("0")
    assert len(line.items(1.0)) == 8


def test_what_ended_is_closed_in_a_large_run():
    """Of many sub-workflows only those that run show what they have started."""
    events = [START]
    for n in range(0, 100, 5):
        events += [made(n, f"a{n}()"), began(n)]
        events += [made(n + k, f"b{n + k}()", parent=n) for k in range(1, 5)]
    view = viewed(*events)
    assert len(shown(view)) == 100
    for n in range(0, 95, 5):
        view.apply(done(n))
    assert len(shown(view)) == 19 + 5


def test_never_more_rows_than_the_limit():
    """What is beyond is counted."""
    line = Timeline(viewed(START, *(made(n, f"f{n}(1)") for n in range(1000))), whole=25)
    assert len(line.items(1.0)) == ROWS
    assert line.news(1.0)["head"]["cut"] == 1000 - ROWS


def test_what_moves_says_since_when():
    """What moves lets the front end tick, and says when a retry is due; nothing after the end."""
    view = viewed(START, made(0), began(0), AttemptFailed(0, 1, "OSError", 5.0, 102.0))
    row = Timeline(view).items(103.0)["0"]
    assert (row["again"], row["state"], row["time"]) == (107.0, "retrying", "1.0 s")
    assert row["bars"] == [[1.0, 2.0, "failed"]]
    view.apply(AttemptStarted(0, 2, Why.NEW, "", 107.0))
    row = Timeline(view).items(108.0)["0"]
    assert row["since"] == 106.0  # so that at 108 it says 2 s: those of both attempts
    assert "time" not in row
    view.apply(END)
    assert "since" not in Timeline(view).items(105.0)["0"]


def test_bars():
    """Attempts are bars since the begin; what goes on has no end; what is replayed is as it was."""
    view = viewed(START, made(0), began(0), made(1), StepReplayed(1, Kind.VALUE, 1, 9.0, 1, 100.5))
    rows = Timeline(view).items(103.0)
    assert rows["0"]["bars"] == [[1.0, None, "running"]]
    assert rows["1"]["bars"] == [[0.5, 9.5, "replayed"]]
    assert rows["1"]["time"] == "9.0 s"
    assert Timeline(view).news(103.0)["head"]["span"] == 0.0
    saved = viewed(START, made(1), StepReplayed(1, Kind.VALUE, 1, 9.0, 1, 100.5))
    assert Timeline(saved).news(103.0)["head"]["span"] == 9.0
    view.apply(made(2, "select(...)", "select", branches=(0, 1)))
    view.apply(Decided(2, 1, Kind.VALUE, 1, False, 102.0))
    assert Timeline(view).items(103.0)["2"]["bars"] == [[0.0, 2.0, "done"]]
    view.apply(RunFinished(RunStatus.INTERRUPTED, 103.0))
    assert Timeline(view).items(200.0)["0"]["bars"] == [[1.0, 3.0, "not finished"]]


def test_what_is_left_of_a_map():
    """A family says how long it may still take, once that can be known, and not after the end."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(100)), began(0))
    for n in range(4):
        view.apply(done(n))
    assert "left" not in Timeline(view).items(111.0)[":f"]
    for n in range(25):
        view.apply(AttemptStarted(n, 1, Why.NEW, "", 101.0))
        view.apply(done(n))
    assert Timeline(view).items(102.0)[":f"].get("left") is None
    line = Timeline(view)
    assert line.items(126.0)[":f"]["left"] == "~1 min 15 s left"
    assert line.news(126.0)["head"]["left"] == "~1 min 15 s left"
    view.apply(END)
    assert "left" not in Timeline(view).items(126.0)[":f"]


def test_replayed_rows_do_not_make_the_rest_look_fast():
    """What came from the store took no time, and says nothing about what is to come."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(100)))
    for n in range(90):
        view.apply(StepReplayed(n, Kind.VALUE, n, 1.0, 1, 100.0))
    view.apply(AttemptStarted(90, 1, Why.NEW, "", 100.0))
    assert "left" not in Timeline(view).items(200.0)[":f"]


def test_inputs_and_deaths_are_told():
    """What was passed on, and what was in flight at deaths of the kernel."""
    view = viewed(START, made(0), made(1, inputs=(0,)), AttemptStarted(1, 1, Why.NEW, "", 1.0, 2))
    row = Timeline(view).items(1.0)["1"]
    assert (row["inputs"], row["deaths"]) == ([0], 2)
    view.apply(AttemptStarted(1, 2, Why.NEW, "", 1.0, 1))
    assert "deaths" not in Timeline(view).items(1.0)["1"]


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
    assert shown(view) == [(0, "select")]


@pytest.mark.parametrize("seed", range(20))
def test_news_on_top_of_news_give_the_same_as_all_anew(seed):
    """Whatever happens between two news, a front end that applied them shows the whole."""
    draw = random.Random(seed)
    view = viewed(START)
    line, place, at = Timeline(view), 0, 100.0
    line.news(at)
    told = line.told()
    for _ in range(60):
        for _ in range(draw.randrange(6)):
            at += draw.random()
            kind = draw.randrange(6) if place else 0
            some = draw.randrange(place) if place else 0
            if kind <= 1:
                name = draw.choice("fgh")
                parent = some if draw.random() < 0.2 else None
                view.apply(made(place, f"{name}({place})", name=name, parent=parent))
                place += 1
            elif kind == 2:
                some = tuple(draw.sample(range(place), min(place, draw.randrange(1, 4))))
                view.apply(made(place, "select(...)", "select", branches=some))
                place += 1
            elif kind == 3:
                view.apply(AttemptStarted(some, 1, Why.NEW, "", at))
            elif kind == 4:
                view.apply(StepFinished(some, Kind.VALUE, 1, 1.0, True, "", at))
            else:
                view.apply(Decided(some, draw.randrange(place), Kind.VALUE, 1, False, at))
        key = draw.choice([":f", ":g", str(draw.randrange(place + 1))])
        (line.open if draw.random() < 0.5 else line.close)(key)
        told = apply(told, line.news(at))
        fresh = line.items(at)
        assert told["rows"] == fresh
        assert told["order"] == list(fresh)
        assert told == json.loads(json.dumps(line.told()))


def test_a_family_shows_few_however_many_move():
    """A hundred that run at once are shown by a few."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(100)), *(began(n) for n in range(100)))
    assert len(shown(view)) == 1 + PICKED + 1
    for n in range(90, 99):
        view.apply(done(n, Kind.ERROR))
    labels = [label for _, label in shown(view)]
    assert len(labels) == 1 + PICKED + 1
    assert labels[1:5] == ["f(95)", "f(96)", "f(97)", "f(98)"]
    assert labels[5] == "f(0)"
    assert labels[-1] == "5 failed, 87 running"


def test_what_a_person_looks_for_comes_first_in_a_long_list():
    """Of many rows side by side those that failed and run are first, the others are counted."""
    view = viewed(START, *(made(n, f"f{n}({n})") for n in range(20)))
    for n in range(12):
        view.apply(began(n))
    for n in range(10):
        view.apply(done(n, Kind.ERROR if n == 7 else Kind.VALUE))
    line = Timeline(view)
    assert [item["label"] for item in line.items(104.0).values()] == [
        "f7(7)",
        "f10(10)",
        "f11(11)",
        "9 done, 8 waiting",
    ]
    line.open(":")
    items = line.items(104.0)
    assert len(items) == 4 + 17
    assert (items[":"]["open"], items["0"]["depth"]) == (True, 1)
    line.close(":")
    assert len(line.items(104.0)) == 4
    whole = [item["label"] for item in Timeline(view, whole=25).items(104.0).values()]
    assert whole == [f"f{n}({n})" for n in range(20)]


def test_what_is_left_of_a_step_that_says_how_far_it_is():
    """A step's own progress tells how long it may still take, in its row and in the head."""
    view = viewed(START, made(0), began(0), StepProgressed(0, 25, 100, 104.0))
    line = Timeline(view)
    assert line.items(111.0)["0"]["left"] == "~30 s left"
    assert line.items(111.0)["0"]["part"] == 0.25
    assert line.news(111.0)["head"]["left"] == "~30 s left"
    view.apply(done(0))
    assert "left" not in line.items(112.0)["0"]


def test_nothing_goes_on_after_the_end():
    """A run that failed, shown later, doesn't say that two are running for ever."""
    view = viewed(START, *(made(n, f"f({n})") for n in range(4)), began(0), began(1), done(1))
    view.apply(RunFinished(RunStatus.FAILED, 104.0))
    assert words.line(view) == "quotes: failed, 1 ran, 2 not started, 1 not finished, 4.0 s"
    row = Timeline(view).items(200.0)["0"]
    assert (row["state"], row["remark"]) == ("not finished", "the cell ended before it did")


def test_twenty_thousand_events_end_where_they_should():
    """A large run folds to the same counts as a small one, and is as short."""
    view = viewed(START)
    for n in range(6666):
        for event in (made(n, f"f({n})"), began(n), done(n)):
            view.apply(event)
    view.apply(made(6666, "gather(...)", "gather", branches=tuple(range(6666))))
    assert view.counts[timeline.State.DONE] == 6666
    assert view.steps[6666].settled == 6666
    assert Timeline(view).items(104.0)["6666"]["counts"] == [["done", 6666]]

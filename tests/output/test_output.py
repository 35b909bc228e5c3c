"""Captured output: kept apart, bounded, at its last state, delivered as it was."""

import contextlib
import contextvars
import io
import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from nbdurable import gather, go, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.output import capture as output
from nbdurable.output import streams, transcript
from nbdurable.output.capture import Capture, Capturing, Destination, Face, deliver, dumps, loads
from nbdurable.output.stage import Stage
from nbdurable.records import Message

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def clean():
    """Leave no store open, no stream replaced, no display installed."""
    before = sys.stdout, sys.stderr
    yield
    open_stores.close_stores()
    output.install_face(None)
    for thread in threading.enumerate():
        if thread.name == "nbdurable-step":
            thread.join(10)
    assert streams._users == 0
    assert output._current.get() is None
    assert (sys.stdout, sys.stderr) == before


@contextlib.contextmanager
def replaced():
    """Replace the streams as a run does (no fixture: pytest's own capture changes them too)."""
    streams.install()
    try:
        yield
    finally:
        streams.remove()


def take(bundle):
    """Display a bundle, as the front end does; tell whether a step's output took it."""
    return output.capture_display(bundle, lambda: None)


def clear(wait):
    """Clear, as the front end does; tell whether that was a step's output."""
    return output.capture_clear(wait, lambda _: None)


def written(*pieces, kind="stdout"):
    """Return what a capture of these pieces finishes with."""
    capture = Capture()
    for piece in pieces:
        capture.write(kind, piece)
    return capture.finished()


# --- captures ------------------------------------------------------------------------


def test_pieces_of_one_stream_are_one_message():
    """What follows on one stream is joined; a change of stream or a display begins anew."""
    capture = Capture()
    for kind, data in [
        ("stdout", "a"),
        ("stdout", "b\n"),
        ("stderr", "c"),
        ("display", "{}"),
        ("display", "[]"),
        ("stdout", ""),
        ("stdout", "d"),
    ]:
        capture.write(kind, data)
    assert capture.finished() == (
        Message("stdout", "ab\n"),
        Message("stderr", "c"),
        Message("display", "{}"),
        Message("display", "[]"),
        Message("stdout", "d"),
    )
    assert Capture().finished() == ()
    assert capture.messages == list(capture.finished())


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["10%\r", "50%\r", "100%\n"], "100%\n"),
        (["long text\rshort"], "shorttext"),
        (["a\r\nb\r\n"], "a\nb\n"),
        (["a\r", "\nb"], "a\nb"),
        (["done\n1\r2\r3"], "done\n3"),
        (["abc\r"], "abc"),
        (["\rabc"], "abc"),
        (["abc\r\r"], "abc"),
        (["no return"], "no return"),
        (["a\rbc\rd\ne\rf"], "dc\nf"),
    ],
)
def test_lines_keep_their_last_state(pieces, shown):
    """A line that was overwritten by carriage returns is what a terminal shows last."""
    assert written(*pieces) == (Message("stdout", shown),)


MARK = f"\n... output cut at {output.LIMIT_CHARACTERS:,} characters\n"


def test_output_is_bounded():
    """What goes beyond the limit is cut, once, with a mark; what fits is kept."""
    limit = output.LIMIT_CHARACTERS
    assert written("x" * limit) == (Message("stdout", "x" * limit),)
    assert written("x" * limit, "y", "z") == (
        Message("stdout", "x" * limit),
        Message("stderr", MARK),
    )
    first, mark = written("x", "y" * (2 * limit), "z")
    assert first.data == "x" + "y" * (limit - 1)
    assert mark == Message("stderr", MARK)


def test_a_display_is_not_cut_in_two():
    """A display that does not fit is left out as a whole."""
    assert written("{" * (output.LIMIT_CHARACTERS + 1), kind="display") == (
        Message("stderr", MARK),
    )


def test_a_progress_bar_takes_the_room_of_its_last_state():
    """A bar that was drawn for hours does not use up the room for what comes after it."""
    capture = Capture()
    capture.write("stdout", "begin\n")
    bar = "=" * 500
    for number in range(4 * output.LIMIT_CHARACTERS // len(bar)):
        capture.write("stderr", f"\r{number:6} {bar}")
    capture.write("stderr", "\n")
    capture.write("stdout", "the end\n")
    first, begun, second, third = capture.finished()
    assert begun == Message("bar", "")
    assert (first.data, third.data) == ("begin\n", "the end\n")
    assert second == Message("bar", f"  7999 {bar}\n")


def test_a_line_that_goes_on_after_room_was_made():
    """Making room does not move the place at which the last line goes on."""
    capture = Capture()
    capture.write("stdout", "x" * (output.LIMIT_CHARACTERS - 8) + "\rabc\rd")
    capture.write("stdout", "efgh\n")
    [message] = capture.finished()
    assert message.data == "defgh" + "x" * (output.LIMIT_CHARACTERS - 13) + "\n"


@pytest.mark.timeout(20)
def test_many_small_writes_take_no_more_than_their_size():
    """A body that prints line by line is not slowed down by what it has printed."""
    capture = Capture()
    for _ in range(200_000):
        capture.write("stdout", "abcd")
        capture.write("stdout", "\n")
    assert capture.finished() == (Message("stdout", "abcd\n" * 200_000),)


# --- messages as text ----------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (Message("stdout", "a\n"), Message("stderr", "b"), Message("display", '{"data": {}}')),
        (Message("stdout", "\ud800 \0 \x1b[31m größer 𝄞"),),
    ],
)
def test_messages_as_text(messages):
    """Messages come back from their text, which is ASCII; none is the empty text."""
    text = dumps(messages)
    assert loads(text) == messages
    assert text.isascii()
    assert bool(text) == bool(messages)


# --- delivery ------------------------------------------------------------------------


def test_delivered_to_the_streams(capsys):
    """Messages go to the stream that they came from, in their order."""
    deliver([Message("stdout", "a"), Message("stderr", "b"), Message("stdout", "c")])
    assert capsys.readouterr() == ("ac", "b")


def test_delivered_inside_a_step(capsys):
    """Inside a capture what is delivered is captured: a parent's output has its children's."""
    outer = Capture()
    with replaced(), Capturing(outer):
        print("before")
        deliver([Message("stdout", "child\n"), Message("display", '{"data": {}}')])
    assert outer.finished() == (
        Message("stdout", "before\nchild\n"),
        Message("display", '{"data": {}}'),
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_what_a_stream_cant_hold_is_escaped(monkeypatch, encoding):
    """A character that the stream's encoding lacks is shown escaped; nothing is lost or raised."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    deliver([Message("stdout", "größer \ud800 𝄞\n"), Message("stdout", "next\n")])
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert shown.endswith("next\n")
    assert r"\ud800" in shown
    assert ("größer" in shown) == (encoding != "ascii")
    assert ("𝄞" in shown) == (encoding == "utf-8")


# --- displays ------------------------------------------------------------------------


def test_displays_outside_a_step_are_the_cells():
    """A display that no step made is not taken."""
    shown = []
    assert output.capture_display({"data": {}}, lambda: shown.append("shown")) is False
    assert shown == ["shown"]


def test_displays_of_a_step_are_captured():
    """A step's display is captured and not shown by the front end, whatever is in it."""
    capture = Capture()
    with Capturing(capture):
        bundle = {"data": {"text/plain": "x"}, "metadata": {"odd": {1, 2}}}
        assert take(bundle) is True
    [message] = capture.finished()
    assert message.kind == "display"
    assert "{1, 2}" in message.data


def test_displays_are_delivered_to_the_front_end(capsys):
    """A front end shows the bundle as it was; without one, its text is printed."""
    bundle = {"data": {"text/plain": "größer", "text/html": "<b>"}, "metadata": {"a": 1}}
    capture = Capture()
    with Capturing(capture):
        take(bundle)
    shown = []
    output.install_face(Face(shown.append))
    deliver(capture.finished())
    assert shown == [bundle]
    output.install_face(None)
    deliver(capture.finished())
    assert capsys.readouterr().out == "größer\n"
    assert shown == [bundle]


def test_displays_delivered_inside_a_step():
    """A child's display is the parent's output, not yet the cell's."""
    shown = []
    output.install_face(Face(shown.append))
    outer = Capture()
    with Capturing(outer):
        deliver([Message("display", '{"data": {}}')])
    assert shown == []
    assert outer.finished() == (Message("display", '{"data": {}}'),)


def named(text, *, update=False, name="x"):
    """Return a display with an id."""
    bundle = {"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": name}}
    return bundle | {"update": True} if update else bundle


def texts(messages):
    """Return messages as pairs: what kind, what text (of a display its plain text)."""
    return [
        (m.kind, json.loads(m.data)["data"].get("text/plain") if m.kind == "display" else m.data)
        for m in messages
    ]


def test_an_updated_display_keeps_its_last_state():
    """A display that the step itself updates is recorded once, as it was in the end."""
    capture = Capture()
    with Capturing(capture):
        take(named("one"))
        capture.write("stdout", "text")
        for text in ("two", "three"):
            take(named(text, update=True))
        take(named("elsewhere", update=True, name="y"))
    first, second, third = capture.finished()
    assert texts([first, second]) == [("display", "three"), ("stdout", "text")]
    assert "update" not in json.loads(first.data)
    assert json.loads(third.data) == named("elsewhere", update=True, name="y")


def test_an_update_delivered_inside_a_step_changes_that_steps_display():
    """A child's update of its parent's display changes the parent's record."""
    outer = Capture()
    with Capturing(outer):
        take(named("one"))
        deliver([Message("display", json.dumps(named("two", update=True)))])
    assert texts(outer.finished()) == [("display", "two")]


def test_displays_are_bounded(monkeypatch):
    """Displays take room, updates too; the one that does not fit is left out and marked."""
    monkeypatch.setattr(output, "LIMIT_CHARACTERS", 300)
    mark = ("stderr", "\n... output cut at 300 characters\n")
    capture = Capture()
    with Capturing(capture):
        for number in range(9):
            take({"data": {"text/plain": "x" * 60}, "metadata": {"n": number}})
    assert texts(capture.finished()) == [("display", "x" * 60)] * 2 + [mark]
    capture = Capture()
    with Capturing(capture):
        take(named("small"))
        take(named("x" * 300, update=True))
        take(named("smaller", update=True))
    assert texts(capture.finished()) == [("display", "smaller"), mark]


@pytest.mark.parametrize("wait", [False, True])
def test_cleared_output_is_gone(wait):
    """What a step clears is not recorded; with `wait`, once something follows."""
    capture = Capture()
    with Capturing(capture):
        capture.write("stdout", "one\n")
        take(named("one"))
        assert clear(wait) is True
        assert bool(capture.messages) is wait
        capture.write("stdout", "two\n")
    assert capture.finished() == (Message("stdout", "two\n"),)
    capture = Capture()
    capture.write("stdout", "last\n")
    capture.clear(wait=True)
    assert capture.finished() == (Message("stdout", "last\n"),)


def test_clearing_makes_room(monkeypatch):
    """A step that clears as it goes is not cut for what it has cleared."""
    monkeypatch.setattr(output, "LIMIT_CHARACTERS", 100)
    capture = Capture()
    for number in range(10):
        capture.clear()
        capture.write("stdout", f"{number}" * 90)
    assert capture.finished() == (Message("stdout", "9" * 90),)


def test_clearing_outside_a_step_is_the_cells():
    """A clear_output that no step made is not taken."""
    cleared = []
    assert output.capture_clear(True, cleared.append) is False
    assert cleared == [True]


def widget(name, text):
    """Return a widget's display."""
    view = {output._VIEW: {"model_id": name}, "text/plain": text}
    return {"data": view, "metadata": {}}


def test_a_widget_is_recorded_as_its_last_text():
    """A widget lives no longer than its kernel: its text of the end is kept, a closed one's not."""
    ends = {"bar": "100%", "closed": None}

    def settle(bundle):
        text = ends[bundle["data"][output._VIEW]["model_id"]]
        return None if text is None else bundle | {"data": bundle["data"] | {"text/plain": text}}

    output.install_face(Face(lambda bundle: None, settle=settle))
    capture = Capture()
    with Capturing(capture):
        take(widget("bar", "0%"))
        capture.write("stdout", "between\n")
        take(widget("closed", "0%"))
    first, second = capture.finished()
    assert json.loads(first.data) == {"data": {"text/plain": "100%"}, "metadata": {}}
    assert second == Message("stdout", "between\n")


def test_a_closed_widget_takes_nothing_else_with_it():
    """A display that was changed into a widget, which was closed, is left empty; the rest stays."""
    output.install_face(Face(lambda bundle: None, settle=lambda bundle: None))
    capture = Capture()
    with Capturing(capture):
        capture.write("stdout", "text\n")
        take(named("figure"))
        take(widget("closed", "0%") | named("figure", update=True) | widget("closed", "0%"))
    assert texts(capture.finished()) == [("stdout", "text\n"), ("display", None)]


# --- live ----------------------------------------------------------------------------


class Cell:
    """A cell of a front end that shows what it is sent, as JupyterLab does.

    With `apart`, bars that move are shown in a display of their own, as a notebook's are.
    """

    def __init__(self, raw=True, apart=False):
        self.sent = []
        self.outputs = []
        self.ended = set()
        self._clear = False
        self.face = Face(self.show, self.clear, lambda: True, self.settle, lambda: raw)
        if apart:
            self.face = replace(self.face, ended=self.is_ended, move=self.move)

    def is_ended(self, bundle):
        """Say whether a widget has come to its end; one called button is no bar."""
        name = bundle["data"][output._VIEW]["model_id"]
        return None if name == "button" else name in self.ended

    def move(self, display_id, bundles):
        """Show bars that move."""
        texts = [bundle["data"]["text/plain"] for bundle in bundles]
        data = {"text/plain": "\n".join(texts)} if texts else {}
        self.show({"data": data, "transient": {"display_id": display_id}, "update": True})

    def show(self, bundle):
        """Take a display, or its update."""
        self.sent.append(("display", bundle["data"].get("text/plain")))
        named = bundle.get("transient", {}).get("display_id")
        if bundle.get("update"):
            for one in self.outputs:
                if one[2] == named:
                    one[1] = bundle["data"].get("text/plain")
            return
        self._due()
        self.outputs.append(["display", bundle["data"].get("text/plain"), named])

    def stream(self, kind, text):
        """Take text."""
        self.sent.append((kind, text))
        self._due()
        if self.outputs and self.outputs[-1][0] == kind:
            self.outputs[-1][1] += text
        else:
            self.outputs.append([kind, text, None])

    def clear(self, wait):
        """Clear the cell."""
        self.sent.append(("clear", wait))
        if wait:
            self._clear = True
        else:
            self.outputs.clear()

    def settle(self, bundle):
        """Say that a widget has come to its end, or was closed."""
        if bundle["data"][output._VIEW]["model_id"] == "closed":
            return None
        return bundle | {"data": bundle["data"] | {"text/plain": "100%"}}

    @property
    def shown(self):
        """What is on the screen."""
        return [
            (kind, text if kind == "display" else overwritten(text))
            for kind, text, _ in self.outputs
        ]

    def _due(self):
        if self._clear:
            self._clear = False
            self.outputs.clear()


def overwritten(text):
    """Return what a front end shows of a stream, character by character."""
    lines, column = [""], 0
    for letter in text:
        if letter == "\n":
            lines.append("")
            column = 0
        elif letter == "\r":
            column = 0
        else:
            line = lines[-1]
            lines[-1] = line[:column] + letter + line[column + 1 :]
            column += 1
    return "\n".join(lines)


class Stream(io.StringIO):
    """A stream of a cell."""

    def __init__(self, cell, kind):
        super().__init__()
        self._cell, self._kind = cell, kind

    def write(self, text):
        """Send text."""
        self._cell.stream(self._kind, text)
        return len(text)


@contextlib.contextmanager
def cell(monkeypatch, *, raw=True, apart=False):
    """Yield a cell whose front end understands carriage returns, or does not."""
    shown = Cell(raw, apart)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Stream(shown, "stdout"))
        patch.setattr(sys, "stderr", Stream(shown, "stderr"))
        output.install_face(shown.face)
        with replaced():
            token = output.enter_screen()
            yield shown
            output.leave_screen(token)


BODY = [
    ("stdout", "begin\n"),
    ("stderr", "0%"),
    ("stderr", "\r50%"),
    ("display", "figure"),
    ("stderr", "\r100%\n"),
    ("stdout", "a\rb"),
]


def act(capture, deeds):
    """Do what a body does."""
    for kind, text in deeds:
        if kind == "display":
            capture.display(named(text, name=text))
        elif kind == "update":
            capture.display(named(text, update=True, name="figure"))
        elif kind == "widget":
            capture.display(widget(text, "0%"))
        elif kind == "clear":
            capture.clear(text)
        else:
            capture.write(kind, text)


STORIES = {
    "prints": BODY,
    "clears at once": [*BODY, ("clear", False), ("stdout", "end\n")],
    "clears later": [*BODY, ("clear", True), ("stdout", "end\n"), ("clear", True)],
    "clears twice": [*BODY, ("clear", False), *BODY, ("clear", True), ("display", "last")],
    "leaves nothing": [*BODY, ("clear", False)],
    "updates": [*BODY, ("update", "new figure"), ("stdout", "end\n"), ("update", "newest")],
    "shows a widget": [("widget", "bar"), *BODY],
    "closes a widget": [*BODY, ("widget", "closed"), ("stdout", "end\n"), ("widget", "bar")],
}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("at", range(len(BODY) + 1))
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_what_was_shown_live_is_what_is_recorded(monkeypatch, story, at, raw):
    """Whenever the wait begins, and whenever another ends: the cell ends up as on replay."""
    with cell(monkeypatch, raw=raw) as live:
        print("the cell's own, before")
        capture = Capture()
        act(capture, story[:at])
        destination = Destination()
        capture.follow(destination)
        act(capture, story[at : at + 2])
        capture.unfollow()
        act(capture, story[at + 2 : at + 3])
        capture.follow(destination)
        act(capture, story[at + 3 :])
        messages = capture.finished()
        assert capture.unsent == ()
        print("after")
    with cell(monkeypatch, raw=raw) as replayed:
        print("the cell's own, before")
        deliver(messages)
        print("after")
    assert live.shown == replayed.shown
    if not raw:
        assert live.outputs == replayed.outputs or "figure" in str(story)
        assert not any("\r" in text for kind, text, _ in live.outputs if kind != "display")


DRAWN = [
    ("stdout", "begin\n"),
    ("widget", "one"),
    ("stderr", "\r 0%"),
    ("stdout", "epoch 1\n"),
    ("stderr", "\r50%"),
    ("ended", "one"),
    ("stdout", "epoch 2\n"),
    ("stderr", "\r99%\nlogged\n"),
    ("widget", "button"),
    ("widget", "closed"),
    ("stderr", "\rleft"),
]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("at", range(len(DRAWN) + 1))
def test_bars_leave_the_same_outputs_live_and_on_replay(monkeypatch, at, raw):
    """Whenever the wait begins: what moves is shown apart, what has ended is text, in one order."""

    def draw(capture, deeds, shown):
        for kind, text in deeds:
            if kind == "ended":
                shown.ended.add(text)
            else:
                act(capture, [(kind, text)])

    with cell(monkeypatch, raw=raw, apart=True) as live:
        capture = Capture()
        draw(capture, DRAWN[:at], live)
        destination = Destination()
        capture.follow(destination)
        draw(capture, DRAWN[at : at + 2], live)
        capture.unfollow()
        draw(capture, DRAWN[at + 2 : at + 3], live)
        capture.follow(destination)
        draw(capture, DRAWN[at + 3 :], live)
        messages = capture.finished()
        assert capture.unsent == ()
    with cell(monkeypatch, raw=raw, apart=True) as replayed:
        replayed.ended.add("one")
        deliver(messages)
    # Where a display stands is the same, whose id is not; consecutive texts are one output.
    assert merged(live) == merged(replayed)
    texts = [text for kind, text in merged(replayed) if kind == "stdout"]
    assert "".join(texts) == "begin\nepoch 1\n100%\nepoch 2\n99%\nleft\n"
    assert [text for kind, text in merged(replayed) if kind == "stderr"] == ["logged\n"]


def merged(shown):
    """Return what a notebook saves of a cell: texts of one stream that follow on are one."""
    found = []
    for kind, text, _ in shown.outputs:
        if found and kind == found[-1][0] != "display":
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def test_bars_that_move_are_seen_in_their_own_place(monkeypatch):
    """All at once, in the display that is kept where the first was; it is empty in the end."""
    monkeypatch.setattr("nbdurable.output.transcript.PERIOD", 0.0)
    with cell(monkeypatch, apart=True) as shown:
        capture = Capture()
        capture.follow(Destination())
        capture.write("stderr", "\r10%")
        assert shown.shown == [("display", "10%")]
        capture.display(widget("one", "w 0%"))
        assert shown.shown == [("display", "10%\nw 0%")]
        capture.write("stdout", "text\n")
        capture.write("stderr", "\r20%")
        assert shown.shown == [("display", "20%\nw 0%"), ("stdout", "text\n")]
        capture.write("stderr", "\r99%\n")
        assert shown.shown == [("display", "w 0%"), ("stdout", "text\n99%\n")]
        capture.finished()
        assert shown.shown == [("display", None), ("stdout", "text\n99%\n100%\n")]


def test_a_bar_of_a_child_moves_on_the_cells_screen(monkeypatch):
    """What a body's own step draws is shown through the body, and kept once in its output."""
    monkeypatch.setattr("nbdurable.output.transcript.PERIOD", 0.0)
    with cell(monkeypatch, apart=True) as shown:
        parent, child = Capture(), Capture()
        parent.follow(Destination())
        with Capturing(parent):
            child.follow(Destination())
        child.write("stderr", "\r10%")
        child.display(widget("one", "w 0%"))
        assert shown.shown == [("display", "10%\nw 0%")]
        child.write("stderr", "\r100%\n")
        child.finished()
        assert shown.shown == [("display", None), ("stdout", "100%\n100%\n")]
        bars = [one.data for one in parent.finished() if one.kind == "bar" and one.data]
        assert bars == ["100%\n", "100%\n"]


def test_a_bar_that_is_cleared_moves_no_more(monkeypatch):
    """`clear_output` takes bars away, the moving ones too, and nothing of them is left."""
    monkeypatch.setattr("nbdurable.output.transcript.PERIOD", 0.0)
    with cell(monkeypatch, apart=True) as shown:
        print("the cell's own")
        capture = Capture()
        capture.follow(Destination())
        act(capture, [("stderr", "\r10%"), ("widget", "one"), ("clear", False)])
        act(capture, [("stdout", "end\n")])
        assert capture.finished() == (Message("stdout", "end\n"),)
    assert "".join(text for kind, text in shown.shown if kind == "stdout") == (
        "the cell's own\nend\n"
    )
    assert all(text is None for kind, text in shown.shown if kind == "display")


def test_a_script_keeps_bars_on_stderr(monkeypatch):
    """Where there is no notebook an ended bar goes where it was written: stdout may be a pipe."""
    with cell(monkeypatch, raw=False) as shown:
        deliver((Message("stdout", "1\n"), Message("bar", "100%\n")))
    assert shown.shown == [("stdout", "1\n"), ("stderr", "100%\n")]


def test_what_is_followed_is_shown_at_once(monkeypatch):
    """What was written before comes first; what follows comes piece by piece, not at the end."""
    with cell(monkeypatch) as shown:
        capture = Capture()
        capture.write("stdout", "before")
        assert shown.sent == []
        capture.follow(Destination())
        assert shown.sent == [("stdout", "before")]
        capture.write("stdout", " now")
        capture.display(named("figure"))
        assert shown.sent[1:] == [("stdout", " now"), ("display", "figure")]
        capture.unfollow()
        capture.write("stdout", "later")
        assert len(shown.sent) == 3
        capture.finished()
        assert capture.unsent == (Message("stdout", "later"),)


def test_a_line_without_a_reader_is_shown_when_it_is_complete(monkeypatch):
    """Where nobody looks a progress bar's last state is what the cell gets, as on replay."""
    with cell(monkeypatch, raw=False) as shown:
        capture = Capture()
        capture.follow(Destination())
        capture.write("stderr", "\r 0%")
        capture.write("stderr", "\r50%")
        assert shown.sent == []
        capture.write("stderr", "\r100%\nnext")
        assert shown.sent == [("stderr", "100%\n")]
        capture.finished()
        assert shown.sent[1:] == [("stderr", "next")]


def test_where_others_write_a_line_is_shown_whole(monkeypatch):
    """Where several steps are shown at once, a line comes in one piece, or when it is flushed."""
    with cell(monkeypatch) as shown:
        capture = Capture()
        capture.follow(Destination(alone=False))
        with Capturing(capture):
            print("one", 1)
            sys.stdout.write("half")
            assert shown.sent == [("stdout", "one 1\n")]
            sys.stdout.flush()
            sys.stdout.write("\rdone\nlast\r")
        assert shown.sent[1:] == [("stdout", "half"), ("stdout", "\rdone\n")]
        assert capture.finished() == (Message("stdout", "one 1\ndone\nlast"),)
        assert shown.shown == [("stdout", "one 1\ndone\nlast")]


def test_another_place_is_shown_all(monkeypatch):
    """Who waits in another cell sees the output from its beginning."""
    with cell(monkeypatch) as first:
        capture = Capture()
        capture.write("stdout", "one\n")
        capture.follow(Destination())
        capture.unfollow()
        assert first.shown == [("stdout", "one\n")]
    with cell(monkeypatch) as second:
        capture.write("stdout", "two\n")
        capture.follow(Destination())
        assert second.shown == [("stdout", "one\ntwo\n")]
    assert first.shown == [("stdout", "one\n")]


def test_live_output_goes_where_the_waiting_code_stands(monkeypatch):
    """From whatever thread, live output is written in the waiting context: a front end's header."""
    header = contextvars.ContextVar("header", default="none")
    seen = []
    with cell(monkeypatch) as shown:
        output.install_face(Face(lambda bundle: seen.append(header.get())))
        token = header.set("the cell's")
        destination = Destination()
        header.reset(token)
        capture = Capture()
        capture.follow(destination)
        thread = threading.Thread(target=act, args=(capture, [("display", "x"), ("stdout", "y\n")]))
        thread.start()
        thread.join(30)
        assert seen == ["the cell's"]
        assert shown.sent == [("stdout", "y\n")]


def test_a_child_that_is_waited_for_is_live_in_its_parent(monkeypatch):
    """A parent that is shown live passes on its child's output, and what it takes back."""
    with cell(monkeypatch) as shown:
        print("first")
        parent, child = Capture(), Capture()
        parent.follow(Destination())
        with Capturing(parent):
            print("parent")
            child.follow(Destination())
        child.write("stdout", "child\n")
        assert shown.shown == [("stdout", "first\nparent\nchild\n")]
        child.clear()
        assert shown.shown == [("stdout", "first\nparent\n")]
        child.write("stdout", "a\rchild again\r")
        assert child.finished() == (Message("stdout", "child again"),)
        with Capturing(parent):
            print("!")
        assert parent.finished() == (Message("stdout", "parent\nchild again!\n"),)
        assert shown.shown == [("stdout", "first\nparent\nchild again!\n")]


def test_after_its_end_a_body_writes_into_nothing():
    """A body that was let go is heard no more; what one has left behind writes to the cell."""
    capture = Capture()
    with Capturing(capture):
        capture.write("stdout", "heard")
        capture.finished()
        assert capture.write("stdout", "unheard") is True
        assert take(named("unseen")) is True
        assert clear(False) is True
    assert capture.finished() == (Message("stdout", "heard"),)
    assert capture.write("stdout", "a thread's") is False


def test_a_closed_place_shows_nothing(monkeypatch):
    """What still runs when the cell has ended is shown no more."""
    with cell(monkeypatch) as shown:
        capture, destination = Capture(), Destination()
        capture.follow(destination)
        destination.open = False
        act(capture, BODY)
        capture.clear()
        assert shown.sent == []


def test_a_front_end_that_fails_fails_no_step():
    """What can't be shown live is recorded all the same, and its step goes on."""

    def fail(bundle):
        raise OSError("gone")

    output.install_face(Face(fail))
    capture = Capture()
    capture.follow(Destination())
    capture.display(named("figure"))
    capture.write("stdout", "text")
    assert texts(capture.finished()) == [("display", "figure"), ("stdout", "text")]


def test_a_cell_that_has_shown_too_much_is_not_cleared(monkeypatch):
    """What can't be shown again is not taken back; the record is right all the same."""
    monkeypatch.setattr(transcript, "SCREEN_CHARACTERS", 100)
    with cell(monkeypatch) as shown:
        print("x" * 101)
        capture = Capture()
        capture.follow(Destination())
        capture.write("stdout", "one\n")
        capture.clear()
        capture.write("stdout", "two\n")
        assert capture.finished() == (Message("stdout", "two\n"),)
        assert shown.shown == [("stdout", "x" * 101 + "\none\ntwo\n")]


@pytest.mark.parametrize("text", ["half a line", "\r50%", "0%\r", "whole\n"])
def test_a_display_from_elsewhere_does_not_break_a_line(monkeypatch, text):
    """The status view comes at its own time: it goes before a step's line that is being written."""
    with cell(monkeypatch) as shown:
        print("cell")
        capture = Capture()
        capture.follow(Destination())
        capture.write("stdout", "first\n")
        capture.display(named("figure"))
        capture.write("stdout", text)
        view = named("view", name="view")
        output.capture_display(view, lambda: shown.show(view))
        capture.write("stdout", "\rdone")
        (*_, last) = capture.finished()
        at = 2 if text.endswith("\n") else 1
        rest = overwritten(text + "\rdone")
        assert last == Message("stdout", rest)
        expected = [("stdout", rest)]
        if text.endswith("\n"):
            expected = [("stdout", text), ("stdout", "done")]
        expected.insert(at - 1, ("display", "view"))
        assert shown.shown == [("stdout", "cell\nfirst\n"), ("display", "figure"), *expected]


def view_of(shown, name="view"):
    """Display something from elsewhere."""
    bundle = named(name, name=name)
    output.capture_display(bundle, lambda: shown.show(bundle))


def test_a_display_after_a_steps_last_line_comes_after_it(monkeypatch):
    """A step that has ended writes no more, whether or not its last line was complete."""
    with cell(monkeypatch) as shown:
        capture = Capture()
        capture.follow(Destination())
        capture.write("stdout", "half a line")
        capture.finished()
        view_of(shown, "first")
        deliver([Message("stdout", "another")])
        view_of(shown, "second")
        print("cell", end="")
        view_of(shown, "third")
        assert shown.shown == [
            ("stdout", "half a line"), ("display", "first"), ("stdout", "another"),
            ("display", "second"), ("stdout", "cell"), ("display", "third"),
        ]  # fmt: skip
        assert not any(kind == "clear" for kind, _ in shown.sent)


def test_what_a_body_has_left_behind_displays_without_harm(monkeypatch):
    """A thread that outlives its step is the cell's: what it displays breaks no line either."""
    with cell(monkeypatch) as shown:
        ended, capture = Capture(), Capture()
        ended.finished()
        capture.follow(Destination())
        capture.write("stdout", "half")
        token = output._current.set(ended)
        try:
            view_of(shown)
        finally:
            output._current.reset(token)
        capture.write("stdout", " a line")
        capture.finished()
        assert shown.shown == [("display", "view"), ("stdout", "half a line")]


@pytest.mark.parametrize("what", ["display", "text", "clear"])
def test_what_is_shown_is_remembered_in_the_same_order(monkeypatch, what):
    """What another thread shows meanwhile is noted after what is noted, not before it is shown."""
    with cell(monkeypatch) as shown:
        began, other = threading.Event(), threading.Event()

        def slowly(show):
            began.set()
            other.wait(0.2)
            return show()

        def second():
            began.wait(10)
            view_of(shown, "second")
            other.set()

        thread = threading.Thread(target=contextvars.copy_context().run, args=(second,))
        thread.start()
        first = named("first")
        if what == "display":
            output.capture_display(first, lambda: slowly(lambda: shown.show(first)))
        elif what == "text":
            output.pass_text("stdout", "first", lambda text: slowly(lambda: print(text)))
        else:
            output.capture_clear(False, lambda wait: slowly(lambda: shown.clear(wait)))
        thread.join(10)
        remembered = [piece.kind for piece in output._screen.get()._roll.pieces]
        assert remembered[-len(shown.outputs) :] == [kind for kind, *_ in shown.outputs]
        assert shown.outputs[-1] == ["display", "second", "second"]


def test_many_threads_show_at_once(monkeypatch):
    """Steps' lines, views and clearing from many threads at once: none waits for ever."""
    with cell(monkeypatch) as shown:
        captures = [Capture() for _ in range(4)]

        def body(number):
            capture = captures[number]
            capture.follow(Destination())
            for at in range(50):
                capture.write("stdout", f"\r{number} {at}")
                capture.display(named("figure", name=f"figure {number}"))
                if at % 10 == 9:
                    capture.clear(at % 20 == 9)
            capture.finished()

        def views():
            for at in range(50):
                view_of(shown, f"view {at}")

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(show, *arguments))
            for show, *arguments in [*((body, number) for number in range(4)), (views,), (views,)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert sum("view" in text for kind, text, _ in shown.outputs if kind == "display") == 100


def test_a_stage_shows_one_after_the_other(monkeypatch):
    """What is received while a step is shown live is shown after it."""
    with cell(monkeypatch) as shown:
        stage = Stage(0)
        stage.busy = True
        stage.deliver([Message("stdout", "second\n")])
        print("first")
        stage.over()
        assert shown.shown == [("stdout", "first\nsecond\n")]


# --- in a run ------------------------------------------------------------------------


def execute(path, program, capsys):
    """Run `program` as one execution; give what it showed."""
    with workflow("w", store=path):
        program()
    open_stores.close_stores()
    return capsys.readouterr()


def speak(name):
    """Print, log, draw a progress bar."""
    print(name, "prints")
    handler = logging.StreamHandler()
    logger = logging.getLogger(f"tests.{name}")
    logger.addHandler(handler)
    logger.warning("%s logs", name)
    logger.removeHandler(handler)
    for number in range(3):
        print(f"\r{name} {number}", end="")
    print()


def test_replay_shows_the_same(tmp_path, capsys):
    """Prints, logging, overwritten lines: live and replayed they look alike."""

    def program():
        print("first")
        handles = [go(speak, name) for name in "ab"]
        gather(handles).result()
        print("last")

    live = execute(tmp_path / "s.duckdb", program, capsys)
    assert live.out == "first\na prints\na 2\nb prints\nb 2\nlast\n"
    assert live.err == "a logs\nb logs\n"
    assert execute(tmp_path / "s.duckdb", program, capsys) == live


WARNS = """
import sys, warnings
from nbdurable import go, workflow

def warns():
    warnings.warn("take care")

with workflow("w", store=sys.argv[1]):
    handle = go(warns)
    print("first", file=sys.stderr)
    handle.result()
    print("last", file=sys.stderr)
"""


def test_warnings_are_a_steps_output(tmp_path):
    """What Python warns of in a step comes where the step is received, live and replayed."""
    command = [sys.executable, "-c", WARNS, str(tmp_path / "s.duckdb")]
    shown = [
        subprocess.run(command, capture_output=True, text=True, check=True).stderr for _ in range(2)
    ]
    first, warning, last = shown[0].splitlines()
    assert (first, last) == ("first", "last")
    assert warning.endswith("UserWarning: take care")
    assert shown[1] == shown[0]


def test_the_final_attempts_output_counts(tmp_path, capsys):
    """A retried attempt's output is not shown, live or replayed, called or started."""
    tries = iter(range(100))

    def flaky(name):
        print(name, "tries")
        if next(tries) % 2 == 0:
            print("in vain")
            raise OSError("once more")
        return name

    flaky_step = step(flaky, retries=1, backoff=0.0, version=1)

    def program():
        flaky_step("called")
        flaky_step.go("started").result()

    live = execute(tmp_path / "s.duckdb", program, capsys)
    assert live.out == "called tries\nstarted tries\n"
    assert execute(tmp_path / "s.duckdb", program, capsys) == live


def test_output_that_was_cut_is_cut_alike(tmp_path, capsys, monkeypatch):
    """A step that says too much is cut live as on replay."""
    monkeypatch.setattr(output, "LIMIT_CHARACTERS", 100)

    def talk():
        for number in range(100):
            print("line", number)

    live = execute(tmp_path / "s.duckdb", lambda: go(talk).result(), capsys)
    assert live.out.startswith("line 0\nline 1\n")
    assert len(live.out) == 100
    assert live.err == "\n... output cut at 100 characters\n"
    assert execute(tmp_path / "s.duckdb", lambda: go(talk).result(), capsys) == live


def test_what_still_runs_at_the_end_is_shown_no_more(tmp_path, capsys):
    """A loser that prints after its run has ended is not heard, however it was shown before."""
    lost, printed = threading.Event(), threading.Event()

    def lose():
        print("loses")
        lost.wait(10)
        print("has lost")
        printed.set()

    with workflow("w", store=tmp_path / "s.duckdb", tee=True):
        loser = go(lose)
        select(loser, go(int)).result()
    lost.set()
    assert printed.wait(10)
    assert "has lost" not in capsys.readouterr().out

"""Captured output: kept apart, bounded, at its last state, delivered as it was."""

import contextlib
import contextvars
import io
import logging
import os
import subprocess
import sys
import threading

import pytest

from nbdurable import gather, go, output, session, step, workflow
from nbdurable.output import Capture, capturing, deliver, dumps, loads, released
from nbdurable.records import Message

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def clean():
    """Leave no store open, no stream replaced, no display installed."""
    before = sys.stdout, sys.stderr
    yield
    session.close_stores()
    output.install_display(None)
    assert output._users == 0
    assert output._current.get() is None
    assert (sys.stdout, sys.stderr) == before


@contextlib.contextmanager
def replaced():
    """Replace the streams as a run does (no fixture: pytest's own capture changes them too)."""
    output.install_streams()
    try:
        yield
    finally:
        output.remove_streams()


def written(*pieces, kind="stdout"):
    """Give what a capture of these pieces finishes with."""
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
    first, second, third = capture.finished()
    assert (first.data, third.data) == ("begin\n", "the end\n")
    assert second == Message("stderr", f"  7999 {bar}\n")


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
    with replaced():
        token = capturing(outer)
        print("before")
        deliver([Message("stdout", "child\n"), Message("display", '{"data": {}}')])
        released(token)
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
    assert output.capture_display({"data": {}}) is False


@pytest.mark.parametrize("through", [False, True])
def test_displays_of_a_step_are_captured(through):
    """A step's display is captured; the front end shows it only where it is let through."""
    capture = Capture(through=through)
    token = capturing(capture)
    taken = output.capture_display({"data": {"text/plain": "x"}, "metadata": {"odd": {1, 2}}})
    released(token)
    assert taken is not through
    [message] = capture.finished()
    assert message.kind == "display"
    assert "{1, 2}" in message.data


def test_displays_are_delivered_to_the_front_end(capsys):
    """A front end shows the bundle as it was; without one, its text is printed."""
    bundle = {"data": {"text/plain": "größer", "text/html": "<b>"}, "metadata": {"a": 1}}
    capture = Capture()
    token = capturing(capture)
    output.capture_display(bundle)
    released(token)
    shown = []
    output.install_display(shown.append)
    deliver(capture.finished())
    assert shown == [bundle]
    output.install_display(None)
    deliver(capture.finished())
    assert capsys.readouterr().out == "größer\n"
    assert shown == [bundle]


def test_displays_delivered_inside_a_step():
    """A child's display is the parent's output, not yet the cell's."""
    shown = []
    output.install_display(shown.append)
    outer = Capture()
    token = capturing(outer)
    deliver([Message("display", '{"data": {}}')])
    released(token)
    assert shown == []
    assert outer.finished() == (Message("display", '{"data": {}}'),)
    outer = Capture(through=True)
    token = capturing(outer)
    deliver([Message("display", '{"data": {}}')])
    released(token)
    assert shown == [{"data": {}}]
    assert outer.finished() == (Message("display", '{"data": {}}'),)


# --- streams -------------------------------------------------------------------------


def test_streams_are_counted():
    """Runs beside each other replace the streams once; the last one puts them back."""
    before = sys.stdout, sys.stderr
    output.install_streams()
    replaced = sys.stdout, sys.stderr
    assert replaced != before
    output.install_streams()
    assert (sys.stdout, sys.stderr) == replaced
    output.remove_streams()
    assert (sys.stdout, sys.stderr) == replaced
    output.remove_streams()
    assert (sys.stdout, sys.stderr) == before


def test_a_stream_that_somebody_else_has_replaced_stays(monkeypatch):
    """Streams that were redirected meanwhile are not touched at the end."""
    output.install_streams()
    tee, mine = sys.stdout, io.StringIO()
    sys.stdout = mine
    output.remove_streams()
    assert sys.stdout is mine
    sys.stdout = tee.stream


def test_outside_a_step_streams_pass_through(capsys):
    """What no step writes goes where it went before, at once."""
    with replaced():
        assert sys.stdout.write("text") == 4
        print("printed", file=sys.stderr)
        assert capsys.readouterr() == ("text", "printed\n")


@pytest.mark.parametrize("through", [False, True])
def test_inside_a_step_streams_are_captured(capsys, through):
    """What a step writes is its own; it is shown at once only where it is let through."""
    capture = Capture(through=through)
    with replaced():
        token = capturing(capture)
        assert sys.stdout.write("größer\n") == 7
        sys.stderr.writelines(["a\n", "b\n"])
        sys.stdout.flush()
        released(token)
    assert capture.finished() == (Message("stdout", "größer\n"), Message("stderr", "a\nb\n"))
    assert capsys.readouterr() == (("größer\n", "a\nb\n") if through else ("", ""))


def test_the_stream_is_like_the_one_below():
    """What code asks a stream for is answered by the one below; in a step it is no terminal."""
    below = sys.stdout
    with replaced():
        assert sys.stdout.encoding == below.encoding
        assert sys.stdout.isatty() == below.isatty()
        assert sys.stdout.writable()
        assert sys.stdout.buffer is below.buffer
        token = capturing(Capture())
        assert not sys.stdout.isatty()
        for text in (b"bytes", 5, None):
            with pytest.raises(TypeError, match="must be str"):
                sys.stdout.write(text)
        released(token)


def test_the_file_number_is_the_streams_own(monkeypatch, tmp_path):
    """A subprocess is given the real file."""
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with replaced():
            assert sys.stdout.fileno() == file.fileno()
            os.write(sys.stdout.fileno(), b"direct")
        assert sys.stdout is file
    assert (tmp_path / "out").read_text() == "direct"


def test_output_follows_its_context(capsys):
    """Two threads in two contexts write at once, line by line, and nothing is mixed."""
    captures = [Capture(), Capture()]
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def write(mine):
        capturing(captures[mine])
        for number in range(20):
            turns[mine].acquire()
            print(mine, end="")
            print("", number)
            turns[1 - mine].release()

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(write, mine))
        for mine in (0, 1)
    ]
    with replaced():
        for thread in threads:
            thread.start()
        print("the cell's own")
        for thread in threads:
            thread.join(30)
    for mine in (0, 1):
        expected = "".join(f"{mine} {number}\n" for number in range(20))
        assert captures[mine].finished() == (Message("stdout", expected),)
    assert capsys.readouterr().out == "the cell's own\n"


# --- in a run ------------------------------------------------------------------------


def execute(path, program, capsys):
    """Run `program` as one execution; give what it showed."""
    with workflow("w", store=path):
        program()
    session.close_stores()
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

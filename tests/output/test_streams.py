"""``sys.stdout`` and ``sys.stderr`` while steps run: whose each write is, what stays as it was."""

import contextlib
import contextvars
import gc
import importlib
import io
import logging
import os
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbdurable import go, workflow
from nbdurable.output import capture as output
from nbdurable.output import streams
from nbdurable.output.capture import Capture, Destination
from nbdurable.output.streams import Capturing
from nbdurable.records import Message

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def clean():
    """Leave no stream replaced."""
    before = sys.stdout, sys.stderr
    yield
    assert streams._users == 0
    assert streams._tees == []
    assert output.current() is None
    assert (sys.stdout, sys.stderr) == before
    assert "write" not in vars(before[0])


@contextlib.contextmanager
def replaced():
    """Replace the streams as a run does (no fixture: pytest's own capture changes them too)."""
    streams.install()
    try:
        yield
    finally:
        streams.remove()


def test_streams_are_counted():
    """Runs beside each other replace the streams once; the last one puts them back."""
    before = sys.stdout, sys.stderr
    streams.install()
    replaced = sys.stdout, sys.stderr
    assert replaced != before
    streams.install()
    assert (sys.stdout, sys.stderr) == replaced
    streams.remove()
    assert (sys.stdout, sys.stderr) == replaced
    streams.remove()
    assert (sys.stdout, sys.stderr) == before


def test_a_stream_that_somebody_else_has_replaced_stays(monkeypatch):
    """Streams that were redirected meanwhile are not touched at the end."""
    streams.install()
    tee, mine = sys.stdout, io.StringIO()
    sys.stdout = mine
    streams.remove()
    assert sys.stdout is mine
    sys.stdout = tee.stream


def test_outside_a_step_streams_pass_through(capsys):
    """What no step writes goes where it went before, at once."""
    with replaced():
        assert sys.stdout.write("text") == 4
        print("printed", file=sys.stderr)
        assert capsys.readouterr() == ("text", "printed\n")


def test_inside_a_step_streams_are_captured(capsys):
    """What a step writes is its own."""
    capture = Capture()
    with Capturing(capture):
        assert sys.stdout.write("größer\n") == 7
        sys.stderr.writelines(["a\n", "b\n"])
        sys.stdout.flush()
    assert capture.finished() == (Message("stdout", "größer\n"), Message("stderr", "a\nb\n"))
    assert capsys.readouterr() == ("", "")


def test_the_stream_is_like_the_one_below():
    """What code asks a stream for is answered by the one below; in a step it is no terminal."""
    below = sys.stdout
    with replaced():
        assert sys.stdout.encoding == below.encoding
        assert sys.stdout.isatty() == below.isatty()
        assert sys.stdout.writable()
        assert sys.stdout.buffer is below.buffer
        with Capturing(Capture()):
            assert not sys.stdout.isatty()
            for text in (b"bytes", 5, None):
                with pytest.raises(TypeError, match="must be str"):
                    sys.stdout.write(text)


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
        with Capturing(captures[mine]):
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


def test_a_stream_that_was_taken_hold_of_earlier(capsys):
    """A logging handler that was made in an earlier cell writes into the step's output, too."""
    held, written = sys.stderr, sys.stderr.write
    handler = logging.StreamHandler(held)
    logger = logging.getLogger("tests.streams")
    logger.addHandler(handler)
    capture = Capture()
    with replaced():
        logger.warning("outside")
        with Capturing(capture):
            logger.warning("inside")
    logger.removeHandler(handler)
    assert capture.finished() == (Message("stderr", "inside\n"),)
    assert capsys.readouterr().err == "outside\n"
    assert held.write == written


def test_a_stream_that_was_covered_already_is_so_again(monkeypatch):
    """Whoever had put a `write` of their own on the stream finds it there afterwards."""
    stream, seen = io.StringIO(), []
    stream = type("Stream", (io.StringIO,), {})()
    stream.write = mine = seen.append
    monkeypatch.setattr(sys, "stdout", stream)
    with replaced():
        print("text", end="")
    assert stream.write is mine
    assert "text" in seen


def test_a_stream_without_attributes_is_replaced_all_the_same(monkeypatch):
    """A stream that can't be covered is still stood for."""

    class Bare:
        __slots__ = ()
        encoding = "utf-8"

        def write(self, text):
            seen.append(text)
            return len(text)

        def flush(self):
            pass

        def isatty(self):
            return False

    seen = []
    monkeypatch.setattr(sys, "stdout", Bare())
    capture = Capture()
    with replaced():
        with Capturing(capture):
            print("inside")
        print("outside")
    assert "".join(seen) == "outside\n"
    assert capture.finished() == (Message("stdout", "inside\n"),)


def test_a_stream_that_was_put_back_too_late():
    """A stand-in that somebody puts back after its time is not stood for again."""
    streams.install()
    late = sys.stdout
    sys.stdout = io.StringIO()
    streams.remove()
    sys.stdout = late
    with replaced():
        assert sys.stdout is not late
        assert sys.stdout.stream is late.stream
    assert sys.stdout is late.stream


def test_what_stood_for_a_stream_goes_without_a_flush(monkeypatch):
    """The collector may take it inside a write: ipykernel's flush then waits for itself."""
    flushed = []

    class Stream(io.StringIO):
        def flush(self):
            flushed.append(True)

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Stream())
    with replaced():
        print("shown")
    flushed.clear()
    gc.collect()
    assert flushed == []


def test_a_body_that_outlives_its_run_is_still_captured(capsys):
    """The streams stay replaced until the last body has ended, so its output is its own."""
    capture = Capture()
    with Capturing(capture):
        print("inside")
    assert capture.finished() == (Message("stdout", "inside\n"),)
    assert capsys.readouterr().out == ""


def test_a_thread_that_a_body_starts_is_the_bodys(capsys):
    """What a child thread prints, a pool's worker too, is the step's; outside it is the cell's."""
    capture, ended = Capture(), threading.Event()

    def late():
        ended.wait(10)
        print("late")

    with replaced():
        start = threading.Thread.start
        with Capturing(capture):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(print, "pool").result()
            left = threading.Thread(target=late)
            left.start()
        assert capture.finished() == (Message("stdout", "pool\n"),)
        ended.set()
        left.join(10)
        other = threading.Thread(target=print, args=("outside",))
        other.start()
        other.join(10)
        assert capsys.readouterr().out == "late\noutside\n"
    assert threading.Thread.start is not start


def test_the_engines_own_threads_are_nobodys(capsys):
    """A thread of the engine that happens to be started in a body does not belong to it."""
    capture = Capture()
    with Capturing(capture):
        thread = threading.Thread(target=print, args=("engine",), name="nbdurable-step")
        thread.start()
        thread.join(10)
    assert capture.finished() == ()
    assert capsys.readouterr().out == "engine\n"


def test_what_a_step_wrote_stays_before_what_follows(monkeypatch):
    """A stream with a step's output is flushed before the cell writes to the other one."""
    order = []

    def stream(name):
        members = {"flush": lambda self: order.append(f"flush {name}")}
        return type("Stream", (io.StringIO,), members)()

    monkeypatch.setattr(sys, "stdout", stream("stdout"))
    monkeypatch.setattr(sys, "stderr", stream("stderr"))
    with replaced():
        print("cell", file=sys.stderr)
        print("cell")
        assert order == []
        output.deliver([Message("stdout", "a\n"), Message("stderr", "b\n"), Message("stderr", "c")])
        assert order == ["flush stderr", "flush stdout"]
        print("cell")
        assert order[2:] == ["flush stderr"]
        print("cell", file=sys.stderr)
        print("cell")
        assert len(order) == 3


def test_flushing_reaches_who_waits(monkeypatch):
    """A body's flush is a flush where its output is shown live, and else nothing."""
    flushed = []
    stream = type("Stream", (io.StringIO,), {"flush": lambda self: flushed.append("stdout")})()
    monkeypatch.setattr(sys, "stdout", stream)
    with replaced():
        capture, destination = Capture(), Destination()
        with Capturing(capture):
            print("a", flush=True)
            assert flushed == []
            capture.follow(destination)
            print("b", flush=True)
            assert flushed == ["stdout"]
    assert stream.getvalue() == "a\nb\n"


def test_modules_that_are_imported_while_steps_run_are_plain_ones(tmp_path, monkeypatch):
    """Python makes a module by calling the class of `sys`, which is another one meanwhile."""
    (tmp_path / "imported_by_a_step.py").write_text("stdout = 'its own'\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports():
        tool = importlib.import_module("imported_by_a_step")
        return type(tool) is types.ModuleType, tool.stdout

    with workflow("w", store=tmp_path / "s.duckdb"):
        assert go(imports).result() == (True, "its own")
    del sys.modules["imported_by_a_step"]

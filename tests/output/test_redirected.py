"""CONTRACT section 6 where the cell or a body redirects output: the same place on replay.

The kernel is killed between the passes; the second runs no body.
"""

import ast
import contextlib
import io
import json
import logging
import subprocess
import sys
import threading
import types
import unittest.mock
import warnings

import pytest
from kernel_harness import kernel

from nbdurable import go, step, workflow
from nbdurable.api import open_stores
from nbdurable.output import capture as output
from nbdurable.output import streams
from nbdurable.output.capture import Capture, Destination
from nbdurable.output.streams import Capturing
from nbdurable.records import Message

PREPARED = """
%load_ext nbdurable
import asyncio, contextlib, io, logging, sys, threading, warnings
from IPython.display import display
from IPython.utils.capture import capture_output
from nbdurable import gather, go, step

class Both:
    def __init__(self, *streams):
        self.streams = streams
    def write(self, text):
        for stream in self.streams:
            stream.write(text)
        return len(text)
    def flush(self):
        pass

class Odd(UserWarning):
    pass

held = logging.StreamHandler()
log = logging.getLogger("held")
log.addHandler(held)
log.propagate = False

@step
def report(n):
    with open("ran", "a") as file:
        file.write("x")
    print("accuracy", n)
    print("warned", n, file=sys.stderr)
    return n

@step
async def report_later(n):
    print("accuracy", n)
    await asyncio.sleep(0)
    return n
"""

# Each cell leaves in `found` what the redirected places hold.
SITUATIONS = {
    "redirect_stdout": (
        """
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    report(1)
    print("cell")
    report.go(2).result()
found = out.getvalue()
""",
        "accuracy 1\nwarned 1\ncell\naccuracy 2\nwarned 2\n",
    ),
    "nested": (
        """
with contextlib.redirect_stdout(io.StringIO()) as outer:
    report(1)
    with contextlib.redirect_stdout(io.StringIO()) as inner:
        report(2)
    report(3)
found = [outer.getvalue(), inner.getvalue()]
""",
        ["accuracy 1\naccuracy 3\n", "accuracy 2\n"],
    ),
    "capture_output": (
        """
@step
def draws(n):
    print("draws", n)
    handle = display("first", display_id=True)
    handle.update("last")
    warnings.warn("odd", Odd)
    return n

with capture_output() as cap:
    draws(1)
    draws.go(2).result()
found = [cap.stdout, cap.stderr.count("Odd: odd\\n  warnings.warn"),
         [o.data["text/plain"] for o in cap.outputs]]
""",
        ["draws 1\ndraws 2\n", 1, ["'last'", "'last'"]],
    ),
    "a tee": (
        """
before, kept = sys.stdout, io.StringIO()
sys.stdout = Both(before, kept)
report(1)
report.go(2).result()
sys.stdout = before
print("after")
found = kept.getvalue()
""",
        "accuracy 1\naccuracy 2\n",
    ),
    "recorded warnings": (
        """
@step
def warns(n):
    warnings.warn(f"take care {n}", Odd)
    with warnings.catch_warnings(record=True) as mine:
        warnings.simplefilter("always")
        warnings.warn("mine")
    return [str(one.message) for one in mine]

with warnings.catch_warnings(record=True) as recorded:
    warnings.simplefilter("always")
    own = warns(1) + warns.go(2).result()
found = [[str(w.message), w.category is Odd, type(w.message) is Odd] for w in recorded] + own
""",
        [["take care 1", True, True], ["take care 2", True, True], "mine", "mine"],
    ),
    "a handler that holds the stream": (
        """
@step
def logs(n):
    log.warning("logged %s", n)
    return n

with contextlib.redirect_stderr(io.StringIO()) as out:
    inner = logging.StreamHandler()
    logs(1)
    log.addHandler(inner)
    logs(2)
    log.removeHandler(inner)
found = out.getvalue()
""",
        "logged 2\n",
    ),
    "in the body": (
        """
@step
def child(n):
    print("child", n)

@step
def parses(n):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print("accuracy", n)
        child(n)
        before = sys.stdout
        sys.stdout = Both(before)
        print("both")
        sys.stdout = before
    print("parsed", n)
    with capture_output() as cap:
        display("figure")
        print("inside")
    return out.getvalue(), cap.stdout, len(cap.outputs)

with contextlib.redirect_stdout(io.StringIO()) as kept:
    found = [parses(1), parses.go(2).result()]
found.append(kept.getvalue())
""",
        [
            ["accuracy 1\nchild 1\nboth\n", "inside\n", 1],
            ["accuracy 2\nchild 2\nboth\n", "inside\n", 1],
            "parsed 1\nparsed 2\n",
        ],
    ),
    "go inside and result outside": (
        """
with contextlib.redirect_stdout(io.StringIO()) as first:
    handle = report.go(1)
    print("cell")
with contextlib.redirect_stdout(io.StringIO()) as second:
    handle.result()
found = [first.getvalue(), second.getvalue()]
""",
        ["cell\n", "accuracy 1\n"],
    ),
    "async": (
        """
with contextlib.redirect_stdout(io.StringIO()) as out:
    await report_later(1)
    await report_later.go(2)
    await asyncio.gather(report_later(3), report_later(4))
found = sorted(out.getvalue().splitlines())
""",
        ["accuracy 1", "accuracy 2", "accuracy 3", "accuracy 4"],
    ),
    "map": (
        """
with contextlib.redirect_stdout(io.StringIO()) as out:
    report.map(range(3)).result()
found = out.getvalue()
""",
        "accuracy 0\naccuracy 1\naccuracy 2\n",
    ),
    "a progress bar": (
        """
@step
def bar():
    for n in range(4):
        print(f"\\r{n} of 3", end="", flush=True)
    print()

with contextlib.redirect_stdout(io.StringIO()) as out:
    bar()
    bar.go().result()
found = out.getvalue()
""",
        "3 of 3\n3 of 3\n",
    ),
    "swapped while a step runs": (
        """
go_on = threading.Event()

@step(ignore="go_on")
def slow():
    print("one")
    go_on.wait(20)
    print("two")

handle = slow.go()
with contextlib.redirect_stdout(io.StringIO()) as out:
    go_on.set()
    before = threading.active_count()
    while not handle.done():
        pass
handle.result()
found = out.getvalue()
""",
        "",
    ),
    "a whole cell": (
        """
%%capture whole
report(1)
display("figure")
""",
        None,
    ),
}
WHOLE = """
found = [whole.stdout, whole.stderr, len(whole.outputs)]
"""


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    """Run all the situations in a kernel, kill it, and run them in a new one."""
    folder, passes = tmp_path_factory.mktemp("redirected"), []
    ran = []
    with kernel(folder) as running:
        for _ in range(2):
            assert running.run(PREPARED).status == "ok"
            ran.append((folder / "ran").stat().st_size if (folder / "ran").exists() else 0)
            passes.append(
                {name: _result(running, name, code) for name, (code, _) in SITUATIONS.items()}
            )
            running.kill()
            running.restart()
    assert ran[0] == 0 < ran[1] == (folder / "ran").stat().st_size
    return passes


def _result(running, name, code):
    shown = running.run(f"%%durable '{name}'\n{code}")
    assert shown.status == "ok", (name, shown.text)
    more = WHOLE if "whole" in code else ""
    found = running.run(f"import json{more}\nprint(json.dumps(found))").stdout
    return json.loads(found), shown.stdout, shown.stderr


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_is_redirected_is_the_same_on_both_passes(passes, name):
    """The same text goes to the same place, once, live and in a new kernel."""
    first, second = (one[name] for one in passes)
    expected = SITUATIONS[name][1]
    assert first == second
    if expected is not None:
        assert first[0] == expected
    else:
        assert first[0][:2] == ["accuracy 1\n", "warned 1\n"]


def test_what_else_is_shown(passes):
    """What is not redirected is shown in the cell: a tee's other half, a held stream."""
    for found in passes:
        assert found["a tee"][1:] == (
            "accuracy 1\naccuracy 2\nafter\n",
            "warned 1\nwarned 2\n",
        )
        assert found["a handler that holds the stream"][1:] == ("", "logged 1\nlogged 2\n")
        assert found["swapped while a step runs"][1] == "one\ntwo\n"
        assert found["go inside and result outside"][1] == ""
        assert found["a whole cell"][1:] == ("", "")


# --- without a kernel ------------------------------------------------------------------------

SCRIPT = """
import contextlib, io, json, sys, warnings
from nbdurable import step, workflow

@step
def report(n):
    print("accuracy", n)
    warnings.warn("take care")
    return n

with workflow("w", store=sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        report(1)
        report.go(2).result()
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        report(3)
    report(4)
print(json.dumps([out.getvalue(), [str(one.message) for one in recorded]]))
"""


def test_in_a_script(tmp_path):
    """Two processes: the second replays what the first one has printed and warned of, and where."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "s.duckdb")]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)
    )
    *shown, found = first.stdout.splitlines()
    assert shown == ["accuracy 3", "accuracy 4"]
    assert json.loads(found) == ["accuracy 1\naccuracy 2\n", ["take care"]]
    assert first.stderr.count("UserWarning: take care\n  warnings.warn(") == 2
    assert (second.stdout, second.stderr) == (first.stdout, first.stderr)


def execute(path, program):
    """Run `program` as one execution; return what it returned."""
    with workflow("w", store=path):
        result = program()
    open_stores.close_stores()
    return result


def test_what_pytest_captures(tmp_path, capsys):
    """Inside a run `capsys` reads what its steps have printed by then, and what comes after."""

    def program():
        step(print)("one")
        first = capsys.readouterr().out
        with capsys.disabled(), contextlib.redirect_stdout(io.StringIO()) as out:
            step(print)("two")
        step(print)("three")
        return first, out.getvalue(), capsys.readouterr().out

    for _ in range(2):
        assert execute(tmp_path / "s.duckdb", program) == ("one\n", "two\n", "three\n")
    assert type(sys) is types.ModuleType


def test_a_patched_stream(tmp_path, capsys):
    """`mock.patch` puts back what Python itself finds; what was redirected before it stays so."""

    def program():
        with contextlib.redirect_stdout(io.StringIO()) as outer:
            with unittest.mock.patch("sys.stdout", io.StringIO()) as inner:
                step(print)("inner")
                assert sys.stdout is inner
            step(print)("outer")
            assert sys.stdout is outer
        step(print)("cell")
        return outer.getvalue(), inner.getvalue()

    for _ in range(2):
        assert execute(tmp_path / "s.duckdb", program) == ("outer\n", "inner\n")
        assert capsys.readouterr().out == "cell\n"


def test_a_patch_that_ends_after_the_run(capsys):
    """What it puts back leads to the stream, and is not stood for by the next run."""
    before = sys.stdout
    streams.install()
    patch = unittest.mock.patch("sys.stdout", io.StringIO())
    patch.start()
    streams.remove()
    patch.stop()
    try:
        print("after")
        capture = Capture()
        with Capturing(capture):
            print("inside")
    finally:
        assert sys.stdout is before
    assert capture.finished() == (Message("stdout", "inside\n"),)
    assert capsys.readouterr().out == "after\n"


def test_one_stream_in_the_place_of_the_other(tmp_path, capsys):
    """What goes to stderr goes to stdout, in the cell as in a body."""

    def both():
        with contextlib.redirect_stderr(sys.stdout):
            print("body", file=sys.stderr)

    def program():
        with contextlib.redirect_stderr(sys.stdout):
            step(print)("cell", file=None)
            go(both).result()
            print("err", file=sys.stderr)
        go(both).result()

    for _ in range(2):
        execute(tmp_path / "s.duckdb", program)
        assert capsys.readouterr() == ("cell\nbody\nerr\nbody\n", "")


def test_what_bodies_redirect_is_each_ones_own(tmp_path, capsys):
    """Bodies that redirect at once, and leave in the wrong order, disturb nobody."""
    turns = threading.Barrier(2)
    first_left = threading.Event()

    def parses(name):
        hook = sys.displayhook
        with contextlib.redirect_stdout(io.StringIO()) as out:
            sys.displayhook = print
            with warnings.catch_warnings(record=True) as recorded:
                warnings.simplefilter("always")
                turns.wait(20)
                print(name)
                warnings.warn(name, stacklevel=1)
                turns.wait(20)
                if name == "b":
                    assert first_left.wait(20)
        sys.displayhook = hook
        first_left.set()
        print(name, "ends")
        return out.getvalue(), [str(one.message) for one in recorded]

    body = step(parses, version=1)
    shown = []
    warned = warnings._showwarnmsg_impl, warnings.showwarning

    def program():
        found = body.map(["a", "b"]).result()
        shown.append(capsys.readouterr().out)
        return found

    for _ in range(2):
        assert execute(tmp_path / "s.duckdb", program) == [("a\n", ["a"]), ("b\n", ["b"])]
    assert shown == ["a ends\nb ends\n"] * 2
    assert sys.displayhook is not print
    assert (warnings._showwarnmsg_impl, warnings.showwarning) == warned


def test_what_a_body_never_puts_back(tmp_path, capsys):
    """A stream that a body leaves in the place is gone with the body."""

    def leaves():
        sys.stdout = io.StringIO()
        print("unseen")

    def program():
        go(leaves).result()
        step(print)("seen")

    for _ in range(2):
        execute(tmp_path / "s.duckdb", program)
        assert capsys.readouterr().out == "seen\n"


def test_a_cleared_output_that_was_kept_already():
    """What a stream of the user's has got can't be taken back, so it is recorded, too."""
    streams.install()
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            capture = Capture()
            capture.follow(Destination())
            with Capturing(capture):
                print("one")
                output.capture_clear(False, lambda _: None)
                print("two")
            assert capture.finished() == (Message("stdout", "one\ntwo\n"),)
        assert out.getvalue() == "one\ntwo\n"
    finally:
        streams.remove()


@pytest.mark.parametrize("kind", ["stdout", "stderr"])
def test_no_stream_at_all(monkeypatch, kind, tmp_path):
    """Without a console, as under pythonw or after `sys.stdout = None`, output is recorded."""
    monkeypatch.setattr(sys, kind, None)
    capture = Capture()
    with Capturing(capture):
        print("inside", file=getattr(sys, kind))
    assert capture.finished() == (Message(kind, "inside\n"),)
    assert getattr(sys, kind) is None
    with workflow("w", store=tmp_path / "s.duckdb"):
        sys.stdout = None
        assert go(str, 1).result() == "1"
        print("nowhere")
    open_stores.close_stores()


def test_a_logger_that_holds_a_stream_of_another_time(capsys):
    """A handler that was made in one durable cell writes in the next as if made there."""
    with Capturing(Capture()):
        pass
    streams.install()
    handler = logging.StreamHandler(sys.stderr)
    streams.remove()
    logger = logging.getLogger("tests.redirected")
    logger.addHandler(handler)
    capture = Capture()
    with Capturing(capture):
        logger.warning("inside")
    logger.warning("outside")
    logger.removeHandler(handler)
    assert capture.finished() == (Message("stderr", "inside\n"),)
    assert capsys.readouterr().err == "outside\n"


def test_a_warning_whose_class_is_gone():
    """It is shown as what it was derived from; one that no text makes, likewise."""

    class Local(DeprecationWarning):
        pass

    class Two(ResourceWarning):
        def __init__(self, one, two):
            super().__init__(one + two)

    found = []
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        for warning in (Local("local"), Two("t", "wo")):
            capture = Capture()
            with Capturing(capture):
                warnings.warn(warning, stacklevel=1)
            [message] = capture.finished()
            assert message.kind == "warning"
            output.deliver([message])
    found = [(one.category, str(one.message)) for one in recorded]
    assert found == [(DeprecationWarning, "local"), (ResourceWarning, "two")]


def test_sys_can_be_saved_while_steps_run(tmp_path):
    """A function that names `sys` is pickled as ever, and so is `sys`."""

    def gives():
        return lambda: sys

    def program():
        return go(gives).result()() is sys

    for _ in range(2):
        assert execute(tmp_path / "s.duckdb", program)


EARLIER = """
kept = io.StringIO()
class All(Both):
    def __getattr__(self, name):
        return getattr(self.streams[0], name)
sys.stdout = All(sys.stdout, kept)
"""
BAR = """
%%durable bars
from tqdm import tqdm
@step
def bar():
    for n in tqdm(range(3), file=sys.stdout, bar_format="{n_fmt} of {total_fmt}", mininterval=0):
        pass
    print("done")

bar()
bar.go().result()
print("cell")
"""


def test_a_tee_that_an_earlier_cell_has_left(tmp_path):
    """Where a person looks, too, its file gets each line once, in its last state."""
    found = []
    with kernel(tmp_path) as running:
        for _ in range(2):
            running.run(PREPARED, "first")
            running.run(EARLIER, "second")
            shown = running.run(BAR, "third")
            assert shown.status == "ok", shown.text
            kept = running.run("print(repr(kept.getvalue()), file=sys.stderr)", "fourth")
            # The kernel tells such a stream of no cell: what it shows appears in an earlier one.
            found.append(ast.literal_eval(kept.stderr))
            running.kill()
            running.restart()
    assert found == ["3 of 3\ndone\n3 of 3\ndone\ncell\n"] * 2

"""CONTRACT section 6 where the cell or a body redirects output: the same place on replay.

The kernel is killed between the passes; the second runs no body.
"""

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

from nbdurable import go, holding, output, step, streams, workflow
from nbdurable.output import Capture, Destination
from nbdurable.records import Message
from nbdurable.streams import Capturing

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
        ["draws 1\ndraws 2\n", 2, ["'last'", "'last'"]],
    ),
    "a tee of the user's": (
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
    "go inside, result outside": (
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
    with kernel(folder) as running:
        for _ in range(2):
            assert running.run(PREPARED).status == "ok"
            passes.append(
                {name: _result(running, name, code) for name, (code, _) in SITUATIONS.items()}
            )
            running.kill()
            running.restart()
    return passes


def _result(running, name, code):
    shown = running.run(
        f"%%durable {name!r}\n{code}" if "'" not in name else f'%%durable "{name}"\n{code}'
    )
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
        assert found["a tee of the user's"][1:] == (
            "accuracy 1\naccuracy 2\nafter\n",
            "warned 1\nwarned 2\n",
        )
        assert found["a handler that holds the stream"][1:] == ("", "logged 1\nlogged 2\n")
        assert found["swapped while a step runs"][1] == "one\ntwo\n"
        assert found["go inside, result outside"][1] == ""
        assert found["a whole cell"][1:] == ("", "")

"""No frame of ours stands between the user's lines: in scripts, too, live and on replay."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest

import nbdurable
from nbdurable import step, workflow
from nbdurable.api import open_stores

OURS = str(Path(nbdurable.__file__).parent)


def boom(n):
    """Fail, one frame below the step."""
    raise ValueError(n)


@step
def fails(n):
    """Fail."""
    return boom(n)


@step
async def fails_async(n):
    """Fail on a loop."""
    await asyncio.sleep(0)
    return boom(n)


def called():
    """Call a step in place."""
    return fails(1)


def waited_for():
    """Start one and wait for it."""
    return fails.go(1).result()


def lines_of(error):
    """Return the functions that a traceback shows, none of them of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    assert not [frame for frame in frames if frame.filename.startswith(OURS)], frames
    return [frame.name for frame in frames if "asyncio" not in frame.filename]


@pytest.mark.parametrize("way", [called, waited_for])
def test_an_error_that_is_caught_shows_no_frame_of_ours(tmp_path, way):
    """Inside the run, where a program may log it: on the first pass and when it is replayed."""
    for _ in range(2):
        with workflow("w", store=tmp_path / "s.duckdb"):
            with pytest.raises(ValueError, match="1") as caught:
                way()
            assert lines_of(caught.value)[1:] == [way.__name__, "fails", "boom"]
        open_stores.close_stores()


@pytest.mark.parametrize("passes", [1, 2])
def test_an_awaited_error_shows_no_frame_of_ours(tmp_path, passes):
    """Awaited as a handle, and as a call."""

    async def main():
        async with workflow("w", store=tmp_path / "s.duckdb"):
            for wait in (lambda: fails_async.go(1), lambda: fails_async(2)):
                with pytest.raises(ValueError, match=r"1|2") as caught:
                    await wait()
                assert lines_of(caught.value) == ["main", "fails_async", "boom"]

    for _ in range(passes):
        asyncio.run(main())
        open_stores.close_stores()


def test_an_error_that_ends_the_run_shows_no_frame_of_ours(tmp_path):
    """Out of a block, and out of a decorated function."""

    @workflow("decorated", store=tmp_path / "s.duckdb")
    def durable():
        return called()

    with pytest.raises(ValueError, match="1") as caught:
        durable()
    assert lines_of(caught.value)[1:] == ["durable", "called", "fails", "boom"]
    with pytest.raises(ValueError, match="1") as caught, workflow("w", store=tmp_path / "s.duckdb"):
        waited_for()
    assert lines_of(caught.value)[1:] == ["waited_for", "fails", "boom"]


def test_a_defect_of_ours_is_still_seen(tmp_path, monkeypatch):
    """An error that begins in our own code keeps our frames: hiding them would help nobody."""
    monkeypatch.setattr("nbdurable.engine.calls.Calls._perform", None)
    with pytest.raises(TypeError) as caught, workflow("w", store=tmp_path / "s.duckdb"):
        called()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.filename.startswith(OURS) for frame in frames)


SCRIPT = """
import os, signal, threading, time, nbdurable
nbdurable.configure(store="s.duckdb")

@nbdurable.step
def longer():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(20)

with nbdurable.workflow("w"):
    WAY
"""


@pytest.mark.parametrize("way", ["longer()", "longer.go().result()", "longer.go()"])
def test_ctrl_c_in_a_script(tmp_path, way):
    """The traceback has the user's lines alone; at the block's end, the block's own."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT).replace("WAY", way))
    environ = os.environ | {"PYTHONPATH": str(Path(OURS).parent)}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert OURS not in done.stderr
    assert "in longer" in done.stderr or way != "longer()"

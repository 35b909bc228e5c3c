"""CONTRACT section 2: a step that waits for its turn costs some memory, no thread and no task.

Each program runs in a process of its own, whose memory and threads are counted. By
default 20,000 steps wait; the whole promise, 100,000, takes half a minute ::

    NBDURABLE_QUEUED=100000 python -m pytest tests/contract/test_queued_steps.py
"""

import json
import os
import subprocess
import sys

import pytest

QUEUED = int(os.environ.get("NBDURABLE_QUEUED", "20000"))
PER_STEP = 5_000
"""Bytes: twice what a queued step takes. A thread's stack alone would take more."""

PROGRAM = """
import asyncio, json, sys, threading
import psutil
from nbdurable import step, workflow

kind, store, queued = sys.argv[1], sys.argv[2], int(sys.argv[3])
gate, process = threading.Event(), psutil.Process()
under_way, most, lock = 0, 0, threading.Lock()

def count(change):
    global under_way, most
    with lock:
        under_way += change
        most = max(most, under_way)

@step(limit=2, version=1)
def waits(number):
    count(1)
    gate.wait(60)
    count(-1)
    return number

@step(version=1)
async def waits_on_a_loop(number):
    count(1)
    while not gate.is_set():
        await asyncio.sleep(0.001)
    count(-1)
    return number

body = {"sync": waits, "async": waits_on_a_loop}[kind]
with workflow("queued", store=store):
    threads, memory = process.num_threads(), process.memory_info().rss
    handle = body.map(range(queued))
    threads, memory = process.num_threads() - threads, process.memory_info().rss - memory
    gate.set()
    right = handle.result() == list(range(queued))
print(json.dumps([right, most, threads, memory]))
"""


@pytest.mark.parametrize(("kind", "limit", "most_threads"), [("sync", 2, 6), ("async", 100, 4)])
def test_queued_steps_hold_no_threads(tmp_path, kind, limit, most_threads):
    """However many wait: few threads, no more bodies than the limit, and memory by the step."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(tmp_path / "store.duckdb"), str(QUEUED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    right, under_way, threads, memory = json.loads(done.stdout)
    assert right
    assert under_way == limit
    assert threads <= most_threads
    assert memory / QUEUED < PER_STEP

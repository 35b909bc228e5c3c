"""A kernel that is killed while workers run: none is left behind, and the next one resumes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)

PROGRAM = """
import os, sys, time
from pathlib import Path
from nbdurable import gather, step, workflow

folder = Path(sys.argv[1])

def left(name):
    with (folder / "effects").open("a") as file:
        file.write(f"{name} {os.getpid()}\\n")

@step(executor=sys.argv[2])
def quick(number):
    left(f"quick{number}")
    return number

@step(executor=sys.argv[2])
def slow(number):
    left(f"slow{number}")
    deadline = time.monotonic() + 100
    while not (folder / "go on").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return number

if __name__ == "__main__":
    with workflow("killed", store=folder / "store.duckdb"):
        done = gather([quick.go(1), quick.go(2)]).result()
        (folder / "saved").touch()
        print(sum(done) + sum(gather([slow.go(3), slow.go(4)]).result()), flush=True)
    (folder / "ended").touch()
"""


def wait_until(what):
    """Wait until something is so."""
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        threading.Event().wait(0.02)


def begin(folder, executor):
    """Start the program in a process of its own."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), executor],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def effects(folder):
    """Return the bodies that have begun, each with its process's id."""
    path = folder / "effects"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def is_gone(pid):
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def descendants(pid):
    """Return the ids of all processes that a process has started, and those have."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found[1:]


@pytest.mark.parametrize(
    ("executor", "how"),
    [
        ("process", "killed"),
        ("process", "interrupted"),
        ("process", "ended"),
        ("dask", "killed"),
        ("dask", "ended"),
    ],
)
def test_no_process_is_left_behind(executor, how, tmp_path):
    """After SIGKILL, an interrupt, or the end; after a kill what had finished isn't run again."""
    running = begin(tmp_path, executor)
    wait_until(lambda: sum(name.startswith("slow") for name, _ in effects(tmp_path)) == 2)
    workers = descendants(running.pid)
    assert {int(pid) for _, pid in effects(tmp_path)} <= set(workers)
    if how == "ended":
        (tmp_path / "go on").touch()
        assert running.communicate()[0] == "10\n"
    else:
        os.kill(running.pid, signal.SIGKILL if how == "killed" else signal.SIGINT)
        running.communicate()
    wait_until(lambda: all(map(is_gone, workers)))
    if how != "killed":
        return
    (tmp_path / "go on").touch()
    again = begin(tmp_path, executor)
    assert again.communicate()[0] == "10\n"
    counts = {name: 0 for name, _ in effects(tmp_path)}
    for name, _ in effects(tmp_path):
        counts[name] += 1
    assert counts == {"quick1": 1, "quick2": 1, "slow3": 2, "slow4": 2}

"""Kills of a process whose locks are dropped, whose lock file is deleted, that forks.

While the owner lives nobody else gets in; whatever it acknowledged before a SIGKILL is
replayed by the next process, also while a child that it forked lives on. 50 kills in
every run; `NBDURABLE_KILLS=200` makes more.
"""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from nbdurable import StoreLockedError, step
from nbdurable.store import Store, lock

KILLS = int(os.environ.get("NBDURABLE_KILLS", "50"))
GROUPS = 10
STEPS = 24


def copy_folder(folder):
    """Copy the store's files, as a backup does: each close drops a POSIX lock."""
    for file in Path(folder).glob("store.duckdb*"):
        if file.is_file():
            shutil.copy2(file, Path(folder) / f"copy-{file.name}")


def delete_lock(folder):
    """Delete the lock file, as somebody who tidies up."""
    (Path(folder) / "store.duckdb.lock").unlink(missing_ok=True)


def fork_child(folder):
    """Fork a child that outlives this process, until the test has seen what it wants."""
    if os.fork() == 0:
        patience = time.monotonic() + 30
        while not (Path(folder) / "done").exists() and time.monotonic() < patience:
            threading.Event().wait(0.05)
        os._exit(0)


DISTURBANCES = [copy_folder, delete_lock, fork_child]


def owner(probe):
    """Run steps; acknowledge each; between them disturb what guards the store."""
    folder = probe.parameters["folder"]
    drawn = random.Random(probe.parameters["seed"])

    @step(ignore={"probe"})
    def work(number):
        probe.effect(f"body {number}")
        return number

    @step(ignore={"probe", "folder"})
    def disturb(number, kind):
        DISTURBANCES[kind](folder)

    Path(folder, "pid").write_text(f"{os.getpid()}\n")
    values = []
    for number in range(STEPS):
        values.append(work(number))
        probe.effect(f"acknowledged {number}")
        if number % 4 == 1 and not probe.parameters["last"]:
            disturb(number, drawn.randrange(len(DISTURBANCES)))
    return values


def pid_of(folder):
    """Wait until the owner has said its process id."""
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        with contextlib.suppress(FileNotFoundError):
            if (text := (folder / "pid").read_text()).endswith("\n"):
                return int(text)
        threading.Event().wait(0.002)
    raise TimeoutError("the owner does not start")


def intrude(store, drawn):
    """Try to get in, as a shell that asks and a second kernel do; return who was let in."""
    let_in = []
    for _ in range(drawn.randrange(1, 5)):
        for door in (Store.open, Store.open_to_read):
            try:
                door(store, wait=0.0).close()
            except StoreLockedError:
                continue
            let_in.append(door.__name__)
        threading.Event().wait(drawn.random() * 0.02)
    return let_in


def acknowledged(bench):
    """Return the numbers that the owner has acknowledged."""
    return [int(name.split()[1]) for name in bench.effects() if name.startswith("acknowledged")]


@pytest.mark.timeout(300 + 10 * KILLS)
@pytest.mark.parametrize("group", range(GROUPS))
def test_killed(make_bench, group):
    """Nothing acknowledged is lost, and nobody is let in while the owner lives."""
    for seed in range(group, KILLS, GROUPS):
        bench, drawn = make_bench(), random.Random(seed)
        running = threading.Thread(
            target=bench.run,
            args=(owner,),
            kwargs={"parameters": {"folder": str(bench.folder), "seed": seed, "last": False}},
        )
        running.start()
        pid = pid_of(bench.folder)
        let_in = intrude(bench.store, drawn)
        alive = running.is_alive() and len(acknowledged(bench)) < STEPS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        running.join(60)
        if alive:
            assert let_in == [], f"seed {seed}"
        told = acknowledged(bench)
        again = bench.run(
            owner, parameters={"folder": str(bench.folder), "seed": seed, "last": True}
        )
        (bench.folder / "done").touch()
        assert again.value == list(range(STEPS)), (seed, again.error, again.traceback)
        bodies = bench.effects()
        assert [one for one in told if bodies[f"body {one}"] != 1] == [], f"seed {seed}"
        assert bench.check()[0] == []


def test_a_living_child_of_a_dead_owner_keeps_nobody_out(make_bench):
    """The lock ends with its process; the record in the file is no longer believed."""
    bench = make_bench()
    report = bench.run(forks_and_dies, parameters={"folder": str(bench.folder)})
    assert report.killed
    child = int((bench.folder / "child").read_text())
    os.kill(child, 0)  # it lives
    started = time.monotonic()
    Store.open(bench.store, wait=5.0).close()
    assert time.monotonic() - started < 5
    os.kill(child, signal.SIGKILL)
    assert lock.lock_path(str(bench.store)).exists(), "it is never deleted"


def forks_and_dies(probe):
    """Leave a child behind, and die."""
    folder = Path(probe.parameters["folder"])
    child = os.fork()
    if child == 0:
        threading.Event().wait(60)
        os._exit(0)
    (folder / "child").write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)

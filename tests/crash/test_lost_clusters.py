"""A cluster of Dask that is lost while steps run: one line each, and nothing else is lost."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbdurable import UsageError, gather, step, workflow

# A cluster that is lost leaves sockets and pipes to the garbage collector.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def wait_until(what):
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        threading.Event().wait(0.02)


@contextlib.contextmanager
def clients(cluster):
    """Give a client of a cluster, and close it afterwards, whatever has become of them."""
    distributed = importlib.import_module("distributed")
    client = distributed.Client(cluster, set_as_default=False, timeout=10)
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # it is closed, or can't say so any more
            client.close(timeout=1)


@contextlib.contextmanager
def local(folder):
    """Give a client of a cluster of this process, and what closes that."""
    distributed = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=True,
            dashboard_address=None,
            local_directory=str(folder),
        ) as cluster,
        clients(cluster) as client,
    ):
        yield client, cluster.close


@contextlib.contextmanager
def elsewhere(folder):
    """Give a client of a scheduler in a process of its own, and what kills that."""
    place = folder / "scheduler.json"
    place.unlink(missing_ok=True)
    options = ["--scheduler-file", str(place), "--no-dashboard"]
    commands = [
        ["dask_scheduler", "--host", "127.0.0.1", "--port", "0"],
        ["dask_worker", "--no-nanny", "--nthreads", "2", "--local-directory", str(folder)],
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{command}", *words, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command, *words in commands
    ]
    try:
        wait_until(lambda: place.exists() and place.stat().st_size)
        distributed = importlib.import_module("distributed")
        client = distributed.Client(scheduler_file=str(place), set_as_default=False, timeout=10)
        client.wait_for_workers(1)
        yield client, lambda: os.kill(running[0].pid, signal.SIGKILL)
    finally:
        with contextlib.suppress(Exception):  # its scheduler is gone
            client.close(timeout=1)
        for one in running:
            one.terminate()
        for one in running:
            one.wait(30)


def is_gone(pid):
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def left(path):
    """Return how often each body has begun."""
    names = Path(path).read_text().split()
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize("start", [local, elsewhere], ids=["closed", "killed"])
def test_a_cluster_that_is_lost(start, tmp_path):
    """What ran there fails in one line, what ran here is kept, and the next execution resumes."""
    path, on = str(tmp_path / "effects"), str(tmp_path / "on")
    Path(path).touch()

    def steps(client):
        @step(executor=client, key=lambda number: number)
        def quick(number):
            with Path(path).open("a") as file:
                file.write(f"quick{number}\n")
            return number

        @step(executor=client, key=lambda number: number, retries=2, backoff=0.001)
        def slow(number):
            with Path(path).open("a") as file:
                file.write(f"slow{number}\n")
            deadline = time.monotonic() + 100
            while not Path(on).exists() and time.monotonic() < deadline:
                time.sleep(0.01)  # in a worker: until the test lets it
            return number

        return quick, slow

    gone = threading.Event()

    @step(ignore=("gone", "path"))
    def here():
        gone.wait(60)
        with Path(path).open("a") as file:
            file.write("here\n")
        return "here"

    def program(client, lose):
        quick, slow = steps(client)
        done = gather([quick.go(1), quick.go(2)]).result()
        beside = here.go()
        waited = [slow.go(3), slow.go(4)]
        if lose is not None:
            wait_until(lambda: {"slow3", "slow4"} <= left(path).keys())
            threading.Thread(target=lose).start()
            for one in waited:
                error = one.outcome().error
                assert isinstance(error, UsageError), error
                assert "was lost while it ran: start one, and run the cell again" in str(error)
                assert "\n" not in str(error)
        gone.set()
        return done, beside.result(), gather(waited).result()

    store = tmp_path / "s.duckdb"
    with start(tmp_path) as (client, lose):
        workers = list(client.run(os.getpid).values())
        with (
            pytest.raises(UsageError, match="was lost while it ran"),
            workflow("lost", store=store),
        ):
            program(client, lose)
        Path(on).touch()  # what a worker is at work on it ends first
        wait_until(lambda: all(map(is_gone, workers)))
    assert left(path) == {"quick1": 1, "quick2": 1, "slow3": 1, "slow4": 1, "here": 1}
    with local(tmp_path) as (client, _), workflow("lost", store=store):
        assert program(client, None) == ([1, 2], "here", [3, 4])
    assert left(path) == {"quick1": 1, "quick2": 1, "slow3": 2, "slow4": 2, "here": 1}


def test_a_client_that_was_closed(tmp_path):
    """One line says so, at once."""
    with local(tmp_path) as (client, _):
        client.close()

        @step(executor=client)
        def body():
            return 1

        with workflow("closed", store=tmp_path / "s.duckdb"):
            error = body.go().outcome().error
    assert isinstance(error, UsageError)
    assert "no cluster of Dask could take it" in str(error)
    assert "closed" in str(error)
    assert "\n" not in str(error)

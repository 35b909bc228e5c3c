"""A program: the same work in workers by nbdurable and without it, in a process of its own.

``python -m tests.benchmarks.outside_steps busy|process|dask|large FOLDER COUNT`` prints the
seconds of each.
"""

import json
import os
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from distributed import Client, LocalCluster
from loky import get_reusable_executor

from nbdurable import step, workflow

from .measure import expect

CORES = 2
SECONDS = 0.005


def busy(number):
    """Compute for 5 ms."""
    until = process_time() + SECONDS
    while process_time() < until:
        pass
    return number


def trivial(number):
    """Do next to nothing."""
    return number


def array(mebibytes):
    """Make a large array."""
    return np.full(mebibytes << 17, 1.5)


def timed(work, wanted):
    """Return the seconds that some work takes, and see that it gives what is right."""
    began = perf_counter()
    expect(work(), wanted, "results")
    return perf_counter() - began


def in_steps(function, folder, count, executor):
    """Time so many steps of one map, after some that begin the workers."""
    body = step(function, executor=executor)
    with workflow("outside", store=folder / "store.duckdb", limit=CORES):
        body.map(range(-20, 0)).result()
        return timed(lambda: body.map(range(count)).result(), list(range(count)))


def run_busy(folder, count):
    """Compare two processes with one."""
    here = timed(lambda: list(map(busy, range(count))), list(range(count)))
    return {"here": here, "steps": in_steps(busy, folder, count, "process")}


def run_process(folder, count):
    """Compare with loky alone."""
    pool = get_reusable_executor(max_workers=CORES)
    list(pool.map(trivial, range(20)))

    def alone():
        return [one.result() for one in [pool.submit(trivial, at) for at in range(count)]]

    bare = timed(alone, list(range(count)))
    pool.shutdown(wait=True)
    return {"bare": bare, "steps": in_steps(trivial, folder, count, "process")}


def run_dask(folder, count):
    """Compare with Dask alone, on one cluster."""
    with (
        LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address="127.0.0.1:0") as one,
        Client(one) as client,
    ):
        client.gather(client.map(trivial, range(-20, 0), pure=False))
        alone = timed(
            lambda: client.gather(client.map(trivial, range(count), pure=False)),
            list(range(count)),
        )
        return {"bare": alone, "steps": in_steps(trivial, folder, count, client)}


def run_large(folder, mebibytes):
    """Compare with a plain file of the same bytes, written and synced."""
    data = array(mebibytes)
    began = perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        left = data.data.cast("B")
        while left.nbytes:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    plain = perf_counter() - began
    (folder / "plain").unlink()
    body = step(array, executor="process")
    with workflow("outside", store=folder / "store.duckdb", limit=1):
        body(1)
        found = timed(lambda: float(body(mebibytes)[-1]), 1.5)
    return {"plain": plain, "steps": found}


def main():
    """Do what the line says, and print the seconds."""
    action, folder, count = sys.argv[1:]
    work = {"busy": run_busy, "process": run_process, "dask": run_dask, "large": run_large}[action]
    print(json.dumps(work(Path(folder), int(count))))


if __name__ == "__main__":
    main()

"""A program: give a step, and others, a value of a gibibyte; in a process of its own.

``python -m tests.benchmarks.large save|replay KIND FOLDER TURN`` prints the seconds of
each contender, and for `save` the most memory that the step took beyond its value. Both
leave what they wrote.

A disk may be fast for its first gigabytes only. So in `save` the step and the plain file
take two turns each, as ABBA, and joblib, which syncs nothing, comes last; whether the
step or the file is A, the TURN tells.
"""

import json
import os
import pickle  # noqa: TID251 - tells which bytes a plain file would hold
import shutil
import sys
from pathlib import Path
from time import perf_counter

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nbdurable import step, workflow
from nbdurable.api.open_stores import close_stores

from .measure import any_body_ran, expect, memory

GIB = 1 << 30
MIB = 1 << 20
ROWS = 22_000_000
MADE = []


def array():
    """Return one array of 1 GiB."""
    return np.random.default_rng(0).standard_normal(GIB // 8)


def frame():
    """Return a pandas frame of 1 GiB, with numbers and strings."""
    numbers = np.arange(ROWS)
    kind, join = pa.large_string(), pa.scalar("", pa.large_string())
    names = pc.binary_join_element_wise(
        pa.scalar("customer ", kind), pc.cast(pa.array(numbers), kind), join
    )
    columns = {"number": numbers, "name": names, "x": numbers / 3, "y": numbers * 0.5}
    return pd.DataFrame(pa.table(columns).to_pandas())


def arrays():
    """Return a dict of 1,000 arrays of 1 MiB."""
    draw = np.random.default_rng(0).standard_normal
    return {f"array {number}": draw(MIB // 8) for number in range(1000)}


KINDS = {"array": array, "frame": frame, "arrays": arrays}


def give(kind):
    """Return the value that was made before: what making it takes is no checkpoint's cost."""
    return MADE[0] if MADE else KINDS[kind]()


def usable(kind, value):
    """Look at the end of a value."""
    if kind == "frame":
        return str(value["name"].iloc[-1]), float(value["y"].iloc[-1])
    last = value if kind == "array" else value["array 999"]
    return float(last[-1])


def save(kind, folder, turn):
    """Save the value by each contender; compare what they give."""
    MADE.append(KINDS[kind]())
    buffers = []
    pickle.dumps(MADE[0], 5, buffer_callback=lambda one: buffers.append(one.raw()))
    expect(sum(one.nbytes for one in buffers) > 0.9 * GIB, True, "a gibibyte out of band")
    contenders = {
        "plain": lambda place: plain(place, buffers),
        "step": lambda place: durable(kind, place),
    }
    one, other = sorted(contenders, reverse=turn % 2)
    found = {"plain": 0.0, "step": 0.0, "extra": 0}
    for name in (one, other, other, one):
        shutil.rmtree(folder)
        folder.mkdir()
        os.sync()  # what the one before it left to the disk is not this one's
        seconds, extra = contenders[name](folder)
        found[name] += seconds / 2
        found["extra"] = max(found["extra"], extra)
    if name == "plain":
        shutil.rmtree(folder)
        folder.mkdir()
        durable(kind, folder)  # for the replay
    os.sync()
    return {**found, "joblib": joblib_memory(kind, folder)}


def plain(folder, buffers):
    """Write the same bytes to a plain file, and sync it."""
    began = perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for buffer in buffers:
            left = buffer
            while left.nbytes:
                left = left[file.write(left) :]
        os.fsync(file.fileno())
    return perf_counter() - began, 0


def durable(kind, folder):
    """Return it from a step; give the seconds, and the most memory beyond what there was."""
    with workflow("large", store=folder / "store.duckdb"):
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        began = perf_counter()
        value = step(give, version="1")(kind)
        seconds = perf_counter() - began
        extra = memory("VmHWM") - before
        expect(usable(kind, value), usable(kind, MADE[0]), "the value")
    close_stores()
    return seconds, extra


def joblib_memory(kind, folder):
    """Return it from a function that joblib remembers."""
    began = perf_counter()
    joblib.Memory(folder / "joblib", verbose=0).cache(give)(kind)
    return perf_counter() - began


def replay(kind, folder, _):
    """Take the value back, up to where it can be used; no contender has it in memory."""
    with workflow("large", store=folder / "store.duckdb") as run:
        began = perf_counter()
        value = step(give, version="1")(kind)
        found = {"step": perf_counter() - began}
        expect(any_body_ran(run), False, "a body ran")
        seen = usable(kind, value)
        found["seen"] = perf_counter() - began
    close_stores()
    for name, mode in (("joblib", None), ("joblib mapped", "c")):
        kept = joblib.Memory(folder / "joblib", mmap_mode=mode, verbose=0).cache(give)
        expect(kept.check_call_in_cache(kind), True, "joblib has it")
        began = perf_counter()
        other = kept(kind)
        found[name] = perf_counter() - began
        expect(usable(kind, other), seen, "joblib's value")
        del other
    return found


if __name__ == "__main__":
    action, chosen, place, turned = sys.argv[1:]
    program = {"save": save, "replay": replay}[action]
    print(json.dumps(program(chosen, Path(place), int(turned))))

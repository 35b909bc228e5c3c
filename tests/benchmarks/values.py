"""A gibibyte as a step's result, against a plain file of the same bytes, and joblib.Memory.

One array, a pandas frame with numbers and strings, a dict of 1,000 arrays. Saved, on the
same disk: the step's checkpoint is durable, so the plain file is synced; joblib syncs
nothing. Replayed, in a process that has made no such value: up to where it can be used.
Peak memory is that of the process during the step, beyond what it had before, its value
included. Each round takes new files, and removes them.
"""

import importlib.util
import shutil
import sys

from .measure import Figure, at_least, at_most, in_new_process, turns

NAME = "values"
KINDS = ("array", "frame", "arrays")
MOST_ROUNDS = 5
MIB = 1 << 20


def missing():
    """Say why it can't be measured here; nothing if it can."""
    if sys.platform != "linux":
        return f"benchmark {NAME!r} measures memory by Linux's /proc"
    if importlib.util.find_spec("joblib") is None:
        return f"benchmark {NAME!r} measures joblib beside nbdurable: install the extra `bench`"
    return ""


def run(settings):
    """Measure, and give the figures."""
    for kind in KINDS:
        count = min(settings.rounds, MOST_ROUNDS)
        rounds = [one_round(settings, kind, turn) for turn in turns(count, kind)]
        yield from figures(kind, [one for one, _ in rounds], [other for _, other in rounds])


def one_round(settings, kind, turn):
    """Save a value and replay it, each in a new process."""
    folder = settings.new_folder("values")
    try:
        saved = in_new_process("large", "save", kind, folder, turn)
        return saved, in_new_process("large", "replay", kind, folder, turn)
    finally:
        shutil.rmtree(folder)


def figures(kind, saved, replayed):
    """Return the figures of one kind of value."""

    def of(rounds, name, scale=1):
        return tuple(one[name] / scale for one in rounds)

    rate = tuple(one["plain"] / one["step"] for one in saved)
    beside = tuple(one["joblib"] / one["step"] for one in saved)
    return [
        Figure(NAME, f"{kind}: checkpoint", "s", of(saved, "step")),
        Figure(NAME, f"{kind}: plain file, written and synced", "s", of(saved, "plain")),
        Figure(NAME, f"{kind}: joblib.Memory miss, not synced", "s", of(saved, "joblib")),
        Figure(NAME, f"{kind}: rate of checkpoint / plain file", "x", rate, at_least(0.8)),
        Figure(NAME, f"{kind}: rate of checkpoint / joblib.Memory", "x", beside),
        Figure(
            NAME, f"{kind}: additional peak memory", "MiB", of(saved, "extra", MIB), at_most(64)
        ),
        Figure(NAME, f"{kind}: replay", "s", of(replayed, "step"), at_most(0.05)),
        Figure(NAME, f"{kind}: replay, and its end looked at", "s", of(replayed, "seen")),
        Figure(NAME, f"{kind}: joblib.Memory hit", "s", of(replayed, "joblib")),
        Figure(
            NAME, f"{kind}: joblib.Memory hit, mmap_mode='c'", "s", of(replayed, "joblib mapped")
        ),
    ]

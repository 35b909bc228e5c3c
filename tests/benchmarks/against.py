"""Compare this checkout with another commit: ``python -m tests.benchmarks.against COMMIT``.

Every round times both, one right after the other and in turns first, each in a new
process; a ratio is taken within a round. Printed is the median of the ratios, with
their quartiles: 1.00 is as fast, 1.03 is 3 % slower. With ``--cpu`` what counts is the
processor's time, all threads': other work on the machine changes it less, and waits for
the disk are not in it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

from rich.progress import track

from .measure import ROOT
from .trial import KINDS

TRIAL = Path(__file__).with_name("trial.py")


def main():
    """Parse the line, check the other commit out, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.against", description=__doc__)
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu", action="store_true", help="compare the processor's time")
    asked = parser.parse_args()
    clock = "process_time" if asked.cpu else "perf_counter"
    if unknown := set(asked.kinds) - set(KINDS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="nbdurable-") as made:
        other, folder = Path(made, "other"), Path(made, "files")
        git("worktree", "add", "--quiet", "--detach", other, asked.commit)
        try:
            for kind in asked.kinds or KINDS:
                found = compared(kind, other, folder / kind, asked.rounds, clock)
                low, _, high = quantiles(found, n=4)
                print(f"{kind:12} {median(found):.3f} ({low:.3f} to {high:.3f})", flush=True)
        finally:
            git("worktree", "remove", "--force", other)


def compared(kind, other, folder, rounds, clock):
    """Return this checkout's time over the other's, round by round."""
    found = []
    for turn in track(range(-1, rounds), f"{kind} ...", transient=True):
        seconds = {}
        for tree in (ROOT, other) if turn % 2 else (other, ROOT):
            # A replay needs what its own version has saved; all else begins anew.
            place = folder / tree.name / ("kept" if kind == "replay" else str(turn))
            place.mkdir(parents=True, exist_ok=True)
            seconds[tree] = timed(kind, tree, place, clock)
        if turn >= 0:  # the first round fills caches
            found.append(seconds[ROOT] / seconds[other])
    return found


def timed(kind, tree, place, clock):
    """Return how long one trial took, in a new process that finds `tree`'s nbdurable."""
    settings = {"PYTHONPATH": str(tree), "NBDURABLE_KEY_FILE": str(place.parent / "key")}
    given = {**os.environ, **settings}
    given.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's package is compiled once
    ended = subprocess.run(
        [sys.executable, TRIAL, kind, place, clock],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ended.stdout.splitlines()[-1])


def git(*words):
    """Run git in this checkout."""
    subprocess.run(["git", "-C", ROOT, *map(str, words)], check=True)


if __name__ == "__main__":
    main()

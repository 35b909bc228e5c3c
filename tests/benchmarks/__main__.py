"""Benchmarks: ``python -m tests.benchmarks [NAME ...]`` from the repository's root.

Each prints figures of this machine beside the targets, and ratios measured in the same
run against what else could have been used. Nothing is asserted about time: a missed
target is a word in the table.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from . import (
    concurrently,
    digest,
    linear,
    load,
    million,
    outside,
    replay,
    report,
    sequential,
    values,
    window,
)
from .measure import Settings

BENCHMARKS = {
    module.NAME: module
    for module in (
        sequential,
        concurrently,
        replay,
        linear,
        load,
        values,
        window,
        million,
        digest,
        outside,
    )
}
CORES = 2
ROUNDS = 7


def main():
    """Parse the line, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"samples each, {ROUNDS}")
    parser.add_argument("--folder", type=Path, help="on which disk: the system's folder for files")
    asked = parser.parse_args()
    chosen = {name: BENCHMARKS[name] for name in _known(parser, asked.names)}
    if asked.rounds < 1:
        parser.error("--rounds: give a whole number, 1 or more")
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"--folder: there is no folder {asked.folder}")
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {asked.json.parent}")
    for module in (concurrently, values, million):
        if module.NAME in chosen and (lacking := module.missing()):
            parser.error(lacking)
    _pin()
    with tempfile.TemporaryDirectory(prefix="nbdurable-", dir=asked.folder) as folder:
        settings = Settings(Path(folder), asked.rounds)
        os.environ["NBDURABLE_KEY_FILE"] = str(settings.folder / "signing.key")
        described = report.machine(settings.folder)
        report.show_machine(described)
        figures = []
        for at, (name, module) in enumerate(chosen.items(), 1):
            print(f"[{at}/{len(chosen)}] {name}", file=sys.stderr, flush=True)
            found = module.run(settings)
            # Told at once: if a later benchmark fails, these figures are not lost.
            report.show(found)
            figures += found
            if asked.json is not None:
                report.write(asked.json, described, figures)


def _known(parser, names):
    """Return the benchmarks asked for, all of them unless some are named."""
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return names or BENCHMARKS


def _pin():
    """Stay on two cores, processes started from here as well, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(report.usable_cores())[:CORES])


if __name__ == "__main__":
    main()

"""What every benchmark is made of: figures, targets, rounds, programs in new processes.

Invariant: a ratio is taken within one round, between contenders that ran one after
the other; over rounds there are only medians. The machine may be shared and noisy:
what slows it down for a second slows both sides of a ratio down.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Settings:
    """What a benchmark is run with: where its files lie, and how many rounds it takes."""

    folder: Path
    rounds: int

    def new_folder(self, name):
        """Make a folder that nothing has used before."""
        found = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        found.mkdir()
        return found


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach: `at most` or `at least` a bound."""

    bound: float
    most: bool

    def met(self, value):
        """Tell whether `value` reaches it."""
        return value <= self.bound if self.most else value >= self.bound


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: the median of one sample a round.

    ``unit`` is "s" for seconds, "/s" for a rate, "x" for a ratio, "MiB" for memory, "B" for bytes.
    """

    benchmark: str
    what: str
    unit: str
    samples: tuple
    target: Target | None = None

    @property
    def value(self):
        """The median."""
        return median(self.samples)

    @property
    def met(self):
        """Whether the median reaches the target; None without one."""
        return None if self.target is None else self.target.met(self.value)


def at_most(bound):
    """Return the target of a figure that is to stay small."""
    return Target(bound, most=True)


def at_least(bound):
    """Return the target of a figure that is to be large."""
    return Target(bound, most=False)


def turns(rounds, what):
    """Yield the number of each round, and say on standard error which one begins."""
    ends = "\r" if sys.stderr.isatty() else "\n"
    for turn in range(rounds):
        print(f"  {what}: round {turn + 1} of {rounds} ", end=ends, file=sys.stderr, flush=True)
        yield turn


def interleaved(rounds, contenders):
    """Call every contender once in every round, and give what each returned, by name.

    Each round begins with the next contender, so none is always the one that runs
    after a certain other.
    """
    names = list(contenders)
    found = {name: [] for name in names}
    for turn in turns(rounds, ", ".join(map(str, names))):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(contenders[name]())
    return found


def ratios(above, below):
    """Divide round by round."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def expect(found, wanted, what):
    """Compare what a contender gave with what is right: a wrong result has no speed.

    Raises:
        AssertionError: They differ.
    """
    if found != wanted:
        raise AssertionError(f"{what}: {found!r:.200} instead of {wanted!r:.200}")


def memory(name):
    """Return a figure of this process's memory, in bytes, by its name in Linux's /proc."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if name in one]
    return int(line.split()[1]) * 1024


def any_body_ran(run):
    """Return whether a run has started the body of any step."""
    return any(one.life.ran for one in run.handles if hasattr(one, "life"))


def in_new_process(program, *arguments, ending=0, **environment):
    """Run a module of this folder as a program, and give what it printed last, as JSON.

    The wall time of the whole process is put with it, as ``process``.

    Args:
        program: The module's name.
        arguments: What its command line is given.
        ending: The exit code that is right.
        environment: Variables that it finds set.

    Raises:
        RuntimeError: It ended otherwise, or not at all; what it wrote is in the message.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{program}", *map(str, arguments)]
    started = perf_counter()
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{' '.join(command)} had not ended after {LONGEST_SECONDS} s:\n{error.stderr}"
        ) from error
    seconds = perf_counter() - started
    if ended.returncode != ending:
        raise RuntimeError(
            f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        )
    lines = ended.stdout.splitlines()
    return {**(json.loads(lines[-1]) if lines else {}), "process": seconds}

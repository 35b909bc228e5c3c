"""How much memory a kernel holds, and whether the system has killed it for that.

Invariant: "for want of memory" is said only where the system has counted such a kill;
otherwise it is said as what it looks like.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import psutil

from nbdurable.inspection.reports import size_of

_NEAR: Final = 0.8
"""A kernel that held this share of all memory was probably killed for that."""

_CGROUP: Final = Path("/sys/fs/cgroup")


class Memory:
    """The memory of a kernel and its children, as it was when last looked at."""

    def __init__(self) -> None:
        self.last = 0
        self.most = 0
        self._kills = kills()

    def look(self, pid: int) -> None:
        """Look how much the kernel holds now."""
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
            held = sum(one.memory_info().rss for one in family)
        except psutil.Error:
            return  # it has just ended: what was seen last counts
        if not held:
            return  # likewise
        self.last, self.most = held, max(self.most, held)

    def verdict(self, code: int | None) -> str:
        """Say how a kernel ended that has ended with `code`."""
        held = f"it held {size_of(self.last)} of {size_of(limit())}" if self.last else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            if -code == signal.SIGKILL and kills() > self._kills:
                return f"the system killed it for want of memory; {held}".rstrip("; ")
            if -code == signal.SIGKILL and self.last > _NEAR * limit():
                return f"killed ({name}), probably for want of memory; {held}"
            return f"killed by {name}" + (f"; {held}" if held else "")
        ended = "it ended" if code is None else f"it ended with exit code {code}"
        return ended + (f"; {held}" if held else "")


def kills() -> int:
    """Return how many processes the system has killed for want of memory, as far as it counts."""
    for path in (_CGROUP / "memory.events", Path("/proc/vmstat")):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found = dict(line.split(maxsplit=1) for line in lines if " " in line)
        if "oom_kill" in found:
            return int(found["oom_kill"])
    return 0


def limit() -> int:
    """Return how much memory there is for this process and its kernels."""
    total: int = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            said = (_CGROUP / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if said.isdecimal():
            total = min(total, int(said))
    return total

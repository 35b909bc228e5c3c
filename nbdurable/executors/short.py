"""Which bodies are known to be short, so that several of them go to a worker at once.

Invariant: one long body makes its kind long again; a call that was lost goes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .remote import BATCH_SECONDS

if TYPE_CHECKING:
    from .remote import Call, Message

MOST_IN_A_BATCH = 64

_LEAST_SECONDS = 1e-4


class Short:
    """What is known of how long bodies take."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}
        self.last = False  # whether the body that ended last was short

    def holds(self, call: Call) -> bool:
        """Tell whether a body is known to be short."""
        return kind_of(call) in self._seconds and not call.lost_before

    def batch(self, call: Call, waiting: int, workers: int) -> int:
        """Return how many calls of its kind go together, of so many that wait."""
        fitting = int(
            BATCH_SECONDS / 2 / max(self._seconds.get(kind_of(call), 1.0), _LEAST_SECONDS)
        )
        even = -(-waiting // (2 * max(workers, 1)))
        return max(1, min(fitting, even, MOST_IN_A_BATCH))

    def learn(self, call: Call, reply: Message) -> None:
        """Take note of how long a body took."""
        if "seconds" not in reply:
            return
        known = self._seconds.pop(kind_of(call), reply["seconds"])
        self.last = reply["seconds"] < BATCH_SECONDS / 2
        if self.last:
            self._seconds[kind_of(call)] = (known + reply["seconds"]) / 2


def kind_of(call: Call) -> tuple[str, str]:
    """Return what calls have in common whose bodies take about as long: run and step."""
    return str(call.message.get("run")), str(call.message.get("name"))

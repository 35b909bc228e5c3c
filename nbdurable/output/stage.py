"""One step's output after the other, where they are started by one piece of code.

Invariant: while one is shown live, what others deliver waits for its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .capture import Destination, deliver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbdurable.records import Message


class Stage:
    """Where the steps that one piece of code starts show their output: one after the other.

    ``home`` is the strand of that code; ``busy`` tells that a step is shown live.
    """

    __slots__ = ("_due", "busy", "destination", "home")

    def __init__(self, home: int) -> None:
        self.home = home
        self.busy = False
        self.destination = Destination()
        self._due: list[Message] = []

    def deliver(self, messages: Sequence[Message]) -> None:
        """Show messages now, or when the step that is shown live has ended."""
        if self.busy:
            self._due += messages
        else:
            deliver(messages)

    def occupy(self) -> None:
        """Let a step be shown live: what else is delivered waits for its end."""
        self.busy = True

    def vacate(self) -> None:
        """Let what is delivered be shown at once again."""
        self.busy = False

    def over(self) -> None:
        """Show what came while a step was shown live."""
        self.busy = False
        due, self._due = self._due, []
        if due:
            self.destination.deliver(due)

"""The order of calls: which of several equal ones each is.

Invariant: within one strand (a task, a thread, handed-over work) equal calls are counted as
they are made. Between work that was handed over, what an earlier pass recorded tells which
is whose, for such work runs in no order of its own (CONTRACT section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdurable.errors import UsageError

if TYPE_CHECKING:
    from nbdurable.commit.ledger import Ledger
    from nbdurable.handles.scope import Scope
    from nbdurable.store import Opened


class ProgramOrder:
    """One execution's order of equal calls; the run's lock is held where it is asked."""

    def __init__(self, ledger: Ledger, opened: Opened) -> None:
        self._ledger = ledger
        self._index = opened.index
        self._run = opened.run

    def occurrence(self, where: Scope, name: str, called: str, inputs: bytes) -> int:
        """Return how many equal calls came before this one in its scope.

        Raises:
            UsageError: One came from another task or thread, with no order between the two.
        """
        strand = where.strand()
        count, first = where.occurrences.get((called, inputs), (0, strand))
        if count and first != strand:
            raise UsageError(
                f"{name}: the same call with the same arguments comes from two tasks or "
                f"threads, which have no order between them: give one of them another "
                f"`name=`, or tell them apart with `key=`"
            )
        where.occurrences[called, inputs] = (count + 1, strand)
        return count

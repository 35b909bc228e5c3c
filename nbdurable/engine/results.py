"""What code gets of a step that has ended: its output first, then its value or its error.

Invariant: an outcome is decoded once, and everybody who asks gets that one object;
a step that receives it gets a decode of its own. That an error was seen is
committed before anybody sees it (CONTRACT section 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from nbdurable.codec.outcomes import decode_error, loading_fault
from nbdurable.codec.values import decode, pickles_in
from nbdurable.codec.versions import changes, sentence
from nbdurable.errors import UntrustedCheckpointError
from nbdurable.output import capture as output
from nbdurable.records import Kind, Why
from nbdurable.steps.attempts import Ending
from nbdurable.store import conclude, undo
from nbdurable.store.rows import SeenErrorRow

if TYPE_CHECKING:
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.reasons import Reasons
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import StepHandle
    from nbdurable.records import Checkpoint
    from nbdurable.store import Batch

    from .delivery import Delivery
    from .escaped import Escaped


class Results:
    """One execution's outcomes, as the code that asks for them gets them."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        reasons: Reasons,
        delivery: Delivery,
        escaped: Escaped,
        *,
        verify: bool,
    ) -> None:
        self._ledger = ledger
        self._run = state.run
        self._index = state.index
        self._objects = state.store.objects
        self._reasons = reasons
        self._delivery = delivery
        self._escaped = escaped
        self._verify = verify
        self._changes: dict[int, list[tuple[str, str, str]]] = {}

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and give its value or raise its error."""
        ending = self.ending(handle)
        self._delivery.deliver(handle)
        if ending.error is None:
            return ending.value
        handle.see()
        raise ending.error

    def ending(self, handle: StepHandle[Any]) -> Ending:
        """Return the ending of a numbered handle, decoded from its checkpoint the first time."""
        ending = handle.life.ending
        if ending is None:
            found = handle.life.checkpoint
            assert found is not None
            messages = output.loads(found.output)
            match found.kind:
                case Kind.VALUE:
                    ending = Ending(found.kind, value=self._decoded(found), messages=messages)
                case Kind.ERROR | Kind.CANCELLED:
                    error = self._decoded_error(found)
                    ending = Ending(found.kind, error=error, messages=messages)
                case _:
                    assert_never(found.kind)
            with self._ledger.lock:
                # Another thread may have decoded it meanwhile. Everybody gets the same object.
                ending = handle.life.decode_as(ending)
        return ending

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Decode a durable step's value, or error, anew; what was not saved is itself."""
        found = handle.life.checkpoint
        if found is None:
            ending = self.ending(handle)
            return ending.value if ending.error is None else ending.error
        return self._decoded(found) if found.kind is Kind.VALUE else self._decoded_error(found)

    def restorable(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        """Tell whether a verified outcome can be restored; if not, say so, and let it run again.

        One whose files are damaged is taken out. One that only other versions of Python
        or of a package can read stays, without what it decided, until there is another:
        who goes back to those versions before that has it still. An error that nobody has
        seen is tried again with the body that asks for it.
        """
        within = None
        if handle.identity in self._index.unseen:
            self._reasons.retried([handle.identity])
            if self._index.lost(handle.identity, found.code):
                return False  # this loser's error stays saved until the step starts again
            gone = taken = self._index.with_consequences([found])
            within = self._index.calls_in(found.namespace)
        elif fault := self._lost(found):
            self._reasons.lost(handle, Why.LOST, fault, self._lost)
            gone = taken = self._index.with_consequences([found])
        elif fault := self._unreadable(found):
            self._reasons.lost(handle, Why.UNREADABLE, fault, self._unreadable)
            taken = self._index.with_consequences([found])
            gone = taken[1:]
            self._ledger.supersede(found)
        else:
            return True

        def write(batch: Batch) -> None:
            undo(batch, self._run, taken, within)
            if gone:
                conclude(batch, gone)

        self._ledger.store.commit(write)
        with self._ledger.lock:
            self._index.forget(taken, within)
        return False

    def _lost(self, found: Checkpoint) -> str:
        """Say what is wrong with the files of a value; nothing if they can be restored.

        A pickle in one of them is read here: like one in the row, it is compared with
        what was signed before it is unpickled.
        """
        if not found.pieces:
            return ""
        proven = len(found.pieces) if self._verify else pickles_in(found.payload)
        return self._objects.fault(found.pieces, proven=proven)

    def _unreadable(self, found: Checkpoint) -> str:
        """Say with which versions an outcome was saved that these can't read; nothing if they can.

        It is tried only where some version has changed.
        """
        changed = self._changes.get(found.execution)
        if changed is None:
            python_and_packages = self._index.environments.get(found.execution)
            changed = [] if python_and_packages is None else changes(*python_and_packages)
            self._changes[found.execution] = changed
        if not changed:
            return ""
        try:
            self._index.verify(found)
        except UntrustedCheckpointError:
            return ""  # the error is raised where the outcome is asked for
        fault = loading_fault(found.kind, found.payload, found.pieces, self._objects)
        return sentence(changed, fault) if fault else ""

    def _decoded(self, found: Checkpoint) -> Any:
        return decode(found.payload, found.pieces, self._objects, say=self._ledger.observers.say)

    def _decoded_error(self, found: Checkpoint) -> BaseException:
        return decode_error(found.payload, say=self._ledger.observers.say)

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that this error is seen, before it is."""
        ending = self.ending(handle)
        error = ending.error
        assert error is not None
        self._escaped.given(error, handle)
        if handle.life.seen or self._ledger.closed:
            return
        handle.life.see()
        if handle.life.checkpoint is not None:
            row = SeenErrorRow(*handle.identity, self._ledger.execution)
            self._ledger.store.commit(lambda batch: batch.add(row))

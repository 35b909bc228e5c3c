"""What code gets of a step that has ended: its output first, then its value or its error.

Invariant: an outcome is decoded once, and everybody who asks gets that one object;
a step that receives it gets a decode of its own. That an error was seen is
committed before anybody sees it (CONTRACT section 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import output
from .codec import decode, decode_error, traceback_text
from .records import Kind
from .step import Ending

if TYPE_CHECKING:
    from .delivery import Delivery
    from .handles import StepHandle
    from .ledger import Ledger
    from .store import Identity


class Received:
    """One execution's outcomes, as the code that asks for them gets them."""

    def __init__(self, ledger: Ledger, delivery: Delivery) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._errors: dict[int, tuple[BaseException, list[Identity]]] = {}

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and give its value or raise its error."""
        ending = self.ending(handle)
        self._delivery.deliver(handle)
        if ending.error is None:
            return ending.value
        handle.see()
        raise ending.error

    def ending(self, handle: StepHandle[Any]) -> Ending:
        """Give the ending of a numbered handle, decoded from its checkpoint the first time."""
        ending = handle.ending
        if ending is None:
            found = handle.checkpoint
            assert found is not None
            ending = Ending(found.kind, messages=output.loads(found.output))
            if found.kind is Kind.VALUE:
                ending.value = decode(found.payload)
            else:
                ending.error = decode_error(found.payload)
                ending.error.__cause__ = _Traceback(traceback_text(found.payload))
            with self._ledger.lock:
                # Another thread may have decoded it meanwhile: all get one object.
                if handle.ending is None:
                    handle.ending = ending
                ending = handle.ending
        return ending

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Decode a durable step's value, or error, anew; what was not saved is itself."""
        found = handle.checkpoint
        if found is None:
            ending = self.ending(handle)
            return ending.value if ending.error is None else ending.error
        return decode(found.payload) if found.kind is Kind.VALUE else decode_error(found.payload)

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that this error is seen, before it is."""
        error = self.ending(handle).error
        assert error is not None
        # A parent may end with the very error of its child: then both ended with it.
        _, ended_with_it = self._errors.setdefault(id(error), (error, []))
        ended_with_it.append(handle.pair)
        if handle.seen or self._ledger.closed:
            return
        handle.seen = True
        if handle.checkpoint is not None:
            row = (*handle.pair, self._ledger.execution)
            self._ledger.store.commit(lambda batch: batch.add("seen_errors", row))

    def ended_with(self, error: BaseException | None) -> list[Identity]:
        """Give the steps whose errors are in an exception's causes, contexts and groups."""
        found: dict[Identity, None] = {}
        stack, visited = [error], set()
        while stack:
            one = stack.pop()
            if one is None or id(one) in visited:
                continue
            visited.add(id(one))
            if id(one) in self._errors:
                found.update(dict.fromkeys(self._errors[id(one)][1]))
            stack += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                stack += one.exceptions
        return list(found)


class _Traceback(Exception):  # noqa: N818 - a text that tracebacks print, not an error
    """The traceback text of a replayed error, shown as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"

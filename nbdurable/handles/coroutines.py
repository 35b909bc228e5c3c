"""What calling an async step gives: a coroutine that starts the step when it is awaited.

Invariant: one that is never awaited starts nothing and warns of nothing; the end of
the cell tells of all that were forgotten, in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from nbdurable.codec.pruned import prune
from nbdurable.errors import UsageError

from .handle import StepHandle

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from .handle import Handle

_NAMED = 5


class StepCoroutine(Coroutine[Any, Any, Any]):
    """A call of an async step, whose place in program order is taken."""

    __slots__ = ("__weakref__", "_coroutine", "_handle", "_launch")

    def __init__(
        self, handle: StepHandle[Any], launch: Callable[[StepHandle[Any]], object]
    ) -> None:
        self._handle = handle
        self._launch = launch
        self._coroutine: Coroutine[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._begun().__await__()

    def send(self, value: Any, /) -> Any:
        """Go on, as a task does with its coroutine."""
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        return self._begun().throw(*error)

    def close(self) -> None:
        """End it, if it was begun."""
        if self._coroutine is not None:
            self._coroutine.close()

    @property
    def __name__(self) -> str:
        """What a task that runs it shows."""
        return self._handle.name

    def __repr__(self) -> str:
        state = "not awaited" if self._coroutine is None else self._handle.state
        return f"<coroutine of {self._handle.label}: {state}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise UsageError(
            f"{self._handle.label} is a coroutine, not its value: write `await` before the call"
        )

    def _begun(self) -> Coroutine[Any, Any, Any]:
        if self._coroutine is None:
            self._coroutine = self._run()
        return self._coroutine

    async def _run(self) -> Any:
        handle = self._handle
        if not handle.life.started:
            self._launch(handle)
        try:
            return await handle
        except BaseException as error:
            prune(error)
            raise


def never_awaited(handles: Iterable[Handle[Any]]) -> str:
    """Return a line about the async steps that were called and not awaited; none, empty."""
    forgotten = [
        one.label
        for one in handles
        if isinstance(one, StepHandle) and one.life.awaitable and not one.asked
    ]
    if not forgotten:
        return ""
    more = f" and {len(forgotten) - _NAMED} more" if len(forgotten) > _NAMED else ""
    named = ", ".join(dict.fromkeys(forgotten[:_NAMED]))
    return f"called and never awaited, so not run: {named}{more}; write `await {forgotten[0]}`"

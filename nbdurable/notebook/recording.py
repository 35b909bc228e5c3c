"""What a plain cell shows, recorded while it is shown, and shown again.

Invariant: what goes to the front end is what would go there anyway, unchanged and at once; the
record is a copy. Outside of a recording nothing is covered.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, Self

from nbdurable.records import Message

from . import displays

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

MOST_CHARACTERS: Final = 16_000_000
"""A cell that shows more than this is not saved."""

_STREAMS: Final = ("stdout", "stderr")
_MISSING: Final[Any] = object()


class Recording:
    """A block whose output is recorded; with `mute`, it is not shown either.

    ``results`` are the values that were shown as results, and ``fault`` says why the record is
    not whole, nothing if it is.
    """

    def __init__(self, shell: InteractiveShell, *, mute: bool = False) -> None:
        self.results: list[object] = []
        self.fault = ""
        self._shell = shell
        self._mute = mute
        self._messages: list[Message] = []
        self._size = 0
        self._clear_due = False
        self._formatting = False
        self._publishing = False
        self._showing_result = False
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        try:
            self._cover(sys.stdout, "write", self._writer("stdout"))
            if sys.stderr is not sys.stdout:
                self._cover(sys.stderr, "write", self._writer("stderr"))
            publisher: Any = self._shell.display_pub
            self._cover(publisher, "publish", self._publisher)
            self._cover(publisher, "clear_output", self._clearer)
            hook = self._shell.displayhook
            self._cover(hook, "start_displayhook", self._marker(showing=True))
            self._cover(hook, "compute_format_data", self._formatter)
            self._cover(hook, "finish_displayhook", self._marker(showing=False))
        except (AttributeError, TypeError) as error:
            self.fault = f"its output can't be recorded here: {error}"
        except BaseException:  # an interrupt, too, leaves nothing covered
            self._uncover()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._uncover()

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was shown, in its order; texts of one stream in a row are one."""
        found: list[Message] = []
        run: list[str] = []
        kind = ""
        for one in [*self._messages, Message("", "")]:
            if run and one.kind != kind:
                found.append(Message(kind, "".join(run)))
                run = []
            kind = one.kind
            if kind in _STREAMS:
                run.append(one.data)
            elif kind:
                found.append(one)
        return tuple(found)

    # --- covers -------------------------------------------------------------------

    def _cover(self, holder: Any, name: str, make: Callable[[Any], Any]) -> None:
        own = vars(holder).get(name, _MISSING) if hasattr(holder, "__dict__") else _MISSING
        cover = make(getattr(holder, name))
        setattr(holder, name, cover)

        def undo() -> None:
            if vars(holder).get(name) is not cover:
                return  # somebody has covered it since, or put another in its place
            if own is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, own)

        self._undo.append(undo)

    def _uncover(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _writer(self, kind: str) -> Callable[[Any], Any]:
        def make(write: Any) -> Any:
            def covered(text: Any, *more: Any, **named: Any) -> Any:
                if isinstance(text, str) and not self._is_prompt():
                    self._add(kind, text)
                return len(text) if self._mute else write(text, *more, **named)

            return covered

        return make

    def _publisher(self, publish: Any) -> Any:
        def covered(data: Any, metadata: Any = None, **options: Any) -> Any:
            bundle: dict[str, Any] = {"data": displays.as_text(data), "metadata": metadata or {}}
            bundle |= {key: options[key] for key in ("transient", "update") if options.get(key)}
            self._display(bundle)
            if self._mute:
                return None
            self._publishing = True  # where there is no front end, a display is printed
            try:
                return publish(data, metadata, **options)
            finally:
                self._publishing = False

        covered.original = getattr(publish, "original", publish)  # type: ignore[attr-defined]
        return covered

    def _clearer(self, clear: Any) -> Any:
        def covered(wait: bool = False) -> Any:  # noqa: FBT001, FBT002 - IPython's signature
            if wait:
                self._clear_due = True
            else:
                self._clear()
            return None if self._mute else clear(wait)

        covered.original = getattr(clear, "original", clear)  # type: ignore[attr-defined]
        return covered

    def _formatter(self, compute: Any) -> Any:
        def covered(result: object) -> Any:
            self._formatting = True  # what a value prints while it is formatted is the cell's
            try:
                found = compute(result)
            finally:
                self._formatting = False
            data, metadata = found
            self.results.append(result)
            self._display(
                {"data": displays.as_text(data), "metadata": metadata or {}, "result": True}
            )
            return found

        return covered

    def _marker(self, *, showing: bool) -> Callable[[Any], Any]:
        def make(mark: Any) -> Any:
            def covered() -> Any:
                self._showing_result = showing
                return mark()

            return covered

        return make

    def _is_prompt(self) -> bool:
        """Tell whether a terminal's shell writes a display: that is recorded as one."""
        return self._publishing or (self._showing_result and not self._formatting)

    # --- the record ---------------------------------------------------------------

    def _display(self, bundle: dict[str, Any]) -> None:
        try:
            text = json.dumps(bundle)
        except (TypeError, ValueError) as error:
            self.fault = f"what it shows can't be saved: {error}"
            return
        self._add("display", text)

    def _add(self, kind: str, data: str) -> None:
        if self._clear_due:
            self._clear()
        self._size += len(data)
        if self._size > MOST_CHARACTERS:
            self.fault = f"it shows more than {MOST_CHARACTERS // 1_000_000} MB"
            self._messages.clear()
            return
        self._messages.append(Message(kind, data))

    def _clear(self) -> None:
        self._clear_due = False
        self._messages = [one for one in self._messages if _is_result(one)]
        self._size = sum(len(one.data) for one in self._messages)


def _is_result(message: Message) -> bool:
    return message.kind == "display" and bool(json.loads(message.data).get("result"))


def settled(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return messages with each widget as the text of its last state: its model dies with us."""
    found = []
    for one in messages:
        if one.kind != "display" or displays.WIDGET not in one.data:
            found.append(one)
            continue
        bundle = json.loads(one.data)
        last = displays.settled(bundle) if displays.WIDGET in bundle["data"] else bundle
        if last is None:
            continue
        data = {kind: part for kind, part in last["data"].items() if kind != displays.WIDGET}
        found.append(Message(one.kind, json.dumps({**last, "data": data})))
    return tuple(found)


def show_again(shell: InteractiveShell, messages: tuple[Message, ...], result: object) -> None:
    """Show what was recorded; `result` is the value that was shown as one, as in a plain cell."""
    for one in messages:
        if one.kind in _STREAMS:
            getattr(sys, one.kind).write(one.data)
            continue
        bundle = json.loads(one.data)
        if bundle.pop("result", False):
            _show_result(shell, result, bundle)
        else:
            publisher: Any = shell.display_pub
            publisher.publish(**bundle)


def _show_result(shell: InteractiveShell, result: object, bundle: dict[str, Any]) -> None:
    """Let the shell show a value as it was shown, and keep it as any other result."""
    hook: Any = shell.displayhook
    hook.compute_format_data = lambda _: (bundle["data"], bundle["metadata"])
    try:
        hook(result)
    finally:
        del hook.compute_format_data


def flush_figures(shell: InteractiveShell) -> None:
    """Show the figures that are open now, as the inline backend does at a cell's end."""
    for callback in list(shell.events.callbacks["post_execute"]):
        if getattr(callback, "__name__", "") == "flush_figures":
            callback()

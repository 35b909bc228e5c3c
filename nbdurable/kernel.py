"""The process around a cell: which notebook, which cell, who looks, the interrupt.

Everything that differs between a Jupyter kernel and terminal IPython is asked
here, of the running shell; so ipykernel itself is never imported, and none of
this fails where there is no kernel.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import re
import signal
import sys
import threading
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from IPython.core.displaypub import CapturingDisplayPublisher

from . import output, streams
from .interrupts import STEP_TASK

if TYPE_CHECKING:
    from types import FrameType

    from IPython.core.interactiveshell import InteractiveShell

_DIM: Final = "opacity:.65;font-size:90%"
_WIDGET: Final = "application/vnd.jupyter.widget-view+json"
_BAR: Final = 10
_FULL: Final = "\u2588"


def in_kernel(shell: InteractiveShell) -> bool:
    """Tell whether a Jupyter kernel runs the shell."""
    return getattr(shell, "kernel", None) is not None


def cell_id(shell: InteractiveShell) -> str | None:
    """Give the front end's id of the running cell, where it tells cells apart.

    JupyterLab and VS Code do; nbclient, nbval and a terminal don't.
    """
    get_parent = getattr(shell, "get_parent", None)
    if get_parent is None:
        return None
    found = get_parent().get("metadata", {}).get("cellId")
    return str(found) if found else None


def watched(shell: InteractiveShell) -> bool:
    """Tell whether a person looks at the outputs while they come."""
    return not in_kernel(shell) or cell_id(shell) is not None


def notebook(shell: InteractiveShell) -> Path | None:
    """Give the path of the notebook that the kernel serves, as far as is known.

    The path at the kernel's start: after a rename it is stale until a restart.
    """
    candidates = (
        shell.user_ns.get("__vsc_ipynb_file__"),
        shell.user_ns.get("__session__"),
        os.environ.get("JPY_SESSION_NAME") if in_kernel(shell) else None,
    )
    for candidate in candidates:
        if isinstance(candidate, str) and candidate.endswith(".ipynb"):
            path = Path(candidate).absolute()
            if path.parent.is_dir():
                return path
    return None


def saved_cells(path: Path) -> dict[str, str]:
    """Read the sources of a saved notebook's cells, by cell id.

    Empty if the file can't be read as a notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {cell["id"]: "".join(cell["source"]) for cell in cells}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def say(shell: InteractiveShell, text: str) -> None:
    """Show the person at the screen a line of nbdurable's own."""
    if in_kernel(shell):
        html = f'<div style="{_DIM}">{escape(text)}</div>'
        publisher: Any = shell.display_pub
        publisher.publish({"text/html": html, "text/plain": text})
    else:
        print(text)  # noqa: T201 - the terminal is where it belongs


def log(shell: InteractiveShell, text: str) -> None:
    """Write a line to the console of whoever runs the kernel, not into the notebook."""
    getattr(shell, "kernel").log.warning(text)  # noqa: B009 - only a kernel's shell has one


def capture_displays(shell: InteractiveShell) -> None:
    """Let a step's displays be captured with its other output.

    The publisher's own hooks are kept per thread, and steps have threads of
    their own; so its methods are covered. Once: `release_displays` first.
    """
    kind: Any = type(shell)
    kind.display_pub = _Publisher()
    cover_displays(shell)
    output.install_face(
        output.Face(
            show=functools.partial(_show, shell),
            clear=functools.partial(_clear, shell),
            # Neither a terminal nor what captures a cell's output takes back text.
            can_clear=lambda: hasattr(shell.display_pub, "pub_socket"),
            settle=_settled,
            raw=lambda: watched(shell),
            diverted=lambda: isinstance(shell.display_pub, CapturingDisplayPublisher),
            direct=functools.partial(_is_direct, shell),
        )
    )


class _Publisher:
    """The shell's ``display_pub``: what a step's body assigns to it holds for that body alone.

    What the cell assigns, as ``capture_output`` does, is covered like the first one.
    """

    def __get__(self, shell: InteractiveShell | None, owner: type) -> Any:
        if shell is None:
            return self
        capture = output.current()
        own = None if capture is None else capture.redirects.get("display_pub")
        if own is not None:
            return own
        if "display_pub" not in vars(shell):
            raise AttributeError("display_pub")
        return vars(shell)["display_pub"]

    def __set__(self, shell: InteractiveShell, publisher: Any) -> None:
        capture = output.current()
        if capture is None:
            vars(shell)["display_pub"] = publisher
            cover_displays(shell)
        elif publisher is vars(shell)["display_pub"]:
            capture.redirects.pop("display_pub", None)
        else:
            capture.redirects["display_pub"] = publisher


def _is_direct(shell: InteractiveShell) -> bool:
    """Tell whether what is printed goes to the front end: the kernel's own streams know a cell.

    Their class is asked, for a user's own may pass on whatever it is asked.
    """
    return not in_kernel(shell) or all(
        hasattr(type(streams.uncovered(kind)), "set_parent") for kind in ("stdout", "stderr")
    )


def cover_displays(shell: InteractiveShell) -> None:
    """Cover the publisher that is in use, ``%%capture``'s for one, unless it is covered."""
    publisher: Any = vars(shell)["display_pub"]
    if hasattr(publisher.publish, "original"):
        return
    publish, clear = publisher.publish, publisher.clear_output

    def covered_publish(
        data: dict[str, Any], metadata: dict[str, Any] | None = None, **options: Any
    ) -> None:
        bundle = {"data": _as_text(data), "metadata": metadata or {}}
        bundle |= {key: options[key] for key in ("transient", "update") if options.get(key)}
        output.capture_display(bundle, functools.partial(publish, data, metadata, **options))

    def covered_clear(wait: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's signature
        output.capture_clear(wait, clear)

    covers: dict[str, Any] = {"publish": covered_publish, "clear_output": covered_clear}
    for name, cover in covers.items():
        cover.original = getattr(publisher, name)
        setattr(publisher, name, cover)


def release_displays(shell: InteractiveShell) -> None:
    """Take the cover off again, where there is one."""
    publisher: Any = shell.display_pub
    for name in ("publish", "clear_output"):
        if hasattr(getattr(publisher, name), "original"):
            delattr(publisher, name)
    kind: Any = type(shell)
    if type(vars(kind).get("display_pub")).__module__ == __name__:  # whatever was reloaded
        del kind.display_pub
    output.install_face(None)


def _uncovered(shell: InteractiveShell, name: str) -> Any:
    """Give a publisher's method, wherever the cell's displays go by now."""
    method: Any = getattr(shell.display_pub, name)
    return getattr(method, "original", method)


def _show(shell: InteractiveShell, bundle: dict[str, Any]) -> None:
    _uncovered(shell, "publish")(**bundle)


def _clear(shell: InteractiveShell, wait: bool) -> None:  # noqa: FBT001 - IPython's signature
    _uncovered(shell, "clear_output")(wait)


def _settled(bundle: dict[str, Any]) -> dict[str, Any] | None:
    """Give a widget's display with the text of its last state; None if it was closed."""
    module: Any = sys.modules.get("ipywidgets.widgets.widget")
    known = getattr(module, "_instances", None)
    if known is None:
        return bundle
    widget = known.get(bundle["data"][_WIDGET].get("model_id"))
    if widget is None or getattr(widget, "outputs", None) == ():
        return None  # closed; or an output widget, which holds nothing of a step's output
    return bundle | {"data": bundle["data"] | {"text/plain": _text_of(widget)}}


def _text_of(widget: Any) -> str:
    """Write a widget's last state in one line: a box as its children, a bar as a bar."""
    if children := getattr(widget, "children", ()):
        return "".join(_text_of(child) for child in children)
    value = getattr(widget, "value", None)
    if isinstance(value, str):
        # Progress bars pad with figure spaces, for HTML would fold the plain ones.
        return unescape(re.sub(r"<[^>]*>", "", value)).replace("\u2007", " ")
    most = getattr(widget, "max", None)
    if isinstance(value, int | float) and isinstance(most, int | float) and most:
        done = round(_BAR * min(max(value / most, 0.0), 1.0))
        return f"|{_FULL * done}{' ' * (_BAR - done)}|"
    return repr(widget)


def _as_text(data: dict[str, Any]) -> dict[str, Any]:
    """Write a bundle's bytes as base64, as the kernel does before it sends them."""
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for kind, value in data.items()
    }


class Interrupt:
    """Ctrl-C and the stop button, while an awaiting cell runs.

    Where the cell's own code is running, the signal raises KeyboardInterrupt in
    it, as in a cell that doesn't await. While it waits, the signal cancels its
    task and wakes the loop, which would else sleep until its next timer. A task
    whose name starts with `STEP_TASK` is interrupted too when it blocks the loop.

    Raising anywhere else would end the kernel's loop, or leave a terminal's
    coroutine suspended for good. ``fired`` tells a cancellation of ours from
    any other.
    """

    def __init__(self) -> None:
        self.fired = False
        self._task: asyncio.Task[object] | None = None
        self._taken = False

    def __enter__(self) -> Self:
        """Take the signal over, in the main thread; elsewhere it can't arrive."""
        self._task = asyncio.current_task()
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            self._before = signal.signal(signal.SIGINT, self._arrived)
            self._taken = True
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signal back; what is under way cancels nothing any more."""
        if self._taken:
            # None is a handler that Python can't name, and so can't put back.
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)
            self._taken = False
        self._task = None

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        __tracebackhide__ = True
        self.fired = True
        running = asyncio.current_task(self._loop)
        if running is not None and running is self._task:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._cancel)
        if running is not None and running.get_name().startswith(STEP_TASK):
            raise KeyboardInterrupt

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("interrupted")

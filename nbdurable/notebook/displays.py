"""Displays in a kernel, on their way to the step that they belong to."""

from __future__ import annotations

import base64
import functools
import re
import sys
from html import unescape
from typing import TYPE_CHECKING, Any, Final

from IPython.core.displaypub import CapturingDisplayPublisher

from nbdurable.output import capture as output
from nbdurable.output import streams

from .shell import in_kernel, watched

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


WIDGET: Final = "application/vnd.jupyter.widget-view+json"


_BAR: Final = 10


_FULL: Final = "\u2588"


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
            settle=settled,
            raw=lambda: watched(shell),
            diverted=lambda: isinstance(shell.display_pub, CapturingDisplayPublisher),
            direct=functools.partial(_is_direct, shell),
            ended=_is_ended,
            move=functools.partial(_move, shell) if in_kernel(shell) else None,
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
        bundle = {"data": as_text(data), "metadata": metadata or {}}
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
    """Return a publisher's method, wherever the cell's displays go by now."""
    method: Any = getattr(shell.display_pub, name)
    return getattr(method, "original", method)


def _show(shell: InteractiveShell, bundle: dict[str, Any]) -> None:
    _uncovered(shell, "publish")(**bundle)


def _clear(shell: InteractiveShell, wait: bool) -> None:  # noqa: FBT001 - IPython's signature
    _uncovered(shell, "clear_output")(wait)


def _widget_of(bundle: dict[str, Any]) -> Any:
    """Return the widget that a display shows, as far as it is known here."""
    known = getattr(sys.modules.get("ipywidgets.widgets.widget"), "_instances", {})
    return known.get(bundle["data"].get(WIDGET, {}).get("model_id"))


def _is_ended(bundle: dict[str, Any]) -> bool | None:
    """Tell whether a display is a progress bar that has come to its end; None if it is none."""
    widget = _widget_of(bundle)
    parts = (widget, *getattr(widget, "children", ()))
    bars = [one for one in parts if type(one).__name__ in {"IntProgress", "FloatProgress"}]
    return all(map(_is_full, bars)) if bars else None


def _is_full(bar: Any) -> bool:
    # Of tqdm's, one of unknown length is full, and has the style "info".
    ended = bar.value >= bar.max and bar.bar_style != "info"
    return bool(ended or bar.bar_style in {"success", "danger"})


def _move(shell: InteractiveShell, display_id: str, bundles: list[dict[str, Any]]) -> None:
    """Show bars that move, in the display of an id; several widgets in one box."""
    widgets = [_widget_of(bundle) for bundle in bundles]
    boxed = len(bundles) > 1 and any(widget is not None for widget in widgets)
    if boxed:
        data = _boxed(bundles, widgets)
    elif any(widget is not None for widget in widgets):
        data = bundles[0]["data"]
    else:
        texts = [str(bundle["data"].get("text/plain", "")) for bundle in bundles]
        data = {"text/plain": "\n".join(texts)} if texts else {}
    transient = {"display_id": display_id}
    _show(shell, {"data": data, "metadata": {}, "transient": transient, "update": True})
    for box in _BOXES[: -1 if boxed else None]:
        _BOXES.remove(box)
        box.layout.close()
        box.close()


_BOXES: Final[list[Any]] = []


def _boxed(bundles: list[dict[str, Any]], widgets: list[Any]) -> dict[str, Any]:
    """Return the display of a box of widgets; what is text is one, too."""
    library: Any = sys.modules["ipywidgets"]
    texts = [str(bundle["data"].get("text/plain", "")) for bundle in bundles]
    box = library.VBox(
        [
            library.Label(text) if widget is None else widget
            for widget, text in zip(widgets, texts, strict=True)
        ]
    )
    _BOXES.append(box)
    view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
    return {WIDGET: view, "text/plain": "\n".join(texts)}


def settled(bundle: dict[str, Any]) -> dict[str, Any] | None:
    """Return a widget's display with the text of its last state; None if it was closed."""
    module: Any = sys.modules.get("ipywidgets.widgets.widget")
    if getattr(module, "_instances", None) is None:
        return bundle
    widget = _widget_of(bundle)
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


def as_text(data: dict[str, Any]) -> dict[str, Any]:
    """Write a bundle's bytes as base64, as the kernel does before it sends them."""
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for kind, value in data.items()
    }

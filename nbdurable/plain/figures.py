"""Figures by version: whether one was drawn into since it was last looked at.

Invariant: a figure keeps its version as long as nothing in it went stale, and takes it along
when it is saved and restored. What goes stale by being drawn is not a change. The content of a
figure is never compared: that is slow, and differs from drawing to drawing.
"""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_VERSION = "_nbdurable_version"
_DRAWING = frozenset({"print_figure", "draw"})


class _Noted:
    """A figure's stale callback: forgets the version, then does what was to be done before."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, figure: Any, stale: Any) -> None:
        if stale and _VERSION in vars(figure) and not _is_drawing():
            del vars(figure)[_VERSION]
        if self.before is not None:
            self.before(figure, stale)


def version_of(figure: Any) -> str:
    """Return the version of a figure: another one after whatever was drawn into it."""
    callback = figure.stale_callback
    if not isinstance(callback, _Noted):
        if callback is None and _VERSION in vars(figure):
            _connect(figure)
        if callback is not None:
            vars(figure).pop(_VERSION, None)  # it was exchanged: nobody knows what else was done
        figure.stale_callback = _Noted(callback)
    found: str | None = vars(figure).get(_VERSION)
    if found is None:
        found = vars(figure)[_VERSION] = secrets.token_hex(16)
    return found


def _connect(figure: Any) -> None:
    """Let a restored figure hear of what is drawn into it: whom artists tell is not saved."""

    def changed(_: Any, stale: Any) -> None:
        if stale:
            figure.stale = True

    for artist in figure.findobj():
        if artist is not figure and artist.stale_callback is None:
            artist.stale_callback = changed


def _is_drawing() -> bool:
    """Tell whether a figure is just being drawn or saved, which may place things anew."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - matplotlib tells nobody all of the time that it saves
    while frame is not None:
        if frame.f_code.co_name in _DRAWING:
            module = frame.f_globals.get("__name__", "")
            if module.startswith("matplotlib"):
                return True
        frame = frame.f_back
    return False

"""What other libraries keep once per process, kept per step: figures, bars, who draws where.

Invariant: no library is imported here, but for what draws a restored figure. One that
is there, or is imported while this is in use, is fitted; outside a step it behaves as
it always did.
"""

from __future__ import annotations

import contextvars
import importlib
import sys
import threading
import traceback
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Own:
    """What one block has for itself: pyplot's figures, tqdm's bars, what is live on a console."""

    __slots__ = ("_bars", "consoles", "figures")

    def __init__(self) -> None:
        self.figures: OrderedDict[Any, Any] = OrderedDict()
        self._bars: WeakSet[Any] | None = None  # few blocks have any, and each step has a block
        self.consoles: WeakKeyDictionary[Any, dict[str, Any]] | None = None

    @property
    def bars(self) -> WeakSet[Any]:
        """The block's progress bars."""
        if self._bars is None:
            self._bars = WeakSet()
        return self._bars


_own: contextvars.ContextVar[_Own | None] = contextvars.ContextVar("nbdurable_own", default=None)


class Apart:
    """A block with figures and bars of its own: it sees no others, and others don't see these.

    With ``show``, what is left open at its end is shown as the inline backend does
    at a cell's end. Open or not, none is left to pyplot afterwards.
    """

    __slots__ = ("_show", "_token")

    def __init__(self, *, show: bool = False) -> None:
        self._show = show

    def __enter__(self) -> Self:
        self._token = _own.set(_Own())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if (own := _own.get()) is not None and own.figures:
                _leave_figures(show=self._show and (kind is None or issubclass(kind, Exception)))
        finally:
            _reset(self._token)


def fit() -> None:
    """Fit the libraries that are imported, and from now on each that is; undone by `unfit`."""
    global _users  # noqa: PLW0603 - the import system is the process's
    with _lock:
        _users += 1
        if _users == 1:
            sys.meta_path.insert(0, _arrivals)
            for name, fitting in _FITTINGS.items():
                module = sys.modules.get(name)
                # One that is just being imported, by another thread, says so.
                if module is not None and not getattr(module.__spec__, "_initializing", False):
                    fitting(module)


def unfit() -> None:
    """Fit no more libraries; those that were fitted stay so."""
    global _users  # noqa: PLW0603 - the import system is the process's
    with _lock:
        _users -= 1
        if _users == 0 and _arrivals in sys.meta_path:
            sys.meta_path.remove(_arrivals)


def when_loaded(name: str, call: Callable[[ModuleType], object]) -> None:
    """Call something with a module once it is loaded, or now if it is; for good."""
    with _lock:
        _WAITING.setdefault(name, []).append(call)
    fit()
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        call(module)


def here() -> Callable[[], object]:
    """Return a callable that binds the current thread to this block."""
    own = _own.get()
    return lambda: _own.set(own)


_lock = threading.Lock()
_users = 0


class _Here:
    """Stands for a collection of the process's: in a block, for the block's own."""

    def __init__(self, everybodys: Any, own: Callable[[_Own], Any]) -> None:
        self._everybodys = everybodys
        self._own = own

    @property
    def _here(self) -> Any:
        own = _own.get()
        return self._everybodys if own is None else self._own(own)

    def __getitem__(self, key: Any) -> Any:
        return self._here[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._here[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._here[key]

    def __contains__(self, key: object) -> bool:
        return key in self._here

    def __iter__(self) -> Iterator[Any]:
        return iter(self._here)

    def __reversed__(self) -> Any:
        return reversed(self._here)

    def __len__(self) -> int:
        return len(self._here)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here, name)


# --- pyplot ---------------------------------------------------------------------


def _fit_pyplot(helpers: ModuleType) -> None:
    registry = helpers.Gcf
    if not isinstance(registry.figs, _Here):
        registry.figs = _Here(registry.figs, lambda own: own.figures)


def _leave_figures(*, show: bool) -> None:
    """Show what is open where the inline backend is in use, then close it."""
    matplotlib: Any = sys.modules["matplotlib"]
    registry: Any = sys.modules["matplotlib._pylab_helpers"]
    inline: Any = sys.modules.get("matplotlib_inline.backend_inline")
    try:
        if show and inline and matplotlib.is_interactive() and "inline" in matplotlib.get_backend():
            inline.show(close=False)
    except Exception:  # noqa: BLE001 - as at a cell's end: what can't be drawn fails nothing else
        traceback.print_exc()
    finally:
        registry.Gcf.destroy_all()


def _fit_figures(module: ModuleType) -> None:
    """Let a figure that is restored be displayed as it was where it was made: drawn."""
    figure = module.Figure
    restore = figure.__setstate__
    if hasattr(restore, "drawn"):
        return

    def restore_drawn(self: Any, state: Any) -> None:
        restore(self, state)
        if _own.get() is not None:
            _load_inline_backend()

    restore_drawn.drawn = True  # type: ignore[attr-defined]
    figure.__setstate__ = restore_drawn


def _load_inline_backend() -> None:
    """Load the backend that shows figures in a notebook, as the first use of pyplot would."""
    matplotlib: Any = sys.modules["matplotlib"]
    if "inline" in str(matplotlib.rcParams._get("backend")):  # noqa: SLF001 - it chooses none
        importlib.import_module("matplotlib_inline.backend_inline")


# --- tqdm -----------------------------------------------------------------------


def _fit_tqdm(module: ModuleType) -> None:
    """Let bars stand below those of their own step only: each is drawn into its own output."""
    if not isinstance(module.tqdm._instances, _Here):  # noqa: SLF001 - there is no other way
        module.tqdm._instances = _Here(module.tqdm._instances, lambda own: own.bars)  # noqa: SLF001


# --- rich -----------------------------------------------------------------------


class _IsJupyter:
    """Stands for a console's ``is_jupyter``, which is not so for a live display in a step.

    In Jupyter a live display replaces ``sys.stdout`` for all threads and diverts the
    whole cell's output into a widget. As into a file, a step's is written when it has
    ended, in its last state; whatever else a console prints is shown as in any cell.
    """

    def __get__(self, console: Any, owner: type) -> Any:
        if console is None:
            return self
        found = vars(console).get("is_jupyter", False)
        if not found or _own.get() is None:
            return found
        return sys._getframe(1).f_globals.get("__name__") != "rich.live"  # noqa: SLF001 - who asks

    def __set__(self, console: Any, value: object) -> None:
        vars(console)["is_jupyter"] = value


class _Live:
    """Stands for what a console notes of live displays: in a block, of the block's own ones.

    What is printed in one step would else be drawn with what is live in another.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._make = make

    def __get__(self, console: Any, owner: type) -> Any:
        if console is None:
            return self
        noted = self._noted(console)
        if self._name not in noted:
            noted[self._name] = self._make()
        return noted[self._name]

    def __set__(self, console: Any, value: object) -> None:
        self._noted(console)[self._name] = value

    @staticmethod
    def _noted(console: Any) -> dict[str, Any]:
        own = _own.get()
        noted: dict[str, Any]
        if own is None:
            noted = vars(console)
        else:
            if own.consoles is None:
                own.consoles = WeakKeyDictionary()
            noted = own.consoles.setdefault(console, {})
        return noted


def _fit_rich(module: ModuleType) -> None:
    console = module.Console
    if not isinstance(vars(console).get("is_jupyter"), _IsJupyter):
        console.is_jupyter = _IsJupyter()
        console._live_stack = _Live("_live_stack", list)  # noqa: SLF001 - there is no other way
        console._render_hooks = _Live("_render_hooks", list)  # noqa: SLF001 - likewise
        console._live = _Live("_live", _nothing)  # noqa: SLF001 - before rich 14.1


def _nothing() -> None:
    """Return None: no display is live."""


# --- ipywidgets -----------------------------------------------------------------


def _fit_output_widget(module: ModuleType) -> None:
    """Let an output widget divert nothing in a step: it would divert the whole cell's output."""
    widget = module.Output
    enter, leave = widget.__enter__, widget.__exit__
    if hasattr(enter, "outside"):
        return

    def enter_outside(self: Any) -> Any:
        return enter(self) if _own.get() is None else None

    def leave_outside(self: Any, *error: object) -> Any:
        return leave(self, *error) if _own.get() is None else None

    enter_outside.outside = True  # type: ignore[attr-defined]
    widget.__enter__, widget.__exit__ = enter_outside, leave_outside


# --- imports --------------------------------------------------------------------

_FITTINGS: Final[dict[str, Callable[[ModuleType], None]]] = {
    "matplotlib._pylab_helpers": _fit_pyplot,
    "matplotlib.figure": _fit_figures,
    "tqdm.std": _fit_tqdm,
    "rich.console": _fit_rich,
    "ipywidgets.widgets.widget_output": _fit_output_widget,
}


_WAITING: Final[dict[str, list[Callable[[ModuleType], object]]]] = {}


def _arrived(module: ModuleType) -> None:
    """Do with a module that has just been loaded what is to be done with it."""
    if (fitting := _FITTINGS.get(module.__name__)) is not None:
        fitting(module)
    for call in list(_WAITING.get(module.__name__, ())):
        call(module)


class _Arrivals:
    """The finder that finds nothing itself, and fits what others find once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _FITTINGS and name not in _WAITING:
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    _fit_when_loaded(spec.loader)
                    return spec
        return None


def _fit_when_loaded(loader: Any) -> None:
    def exec_module(module: ModuleType) -> None:
        del loader.exec_module
        loader.exec_module(module)
        _arrived(module)

    loader.exec_module = exec_module


_arrivals: Any = _Arrivals()


def _reset(token: contextvars.Token[_Own | None]) -> None:
    try:
        _own.reset(token)
    except ValueError:
        # A coroutine that was left to the garbage collector is closed in another context.
        _own.set(None)

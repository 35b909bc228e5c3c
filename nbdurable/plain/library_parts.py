"""Parts of the process's state that libraries keep: generators, options, settings of drawing.

Invariant: a library is looked at only where the user has imported it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from nbdurable.fingerprint import draws_of, set_draws

from .table import MISSING, Part

_ARRAY = "numbers"  # before the type and the bytes of an array

_OWN = frozenset({"backend", "backend_fallback"})  # matplotlib's choice, not a setting of a cell's


# --- numpy ----------------------------------------------------------------------------------


def _legacy() -> Any:
    return sys.modules["numpy.random"].mtrand._rand  # noqa: SLF001 - what `numpy.random.rand` draws from


def _draws() -> Any:
    return _frozen(draws_of(_legacy()))


def _set_draws(_: Any, new: Any) -> None:
    set_draws(_legacy(), _thawed(new))


def _frozen(state: Any) -> Any:
    """Return a generator's state as plain data that can be compared."""
    if isinstance(state, dict):
        return {key: _frozen(one) for key, one in state.items()}
    if isinstance(state, tuple):
        return tuple(map(_frozen, state))
    if hasattr(state, "tobytes") and hasattr(state, "dtype"):
        return _ARRAY, state.dtype.str, state.tobytes()
    return state


def _thawed(state: Any) -> Any:
    """Return what `_frozen` was given."""
    if isinstance(state, dict):
        return {key: _thawed(one) for key, one in state.items()}
    if isinstance(state, tuple) and state[:1] == (_ARRAY,):
        return sys.modules["numpy"].frombuffer(state[2], state[1])
    return tuple(map(_thawed, state)) if isinstance(state, tuple) else state


def _printing() -> dict[str, Any]:
    return dict(sys.modules["numpy"].get_printoptions())


def _set_printing(_: Any, new: dict[str, Any]) -> None:
    numpy = sys.modules["numpy"]
    kept = {key: value for key, value in new.items() if value != MISSING and key != "override_repr"}
    numpy.set_printoptions(**kept)


def _formats(_: Any, value: Any) -> str:
    return "a function formats arrays" if callable(value) or isinstance(value, dict) else ""


def _errors() -> dict[str, Any]:
    return dict(sys.modules["numpy"].geterr())


def _set_errors(_: Any, new: dict[str, Any]) -> None:
    sys.modules["numpy"].seterr(**{key: one for key, one in new.items() if one != MISSING})


# --- pandas ---------------------------------------------------------------------------------


def _options() -> dict[str, Any]:
    found: dict[str, Any] = {}
    _flatten(sys.modules["pandas._config.config"]._global_config, "", found)  # noqa: SLF001
    return found


def _flatten(options: dict[str, Any], path: str, found: dict[str, Any]) -> None:
    for name, value in options.items():
        if type(value) is dict:
            _flatten(value, f"{path}{name}.", found)
        else:
            found[path + name] = value


def _set_options(_: Any, new: dict[str, Any]) -> None:
    pandas = sys.modules["pandas"]
    for name, value in new.items():
        if value != MISSING:
            pandas.set_option(name, value)


def _calls(_: Any, value: Any) -> str:
    return "a function is set as an option" if callable(value) else ""


# --- matplotlib -----------------------------------------------------------------------------


def _drawing() -> dict[str, Any]:
    settings = sys.modules["matplotlib"].rcParams
    items = dict.items(settings) if isinstance(settings, dict) else settings._data.items()  # noqa: SLF001
    return {
        name: [*value] if type(value) is list else value
        for name, value in items
        if name not in _OWN
    }


def _set_drawing(_: Any, new: dict[str, Any]) -> None:
    settings = sys.modules["matplotlib"].rcParams
    for name, value in new.items():
        if value != MISSING:
            settings[name] = value


def _figures() -> tuple[Any, ...]:
    """Return the numbers of pyplot's open figures, the current one at the end."""
    return tuple(sys.modules["matplotlib._pylab_helpers"].Gcf.figs)


def _left_open(_: Any, new: Any) -> str:
    return "figures are left open" if new else ""


def _close_figures(_: Any, __: Any) -> None:
    sys.modules["matplotlib._pylab_helpers"].Gcf.destroy_all()


# --- torch ----------------------------------------------------------------------------------


def _torch_draws() -> Any:
    torch = sys.modules["torch"]
    found = [torch.default_generator.get_state().numpy().tobytes()]
    if torch.cuda.is_initialized():
        found += [one.numpy().tobytes() for one in torch.cuda.get_rng_state_all()]
    return tuple(found)


def _set_torch_draws(_: Any, new: Any) -> None:
    torch = sys.modules["torch"]
    states = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in new]
    torch.default_generator.set_state(states[0])
    if len(states) > 1 and torch.cuda.device_count() == len(states) - 1:
        torch.cuda.set_rng_state_all(states[1:])


PARTS: Final = (
    Part("numpy.random", _draws, _set_draws, "numpy.random", draws=True),
    Part("numpy print options", _printing, _set_printing, "numpy", keyed=True, refuse=_formats),
    Part("numpy errors", _errors, _set_errors, "numpy", keyed=True),
    Part("pandas options", _options, _set_options, "pandas", keyed=True, refuse=_calls),
    Part("rcParams", _drawing, _set_drawing, "matplotlib", keyed=True),
    Part("open figures", _figures, _close_figures, "matplotlib._pylab_helpers", refuse=_left_open),
    Part("torch", _torch_draws, _set_torch_draws, "torch", draws=True),
    Part(
        "torch default dtype",
        lambda: str(sys.modules["torch"].get_default_dtype()),
        lambda _, new: sys.modules["torch"].set_default_dtype(
            getattr(sys.modules["torch"], new.rpartition(".")[2])
        ),
        "torch",
    ),
)

"""Which code is the user's: notebook and project code, as against what is installed.

Invariant: installed packages, the standard library and nbdurable itself are never project
code, unless a project root says so; code without a real file always is.
"""

from __future__ import annotations

import linecache
import os
import re
import site
import sys
import sysconfig
import types
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

from nbdurable.fingerprint.patched import Patched

if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = __name__.partition(".")[0]
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})


def _library_roots() -> tuple[str, ...]:
    """Folders of the standard library and of installed packages, real and as spelled."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [
        os.path.join(prefix, folder)  # noqa: PTH118
        for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
        for folder in ("lib", "lib64", "Lib", "DLLs")
    ]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    both = {os.path.join(form(p), "") for p in found if p for form in (str, os.path.realpath)}  # noqa: PTH118
    return tuple(sorted(both))


_LIBRARY_ROOTS = _library_roots()


def _last_loaded() -> object:
    while True:
        try:
            return next(reversed(sys.modules.values()), None)
        except RuntimeError:
            continue  # another thread imports just now


class Places:
    """Answers, per function, class or module, whether it is project code."""

    def __init__(self, project_roots: Sequence[str] = ()) -> None:
        self._roots = tuple(
            os.path.join(form(os.fspath(root)), "")  # noqa: PTH118
            for root in project_roots
            for form in (os.path.abspath, os.path.realpath)
        )
        self._files: dict[str, bool] = {}
        self._assigned: dict[str, tuple[int, bool]] = {}
        self._loaded: tuple[tuple[int, object], list[ModuleType]] = ((0, None), [])
        self.patched = Patched(self)

    def file(self, path: str) -> bool:
        """Whether the file at ``path`` belongs to the project."""
        known = self._files.get(path)
        if known is None:
            known = self._files[path] = self._file(path)
        return known

    def _file(self, path: str) -> bool:
        if path.startswith("<frozen"):
            return False
        spellings = {path, os.path.abspath(path), os.path.realpath(path)}  # noqa: PTH100
        if any(s.startswith(self._roots) for s in spellings) and self._roots:
            return True
        if any(s.startswith(_LIBRARY_ROOTS) for s in spellings):
            return False
        return not any(_PACKAGE_FOLDERS.intersection(Path(s).parts) for s in spellings)

    def modules(self) -> list[ModuleType]:
        """Return the project's modules that are loaded, in the order of their names."""
        # As many may be others: some were taken out, and the last one came after that.
        state = len(sys.modules), _last_loaded()
        if self._loaded[0][0] != state[0] or self._loaded[0][1] is not state[1]:
            loaded = [one for one in [*sys.modules.values()] if type(one) is ModuleType]
            found = sorted(filter(self.module, loaded), key=lambda one: one.__name__)
            self._loaded = (state, found)
        return self._loaded[1]

    def assigned(self, attribute: str) -> bool:
        """Whether some text of the project assigns to an attribute of this name."""
        known = self._assigned.get(attribute)
        if known is None or known[0] != len(linecache.cache):
            paths = [path for path in linecache.cache if not os.path.isabs(path) or self.file(path)]  # noqa: PTH117
            paths += filter(None, (vars(one).get("__file__") for one in self.modules()))
            name = re.escape(attribute)
            written = re.compile(rf"\.{name}\s*=[^=]|setattr\([^\n]*['\"]{name}['\"]")
            found = any(written.search("".join(linecache.getlines(path))) for path in paths)
            known = self._assigned[attribute] = (len(linecache.cache), found)
        return known[1]

    def module(self, module: ModuleType) -> bool:
        """Whether ``module`` is one of the project's."""
        return self.named(module.__name__, vars(module).get("__file__"))

    def named(self, name: str, path: str | None) -> bool:
        """Whether the module called ``name`` with the file ``path`` is one of the project's."""
        if name == "__main__":
            return True
        top = name.partition(".")[0]
        if top == _OURS or top in sys.builtin_module_names:
            return False
        if path is None:
            return top not in sys.stdlib_module_names
        return self.file(path)

    def function(self, fn: FunctionType) -> bool:
        """Whether ``fn`` was written in the project, whatever `functools.wraps` copied onto it."""
        path = fn.__code__.co_filename
        if os.path.isabs(path) and not path.startswith("<"):  # noqa: PTH117
            return self.file(path) and not self._ours(fn.__globals__)
        spaces = fn.__globals__
        name = str(spaces.get("__name__", ""))
        loaded = getattr(sys.modules.get(name), "__file__", None)
        return self.named(name, spaces.get("__file__") or loaded)

    def _ours(self, namespace: dict[str, object]) -> bool:
        return str(namespace.get("__name__", "")).partition(".")[0] == _OURS

    def klass(self, cls: type) -> bool:
        """Whether ``cls`` was defined in the project."""
        name = cls.__module__ if isinstance(cls.__module__, str) else ""
        if not cls.__flags__ & (1 << 9):  # not a heap type: made in C
            return False
        if name == "types":  # what `types.new_class` or `make_dataclass` made for somebody
            return getattr(types, cls.__name__, None) is not cls
        path = getattr(sys.modules.get(name), "__file__", None)
        if path is None and name != "__main__":
            methods = [m for m in vars(cls).values() if isinstance(m, FunctionType)]
            return any(map(self.function, methods))
        return self.named(name, path)

"""Statements whose only effect may be in a library, where it can't be seen or set again.

Invariant: a call whose value is dropped, or an assignment into something that is neither a name
nor a value of the notebook, is either on a list of what is known, or a reason to run.
"""

from __future__ import annotations

import abc
import ast
import builtins
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_KNOWN: Final = frozenset(
    {"time", "random", "numpy", "matplotlib", "seaborn", "pandas", "os", "shutil", "pathlib",
     "warnings", "logging", "gc", "json", "pickle", "csv", "joblib", "scipy", "sklearn",
     "statsmodels", "networkx", "math", "sys", "torch", "IPython", "asyncio", "subprocess",
     "polars", "pyarrow", "PIL", "imageio", "skimage", "heapq", "bisect", "copy", "itertools",
     "functools", "collections", "re", "string", "textwrap", "pprint", "zipfile", "tarfile",
     "urllib", "requests", "httpx", "plotly", "bokeh", "altair", "tempfile", "io", "mpl_toolkits",
     "plotnine", "locale", "decimal", "builtins", "nbdurable", "sympy", "xarray", "dask"}
)  # fmt: skip
"""Libraries whose calls change what they are given, files, or what is around and is set again."""

_SETTING: Final = frozenset(
    {"register", "unregister", "install", "enable", "disable", "patch", "set_config", "activate",
     "use", "pandas", "init", "init_printing", "set_backend", "set_executable", "set_start_method",
     "add_dll_directory", "excepthook", "settrace", "setprofile", "set_trace", "setswitchinterval",
     "register_matplotlib_converters", "set_num_threads", "set_default_tensor_type", "signal",
     "alarm", "umask", "addaudithook", "load_dotenv", "tzset", "addfont", "invalidate_caches"}
)  # fmt: skip
"""Names of calls that set something for later, whatever library they are of."""

_SETTING_PREFIXES: Final = (
    "register_",
    "unregister_",
    "enable_",
    "disable_",
    "install_",
    "output_",
)

_SEEN: Final = frozenset({"numpy", "pandas", "matplotlib", "seaborn", "decimal", "locale"})
"""Libraries whose settings are part of what is around."""

_SET_AGAIN: Final = frozenset({"rcParams", "environ", "options", "path"})
"""Attributes of modules whose items, or whose own attributes, are part of what is around."""

_BUILTINS: Final = frozenset({"setattr", "delattr", "__import__"})


def unseen(trees: Iterable[ast.AST], namespace: Mapping[str, Any]) -> str:
    """Say which statement may have an effect that nobody sees; nothing if none may.

    Args:
        trees: The cell's statements, and the functions that they reach.
        namespace: Where their names are.
    """
    found = list(trees)
    imported = dict(_imports(found))
    for tree in found:
        undone: set[int] = set()  # calls whose effect ends with the block that they begin
        for node in ast.walk(tree):
            if isinstance(node, ast.With | ast.AsyncWith):
                undone |= {id(one.context_expr) for one in node.items}
            elif id(node) not in undone and (reason := _unseen(node, namespace, imported)):
                return reason
    return ""


def _unseen(node: ast.AST, namespace: Mapping[str, Any], imported: Mapping[str, str]) -> str:
    match node:
        case ast.Call() if sets := _setting(node, namespace, imported):
            return sets
        case ast.Attribute(attr="modules", value=ast.Name(id=root)) if (
            _library(root, namespace, imported) == "sys"
        ):
            return "it uses `sys.modules`"
        case (
            ast.Expr(value=ast.Call() as call) | ast.Expr(value=ast.Await(value=ast.Call() as call))
        ):
            return _call(call, namespace, imported)
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            return next(filter(None, (_target(one, namespace, imported) for one in targets)), "")
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return _target(target, namespace, imported)
        case _:
            return ""


def _call(call: ast.Call, namespace: Mapping[str, Any], imported: Mapping[str, str]) -> str:
    chain = _chain(call.func)
    if chain is None:
        return ""
    root, path = chain
    if not path and root in _BUILTINS and root not in namespace:
        return f"it calls `{root}`, whose effect can't be seen"
    owner = _library(root, namespace, imported)
    if not owner:
        return ""
    full = ".".join([owner, *path])
    if full.endswith("style.use") or owner.partition(".")[0] in _KNOWN:
        return ""
    return f"it calls `{ast.unparse(call.func)}()`, whose effect can't be seen"


def _setting(call: ast.Call, namespace: Mapping[str, Any], imported: Mapping[str, str]) -> str:
    """Say that a call sets something in a library; nothing if it doesn't, or if that is seen."""
    chain = _chain(call.func)
    owner = _library(chain[0], namespace, imported) if chain is not None else ""
    if chain is not None and isinstance(namespace.get(chain[0]), abc.ABCMeta):
        # Which classes are registered as subclasses of it is kept where nobody sees it.
        return f"it calls `{ast.unparse(call.func)}()`" if chain[1][-1:] == ["register"] else ""
    if chain is None or not owner:
        return ""
    path = chain[1]
    if ".".join([owner, *path]).endswith("style.use"):
        return ""
    # The name under which a function was imported is not its own.
    own = getattr(namespace.get(chain[0]), "__name__", "") or owner
    last = path[-1] if path else own.rpartition(".")[2]
    library = owner.partition(".")[0]
    sets = last.startswith("set_") and library not in _SEEN and library != "builtins"
    if last not in _SETTING and not sets and not last.startswith(_SETTING_PREFIXES):
        return ""
    return f"it calls `{ast.unparse(call.func)}()`, whose effect can't be seen"


def _target(target: ast.expr, namespace: Mapping[str, Any], imported: Mapping[str, str]) -> str:
    if isinstance(target, ast.Tuple | ast.List):
        return next(filter(None, (_target(one, namespace, imported) for one in target.elts)), "")
    place = target
    while isinstance(place, ast.Subscript):
        place = place.value
    if not isinstance(place, ast.Attribute) or (chain := _chain(place)) is None:
        return ""
    root, path = chain
    if not _library(root, namespace, imported) or _SET_AGAIN & set(path):
        return ""
    return f"it changes `{ast.unparse(place)}`, which is not the notebook's"


def _library(root: str, namespace: Mapping[str, Any], imported: Mapping[str, str]) -> str:
    """Return the module that a name is, or that its class or function is of; nothing for data."""
    if root in imported:
        return imported[root]
    if root not in namespace:
        return "builtins" if hasattr(builtins, root) else ""
    value = namespace[root]
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        module = value.__module__
        is_own = module == namespace.get("__name__", "__main__")
        return "" if is_own or not isinstance(module, str) else module
    return ""


def _imports(trees: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield the names that imports bind, each with its module."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    top = one.name.partition(".")[0]
                    yield one.asname or top, one.name if one.asname else top
            elif isinstance(node, ast.ImportFrom):
                for one in node.names:
                    yield one.asname or one.name, f"{node.module}.{one.name}"


def _chain(node: ast.expr) -> tuple[str, list[str]] | None:
    """Return the name that a chain of attributes begins with, and the attributes."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return (node.id, path[::-1]) if isinstance(node, ast.Name) else None

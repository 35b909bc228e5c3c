"""From a code object in memory to the syntax that it was compiled from, if that still exists.

Invariant: source counts only if compiling it gives the code that is in memory; a file that was
edited after it was loaded says nothing about what runs.
"""

from __future__ import annotations
import __future__ as future

import ast
import linecache
import os
import sys
import warnings
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from nbdurable.fingerprint.parsing import making_trees, parsed

from .syntax import Function, constant

_FUTURE = 0
for _name in future.all_feature_names:
    _FUTURE |= getattr(future, _name).compiler_flag
_FUNCTION = 0x1 | 0x2  # CO_OPTIMIZED | CO_NEWLOCALS
_MODES = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_Found = list[tuple[CodeType, Function]]


class _Compiled(NamedTuple):
    lines: list[str]
    functions: dict[str, _Found]


_COMPILED: dict[tuple[str, int, bool], _Compiled] = {}


def syntax_of(code: CodeType, namespace: dict[str, Any]) -> Function | None:
    """Find the definition that compiles to ``code``; None if there is no such source now.

    What a reloader has patched into a module names no file, or was compiled by itself: so
    the file of the module that ``namespace`` belongs to is looked into as well.
    """
    paths = [code.co_filename]
    file = namespace.get("__file__")
    if isinstance(file, str) and file.endswith(".py") and file != code.co_filename:
        paths.append(file)
    for path in paths:
        on_disk = os.path.isfile(path)  # noqa: PTH113
        if on_disk:
            linecache.checkcache(path)
        lines = linecache.getlines(path, namespace)
        # A cell's statements are always compiled one by one, a module's by a reloader only.
        for alone in (False, True) if on_disk else (True,):
            found = _matching(code, path, lines, alone=alone) if lines else None
            if found is not None:
                return found
    return None


def _matching(code: CodeType, path: str, lines: list[str], *, alone: bool) -> Function | None:
    """Return the definition in a file's lines that compiles to ``code``."""
    flags = code.co_flags & _FUTURE
    known = _COMPILED.get((path, flags, alone))
    if known is None or (known.lines is not lines and known.lines != lines):
        known = _Compiled(lines, _functions("".join(lines), path, flags, alone=alone))
        if len(_COMPILED) > 512:  # noqa: PLR2004
            _COMPILED.clear()
        _COMPILED[path, flags, alone] = known
    same = [f for f in known.functions.get(_qualname(code), ()) if same_code(f[0], code)]
    same.sort(
        key=lambda f: (f[0].co_firstlineno != code.co_firstlineno, _start(f[0]) != _start(code))
    )
    return same[0][1] if same else None


def class_syntax(cls: type) -> list[ast.ClassDef]:
    """Find the statements that may have defined a class: those of its name, where it was made."""
    functions = [v for v in vars(cls).values() if isinstance(v, FunctionType)]
    paths = {f.__code__.co_filename for f in functions if f.__module__ == cls.__module__}
    paths = {path for path in paths if linecache.getlines(path)}
    if not paths:
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        paths = (
            {file}
            if file
            else {path for path in linecache.cache if "ipykernel" in path or path[:1] == "<"}
        )
    found = []
    for path in paths:
        try:
            tree: ast.AST | None = parsed("".join(linecache.getlines(path)))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for part in cls.__qualname__.replace(".<locals>", "").split("."):
            inner = [
                node
                for node in (ast.walk(tree) if tree is not None else ())
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == part
            ]
            tree = inner[-1] if inner else None
        if isinstance(tree, ast.ClassDef):
            found.append(tree)
    return found


def _qualname(code: CodeType) -> str:
    return code.co_qualname


def _functions(text: str, path: str, flags: int, *, alone: bool) -> dict[str, _Found]:
    """Compile ``text`` and pair each function's code with its definition.

    IPython compiles a cell's statements one by one. That can give other instructions:
    since Python 3.11 a module imported in the same unit is asked for its attributes
    another way. With ``alone`` each statement is compiled by itself, too.
    """
    options: dict[str, Any] = {"dont_inherit": True}
    try:
        with making_trees, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(text, path, "exec", flags | _MODES | ast.PyCF_ONLY_AST, **options)
            units: list[ast.Module] = [tree]
            if alone:
                units += [ast.Module([statement], []) for statement in tree.body]
            modules = [compile(unit, path, "exec", flags | _MODES, **options) for unit in units]
    except (SyntaxError, ValueError, RecursionError):
        return {}
    defs: dict[tuple[str, int], Function] = {}
    lambdas: list[ast.Lambda] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            defs[node.name, first] = node
        elif isinstance(node, ast.Lambda):
            lambdas.append(node)
    found: dict[str, _Found] = {}
    for code in (code for module in modules for code in _codes(module)):
        node_of: Function | None = defs.get((code.co_name, code.co_firstlineno))
        if code.co_name == "<lambda>":
            node_of = _lambda(code, lambdas)
        if node_of is not None:
            found.setdefault(_qualname(code), []).append((code, node_of))
    return found


def _codes(code: CodeType) -> list[CodeType]:
    """All function codes inside ``code``."""
    found: list[CodeType] = []
    for const in code.co_consts:
        if isinstance(const, CodeType):
            if const.co_flags & _FUNCTION == _FUNCTION:
                found.append(const)
            found += _codes(const)
    return found


def _start(code: CodeType) -> tuple[int, int]:
    """Position of the leftmost instruction that has one."""
    spots = [
        (line, col)
        for line, _, col, _ in list(code.co_positions())[1:]
        if line is not None and col is not None and (line, col) != (code.co_firstlineno, 0)
    ]
    return min(spots, default=(code.co_firstlineno, -1))


def _lambda(code: CodeType, lambdas: list[ast.Lambda]) -> ast.Lambda | None:
    """Find the lambda whose body holds the first instruction of ``code``, innermost first."""
    on_line = [n for n in lambdas if n.lineno == code.co_firstlineno]
    if len(on_line) < 2:  # noqa: PLR2004
        return on_line[0] if on_line else None
    start = _start(code)
    holding = [n for n in on_line if _begin(n.body) <= start < _end(n.body)]
    return max(holding, key=lambda n: _begin(n.body), default=None)


def _begin(node: ast.expr) -> tuple[int, int]:
    return (node.lineno, node.col_offset)


def _end(node: ast.expr) -> tuple[int, int]:
    return (node.end_lineno or 0, node.end_col_offset or 0)


def same_code(one: CodeType, other: CodeType) -> bool:
    """Whether two code objects do the same, wherever they were written."""
    return instructions(one) == instructions(other)


def instructions(code: CodeType) -> bytes:
    """Write a code object out: what it does, without file names and positions."""
    consts = [
        instructions(const) if isinstance(const, CodeType) else constant(const)
        for const in code.co_consts
    ]
    fields = (
        "{}.{}".format(*sys.version_info),
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_exceptiontable,
        tuple(consts),
    )
    return b"X" + b"".join(map(constant, fields))

"""Notebook cells without a kernel: compiled under a made-up file name, known to linecache."""

from __future__ import annotations

import ast
import itertools
import linecache
from typing import Any

_COUNT = itertools.count()


class Notebook:
    """A namespace that behaves as a notebook's: cells run in it, linecache knows their text."""

    def __init__(self, **names: Any) -> None:
        self.space: dict[str, Any] = {"__name__": "__main__", **names}

    def run(self, text: str, *, known: bool = True) -> Notebook:
        """Run a cell; with ``known=False`` its source can't be found afterwards."""
        path = f"/nowhere/ipykernel_{next(_COUNT)}/{abs(hash(text))}.py"
        if known:
            linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        code = compile(text, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        exec(code, self.space)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.space[name]


def cell(text: str, **names: Any) -> Notebook:
    """Run one cell in a notebook of its own."""
    return Notebook(**names).run(text)

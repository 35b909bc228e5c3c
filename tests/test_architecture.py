"""The architecture, read from the sources by `ast`: wings, one import rule, single importers."""

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import nbdurable

ROOT = Path(nbdurable.__file__).parent

# A wing imports its own modules and those of lines above it; imports for types count.
LEVELS = (
    ("errors", "records", "events", "labels", "interrupts", "isolation", "pickled", "executors"),
    ("output", "fingerprint"),
    ("codec", "evidence"),
    ("store", "steps", "view"),
    ("handles",),
    ("commit",),
    ("engine",),
    ("api",),
    ("inspection", "plain"),
    ("notebook", "headless"),
    ("demo",),
    ("nbdurable",),
    ("cli", "testing"),
)
LEVEL_OF = {wing: level for level, wings in enumerate(LEVELS) for wing in wings}

# Imported inside a function, so that who doesn't need it doesn't pay for it.
LATE = {
    ("nbdurable", "nbdurable.notebook.extension"): "only IPython loads the extension",
    ("nbdurable.api.workflow", "nbdurable.view.terminal.screen"): "only a terminal shows a view",
    ("nbdurable.engine.pools", "nbdurable.executors.processes"): "who uses no process pays no loky",
    ("nbdurable.engine.pools", "nbdurable.executors.clusters"): "who uses no Dask doesn't load it",
    ("nbdurable.engine.worker", "nbdurable.executors.clusters"): "likewise",
    ("nbdurable.cli", "nbdurable.demo.lab"): "the other commands drive no kernels",
    ("nbdurable.cli", "nbdurable.headless.running"): "likewise",
    ("nbdurable.cli", "nbdurable.headless.screen"): "likewise",
    ("nbdurable.cli", "nbdurable.demo.story"): "likewise",
    ("nbdurable.notebook.durable_cell", "nbdurable.view.live"): "a --quiet cell has no view",
    ("nbdurable.notebook.durable_cell", "nbdurable.view.notebook.widget"): "likewise",
    ("nbdurable.notebook.extension", "nbdurable.notebook.commands"): "only `%durable` wants click",
}

# Who imports what is not of the standard library; nobody else may.
IMPORTERS = {
    "blake3": {"store"},
    "duckdb": {"store"},
    "platformdirs": {"store"},
    "psutil": {"headless", "notebook", "store"},
    "cloudpickle": {"codec"},
    "dask": {"executors"},
    "distributed": {"api", "executors"},  # a client's type, in annotations only, and the client
    "loky": {"executors"},
    "pickle": {"codec"},
    "xxhash": {"evidence", "fingerprint"},
    "tenacity": {"store", "steps"},
    "IPython": {"notebook", "view"},
    "ipykernel": set(),  # whatever runs the cell is asked through the shell
    "ipywidgets": set(),
    "anywidget": {"view"},
    "traitlets": {"view"},
    "zmq": {"view"},
    "click": {"cli", "notebook"},
    "rich": {"cli", "headless", "view"},
    "nbclient": {"demo", "headless"},
    "papermill": {"headless"},
    "pytest": {"headless"},
    "nbformat": {"demo", "headless"},
    "jupyter_client": {"headless"},
    "jupyter_core": {"headless"},
}


class Import(NamedTuple):
    """One import: by which module, of which name, and whether inside a function."""

    module: str
    name: str
    inside: bool


def name_of(path):
    """Return the name of the module in a file."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted(ROOT.rglob("*.py"))
MODULES = {name_of(path) for path in FILES}


def imports_of(path):
    """Yield the imports of one file, those for types included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(ast.walk(node))
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            names = [f"{module}.{one.name}" for one in node.names]
        else:
            continue
        for name in names:
            yield Import(name_of(path), name, node in inside)


IMPORTS = [one for path in FILES for one in imports_of(path)]


def module_of(name):
    """Return the module of ours that an imported name is, or is in; None if it is none of ours."""
    found = name if name in MODULES else name.rpartition(".")[0]
    return found if found in MODULES else None


def wing_of(module):
    """Return the wing that a module is in: a folder, or a file at the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "nbdurable"


def test_every_wing_is_on_the_list():
    """No folder or file at the root is left out, and none is listed that is not there."""
    assert {wing_of(module) for module in MODULES} == set(LEVEL_OF)


def test_a_wing_imports_itself_and_lower_wings():
    """An import stays in its wing or goes to a lower level, for types too."""
    upward = {
        (one.module, target)
        for one in IMPORTS
        if (target := module_of(one.name)) is not None
        and wing_of(target) != wing_of(one.module)
        and LEVEL_OF[wing_of(target)] >= LEVEL_OF[wing_of(one.module)] > 0
    }
    assert upward == set()


def test_no_circles():
    """No module imports another that imports it, in however many steps, types included."""
    needs = {
        module: {
            target
            for one in IMPORTS
            if one.module == module and (target := module_of(one.name)) not in {None, module}
        }
        for module in MODULES
    }
    while loaded := {module for module, below in needs.items() if not below}:
        needs = {module: below - loaded for module, below in needs.items() if module not in loaded}
    assert needs == {}, "these wait for each other"


def test_late_imports():
    """A module of ours is imported inside a function only where the list says why."""
    late = {
        (one.module, target)
        for one in IMPORTS
        if one.inside and (target := module_of(one.name)) is not None
    }
    assert late == set(LATE)


@pytest.mark.parametrize("library", IMPORTERS)
def test_single_importers(library):
    """A library has the importers that the table names, so it can be replaced in one place."""
    found = {wing_of(one.module) for one in IMPORTS if one.name.split(".")[0] == library}
    assert found == IMPORTERS[library]


def test_no_other_library():
    """Whatever is not of the standard library is in the table above."""
    found = {one.name.split(".")[0] for one in IMPORTS}
    assert found - set(sys.stdlib_module_names) - {"nbdurable"} <= set(IMPORTERS)


def test_no_module_without_a_duty():
    """No module is called for helping; each begins with what it is for."""
    for path in FILES:
        assert not re.search(r"util|help|manag|misc|common|tools", path.stem), path
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_no_private_name_crosses_a_module():
    """What another module needs has a public name."""
    private = {
        (one.module, one.name)
        for one in IMPORTS
        if module_of(one.name) is not None
        and one.name not in MODULES
        and re.match(r"_[^_]", one.name.rpartition(".")[2])
    }
    assert private == set()


def test_the_pictures_name_every_wing():
    """A reader finds each wing in the package's docstring, and in the README."""
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    for picture in (nbdurable.__doc__, readme):
        for wing in set(LEVEL_OF) - {"nbdurable"}:
            assert re.search(rf"\b{wing}\b", picture), wing

"""The architecture: floors, single importers, no circles, read from the sources by `ast`."""

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import nbdurable

ROOT = Path(nbdurable.__file__).parent

# A module imports lower numbers only. The whole number is the floor in the table of
# the package's docstring; decimals order the modules of one floor.
FLOORS = {
    "errors": 0,
    "records": 0,
    "codec": 1.1,
    "fingerprint": 1,
    "interrupts": 1,
    "label": 1,
    "libraries": 1,
    "pieces": 1,
    "live": 1.05,
    "screen": 1.05,
    "tree": 1,
    "progress": 1.02,
    "versions": 1.05,
    "words": 1.05,
    "tables": 1,
    "timeline": 1.1,
    "summary": 1.15,
    "reductions": 1,
    "output": 1.1,
    "streams": 1.2,
    "region": 1.3,
    "drawing": 1.3,
    "store": 2,
    "executors": 2,
    "step": 3,
    "handles": 4.0,
    "scope": 4.0,
    "combinators": 4.1,
    "former": 4.1,
    "news": 4.2,
    "ledger": 4.3,
    "reasons": 4.3,
    "delivery": 4.35,
    "entries": 4.4,
    "received": 4.4,
    "bodies": 4.5,
    "cancellation": 4.55,
    "waiting": 4.55,
    "completion": 4.56,
    "dataflow": 4.56,
    "control": 4.57,
    "run": 4.6,
    "configuration": 4.7,
    "holding": 4.8,
    "session": 5,
    "questions": 5,
    "upkeep": 5,
    "recall": 5.05,
    "api": 5,
    "recorded": 5,
    "reports": 5.1,
    "settings": 5.15,
    "doctor": 5.2,
    "export": 5.2,
    "nbdurable": 5.5,
    "testing": 6,
    "publisher": 6,
    "widget": 6.1,
    "terminal": 6.1,
    "notice": 6,
    "cell": 6,
    "demo": 6,
    "provider": 6,
    "lab": 6.1,
    "kernel": 7.0,
    "owners": 7.05,
    "commands": 7.05,
    "magic": 7.1,
    "cli": 7.1,
}

# Imports that go up all the same, each with its reason.
UPWARD = {
    ("nbdurable", "magic"): "only when IPython loads the extension, so that no one else pays",
    ("session", "terminal"): "only where stderr is a terminal, or a view is asked for",
    ("scope", "run"): "for types: a scope belongs to a run, and a run makes scopes",
}

# Who imports what is not of the standard library; nobody else may.
IMPORTERS = {
    "blake3": {"store"},
    "duckdb": {"store"},
    "platformdirs": {"store"},
    "psutil": {"store"},
    "cloudpickle": {"codec"},
    "pickle": {"codec"},
    "xxhash": {"fingerprint"},
    "tenacity": {"store", "step"},
    "IPython": {"magic", "widget", "kernel", "owners", "commands"},  # the last three for types
    "ipykernel": set(),  # whatever runs the cell is asked through the shell
    "ipywidgets": set(),
    "anywidget": {"widget"},
    "traitlets": {"widget"},
    "zmq": {"widget"},
    "click": {"cli", "commands"},
    "rich": {"cli", "drawing", "notice", "region", "tables"},
    "nbclient": {"demo"},
    "nbformat": {"demo"},
    "jupyter_client": {"demo"},
}


class Import(NamedTuple):
    """One import: by which file of which unit, of which name, and where in the file."""

    unit: str
    file: str
    name: str
    for_types: bool
    inside: bool


def imports_of(path):
    """Give the imports of one file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types, inside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_types.update(inner for one in node.body for inner in ast.walk(one))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(ast.walk(node))
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    unit = parts[1] if parts[1] != "__init__" else "nbdurable"
    file = ".".join(parts).removesuffix(".__init__")
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
            yield Import(unit, file, name, node in for_types, node in inside)


FILES = sorted(ROOT.rglob("*.py"))
IMPORTS = [one for path in FILES for one in imports_of(path)]
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
}


def imported_file(name):
    """Give the file of ours that an imported name is, or is in."""
    return name if name in MODULES else name.rpartition(".")[0]


def imported_unit(name):
    """Give the module or package of the table that an imported name is in, None if not ours."""
    parts = imported_file(name).split(".")
    if parts[0] != "nbdurable":
        return None
    return parts[1] if len(parts) > 1 else "nbdurable"


def test_every_module_has_its_floor():
    """No module is left out of the floors, and none is listed that is not there."""
    names = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert names - {"__init__"} | {"nbdurable"} == set(FLOORS)


def test_modules_import_lower_floors_only():
    """An import goes down, for types too; what goes up is listed with its reason."""
    upward = {
        (one.unit, unit)
        for one in IMPORTS
        if (unit := imported_unit(one.name)) not in {None, one.unit}
        and FLOORS[unit] >= FLOORS[one.unit]
    }
    assert upward == set(UPWARD)


def test_what_goes_up_does_so_only_for_types_or_late():
    """No upward import is carried out when a module is loaded."""
    for one in IMPORTS:
        if (one.unit, imported_unit(one.name)) in UPWARD:
            assert one.for_types or one.inside, one


def test_no_circles():
    """At run time no file imports another that imports it, in however many steps."""
    below = {
        file: {imported_file(one.name) for one in IMPORTS
               if one.file == file and not one.for_types and not one.inside} & MODULES
        for file in MODULES
    }  # fmt: skip
    while loaded := {file for file, needs in below.items() if not needs}:
        below = {file: needs - loaded for file, needs in below.items() if file not in loaded}
    assert below == {}, "these wait for each other"


@pytest.mark.parametrize("library", IMPORTERS)
def test_single_importers(library):
    """A library has the importers that the table names, so it can be replaced in one place."""
    found = {one.unit for one in IMPORTS if one.name.split(".")[0] == library}
    assert found == IMPORTERS[library]


def test_no_other_library():
    """Whatever is not of the standard library is in the table above."""
    found = {one.name.split(".")[0] for one in IMPORTS}
    assert found - set(sys.stdlib_module_names) - {"nbdurable"} <= set(IMPORTERS)


def test_no_import_inside_functions_between_siblings():
    """A module of ours is imported late only where loading it would cost who needs it not."""
    late = {
        (one.unit, unit)
        for one in IMPORTS
        if one.inside and (unit := imported_unit(one.name)) is not None
    }
    assert late == {
        ("nbdurable", "magic"),
        ("magic", "publisher"),
        ("magic", "widget"),
        ("magic", "commands"),
        ("session", "terminal"),
        ("cli", "demo"),
        ("cli", "lab"),
    }


def test_no_module_without_a_duty():
    """No module is called for helping; each begins with what it is for."""
    for path in FILES:
        assert not re.search(r"util|help|manag|misc|common|tools", path.stem), path
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def floors_in_docstring():
    """Read the table of the package's docstring."""
    rows = re.findall(r"^(\d) +((?:`\w+`(?:, )?)+)", nbdurable.__doc__, re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"\w+", names)}


def test_the_docstrings_table_tells_the_floors():
    """What the package's docstring says of a module's floor is so."""
    found = floors_in_docstring()
    assert len(found) >= 15
    assert found == {name: int(FLOORS[name]) for name in found}


def test_the_docstrings_table_names_every_module():
    """A reader finds each module in the table of the package's docstring."""
    assert set(FLOORS) - {"nbdurable"} - set(floors_in_docstring()) == set()

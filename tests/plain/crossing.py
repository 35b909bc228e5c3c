"""Save the hazards in one process, restore them in another: `python crossing.py save|load FOLDER`.

Prints one JSON object: by hazard, what went wrong; nothing where nothing did.
"""

import importlib.util
import json
import linecache
import os
import sys
import traceback
import types
from pathlib import Path

from hazards import HAZARDS

from nbdurable.codec import values
from nbdurable.plain.groups import mark, partition
from nbdurable.plain.kept import decode, encode
from nbdurable.store.objects import Objects

IMPORTS = {
    "numpy": "import numpy as np",
    "pandas": "import numpy as np\nimport pandas as pd",
    "polars": "import polars as pl",
    "pyarrow": "import pyarrow as pa",
    "matplotlib": "import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt",
    "pydantic": "",
    "sklearn": "import numpy as np\nimport sklearn",
}


ONLY = os.environ.get("HAZARDS")


def present(library):
    """Tell whether a library is installed."""
    return not library or importlib.util.find_spec(library) is not None


def run(text, space, name):
    """Execute a cell as a notebook does: its text is known to tracebacks."""
    file = f"<cell {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), space)


def begin(name, hazard):
    """Return a notebook's namespace after its imports and definitions."""
    space = {"__name__": "__main__"}
    run(IMPORTS.get(hazard.library, ""), space, f"imports of {name}")
    run(hazard.definitions, space, f"definitions of {name}")
    return space


def end(space):
    """Close what a cell has opened."""
    for value in space.values():
        if hasattr(value, "close") and not isinstance(value, type | types.ModuleType):
            value.close()


def names_of(hazard):
    """Return all names of a hazard's groups."""
    return hazard.groups.replace("|", " ").split()


def save_one(name, hazard, objects):
    """Execute a hazard's cell; return its groups as saved, and their marks."""
    space = begin(name, hazard)
    run(hazard.cell, space, name)
    groups = partition(space, names_of(hazard))
    said = sorted(" ".join(sorted(group)) for group in groups)
    assert said == sorted(one.strip() for one in hazard.groups.split("|")), said
    saved = []
    for group in groups:
        marked = mark(space, group).hex()
        assert mark(space, group).hex() == marked, "it changes by being looked at"
        kept = encode(space, group)
        payload = values.encode(kept, objects)
        assert mark(space, group).hex() == marked, "it changes by being saved"
        saved.append((sorted(group), marked, payload.data.hex(), payload.pieces.hex()))
    run(hazard.check, space, f"check of {name}")
    return saved


def load_one(name, hazard, saved, objects):
    """Restore a hazard's groups beside its definitions, compare the marks, check the links."""
    space = begin(name, hazard)
    groups = [
        (names, marked, values.decode(bytes.fromhex(data), bytes.fromhex(pieces), objects))
        for names, marked, data, pieces in saved
    ]
    for _, _, kept in sorted(groups, key=lambda one: not one[2].classes):
        space.update(decode(kept, space))
    for names, marked, _ in groups:
        assert mark(space, names).hex() == marked, f"{names} came back as something else"
    run(hazard.check, space, f"check of {name}")


def main(what, folder):
    """Save or load all; print what went wrong by hazard."""
    objects = Objects(folder / "objects")
    wrong, all_saved = {}, {}
    if what == "load":
        all_saved = json.loads((folder / "saved.json").read_text())
    for name, hazard in HAZARDS.items():
        if (ONLY is not None and hazard.library not in ONLY.split(",")) or not present(
            hazard.library
        ):
            continue
        try:
            if what == "save":
                all_saved[name] = save_one(name, hazard, objects)
            elif name in all_saved:
                load_one(name, hazard, all_saved[name], objects)
        except Exception:  # each hazard is told by itself
            wrong[name] = traceback.format_exc(limit=-4)
    if what == "save":
        (folder / "saved.json").write_text(json.dumps(all_saved))
    print(json.dumps(wrong))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""What the benchmarks print and write: the machine, the table, the JSON file."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

PACKAGES = ("nbdurable", "duckdb", "dbos", "joblib", "IPython")
WIDTH = 118


def machine(folder):
    """Describe what the figures were measured on."""
    return {
        "cores": len(usable_cores()),
        "cores_of_machine": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "append_and_fdatasync_seconds": _durable_write(folder / "raw"),
    }


def usable_cores():
    """Return the cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {*range(os.cpu_count())}


def show_machine(described):
    """Print one line on what the figures are measured on."""
    console = _console()
    disk = shown(described["append_and_fdatasync_seconds"], "s")
    packages = ", ".join(f"{name} {found}" for name, found in described["packages"].items())
    console.print(
        f"{described['cores']} of {described['cores_of_machine']} cores, "
        f"{described['system']}, Python {described['python']}, {packages}; "
        f"load {described['load_average']:.1f}, append + fdatasync {disk}",
        highlight=False,
    )


def show(figures):
    """Print one line for each figure of one benchmark."""
    console = _console()
    table = Table("benchmark", "what")
    for heading in ("median", "lowest", "highest", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for at, one in enumerate(figures):
        table.add_row(
            "" if at else one.benchmark,
            one.what,
            shown(one.value, one.unit),
            shown(min(one.samples), one.unit),
            shown(max(one.samples), one.unit),
            _shown_target(one),
            {None: "", True: "met", False: "MISSED"}[one.met],
        )
    console.print(table)


def _console():
    console = Console()
    console.width = max(console.width, WIDTH)
    return console


def shown(value, unit):
    """Return a figure as people read it."""
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.2f} s"
    if unit in {"MiB", "B"}:
        return f"{value:,.0f} {unit}"
    return f"{value:,.0f} /s" if unit == "/s" else f"{value:.2f} x"


def write(path, described, figures):
    """Write everything as JSON: seconds, rates and ratios as they are, with each round's sample."""
    found = {
        "machine": described,
        "figures": [
            {
                "benchmark": one.benchmark,
                "what": one.what,
                "unit": one.unit,
                "median": one.value,
                "samples": one.samples,
                "target": _target(one),
                "met": one.met,
            }
            for one in figures
        ],
    }
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _target(figure):
    if figure.target is None:
        return None
    return {"at_most" if figure.target.most else "at_least": figure.target.bound}


def _shown_target(figure):
    if figure.target is None:
        return ""
    sign = "≤" if figure.target.most else "≥"
    return f"{sign} {shown(figure.target.bound, figure.unit)}"


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _durable_write(path):
    """Return the median seconds of 64 bytes appended and synced: what the disk itself takes."""
    seconds = []
    with path.open("wb", buffering=0) as file:
        for _ in range(200):
            started = perf_counter()
            file.write(bytes(64))
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            seconds.append(perf_counter() - started)
    return median(seconds)

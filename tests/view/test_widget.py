"""The live view in a real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).parents[2]


def test_importing_the_module_imports_no_widget_library():
    """What takes long to import waits until a view is really shown."""
    code = (
        "import sys, nbdurable.view.notebook.widget;"
        "print([m for m in ('anywidget', 'ipywidgets') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


SETUP = """
import sys, threading, time
from nbdurable.events import *
from nbdurable.records import *
from nbdurable.view.live import LiveView
from nbdurable.view.notebook.widget import NotebookScreen
class Watched(NotebookScreen):
    def open(self, view, now):
        super().open(view, now)
        seen.set()
def tell(view):
    view(RunStarted("quotes", "r", 1, 0, time.time()))
    view(StepCreated(0, "step", "f", "f(1)", time.time()))
"""
FAST = """
view = LiveView("quotes", NotebookScreen("quotes")); view.show(); tell(view)
view(RunFinished(RunStatus.FINISHED, time.time()))
view.finish()
"anywidget" in sys.modules
"""
SLOW = """
seen = threading.Event()
view = LiveView("quotes", Watched("quotes"), delay=0); view.show(); tell(view)
assert seen.wait(20)
view(RunFinished(RunStatus.FINISHED, time.time()))
view.finish()
"""


def test_in_a_kernel(tmp_path, monkeypatch):
    """A fast run and a slow one leave the same: two empty displays, and the summary."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, FAST, SLOW, SLOW)]
    )
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=str(tmp_path))
    fast, *slow = [cell.outputs for cell in notebook.cells[1:]]
    assert fast.pop().data["text/plain"] == "False"  # no widget library was loaded
    for outputs in (fast, *slow):
        kinds = [sorted(output.data) for output in outputs]
        assert kinds == [[], [], ["text/html", "text/plain"]]
        assert outputs[2].data["text/plain"] == "quotes: 1 step, finished"

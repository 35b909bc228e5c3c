"""The summary where no kernel is: in a converted notebook, read with its styles stripped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbconvert import HTMLExporter, LatexExporter, MarkdownExporter
from support.stories import FIRST, viewed

from nbdurable.view import summary, words

# The emptied display has nothing that nbconvert could show: it says so, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore:Your element with mimetype")


@pytest.fixture
def notebook():
    """Return a notebook as it is saved after a run: an emptied display, and the summary."""
    view = viewed(*FIRST)
    cell = nbformat.v4.new_code_cell("%%durable quotes\n...")
    cell.outputs = [
        nbformat.v4.new_output("display_data", data={}),
        nbformat.v4.new_output(
            "display_data", {"text/html": summary.html(view), "text/plain": words.text(view)}
        ),
    ]
    return nbformat.v4.new_notebook(cells=[cell])


class Text(HTMLParser):
    """Collects the text of a page, its drawings and its scripts."""

    def __init__(self):
        super().__init__()
        self.said, self.bars = "", 0

    def handle_starttag(self, tag, attrs):
        """Count the bars."""
        self.bars += tag == "rect"

    def handle_data(self, data):
        """Collect the text."""
        self.said += data


def test_a_converted_notebook_shows_winner_and_timeline(notebook):
    """Nbconvert's page holds the summary with its bars, and no widget."""
    page, _ = HTMLExporter().from_notebook_node(notebook)
    body = page[page.index("<main") :]
    read = Text()
    read.feed(body)
    assert "select: ★ quote('alpha') won over quote('beta') (not finished)" in read.said
    assert read.bars == 4
    assert "widget-view" not in body
    assert "model not found" not in body


def test_a_run_that_was_killed_is_told_in_an_export():
    """What stays of a dead kernel: a widget that nobody can show, and how far the run was."""
    view = viewed(*FIRST[:-2])
    cell = nbformat.v4.new_code_cell("%%durable quotes\n...")
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "0" * 32}}
    so_far = {
        "text/html": summary.so_far(view, 104.0, "nbd-so-far-1"),
        "text/plain": words.so_far(view, 104.0),
    }
    cell.outputs = [nbformat.v4.new_output("display_data", data=data) for data in (widget, so_far)]
    killed = nbformat.v4.new_notebook(cells=[cell])
    page, _ = HTMLExporter().from_notebook_node(killed)
    read = Text()
    read.feed(page[page.index("<main") :])
    text, _ = MarkdownExporter().from_notebook_node(killed)
    for said in (read.said, text):
        assert "3 steps, running: 1 ran, 1 failed, 1 running, 4.0 s" in said
        assert "run this cell again to resume: what is saved is not run again" in said
    assert "ValueError('<b>')" in read.said


def test_a_notebook_converted_to_text_says_who_won(notebook):
    """Where there is no HTML the plain text says the same of what is durable."""
    for output in notebook.cells[0].outputs:
        output.data.pop("text/html", None)
    page, _ = MarkdownExporter().from_notebook_node(notebook)
    assert "select: quote('alpha') won over quote('beta')" in page


def test_a_notebook_made_into_a_pdf_says_who_won(notebook):
    """LaTeX, of which nbconvert makes its PDFs, has the plain text, and no markup of ours."""
    page, _ = LatexExporter().from_notebook_node(notebook)
    assert "select: quote('alpha') won over quote('beta')" in page
    assert "<svg" not in page
    assert "widget" not in page


def test_stripped_of_styles_and_drawings_it_still_reads(notebook):
    """A page that takes out styles and drawings keeps a table that tells states in words."""
    html = notebook.cells[0].outputs[1].data["text/html"]
    stripped = re.sub(r"<svg.*?</svg>| style=\"[^\"]*\"", "", html)
    read = Text()
    read.feed(stripped)
    assert read.bars == 0
    assert "✓ done" in read.said
    assert "quote('alpha') ★ won" in read.said
    assert "✗ failed" in read.said

"""The live view on a real screen: JupyterLab in Chromium."""

from __future__ import annotations

import re

import pytest
import scenario
from playwright.sync_api import expect
from support.barriers import barriers

SETUP = """\
import asyncio
import scenario
from nbdurable.view.live import LiveView
from nbdurable.view.notebook.widget import NotebookScreen
"""
BLOCKING = """\
view = LiveView("quotes", NotebookScreen("quotes"))
ended = scenario.play(view, scenario.quotes)
view.show()
ended.wait()
view.finish()
"""
AWAITING = BLOCKING.replace("ended.wait()", "await asyncio.to_thread(ended.wait)")
REPLAYED = """\
view = LiveView("quotes", NotebookScreen("quotes"))
view.show()
scenario.play(view, scenario.replayed).wait()
view.finish()
"""
LARGE = BLOCKING.replace("quotes", "many")
LARGE_AWAITING = AWAITING.replace("quotes", "many")


PRICES, ALPHA, BETA, SELECT, FETCH, REPORT = 0, 1, 2, 3, 4, 6


def row(output, place):
    """Find a row of the live view by its place in `go` order."""
    return output.locator(f".nbd-view tr[data-place='{place}']")


@pytest.mark.parametrize("cell", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
def test_rows_update_live_and_a_summary_stays(lab, cell):
    """While the cell runs its rows change; afterwards the saved output is static."""
    lab.open(SETUP, cell)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    alpha = row(output, ALPHA)
    expect(alpha).to_contain_text("running")
    expect(row(output, FETCH)).to_contain_text("retrying in")
    expect(row(output, FETCH)).to_contain_text("ConnectionError('refused')")
    expect(row(output, PRICES)).to_contain_text("replayed")
    expect(output.locator(".nbd-view tbody tr")).to_have_count(9)
    expect(output.locator(".nbd-head")).to_contain_text("1 replayed, 3 running, 1 retrying")
    expect(row(output, FETCH).locator(".nbd-deaths")).to_have_text("☠ 2 deaths")
    expect(row(output, BETA)).to_contain_text("code changed: clean()")
    ticking = alpha.locator(".nbd-number")
    first = ticking.inner_text()
    expect(ticking).not_to_have_text(first)
    lab.picture("running-light")
    lab.theme("Dark")
    lab.picture("running-dark")

    scenario.open_gate(lab.server.root)
    expect(alpha).to_contain_text("★ won")
    expect(alpha).to_contain_text("done")
    select = row(output, SELECT)
    expect(select.locator(".nbd-chosen")).to_have_text("★ quote('alpha')")
    expect(row(output, BETA)).to_contain_text("lost")
    expect(row(output, FETCH)).to_contain_text("failed")
    lab.picture("decided-dark")
    lab.theme("Light")
    lab.picture("decided-light")

    scenario.open_gate(lab.server.root)
    lab.idle()
    expect(output.locator(".nbd-view")).to_have_count(0)
    summary = output.last
    expect(summary).to_contain_text("quote('alpha') won over quote('beta')")
    expect(summary).to_contain_text("saved 12.1 s")
    expect(summary.get_by_role("row")).to_have_count(10)
    lab.picture("summary-light")
    lab.theme("Dark")
    lab.picture("summary-dark")
    lab.theme("Light")

    outputs = lab.saved().cells[1].outputs
    assert [sorted(output.data) for output in outputs] == [[], [], ["text/html", "text/plain"]]
    assert outputs[2].data["text/plain"].splitlines() == [
        "quotes: 5 steps, finished",
        "select: quote('alpha') won over quote('beta')",
        "fetch('<b>url</b>') failed",
        "report(fetch('<b>url</b>')) failed",
    ]


def test_a_fast_replay_shows_the_summary_alone(lab):
    """A run that ends at once displays no widget, and the same text as the first.

    The places that a view would take stay empty: what is saved is the same as after a long run.
    """
    lab.open(SETUP, REPLAYED)
    lab.run_all()
    expect(lab.output(1).last).to_contain_text("quote('alpha') won over quote('beta')")
    expect(lab.output(1).locator(".nbd-status")).to_have_count(0)
    outputs = lab.saved().cells[1].outputs
    assert [sorted(output.data) for output in outputs] == [[], [], ["text/html", "text/plain"]]
    assert outputs[2].data["text/plain"].splitlines() == [
        "quotes: 5 steps, finished",
        "select: quote('alpha') won over quote('beta')",
        "fetch('<b>url</b>') failed",
        "report(fetch('<b>url</b>')) failed",
    ]
    lab.picture("replayed")


def test_a_dead_kernel_is_told(lab):
    """After kill -9 the view says that the kernel is gone, what is lost, and what to do."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(row(output, PRICES)).to_contain_text("replayed")
    expect(output.locator(".nbd-silence")).to_be_hidden()
    lab.kill_kernel()
    expect(output.locator(".nbd-silence")).to_contain_text("the kernel is gone")
    expect(output.locator(".nbd-silence")).to_contain_text("run the notebook again to resume")
    lab.page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    expect(row(output, PRICES)).to_be_visible()
    expect(output.locator(".nbd-status").first).to_have_text("kernel gone")
    expect(row(output, ALPHA).locator(".nbd-word")).to_have_text("lost")
    expect(row(output, PRICES).locator(".nbd-word")).to_have_text("replayed")
    expect(output.get_by_role("button", name="Stop")).to_be_hidden()
    lab.picture("gone")

    # Saved so and opened without its kernel, the notebook still says how far the run came.
    lab.saved()
    lab.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    lab.show()
    said = lab.output(1).filter(has_text="run this cell again to resume")
    expect(said).to_be_visible()
    expect(said).to_contain_text("quotes: 5 steps and 1 inside them, running: 1 replayed")
    dead = lab.page.get_by_text("model not found")
    expect(dead).to_have_count(1)
    expect(dead).to_be_hidden()
    lab.picture("gone-reopened")


def test_news_that_were_dropped_are_asked_for(lab):
    """A server that lets messages fall loses none of the view: it asks for the whole."""
    dropped = "dropped = view._screen._timeline.news(time.time()); print('dropped')"
    cell = f"import threading, time\ndef drop():\n    {dropped}\n" + BLOCKING.replace(
        "ended.wait()",
        "time.sleep(1); drop(); ended.wait()",  # the view has opened by then
    )
    lab.open(SETUP, cell)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(output.filter(has_text="dropped").first).to_be_visible()
    scenario.open_gate(lab.server.root)
    expect(row(output, ALPHA)).to_contain_text("★ won")
    scenario.open_gate(lab.server.root)
    lab.idle()


def test_a_quiet_run_is_not_called_dead(lab):
    """A step that runs for long without an event still sends a sign of life."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    running = row(lab.output(1), ALPHA)
    expect(running.locator(".nbd-number")).to_have_text(re.compile(r"^[789]\.\d s$"))
    expect(lab.output(1).locator(".nbd-silence")).to_be_hidden()


def test_two_views_and_a_reload(lab):
    """A second view of the output shows the same, and a reloaded page catches up."""
    lab.open(SETUP, AWAITING)
    lab.run(0)
    lab.run(1, wait=False)
    expect(lab.output(1).locator(".nbd-view tbody tr")).to_have_count(9)
    lab.command("notebook:create-output-view")
    views = lab.page.locator(".nbd-view")
    expect(views).to_have_count(2)
    expect(views.nth(1).locator("tbody tr")).to_have_count(9)
    lab.picture("two-views")
    lab.saved()
    lab.show()
    expect(lab.output(1).locator(".nbd-view tbody tr")).to_have_count(9)
    scenario.open_gate(lab.server.root)
    expect(lab.output(1).first).to_contain_text("★ won")
    scenario.open_gate(lab.server.root)
    expect(lab.output(1).locator(".nbd-status").first).to_have_text("finished")
    lab.picture("reloaded")


@pytest.mark.parametrize("cell", [LARGE, LARGE_AWAITING], ids=["blocking", "awaiting"])
def test_a_large_run_is_a_few_rows_that_can_be_opened(lab, cell):
    """A thousand rows of one name are one; what runs is shown, and the rest on demand."""
    lab.open(SETUP, cell)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    rows = output.locator(".nbd-view tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("1,000 ran, 1 running")
    expect(row(output, 1000)).to_contain_text("running")
    lab.picture("folded")
    rows.first.focus()
    lab.page.keyboard.press("ArrowRight")
    expect(rows).to_have_count(102)
    expect(rows.first).to_have_attribute("aria-expanded", "true")
    rows.last.click()
    expect(rows).to_have_count(202)
    expect(rows.last).to_contain_text("800 done, 1 running")
    lab.picture("opened")
    rows.first.focus()
    lab.page.keyboard.press("ArrowLeft")
    expect(rows).to_have_count(3)
    scenario.open_gate(lab.server.root)
    lab.idle()
    expect(output.last).to_contain_text("1,001 ran")


def test_a_saved_notebook_without_its_kernel(lab):
    """Opened again when its kernel is gone it shows the summary and its bars, and no dead widget.

    One that somebody else has sent, whose HTML JupyterLab strips, still says who won.
    """
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    expect(row(lab.output(1), ALPHA)).to_contain_text("running")
    for _ in range(2):
        scenario.open_gate(lab.server.root)
        lab.page.wait_for_timeout(500)
    lab.idle()
    notebook = lab.saved()
    lab.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    lab.show()
    summary = lab.output(1).last
    expect(summary).to_contain_text("quote('alpha') won over quote('beta')")
    assert summary.locator("svg rect").count() > 4
    expect(lab.page.get_by_text("model not found")).to_have_count(0)
    lab.picture("without-a-kernel")

    notebook.cells[0].source += "\n# sent by somebody else"
    lab.open_notebook(notebook)
    expect(lab.output(1).last).to_contain_text("quote('alpha') won over quote('beta')")
    expect(lab.output(1).last).to_contain_text("✗ failed")
    lab.picture("from-somebody-else")


def test_the_same_view_in_notebook_7(lab):
    """Jupyter Notebook shows the view as JupyterLab does, and keeps the same summary."""
    lab.app = "notebooks"
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(row(output, ALPHA)).to_contain_text("running")
    expect(output.locator(".nbd-view tbody tr")).to_have_count(9)
    lab.picture("notebook-7")
    scenario.open_gate(lab.server.root)
    expect(row(output, SELECT).locator(".nbd-chosen")).to_have_text("★ quote('alpha')")
    scenario.open_gate(lab.server.root)
    lab.idle()
    expect(output.locator(".nbd-view")).to_have_count(0)
    expect(output.last).to_contain_text("quote('alpha') won over quote('beta')")
    lab.picture("notebook-7-summary")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_nothing_in_the_view_keeps_anybody_out(lab, theme):
    """Axe finds no serious violation in the live view nor in the summary, in either theme."""
    lab.open(SETUP, BLOCKING)
    lab.theme(theme)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(row(output, ALPHA)).to_contain_text("running")
    row(output, ALPHA).focus()
    lab.page.keyboard.press("Enter")
    expect(output.locator(".nbd-detail")).to_be_visible()
    assert barriers(lab, ".nbd-view") == []
    scenario.open_gate(lab.server.root)
    expect(row(output, SELECT)).to_contain_text("★")
    assert barriers(lab, ".nbd-view") == []
    lab.picture(f"detail-{theme}")
    scenario.open_gate(lab.server.root)
    lab.idle()
    expect(output.last).to_contain_text("won over")  # the page may be behind the kernel
    assert barriers(lab, ".jp-RenderedHTMLCommon") == []
    lab.theme("Light")


WIDTHS = """\
() => [...document.querySelectorAll(".nbd-view")].map((view) => {
    const rows = [...view.querySelectorAll("tbody .nbd-row")];
    const em = parseFloat(getComputedStyle(view).fontSize);
    return {
        label: Math.min(...rows.map((row) => row.querySelector(".nbd-label").clientWidth / em)),
        height: Math.max(...rows.map((row) => row.getBoundingClientRect().height)),
        over: Math.max(...rows.flatMap((row) => [...row.cells].map(
            (cell) => cell.getBoundingClientRect().right - row.getBoundingClientRect().right))),
    };
})[0]
"""


def test_the_view_can_be_read_at_any_width(lab):
    """From wide to narrow: labels keep their room, a row is a line, nothing sticks out."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(row(output, ALPHA)).to_contain_text("running")
    for width, word, lines in (
        (1180, True, 28),
        (800, False, 50),
        (600, False, 50),
        (440, False, 50),
    ):
        lab.page.set_viewport_size({"width": width, "height": 860})
        # In a narrow view the shape alone tells the state to the eye; the word stays to be read.
        box = (
            row(output, ALPHA)
            .locator(".nbd-word")
            .evaluate("word => getComputedStyle(word).position")
        )
        assert (box == "static") is word
        measured = lab.page.evaluate(WIDTHS)
        assert measured["label"] >= 13.9
        assert measured["height"] <= lines
        assert measured["over"] <= 0.5
        lab.picture(f"wide-{width}", output.locator(".nbd-view"))
    scenario.open_gate(lab.server.root)
    scenario.open_gate(lab.server.root)
    lab.idle()


def test_why_and_what_was_passed_on_are_told_where_one_looks(lab):
    """On hover and on focus a row says why it ran; lines lead from where its inputs came."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    alpha = row(output, ALPHA)
    tip = output.locator(".nbd-tip")
    expect(tip).to_have_text("")
    alpha.hover()
    expect(tip).to_have_text("quote('alpha') — runs for the first time")
    # It covers nothing: it stands below the table.
    table = output.locator(".nbd-scroll").bounding_box()
    assert tip.bounding_box()["y"] >= table["y"] + table["height"]
    lab.picture("hovered")
    row(output, FETCH).focus()
    lab.page.keyboard.press("ArrowDown")
    expect(row(output, REPORT)).to_be_focused()
    expect(output.locator(".nbd-link.nbd-near")).to_have_count(2)
    lab.picture("linked")
    scenario.open_gate(lab.server.root)
    scenario.open_gate(lab.server.root)
    lab.idle()

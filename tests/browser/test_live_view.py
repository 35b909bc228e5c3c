"""The live view on a real screen: JupyterLab in Chromium."""

from __future__ import annotations

import re

import pytest
import scenario
from playwright.sync_api import expect

SETUP = """\
import asyncio
import scenario
from nbdurable.widget import LiveView
"""
BLOCKING = """\
view = LiveView("quotes")
ended = scenario.play(view, scenario.quotes)
view.show()
ended.wait()
view.finish()
"""
AWAITING = BLOCKING.replace("ended.wait()", "await asyncio.to_thread(ended.wait)")
REPLAYED = """\
view = LiveView("quotes")
view.show()
scenario.play(view, scenario.replayed).wait()
view.finish()
"""
LARGE = BLOCKING.replace("quotes", "many")


PRICES, ALPHA, BETA, SELECT, FETCH = 0, 1, 2, 3, 4


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
    expect(output.locator("tbody tr")).to_have_count(9)
    expect(output.locator(".nbd-head")).to_contain_text("1 replayed, 3 running, 1 retrying")
    ticking = alpha.locator("td").nth(2)
    first = ticking.inner_text()
    expect(ticking).not_to_have_text(first)
    lab.picture("running-light")
    lab.theme("Dark")
    lab.picture("running-dark")

    scenario.open_gate(lab.server.root)
    expect(alpha).to_contain_text("★ won")
    expect(alpha).to_contain_text("done")
    select = row(output, SELECT)
    expect(select.locator(".nbd-branch.nbd-won")).to_contain_text("quote('alpha')won")
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
    assert [sorted(output.data) for output in outputs] == [[], ["text/html", "text/plain"]]
    assert outputs[1].data["text/plain"].splitlines() == [
        "quotes: 5 steps, finished",
        "select: quote('alpha') won over quote('beta')",
        "fetch('<b>url</b>') failed",
        "report(fetch('<b>url</b>')) failed",
    ]


def test_a_fast_replay_shows_the_summary_alone(lab):
    """A run that ends at once displays no widget, and the same text as the first."""
    lab.open(SETUP, REPLAYED)
    lab.run_all()
    expect(lab.output(1)).to_have_count(1)
    expect(lab.output(1)).to_contain_text("quote('alpha') won over quote('beta')")
    outputs = lab.saved().cells[1].outputs
    assert [sorted(output.data) for output in outputs] == [["text/html", "text/plain"]]
    assert outputs[0].data["text/plain"].splitlines() == [
        "quotes: 5 steps, finished",
        "select: quote('alpha') won over quote('beta')",
        "fetch('<b>url</b>') failed",
        "report(fetch('<b>url</b>')) failed",
    ]
    lab.picture("replayed")


def test_a_dead_kernel_is_told(lab):
    """After kill -9 the view says that no news come, and what to do."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(row(output, PRICES)).to_contain_text("replayed")
    expect(output.locator(".nbd-silence")).to_be_hidden()
    lab.kill_kernel()
    expect(output.locator(".nbd-silence")).to_contain_text("no news from the kernel")
    expect(output.locator(".nbd-silence")).to_contain_text("run the notebook again to resume")
    lab.page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    expect(row(output, PRICES)).to_be_visible()
    lab.picture("silent")


def test_a_quiet_run_is_not_called_dead(lab):
    """A step that runs for long without an event still sends a sign of life."""
    lab.open(SETUP, BLOCKING)
    lab.run(0)
    lab.run(1, wait=False)
    running = row(lab.output(1), ALPHA)
    expect(running.locator("td").nth(2)).to_have_text(re.compile(r"^[789]\.\d s$"))
    expect(lab.output(1).locator(".nbd-silence")).to_be_hidden()


def test_two_views_and_a_reload(lab):
    """A second view of the output shows the same, and a reloaded page catches up."""
    lab.open(SETUP, AWAITING)
    lab.run(0)
    lab.run(1, wait=False)
    expect(lab.output(1).locator("tbody tr")).to_have_count(9)
    lab.command("notebook:create-output-view")
    views = lab.page.locator(".nbd-view")
    expect(views).to_have_count(2)
    expect(views.nth(1).locator("tbody tr")).to_have_count(9)
    lab.picture("two-views")
    lab.saved()
    lab.show()
    expect(lab.output(1).locator("tbody tr")).to_have_count(9)
    scenario.open_gate(lab.server.root)
    expect(lab.output(1)).to_contain_text("★ won")
    scenario.open_gate(lab.server.root)
    expect(lab.output(1).locator(".nbd-status").first).to_have_text("finished")
    lab.picture("reloaded")


def test_a_large_run_shows_what_moves(lab):
    """Of a thousand rows two hundred are shown, the running one among them."""
    lab.open(SETUP, LARGE)
    lab.run(0)
    lab.run(1, wait=False)
    output = lab.output(1)
    expect(output.locator(".nbd-view tbody tr")).to_have_count(200)
    expect(row(output, 1000)).to_contain_text("running")
    expect(output.locator(".nbd-more")).to_have_text("… 801 more rows")
    scenario.open_gate(lab.server.root)
    lab.idle()
    expect(output.last).to_contain_text("1001 ran")

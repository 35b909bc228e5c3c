"""The quickstart as a person uses it: JupyterLab, a killed kernel, Run All."""

from __future__ import annotations

import nbformat
from playwright.sync_api import expect

QUICKSTART = "notebooks/quickstart.ipynb"
LOAD, SETUP, DURABLE, AFTER = 1, 3, 5, 7  # where the notebook's code cells are


def test_killed_in_jupyterlab_and_run_again(lab, repository):
    """The view is live; the dead kernel is told; Run All replays what had finished."""
    notebook = nbformat.read(repository / QUICKSTART, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    lab.open_notebook(notebook)
    lab.run_all(wait=False)
    output = lab.output(DURABLE)
    live = output.locator(".nbd-view")

    def row(label):
        named = lab.page.locator("code").get_by_text(label, exact=True)
        return live.locator("tr").filter(has=named)

    expect(row("quote('alpha', 0.8)")).to_contain_text("★ won")
    expect(row("quote('gamma', 0.7)")).to_contain_text("done")
    expect(row("quote('beta', 4)")).to_contain_text("running")
    expect(row("quote('delta', 4.5)")).to_contain_text("running")
    lab.picture("in-mid-cell")
    lab.kill_kernel()
    expect(output.locator(".nbd-silence")).to_contain_text("run the notebook again to resume")
    lab.page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    lab.picture("killed")

    lab.run_all(wait=False)
    expect(lab.output(LOAD)).to_contain_text("quotes: 2 of 4 steps saved, died")
    expect(row("quote('alpha', 0.8)")).to_contain_text("replayed")
    expect(row("quote('beta', 4)")).to_contain_text("running")
    lab.picture("resuming", live)
    lab.idle()
    summary = output.filter(has_text="won over")
    expect(summary).to_contain_text("2 replayed, 2 ran")
    expect(summary).to_contain_text("★ quote('alpha', 0.8) won over quote('beta', 4)")
    for label, state in (("alpha", "replayed"), ("gamma", "replayed"), ("beta", "done")):
        rows = summary.get_by_role("row").filter(has_text=f"quote('{label}'")
        expect(rows.last).to_contain_text(state)
    expect(lab.output(AFTER)).to_contain_text("delta   9397")
    lab.picture("resumed")
    calls = (lab.server.root / "calls.log").read_text().split()
    assert sorted(calls) == ["alpha", "beta", "beta", "delta", "delta", "gamma"]

    lab.run_all(wait=False)
    lab.idle()
    expect(summary).to_contain_text("4 replayed")
    expect(summary).to_contain_text("--new to recompute")
    assert (lab.server.root / "calls.log").read_text().split() == calls
    lab.picture("replayed")

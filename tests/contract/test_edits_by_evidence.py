"""CONTRACT section 3, Evidence: every row of the table of edits that only a body's run shows.

From Python 3.12 on. Each row is run in processes with other hash seeds than the one that
filled the store. Every fifth row is looked at; with ``NBDURABLE_EDITS=all``, every one.
"""

import pytest
from fingerprint_kit.editing import chosen
from fingerprint_kit.rows import evidence

pytestmark = pytest.mark.monitoring

NOTICED = chosen(evidence.NOTICED)
HARMLESS = chosen(evidence.HARMLESS)


@pytest.mark.parametrize("row", NOTICED, ids=lambda row: row.name)
def test_an_edit_that_matters_is_noticed(edits, row):
    """The step runs again, and gives what a fresh store gives."""
    assert edits.story(row).noticed() == ""


@pytest.mark.parametrize("row", HARMLESS, ids=lambda row: row.name)
def test_an_edit_that_cannot_matter_runs_nothing(edits, row):
    """Everything is replayed."""
    assert edits.story(row).harmless() == ""

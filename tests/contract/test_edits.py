"""CONTRACT section 3, edits of code: what matters runs again, nothing else does.

Each row is run, run unchanged, edited, run again, and run on a fresh store, each time in
a new process, with another hash seed than the one that filled the store. Every eighth
row is looked at; with ``NBDURABLE_EDITS=all``, every one.
"""

import pytest
from fingerprint_kit.editing import chosen
from fingerprint_kit.rows import classes, functions, modules

NOTICED = chosen([*classes.NOTICED, *functions.NOTICED, *modules.NOTICED])
HARMLESS = chosen([*classes.HARMLESS, *functions.HARMLESS, *modules.HARMLESS])


@pytest.mark.parametrize("row", NOTICED, ids=lambda row: row.name)
def test_an_edit_that_matters_is_noticed(edits, row):
    """The step runs again, and gives what a fresh store gives."""
    assert edits.story(row).noticed() == ""


@pytest.mark.parametrize("row", HARMLESS, ids=lambda row: row.name)
def test_an_edit_that_cannot_matter_runs_nothing(edits, row):
    """Everything is replayed."""
    assert edits.story(row).harmless() == ""

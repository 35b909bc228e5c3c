"""No edit of code that a step's body executed is replayed in silence.

Functions of three real projects, copied into a project's folder; single edits in lines
that the bodies executed. ``NBDURABLE_MUTANTS=1000`` tries more of them.
"""

import os

import pytest
from fingerprint_kit.projects import PROJECTS, Hunt

MUTANTS = int(os.environ.get("NBDURABLE_MUTANTS", "60"))


@pytest.mark.timeout(60 + 3 * MUTANTS)
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.package)
def test_no_mutant_is_replayed_in_silence(project, tmp_path, signing_key):
    """Each step that executed an edited line runs again, or it is said that it did not."""
    hunt = Hunt(project, tmp_path)
    try:
        result = hunt.run(-(-MUTANTS // len(PROJECTS)))
    finally:
        hunt.close()
    print(dict(result.tried))
    assert [str(one) for one in result.silent] == []

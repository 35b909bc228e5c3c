"""No edit of code that a step's body executed is replayed in silence.

Functions of real projects, copied into a project's folder; single edits in lines that
the bodies executed. ``NBDURABLE_MUTANTS=1000`` tries more of them.
"""

import os

import pytest
from fingerprint_kit.editing import STAGE
from fingerprint_kit.projects import BY_NAME, PROJECTS, Hunt
from support.always_replay import Zygote

MUTANTS = int(os.environ.get("NBDURABLE_MUTANTS", "8"))


@pytest.fixture(scope="module")
def stages(signing_key):
    """Yield two processes with different hash seeds, which fork for each pass."""
    pair = [Zygote(seed, STAGE) for seed in (1, 2)]
    yield pair
    for zygote in pair:
        zygote.close()


@pytest.mark.timeout(240 + 5 * MUTANTS)
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.package)
def test_no_mutant_is_replayed_in_silence(stages, project, tmp_path):
    """Each step that executed an edited line runs again, or it is said that it did not."""
    result = Hunt(project, tmp_path, stages).run(-(-MUTANTS // len(PROJECTS)))
    print(dict(result.tried))
    assert [str(one) for one in result.silent] == []


@pytest.mark.monitoring
@pytest.mark.timeout(240 + 5 * MUTANTS)
@pytest.mark.parametrize("project", BY_NAME, ids=lambda project: project.package)
def test_no_mutant_that_only_a_made_up_name_leads_to_is_replayed_in_silence(
    stages, project, tmp_path
):
    """As above, where all that a step uses is looked up when it runs; from Python 3.12 on."""
    result = Hunt(project, tmp_path, stages).run(-(-MUTANTS // len(BY_NAME)))
    print(dict(result.tried))
    assert [str(one) for one in result.silent] == []

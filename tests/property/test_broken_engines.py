"""Engines broken on purpose: what runs the random programs catches each.

Whatever would let `test_random_programs` pass over a defect lets a mutant pass, too. Every
eighth is tried in each run; with ``NBDURABLE_ENGINES=all``, every one.
"""

import os

import pytest
from hypothesis import Phase, assume, given, seed, settings
from programs import drawing, mutants, trial
from test_random_programs import CALM

MOST_PROGRAMS = 200
PATIENCE_SECONDS = 3
ENGINES = [*mutants.MUTANTS][:: 1 if os.environ.get("NBDURABLE_ENGINES") == "all" else 8]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", ENGINES, ids=lambda mutant: mutant.__name__)
def test_is_caught(mutant, theatre, folders):
    """One of a bounded number of random programs tells the mutant from the oracle.

    Of those in which what it breaks comes up at all.
    """
    caught, passed, comes_up = [], [], mutants.MUTANTS[mutant]

    # What is found is told here and not raised: nothing need be reduced, or found again.
    @seed(3)  # caught under 1 and 2, too, later
    @settings(CALM, max_examples=MOST_PROGRAMS, phases=[Phase.generate])
    @given(drawing.cases())
    def run(case):
        if caught:
            return
        broken = trial.Trial(
            case, theatre, folders(), mutant=mutant.__name__, patience=PATIENCE_SECONDS
        )
        assume(comes_up(broken.foreseen()))
        try:
            broken.run()
        except trial.Wrong as wrong:
            caught.append(str(wrong))
        else:
            passed.append(case)

    run()
    assert caught, f"{mutant.__doc__} None of {MOST_PROGRAMS} programs told"
    print(f"after {len(passed)}: {caught[0].splitlines()[0]}")

"""What the contract's tests share: the probe, for runs in the test's own process; edits."""

import importlib

import pytest


@pytest.fixture
def probe(tmp_path):
    """Return what bodies count and order themselves with; `threads` holds those they ran in."""
    effects = tmp_path / "effects"
    effects.touch()
    # Not at the top: what it needs is found by the conftest above this one.
    made = importlib.import_module("support.zygote").make_probe(str(effects), {})
    made.threads = []
    return made


@pytest.fixture(scope="module")
def edits(request, tmp_path_factory, signing_key):
    """Yield the stories of the rows that this run of tests has chosen from a module."""
    editing = importlib.import_module("fingerprint_kit.editing")
    items = [one for one in request.session.items if one.module is request.module]
    rows = [item.callspec.params["row"] for item in items]
    library = editing.Library(rows, lambda: tmp_path_factory.mktemp("edits"))
    yield library
    library.close()

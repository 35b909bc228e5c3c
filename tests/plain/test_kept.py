"""Groups of names, saved in one process and restored in another."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from crossing import begin, end, present, run
from hazards import HAZARDS, LIVE
from test_groups import Node, grown

from nbdurable.codec import values
from nbdurable.errors import DecodeError
from nbdurable.plain.groups import mark, partition
from nbdurable.plain.kept import NotKept, decode, encode, fault

HERE = Path(__file__).parent


def crossed(what, folder, seed):
    """Run one direction in a process of its own; return what went wrong by hazard."""
    done = subprocess.run(
        [sys.executable, HERE / "crossing.py", what, folder],
        env={**os.environ, "PYTHONHASHSEED": seed, "MPLCONFIGDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """Save all hazards in one process, restore them in another; return what went wrong in each."""
    folder = tmp_path_factory.mktemp("crossing")
    return {"save": crossed("save", folder, "1"), "load": crossed("load", folder, "2")}


@pytest.mark.parametrize("name", HAZARDS)
def test_a_group_comes_back_with_its_links(wrong, name):
    """Saved and restored in a process with another hash seed, it has the same mark and links."""
    if not present(HAZARDS[name].library):
        pytest.skip(f"{HAZARDS[name].library} is not installed")
    assert name not in wrong["save"], wrong["save"][name]
    assert name not in wrong["load"], wrong["load"][name]


@pytest.mark.parametrize("name", LIVE)
def test_what_is_live_is_refused_by_its_path(name):
    """The reason names the path and the kind of value."""
    cell, begins = LIVE[name]
    space = {"__name__": "__main__"}
    run(cell, space, name)
    with pytest.raises(NotKept) as refused:
        encode(space, {begins.split("`")[1].partition(".")[0]})
    assert str(refused.value).startswith(f"{begins} can't be kept: ")
    assert "the cell that makes it runs again" in str(refused.value)
    end(space)


def test_the_path_leads_into_containers():
    """What can't be kept deep inside is found."""
    space = {"__name__": "__main__"}
    run("import threading\nd = {'k': [1, {'f': threading.Lock()}]}", space, "deep")
    with pytest.raises(NotKept, match=r"`d\['k'\]\[1\]\['f'\]` \(_thread.lock\) can't be kept"):
        encode(space, {"d"})


REFUSED = {
    "views of strings of any length": (
        "s = np.array(['a', 'b' * 100], dtype=np.dtypes.StringDType()); t = s[1:]",
        "`s`, `t` are views of one array of objects and other things; keep copies",
    ),
    "views of fields with objects": (
        "s = np.array([(1, [2])], dtype=[('x', int), ('o', object)]); t = s['x']",
        "`s`, `t` are views of one array of objects and other things; keep copies",
    ),
    "strided memoryview": (
        "s = bytearray(b'abcdef'); t = memoryview(s)[::2]",
        "`s`, `t` can't be kept: a strided memoryview shares its memory; "
        "keep the array that it is of",
    ),
    "memory-mapped file": (
        "s = np.lib.format.open_memmap(FOLDER + '/a.npy', 'w+', 'f8', (3,)); t = s[1:]",
        "`s` (numpy.memmap) can't be kept: a memory-mapped file can't be kept; "
        "the cell that makes it runs again",
    ),
    "Arrow over an array": (
        "import pyarrow as pa\ns = np.arange(100.0); t = pa.array(s)",
        "`s`, `t` share memory that a pyarrow.lib.DoubleArray lies in; keep a copy instead",
    ),
}
"""Links that can't be kept: a cell, and what is said."""


@pytest.mark.parametrize("name", REFUSED)
def test_links_that_cannot_be_kept_are_refused(tmp_path, name):
    """Nothing comes back without a link that it had."""
    numpy = pytest.importorskip("numpy")
    cell, said = REFUSED[name]
    space = {"__name__": "__main__", "np": numpy, "FOLDER": str(tmp_path)}
    run(cell, space, name)
    assert partition(space, ["s", "t"]) == [{"s", "t"}]
    with pytest.raises(NotKept) as refused:
        encode(space, {"s", "t"})
    assert str(refused.value) == said


def test_an_array_in_the_memory_of_an_object_is_refused():
    """A tree of scikit-learn shows its own memory: written to, the tree is another."""
    pytest.importorskip("sklearn")
    space = {"__name__": "__main__"}
    run(
        "import numpy as np\nfrom sklearn.tree import DecisionTreeRegressor\n"
        "m = DecisionTreeRegressor().fit(np.eye(3), [1.0, 2.0, 3.0]); v = m.tree_.value",
        space,
        "tree",
    )
    assert partition(space, ["m", "v"]) == [{"m", "v"}]
    with pytest.raises(NotKept, match="`v` is an array in the memory of an object"):
        encode(space, {"m", "v"})
    assert fault(encode(space, {"m"}), space) == ""
    space["v"] = space["v"].copy()
    assert partition(space, ["m", "v"]) == [{"m"}, {"v"}]


def test_fault_tells_a_group_that_comes_back_otherwise():
    """A value whose own reduction loses something is not trusted."""
    space = {"__name__": "__main__"}
    run(
        "class Forgetful:\n    def __init__(self): self.v = [1]\n"
        "    def __getstate__(self): return {'v': [2]}\n"
        "    def __reduce__(self): return (Forgetful, ())\n"
        "class Sloppy:\n    def __init__(self, v=0): self.v = v\n"
        "    def __reduce_ex__(self, _): return (Sloppy, (number(),))\n"
        "def number(seen=[]):\n    seen.append(1)\n    return len(seen)\n"
        "s = Sloppy(); l = [1]; m = l",
        space,
        "fault",
    )
    assert fault(encode(space, {"l", "m"}), space) == ""
    assert fault(encode(space, {"s"}), space) != ""


def test_decoding_beside_the_live_values_shares_nothing_with_them():
    """Without a store in between, buffers are copied."""
    space = {"__name__": "__main__"}
    run("a = bytearray(600_000); b = memoryview(a)[1:]", space, "apart")
    back = decode(encode(space, {"a", "b"}), space)
    back["a"][1] = 7
    assert back["b"][0] == 7
    assert space["a"][1] == 0


def test_a_definition_that_is_gone_is_named():
    """Restoring says which cell to run; nothing half-made is given."""
    space = begin("gone", HAZARDS["dictionary shared by two instances"])
    run("p = P({})", space, "gone")
    kept = values.decode(values.encode(encode(space, {"p"})).data)
    with pytest.raises(DecodeError, match="class `P` is not defined in this notebook"):
        decode(kept, {"__name__": "__main__"})


def test_instances_come_back_as_the_live_class():
    """A class that was executed again is the class of what is restored."""
    hazard = HAZARDS["dictionary shared by two instances"]
    space = begin("live", hazard)
    run("p = P({})", space, "live")
    kept = values.decode(values.encode(encode(space, {"p"})).data)
    again = begin("live", hazard)
    assert type(decode(kept, again)["p"]) is again["P"]
    assert again["P"] is not space["P"]


def test_what_a_class_holds_is_saved_once():
    """Not in its definition, too."""
    space = begin("state", HAZARDS["registry on a class"])
    space["R"].registry.append(bytes(100_000))
    assert 100_000 < encode(space, {"R"}).size < 110_000


def test_large_buffers_go_out_of_band_and_once(tmp_path):
    """An array that the store holds is not written again; the pickle beside it is small."""
    numpy = pytest.importorskip("numpy")
    from nbdurable.store.objects import Objects  # noqa: PLC0415 - with numpy only

    objects = Objects(tmp_path)
    space = {"__name__": "__main__", "a": numpy.arange(100_000.0), "n": [1]}
    space["view"] = space["a"][10:]
    first = values.encode(encode(space, {"a", "n", "view"}), objects)
    assert len(first.data) < 2_000
    space["n"].append(2)
    before = {one.name for one in tmp_path.iterdir()}
    second = values.encode(encode(space, {"a", "n", "view"}), objects)
    assert {one.name for one in tmp_path.iterdir()} == before
    assert second.pieces == first.pieces
    back = decode(values.decode(second.data, second.pieces, objects), space)
    back["a"][10] = -1
    assert back["view"][0] == -1
    assert back["n"] == [1, 2]


def drawn_as_text(value, seen):
    """Write a value out with the identity of each object in it, by the order of meeting."""
    kind = type(value)
    if kind in {int, str, bytes, type(None)}:
        return repr(value)
    if id(value) in seen:
        return f"<{seen[id(value)]}>"
    if kind is not tuple:
        seen[id(value)] = len(seen)
    if kind in {list, tuple}:
        return f"{kind.__name__}({','.join(drawn_as_text(one, seen) for one in value)})"
    if kind is dict:
        inner = [f"{key}:{drawn_as_text(one, seen)}" for key, one in value.items()]
        return f"dict({','.join(inner)})"
    if kind is bytearray:
        return repr(value)
    if kind.__name__ == "ndarray":
        first = value.__array_interface__["data"][0]
        shared = seen.setdefault(("end", first + value.nbytes), len(seen))  # they end as one
        return f"array({value.tolist()},{shared})"
    if kind is memoryview:
        return f"view({value.tobytes()},{drawn_as_text(value.obj, seen)})"
    return f"{kind.__name__}({drawn_as_text(vars(value), seen)})"


@pytest.mark.parametrize("seed", range(100))
def test_random_graphs_come_back_isomorphic(seed):
    """Content and identity of all that a group holds, written out by other code."""
    draw = random.Random(seed)
    space = {"__name__": "__main__", "Node": Node, **grown(draw, draw.randrange(3, 40))}
    names = [name for name in space if name not in {"__name__", "Node"}]
    for group in partition(space, names):
        before = mark(space, group)
        kept = encode(space, group)
        assert fault(kept, space) == ""
        back = decode(values.decode(values.encode(kept).data), space)
        assert mark({**space, **back}, group) == before == mark(space, group)
        old, new = {}, {}
        for name in sorted(group):
            assert drawn_as_text(back[name], new) == drawn_as_text(space[name], old)

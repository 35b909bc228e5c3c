"""Which names share what can change, and the digests of groups."""

import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from crossing import end, present, run
from hazards import LIVE

from nbdurable.plain.groups import Known, NotComparable, mark, partition, reach

numpy = importlib.import_module("numpy") if present("numpy") else None


def space_of(cell, definitions=""):
    """Return a notebook's namespace after a cell."""
    space = {"__name__": "__main__"}
    run(definitions, space, "definitions")
    run(cell, space, "cell")
    return space


def test_reach_is_the_groups_of_the_names():
    """All that a change can be seen through, and nothing else."""
    space = space_of("x = [1]; a = [x]; b = {'k': x}; t = (x, 1); c = [1]; n = m = 5; s = r = 'x'")
    assert reach(space, ["a"]) == {"a", "b", "t", "x"}
    assert reach(space, ["n", "c"]) == {"n", "c"}
    assert reach(space, ["s", "absent"]) == {"s", "absent"}


def test_the_shell_links_nothing():
    """`Out` and `_` hold what was shown, and are not the user's."""
    space = space_of("a = [1]; b = [2]; Out = {1: a, 2: b}; _ = a; _1 = a; _2 = b; _oh = Out")
    assert reach(space, ["a"]) == {"a"}


def test_a_method_may_change_its_class():
    """An instance reaches its class if that keeps state, and what the state holds."""
    space = space_of(
        "one = A(); two = A(); bare = B(); fs = [f]; seen = A.seen",
        "class A:\n    seen = []\nclass B:\n    def m(self): pass\n"
        "def f(x, into=[]): into.append(x)\nclass C(A): pass",
    )
    assert reach(space, ["one"]) == {"one", "A", "seen"}
    assert reach(space, ["bare"]) == {"bare"}
    assert reach(space, ["fs"]) == {"fs", "f"}
    run("sub = C()", space, "sub")
    assert reach(space, ["sub"]) == {"sub", "A", "seen"}


def test_definitions_and_modules_link_nothing():
    """Two lists that hold one function, class or module are two groups."""
    space = space_of(
        "import math, json\na = [f, A, math, len, json.dumps]; b = [f, A, math, len, json.dumps]",
        "def f(): pass\nclass A: pass",
    )
    assert partition(space, ["a", "b"]) == [{"a"}, {"b"}]
    run("A.n = 0; alias = A; f.n = 0; other = f", space, "alias")
    assert set(partition(space, ["A", "a", "alias", "f", "other"])) == {
        frozenset({"A", "alias"}), frozenset({"a"}), frozenset({"f", "other"}),
    }  # fmt: skip


def test_generators_lead_to_what_they_run_over():
    """A generator that is run on changes what it holds."""
    space = space_of("l = [1, 2]; g = (x for x in l); it = iter(l)")
    assert reach(space, ["l"]) == {"g", "it", "l"}


def test_a_mark_sees_content_and_links():
    """Each of these differs from each other one."""
    cells = [
        "a = [[1], [1]]; b = [1]",
        "x = [1]; a = [x, x]; b = [1]",
        "x = [1]; a = [x, [1]]; b = x",
        "x = [1]; a = [[1], x]; b = x",
        "x = [1]; a = [x, x]; b = x",
        "a = [[1], [2]]; b = [1]",
        "a = [(1,), [1]]; b = [1]",
        "a = {'x': 1, 'y': 2}; b = [1]",
        "a = {'y': 2, 'x': 1}; b = [1]",
        "a = bytearray(b'abc'); b = memoryview(a)[1:]",
        "a = bytearray(b'abc'); b = memoryview(bytearray(a))[1:]",
    ]
    marks = [mark(space_of(cell), ["a", "b"]) for cell in cells]
    assert len(set(marks)) == len(cells)
    assert marks == [mark(space_of(cell), ["a", "b"]) for cell in cells]
    assert len({one.hex() for one in marks}) == len(cells)


def test_absent_names_count():
    """A name that is gone is another content than None."""
    space = space_of("a = [1]; b = None")
    assert mark(space, ["a", "b"]) != mark(space_of("a = [1]"), ["a", "b"])


def test_state_of_definitions_belongs_to_their_names():
    """A counter on a class changes the mark of the class, and not that of an instance."""
    definitions = (
        "class A:\n    n = 0\n    def up(self): A.n += 1\ndef f(x, into=[]): into.append(x)"
    )
    space = space_of("one = A(); held = [f]", definitions)
    before = {name: mark(space, [name]) for name in ("A", "one", "f", "held")}
    run("one.up(); f(1)", space, "up")
    after = {name: mark(space, [name]) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"A", "f"}


def test_captured_variables_count():
    """A closure is what its cells hold, and not what the globals hold that it reads."""
    space = space_of(
        "up = counter()", "base = 1\ndef counter():\n    n = 0\n    def up():\n"
        "        nonlocal n\n        n += base\n        return n\n    return up",
    )  # fmt: skip
    first = mark(space, ["up"])
    space["base"] = 2
    assert mark(space, ["up"]) == first
    run("up()", space, "up")
    assert mark(space, ["up"]) != first


@pytest.mark.parametrize("name", [name for name in LIVE if name != "itertools"])
def test_what_is_live_is_not_compared(name):
    """The reason is the path and the kind of value."""
    cell, begins = LIVE[name]
    space = space_of(cell)
    with pytest.raises(NotComparable) as refused:
        mark(space, {begins.split("`")[1].partition(".")[0]})
    assert str(refused.value) == begins
    end(space)


def test_odd_objects_are_looked_at_without_their_help():
    """What lies about its class, compares by raising or hides its attributes stops nothing."""
    space = space_of(
        "l = [1]; a = Raises(l); b = [a, a]; c = Hidden(); d = Other()",
        "class Raises:\n    def __init__(self, v): self.v = v\n"
        "    def __eq__(self, other): raise RuntimeError\n    __hash__ = __eq__\n"
        "    def __len__(self): raise RuntimeError\n"
        "    def __getattr__(self, name): raise RuntimeError\n"
        "class Hidden:\n    __dict__ = property(lambda self: 1 / 0)\n"
        "class Other:\n    __class__ = property(lambda self: int)",
    )
    assert set(partition(space, "abcdl")) == {frozenset("abl"), frozenset("c"), frozenset("d")}
    first = mark(space, "abl")
    space["l"].append(2)
    assert mark(space, "abl") != first
    with pytest.raises(NotComparable, match=r"`c` \(__main__.Hidden\)"):
        mark(space, "c")


def test_deep_values_are_refused():
    """What is nested too deeply for a digest has none; its groups are known."""
    space = space_of("l = x = []\nfor n in range(5000):\n    x.append([])\n    x = x[0]")
    assert partition(space, ["l", "x"]) == [{"l", "x"}]
    with pytest.raises(NotComparable, match="nested too deeply"):
        mark(space, ["l"])


def test_marks_are_equal_in_every_process():
    """Whatever the hash seed: sets of instances and strings, classes, frames of strings."""
    text = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from crossing import run\nfrom nbdurable.plain.groups import mark\n"
        "space = {'__name__': '__main__'}\n"
        "run('''class N:\n    def __init__(self, v): self.v = v\n'''\n"
        "    '''s = {N(i) for i in range(20)}; t = {'a', 'b'}; l = [s, t, {1: s}]''', space, 'c')\n"
        "print(mark(space, ['s', 't', 'l', 'N']).hex())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", text, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_a_module_of_the_project_keeps_state(tmp_path, monkeypatch):
    """What a cell sets in a module of the user's is seen; an installed module is not looked at."""
    (tmp_path / "own_settings.py").write_text("RATE = 1\nnames = []\ndef rate(): return RATE\n")
    monkeypatch.syspath_prepend(tmp_path)
    space = space_of("import own_settings, json; names = own_settings.names; other = [1]")
    assert reach(space, ["names"]) == {"names", "own_settings"}
    before = mark(space, ["names", "own_settings"]), mark(space, ["json"])
    run("own_settings.RATE = 2; json.spare = 1", space, "set")
    after = mark(space, ["names", "own_settings"]), mark(space, ["json"])
    del space["json"].spare
    assert (before[0] != after[0], before[1] != after[1]) == (True, False)
    assert mark(space, ["other"]) != mark(space, ["own_settings"])


def test_a_module_that_was_made_is_not_compared():
    """Nobody knows what is in it."""
    space = space_of("import types; m = types.ModuleType('m'); m.v = [1]; l = [m]")
    with pytest.raises(NotComparable, match="a module that was not imported"):
        mark(space, ["l"])


def test_what_is_known_is_looked_into_again_after_it_was_reached():
    """New links among names that were reached, bound anew or deleted are found."""
    known = Known()
    space = space_of("x = [1]; a = [x]; b = [2]; c = [b]; d = [3]")
    assert reach(space, ["a"], known) == {"a", "x"}
    assert reach(space, ["b"], known) == {"b", "c"}
    run("b.append(x)", space, "link")  # a cell that reads b and x
    assert reach(space, ["b", "x"], known) == {"a", "b", "c", "x"}
    run("d = c", space, "bind")  # d is not read
    assert reach(space, ["d"], known) == {"a", "b", "c", "d", "x"}
    run("b.clear(); del a, x", space, "delete")
    assert reach(space, ["b"], known) == {"b", "c", "d"}
    assert reach({**space}, ["c"], known) == {"b", "c", "d"}, "another namespace"


def test_what_is_known_is_not_looked_into():
    """A large value that no cell reaches costs nothing."""
    known, space = Known(), space_of("big = [{'k': n} for n in range(50)]; a = [1]")
    reach(space, ["a"], known)
    before = known._links.count
    reach(space, ["a"], known)
    assert known._links.count == before + 1


# --- random graphs ------------------------------------------------------------------------


class Node:
    """An instance with attributes."""


def grown(draw, size):
    """Return values by name, made at random, with links among them."""
    made = []
    for at in range(size):
        some = [draw.choice(made) for _ in range(draw.randrange(3))] if made else []
        kind = draw.randrange(8)
        if kind == 0:
            one = [at, *some]
        elif kind == 1:
            one = {f"k{n}": value for n, value in enumerate([at, *some])}
        elif kind == 2:
            one = (at, *some)
        elif kind == 3:
            one = Node()
            one.at, one.held = at, some
        elif kind == 4:
            one = bytearray(draw.randbytes(8))
        elif kind == 5 and numpy is not None:
            one = numpy.frombuffer(draw.randbytes(8 * draw.randrange(2, 5)), "i8").copy()
        elif kind == 6 and numpy is not None:
            arrays = [x for x in made if type(x) is numpy.ndarray] or [numpy.arange(3)]
            one = draw.choice(arrays)[draw.randrange(2) :]  # the last element is in each view
            one = one if one.size else arrays[0]
        else:
            one = memoryview(draw.choice([x for x in made if type(x) is bytearray] or [b"x"]))
        made.append(one)
    lists = [one for one in made if type(one) is list]
    if lists and draw.randrange(2):
        lists[0].append(draw.choice(made))  # perhaps a cycle
    names = draw.sample(range(size), draw.randrange(2, min(size, 8)))
    return {f"n{at}": made[at] for at in names}


def mutable_in(value, seen):
    """Yield what can be changed in a value."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if type(value) in {list, dict, Node, bytearray}:
        yield value
    if numpy is not None and type(value) is numpy.ndarray:
        yield value if value.base is None else value.base
    inner = {list: list, tuple: list, dict: lambda v: list(v.values())}.get(type(value))
    for one in inner(value) if inner else [value.held] if type(value) is Node else ():
        yield from mutable_in(one, seen)
    if type(value) is memoryview and type(value.obj) is bytearray:
        yield from mutable_in(value.obj, seen)


def change(one):
    """Change one value in place."""
    if type(one) is list:
        one.append("new")
    elif type(one) is dict:
        one["new"] = 1
    elif type(one) is Node:
        one.at = "new"
    else:
        one[-1] ^= 255


@pytest.mark.parametrize("seed", range(150))
def test_a_change_shows_in_its_own_groups_only(seed):
    """A change at random moves the marks of exactly those groups that it can be seen in."""
    draw = random.Random(seed)
    space = {"__name__": "__main__", **grown(draw, draw.randrange(3, 25))}
    names = [name for name in space if name != "__name__"]
    groups = partition(space, names)
    assert sorted(name for group in groups for name in group) == sorted(names)
    reachable = {name: {id(one) for one in mutable_in(space[name], set())} for name in names}
    for group in groups:
        inside = set().union(*(reachable[name] for name in group))
        others = set().union(set(), *(reachable[name] for name in names if name not in group))
        assert not inside & others, "two groups share something"
    known, steps = Known(), [draw.choice(names) for _ in range(5)]
    whole = {name: group for group in groups for name in group}
    assert [reach(space, [n], known) for n in steps] == [whole[n] for n in steps]
    before = [mark(space, group) for group in groups]
    all_of_it = [one for name in names for one in mutable_in(space[name], set())]
    if not all_of_it:
        return
    victim = draw.choice(all_of_it)
    touched = [any(id(victim) in reachable[name] for name in group) for group in groups]
    change(victim)
    after = [mark(space, group) for group in groups]
    assert [one != other for one, other in zip(before, after, strict=True)] == touched
    reach(
        space,
        [name for group, is_so in zip(groups, touched, strict=True) for name in group if is_so],
        known,
    )
    assert [reach(space, [n], known) for n in names] == [reach(space, [n]) for n in names]

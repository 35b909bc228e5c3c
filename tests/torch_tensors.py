"""Tensors of torch: back as they were, mapped from files that never change.

Not collected by default, for torch takes some gigabytes::

    pip install -e '.[test,torch]' && pytest tests/torch_tensors.py
"""

import warnings
from pathlib import Path

import pytest
import torch

from nbdurable import go, step, workflow
from nbdurable.api import open_stores
from nbdurable.codec.values import LARGE

MANY = LARGE  # elements: a large buffer in each type


@pytest.fixture
def store(tmp_path):
    """Yield the path of a store; leave none open."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


def files(store):
    """Return the object files of a store, and what is in them."""
    folder = Path(f"{store}.objects")
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def executed(store, make, made):
    """Return what a step makes, or what is saved of it; what it makes goes into `made`."""

    def body():
        made.append(make())
        return made[-1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with workflow("w", store=store):
            value = go(body).result()
    open_stores.close_stores()
    return value


def twice(store, make):
    """Save what a step makes, and give it back from the store, in another execution."""
    made = []
    executed(store, make, made)
    value = executed(store, make, made)
    assert len(made) == 1
    return made[0], value


def same(one, other):
    """Compare tensors by all that there is to them."""
    assert type(one) is type(other)
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.requires_grad == other.requires_grad
    assert torch.equal(one.detach().contiguous(), other.detach().contiguous())


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
WHOLE = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLE], ids=str)
def test_every_type(store, dtype):
    """Each element type comes back bit for bit, and lies in a file of its own size."""
    made, back = twice(store, lambda: torch.arange(MANY).remainder(7).to(dtype))
    same(made, back)
    (content,) = files(store).values()
    assert len(content) < made.nbytes + 200


SHAPES = {
    "transposed": lambda: torch.rand(600, 700).T,
    "permuted": lambda: torch.rand(60, 70, 80).permute(2, 0, 1),
    "channels last": lambda: torch.rand(4, 3, 200, 200).to(memory_format=torch.channels_last),
    "a slice": lambda: torch.rand(MANY)[10 : MANY - 10],
    "with gaps": lambda: torch.rand(MANY * 2)[::2],
    "one row": lambda: torch.rand(1, MANY, 1),
    "a small part": lambda: torch.rand(MANY)[5:9],
    "expanded": lambda: torch.rand(1).expand(MANY),
    "empty": lambda: torch.rand(MANY)[:0],
    "a number": lambda: torch.tensor(7.5),
    "with gradient": lambda: torch.rand(MANY, requires_grad=True),
    "computed with gradient": lambda: torch.rand(MANY, requires_grad=True).detach() * 2,
    "conjugated": lambda: torch.rand(MANY, dtype=torch.complex64).conj(),
    "parameter": lambda: torch.nn.Parameter(torch.rand(MANY)),
}


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_every_layout(store, make):
    """Views, gaps, gradients: equal, and laid out as before where that is one piece."""
    made, back = twice(store, make)
    same(made, back)
    if made.is_contiguous() or made.numel() == made.untyped_storage().nbytes() // made.itemsize:
        assert made.stride() == back.stride()


def test_a_small_part_does_not_bring_the_whole(store):
    """Of a large tensor's four elements four are saved, not its storage."""
    twice(store, lambda: torch.rand(MANY)[5:9])
    assert files(store) == {}


def test_sparse_and_attributes_are_left_to_torch(store):
    """What has more to it than elements comes back by torch's own way."""
    made, back = twice(store, lambda: torch.eye(500).to_sparse())
    assert torch.equal(made.to_dense(), back.to_dense())

    def named():
        tensor = torch.rand(MANY)
        tensor.unit = "metre"
        return tensor

    made, back = twice(store, named)
    same(made, back)
    assert back.unit == "metre"


def test_nested_are_left_to_torch(store):
    """Tensors that have no strides come back by torch's own way."""
    parts = [torch.rand(MANY), torch.rand(MANY // 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, back = twice(store, lambda: torch.nested.nested_tensor(parts))
        for one, other in zip(parts, back.unbind(), strict=True):
            same(one, other)


def test_writable_and_the_file_stays(store):
    """What is restored can be changed in place; the next replay has what was saved."""
    make = lambda: torch.ones(MANY)  # noqa: E731
    made, back = twice(store, make)
    saved = files(store)
    back += 1
    assert float(back.sum()) == 2 * MANY
    assert files(store) == saved
    same(made, executed(store, make, []))


def test_a_model_and_its_state(store):
    """A module's parameters are mapped one by one; it computes what it did."""
    made, back = twice(store, lambda: torch.nn.Sequential(torch.nn.Linear(600, 600)))
    given = torch.rand(3, 600)
    assert torch.equal(made(given), back(given))
    assert max(len(content) for content in files(store).values()) < 600 * 600 * 4 + 1_000
    made, back = twice(store, lambda: torch.nn.Linear(600, 600).state_dict())
    for name, tensor in made.items():
        same(tensor, back[name])


def test_a_tensor_as_an_argument(store):
    """The same elements are the same call, others are another."""
    ran = []

    @step
    def total(tensor):
        ran.append(1)
        return float(tensor.sum())

    for value in (1, 1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with workflow("w", store=store):
                assert total(torch.full((MANY,), float(value))) == value * MANY
        open_stores.close_stores()
    assert len(ran) == 2

"""Labels: short, one line, no secrets, and no code of a user's class runs for one."""

import datetime as dt
import decimal
import enum
import functools
import unittest.mock
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pydantic
import pytest

from nbdurable import go, step, workflow
from nbdurable.labels import described, label_of, printable


def shown(*arguments, parameters=(), **keywords):
    """Return what a label shows between its parentheses."""
    label = label_of("f", arguments, keywords, parameters)
    assert label.startswith("f(")
    assert label.endswith(")")
    assert label.isprintable()
    return label[2:-1]


class Evil:
    """Every way to look at an instance runs this class's code, and fails."""

    def __getattribute__(self, name):
        raise AssertionError(f"{name} was asked for")

    def _refuse(self, *_):
        raise AssertionError("code of a user's class ran")

    __repr__ = __str__ = __format__ = __bool__ = __len__ = __iter__ = __eq__ = _refuse
    __call__ = __getitem__ = __contains__ = __hash__ = __index__ = _refuse


class EvilMeta(type):
    """Its classes run code when they are asked for their names."""

    @property
    def __name__(cls):
        raise AssertionError("the name was asked for")

    def __repr__(cls):
        raise AssertionError("the class was shown")


class EvilClass(metaclass=EvilMeta):
    """A class of that kind."""


def plain(number):
    """A function."""
    return number


class Color(enum.Enum):
    """A choice."""

    RED = 1


@dataclass
class Config:
    """A record."""

    lr: object
    name: object
    api_key: str | None = None

    def __post_init__(self):
        if self.api_key is None:
            del self.__dict__["api_key"]

    def __repr__(self):
        raise AssertionError("the repr was asked for")


class Pair(NamedTuple):
    """A named tuple."""

    left: int
    right: str


class Answer(pydantic.BaseModel):
    """A model."""

    text: str
    score: float


class Zone(dt.tzinfo):
    """A zone with code of its own."""

    def utcoffset(self, _):
        """Fail."""
        raise AssertionError("the zone was asked for")


_MIDDLE = "…/long/very/long/very/long/01/orders.parquet"


# --- what is shown -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"),
        (-2.5, "-2.5"),
        (True, "True"),
        (None, "None"),
        ("alpha", "'alpha'"),
        (b"raw", "b'raw'"),
        ("x" * 24, repr("x" * 24)),
        ("x" * 25, "'" + "x" * 21 + "...'"),
        ("it's " * 9, '"' + ("it's " * 5)[:21] + '..."'),
        (b"y" * 100, "b'" + "y" * 21 + "...'"),
        ([], "[]"),
        ([1, "a"], "[1, 'a']"),
        ((1,), "(1,)"),
        ((), "()"),
        ([1, 2, 3, 4], "[1, 2, 3, 4]"),
        ([1, 2, 3, 4, 5], "[1, 2, 3, 4, ...]"),
        (list(range(1000)), "[0, 1, 2, 3, ...]"),
        (["a long text here"] * 3, "<list of 3>"),
        ([[1]], "<list of 1>"),
        ({"a": 1}, "{'a': 1}"),
        ({1, 2}, "{1, 2}"),
        (frozenset(), "frozenset()"),
        (plain, "plain"),
        (len, "len"),
        (int, "int"),
        ("".join, "join"),
        (np.zeros(3), "<ndarray 3>"),
        (pd.DataFrame(), "<DataFrame 0 x 0>"),
        (functools.partial(plain, 1), "<partial>"),
        (object(), "<object>"),
        (10**18, "1" + "0" * 18),
        (10**5000, "<int of 16610 bits>"),
        ([10**5000], "[<int of 16610 bits>]"),
        (float("nan"), "nan"),
        (np.float32(0.5), "0.5"),
        (np.int64(7), "7"),
        (np.zeros((2, 3)), "<ndarray 2 x 3>"),
        (pd.DataFrame({"a": [1, 2]}), "<DataFrame 2 x 1>"),
        (pd.Timestamp("2026-01-05"), "2026-01-05T00:00:00"),
        (dt.date(2026, 1, 5), "2026-01-05"),
        (dt.datetime(2026, 1, 5, 12, 30, tzinfo=dt.UTC), "2026-01-05 12:30:00+00:00"),
        (dt.timedelta(minutes=5), "0:05:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Path("data/01/orders.parquet"), "data/01/orders.parquet"),
        (Path("/a" + "/very/long" * 9 + "/01/orders.parquet"), _MIDDLE),
        ("s3://bucket/some/where/deep/01/orders.parquet", "'s3://…/01/orders.parquet'"),
        ("https://x.org/a/b/c/d/e/f?token=abcdefghijklm", "'https://…/b/c/d/e/f?...'"),
        (Color.RED, "Color.RED"),
        (Config(0.1, "adam"), "Config(lr=0.1, name='adam')"),
        (Config(0.1, "x", "sesame"), "Config(lr=0.1, name='x', api_key=***)"),
        (Config([1, 2], object()), "Config(lr=..., name=...)"),
        (Pair(1, "b"), "Pair(left=1, right='b')"),
        (Answer(text="yes", score=0.5), "Answer(text='yes', score=0.5)"),
        ({"depth": 2, "features": "sqrt"}, "{'depth': 2, 'features': 'sqrt'}"),
        ({"key": "v", "password": "x"}, "{'key': 'v', 'password': ***}"),
        ({"rows": [1, 2]}, "<dict of 1>"),
        ({"a" * 30: "b" * 30}, "<dict of 1>"),
        ({n: n for n in range(7)}, "<dict of 7>"),
        ([dt.date(2026, 1, 5)], "[2026-01-05]"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_a_value_shows(value, expected):
    """Small plain values show themselves; everything else its class, its size, its name."""
    assert shown(value) == expected


def test_arguments_and_keywords():
    """At most four arguments are shown, and that there are more."""
    assert shown() == ""
    assert shown(1, 2, a=3, b=4) == "1, 2, a=3, b=4"
    assert shown(1, 2, 3, a=4, b=5) == "1, 2, 3, a=4, ..."
    assert shown(1, 2, 3, 4, 5, a=6) == "1, 2, 3, 4, ..."
    assert shown(**{"not a name": 1}) == "not a name=1"


def test_what_a_map_holds_constant_is_shown_only_if_it_tells_something(tmp_path):
    """A frame that all rows share is in none of their labels; a number is."""

    def evaluate(depth, frame, seed):
        return depth + len(frame) + seed

    with workflow("w", store=tmp_path / "s.duckdb"):
        frame = pd.DataFrame({"a": [1]})
        both = step(evaluate).map([1, 2], frame=frame, seed=3)
        assert both.result() == [5, 6]
        assert [one.label for one in both.branches] == [
            "evaluate(1, seed=3)",
            "evaluate(2, seed=3)",
        ]


def test_huge_values_are_short():
    """No label is long, and none takes long, whatever it is given."""
    huge = ["x" * 10_000_000, b"y" * 10_000_000, [0] * 1_000_000, 1 << 10_000_000, {0: "z" * 10**6}]
    for value in huge:
        assert len(shown(value)) < 40
        assert len(shown(value, value, value, value, value)) < 200


def test_subclasses_show_their_class():
    """A subclass of a plain type may have a repr of its own, so it is not asked."""

    class Text(str):
        __slots__ = ()

        def __repr__(self):
            raise AssertionError("the repr was asked for")

    class Many(list):
        __repr__ = Text.__repr__

    assert shown(Text("a"), Many([1]), [Text("b")]) == "<Text>, <Many>, <list of 1>"


def test_no_code_of_a_users_class_runs():
    """Neither repr, nor attributes, nor length, nor truth: alone, inside, as a class, a method."""
    evil = Evil()
    assert shown(dt.datetime(2026, 1, 5, tzinfo=Zone())) == "2026-01-05 00:00:00"
    assert shown(evil, [evil], (1, evil), {"a": evil}) == (
        "<Evil>, <list of 1>, <tuple of 2>, <dict of 1>"
    )
    assert shown([1, 2, 3, 4, evil]) == "[1, 2, 3, 4, ...]"
    assert shown(EvilClass, EvilClass()) == "EvilClass, <EvilClass>"
    method = functools.partialmethod(plain).__class__
    assert shown(method) == "partialmethod"


def test_callables_of_a_users_class():
    """A callable instance is not asked for its name; a mock is a mock."""

    class Proxy:
        def __call__(self):
            return 1

        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for")

        def method(self):
            return 1

    assert shown(Proxy(), Proxy().method) == "<Proxy>, method"
    assert shown(unittest.mock.MagicMock()) == "<MagicMock>"


def test_steps_and_handles_show_their_names():
    """A step and a handle among the arguments are shown by name; a handle is not waited for."""

    def take(*things):
        return len(things)

    assert shown(step(plain, name="other")) == "plain"
    with workflow("w", store=":memory:"):
        handle = go(plain, 1)
        assert go(take, handle, 2).label == "take(plain, 2)"


# --- secrets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameter",
    ["api_key", "apikey", "API_KEY", "ApiKey", "apiKey", "x-api-key", "access_token", "secret",
     "authToken", "Authorization", "DSN", "session_cookie", "passphrase", "private_key",
     "client_secret", "password", "passwd", "db_password", "pwd", "auth", "credential",
     "credentials", "bearer", "Bearer"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["hunter2", b"hunter2", 12345, ["hunter2"], None])
def test_secrets_by_their_parameters(parameter, value):
    """What a parameter of such a name is given is masked, by place or by name."""
    assert shown(value, parameters=(parameter,)) == "***"
    assert shown(**{parameter: value}) == f"{parameter}=***"


@pytest.mark.parametrize("parameter", ["key", "token", "primary_key", "max_tokens"])
def test_a_key_is_secret_only_if_it_looks_so(parameter):
    """The key of a dictionary and the next token are no secrets; what opens a door looks random."""
    assert shown("name", parameters=(parameter,)) == "'name'"
    assert shown(**{parameter: 512}) == f"{parameter}=512"
    assert shown(**{parameter: "a1" * 16}) == f"{parameter}=***"
    assert shown({parameter: "a1" * 16}) == f"{{'{parameter}': ***}}"


@pytest.mark.parametrize("parameter", ["keys", "monkey", "keyboard", "author", "secretary", "x"])
def test_parameters_that_only_look_alike(parameter):
    """A name that merely contains such a word is no secret's."""
    assert shown("value", parameters=(parameter,)) == "'value'"


SECRETS = [
    "sk-abcdefghijklmnop1234",
    "sk-proj-Abc_123456789012",
    "pk_live_abcdefghijkl",
    "ghp_abcdefghijklmnopqrst",
    "gho_abcdefghijklmnopqrst",
    "github_pat_11ABCDEFGHIJ",
    "glpat-abcdefghijklmnop",
    "xoxb-123456789012-abcdef",
    "hf_abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
    "Bearer abcdef",
    "Basic dXNlcjpwYXNz",
    "postgres://ann:hunter2@db.example.org/main",
    "https://:token@example.org/x",
    "mongodb+srv://ann:hunter2@cluster",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_by_their_shape(secret):
    """What has the shape of a secret is masked, as text or bytes, alone or inside, cut or not."""
    assert shown(secret) == "***"
    assert shown(secret.encode()) == "***"
    assert shown(secret + "\n") == "***"
    assert shown([secret, 1]) == "[***, 1]"
    assert shown(x=(secret,)) == "x=(***,)"
    assert secret[3:15] not in shown([1, 2, 3, 4, secret])
    assert secret[3:15] not in shown({secret: secret}, {secret})
    assert shown(secret + "x" * 10_000) == "***"


@pytest.mark.parametrize(
    "text",
    ["skeletonization", "skateboarding-trick", "pkg_resources_extern", "rkhunter-database",
     "hfield-strengths", "eyJ short", "AKIAlower", "https://ex.org/a:b@c", "Basics of it",
     "ghp-short", "time 12:30 @ noon"],
)  # fmt: skip
def test_texts_that_only_look_alike(text):
    """An ordinary word or address is shown."""
    assert shown(text) == repr(text)


# --- one line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("größer 𝄞 日本", "größer 𝄞 日本"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\0\x1b[31m", r"\x00\x1b[31m"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_printable(text, expected):
    """Line ends, control characters and lone surrogates are escaped; letters are not."""
    assert printable(text) == expected
    assert printable(text).encode().decode() == expected


def test_a_label_is_one_line():
    """Names, keys and values with line ends or surrogates give one line that can be stored."""
    label = label_of("f\n\ud800", ["a\nb", "\ud800"], {"k\0": 1})
    assert label == r"f\n\ud800('a\nb', '\ud800', k\x00=1)"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 400, "'" + "x" * 297 + "...'"),
        ([1, "a", None], "[1, 'a', None]"),
        ((), "()"),
        ({1}, "{1}"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 8 more]"),
        ({"api_key": "abc", "n": [1]}, "{'api_key': ***, 'n': [1]}"),
        (np.zeros((2, 3), "float32"), "<ndarray 2 x 3 of float32>"),
        (np.float64(1.5), "1.5"),
        (pd.DataFrame({"a": [1]}), "<DataFrame 1 x 1>"),
        ([Evil()], "[<Evil>]"),
        ({"thing": Evil()}, "{'thing': <Evil>}"),
    ],
)
def test_described(value, said):
    """A value is told in a longer line than a label has, as safely."""
    assert described(value) == said


def test_described_masks_by_the_parameter():
    """What a parameter's name says is secret is not shown."""
    assert described("abc", "password") == "***"

"""Classes: what libraries keep in them, what they keep themselves, what is made at run time."""

from fingerprint_kit.editing import Row

TEXTS = {
    "an attrs default": """
import attrs
@attrs.define
class C:
    rate: float = «0.1|0.2»
@step
def f(): return C().rate
>>> f()
""",
    "an attrs field's default": """
import attrs
@attrs.define
class C:
    rate: float = attrs.field(default=«0.1|0.2»)
@step
def f(): return C().rate
>>> f()
""",
    "an attrs factory": """
import attrs
@attrs.define
class C:
    rates: list = attrs.Factory(lambda: [«1|2»])
@step
def f(): return C().rates
>>> f()
""",
    "an attrs factory that takes self": """
import attrs
@attrs.define
class C:
    a: int = 1
    b: int = attrs.Factory(lambda self: self.a + «1|2», takes_self=True)
@step
def f(): return C().b
>>> f()
""",
    "an attrs default decorator": """
import attrs
@attrs.define
class C:
    a: int = attrs.field()
    @a.default
    def _(self): return «1|2»
@step
def f(): return C().a
>>> f()
""",
    "an attrs converter": """
import attrs
@attrs.define
class C:
    text: str = attrs.field(converter=lambda s: s * «1|2»)
@step
def f(): return C("x").text
>>> f()
""",
    "an attrs converter's helper": """
import attrs
def clean(s): return s * «1|2»
@attrs.define
class C:
    text: str = attrs.field(converter=clean)
@step
def f(): return C("x").text
>>> f()
""",
    "an attrs validator": """
import attrs
@attrs.define
class C:
    rate: int = attrs.field(validator=attrs.validators.lt(«5|3»))
@step
def f():
    try:
        return C(4).rate
    except ValueError: return "too much"
>>> f()
""",
    "an attrs validator that is a function": """
import attrs
def check(self, attribute, value):
    if value > «5|3»: raise ValueError(value)
@attrs.define
class C:
    rate: int = attrs.field(validator=check)
@step
def f():
    try:
        return C(4).rate
    except ValueError: return "too much"
>>> f()
""",
    "attrs metadata": """
import attrs
@attrs.define
class C:
    rate: int = attrs.field(default=1, metadata={"unit": "«m|km»"})
@step
def f(): return attrs.fields(C).rate.metadata["unit"]
>>> f()
""",
    "attrs __attrs_post_init__": """
import attrs
@attrs.define
class C:
    a: int = 1
    def __attrs_post_init__(self): self.a += «1|2»
@step
def f(): return C().a
>>> f()
""",
    "an attrs class's repr flag": """
import attrs
@attrs.define
class C:
    a: int = attrs.field(default=1, repr=«True|False»)
@step
def f(): return repr(C())
>>> f()
""",
    "an attrs class's ordering": """
import attrs
@attrs.frozen
class C:
    a: int = attrs.field(eq=«True|False»)
@step
def f(): return C(1) == C(2)
>>> f()
""",
    "attr.s of old": """
import attr
@attr.s
class C:
    a = attr.ib(default=«1|2»)
@step
def f(): return C().a
>>> f()
""",
    "attrs.make_class": """
import attrs
C = attrs.make_class("C", {"a": attrs.field(default=«1|2»)})
@step
def f(): return C().a
>>> f()
""",
    "a NamedTuple's default": """
import typing
class C(typing.NamedTuple):
    rate: float = «0.1|0.2»
@step
def f(): return C().rate
>>> f()
""",
    "a NamedTuple's method": """
import typing
class C(typing.NamedTuple):
    rate: float = 1
    def twice(self): return self.rate * «2|3»
@step
def f(): return C().twice()
>>> f()
""",
    "a namedtuple's defaults": """
import collections
C = collections.namedtuple("C", "rate", defaults=[«0.1|0.2»])
@step
def f(): return C().rate
>>> f()
""",
    "a namedtuple's fields": """
import collections
C = collections.namedtuple("C", "«lon lat|lat lon»")
@step
def f(): return C(1, 2).lat
>>> f()
""",
    "a subclass of a namedtuple": """
import collections
class C(collections.namedtuple("Base", "rate", defaults=[«1|2»])):
    def get(self): return self.rate
@step
def f(): return C().get()
>>> f()
""",
    "a NamedTuple in a module": """
from tool import C
@step
def f(): return C().rate
>>> f()
--- tool.py
import typing
class C(typing.NamedTuple):
    rate: float = «0.1|0.2»
""",
    "a pydantic default": """
import pydantic
class C(pydantic.BaseModel):
    rate: float = «0.1|0.2»
@step
def f(): return C().rate
>>> f()
""",
    "a pydantic default factory": """
import pydantic
class C(pydantic.BaseModel):
    rates: list = pydantic.Field(default_factory=lambda: [«1|2»])
@step
def f(): return C().rates
>>> f()
""",
    "a pydantic private attribute": """
import pydantic
class C(pydantic.BaseModel):
    _rate: int = «1|2»
    def get(self): return self._rate
@step
def f(): return C().get()
>>> f()
""",
    "a pydantic private attribute's factory": """
import pydantic
class C(pydantic.BaseModel):
    _rate: int = pydantic.PrivateAttr(default_factory=lambda: «1|2»)
    def get(self): return self._rate
@step
def f(): return C().get()
>>> f()
""",
    "a pydantic private attribute of an argument": """
import pydantic
class C(pydantic.BaseModel):
    a: int = 1
    _rate: int = 0
@step
def f(c): return c._rate
>>> c = C()
>>> c._rate = «1|2»
>>> f(c)
""",
    "a pydantic computed field": """
import pydantic
class C(pydantic.BaseModel):
    a: int = 1
    @pydantic.computed_field
    @property
    def b(self) -> int: return self.a + «1|2»
@step
def f(): return C().model_dump()
>>> f()
""",
    "a pydantic model validator": """
import pydantic
class C(pydantic.BaseModel):
    a: int = 1
    @pydantic.model_validator(mode="after")
    def grow(self):
        self.a += «1|2»
        return self
@step
def f(): return C().a
>>> f()
""",
    "a pydantic validator's helper": """
import pydantic
def clean(x): return x + «1|2»
class C(pydantic.BaseModel):
    a: int
    @pydantic.field_validator("a")
    @classmethod
    def check(cls, x): return clean(x)
@step
def f(): return C(a=1).a
>>> f()
""",
    "a pydantic annotated validator": """
import typing, pydantic
def clean(x): return x + «1|2»
class C(pydantic.BaseModel):
    a: typing.Annotated[int, pydantic.AfterValidator(clean)]
@step
def f(): return C(a=1).a
>>> f()
""",
    "a pydantic serializer": """
import pydantic
class C(pydantic.BaseModel):
    a: int = 1
    @pydantic.field_serializer("a")
    def out(self, a): return a + «1|2»
@step
def f(): return C().model_dump()
>>> f()
""",
    "a pydantic config": """
import pydantic
class C(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="«allow|ignore»")
    a: int = 1
@step
def f(): return C(b=2).model_dump()
>>> f()
""",
    "a pydantic alias": """
import pydantic
class C(pydantic.BaseModel):
    a: int = pydantic.Field(1, alias="«b|c»")
@step
def f(): return C(b=2).a
>>> f()
""",
    "a pydantic nested model's default": """
import pydantic
class Inner(pydantic.BaseModel):
    rate: int = «1|2»
class C(pydantic.BaseModel):
    inner: Inner = pydantic.Field(default_factory=Inner)
@step
def f(): return C().inner.rate
>>> f()
""",
    "a pydantic field's description in a schema": """
import pydantic
class C(pydantic.BaseModel):
    a: int = pydantic.Field(1, description="«one|two»")
@step
def f(): return C.model_json_schema()["properties"]["a"]["description"]
>>> f()
""",
    "a pydantic dataclass": """
import pydantic.dataclasses
@pydantic.dataclasses.dataclass
class C:
    a: int = «1|2»
@step
def f(): return C().a
>>> f()
""",
    "pydantic's create_model": """
import pydantic
C = pydantic.create_model("C", a=(int, «1|2»))
@step
def f(): return C().a
>>> f()
""",
    "a dataclass's default": """
import dataclasses
@dataclasses.dataclass
class C:
    a: int = «1|2»
@step
def f(): return C().a
>>> f()
""",
    "a dataclass's metadata": """
import dataclasses
@dataclasses.dataclass
class C:
    a: int = dataclasses.field(default=1, metadata={"unit": "«m|km»"})
@step
def f(): return dataclasses.fields(C)[0].metadata["unit"]
>>> f()
""",
    "a function in a dataclass's metadata": """
import dataclasses
def convert(x): return x + «1|2»
@dataclasses.dataclass
class C:
    a: int = dataclasses.field(default=1, metadata={"convert": convert})
@step
def f(): return dataclasses.fields(C)[0].metadata["convert"](1)
>>> f()
""",
    "a dataclass's order of fields": """
import dataclasses
@dataclasses.dataclass
class C:
    «a: int = 1|b: int = 1»
    «b: int = 2|a: int = 2»
@step
def f(): return dataclasses.astuple(C(a=1, b=2))
>>> f()
""",
    "a dataclass's repr flag": """
import dataclasses
@dataclasses.dataclass
class C:
    a: int = dataclasses.field(default=1, repr=«True|False»)
@step
def f(): return repr(C())
>>> f()
""",
    "a dataclass's __post_init__": """
import dataclasses
@dataclasses.dataclass
class C:
    a: int = 1
    def __post_init__(self): self.a += «1|2»
@step
def f(): return C().a
>>> f()
""",
    "make_dataclass": """
import dataclasses
C = dataclasses.make_dataclass("C", [("a", int, «1|2»)])
@step
def f(): return C().a
>>> f()
""",
    "Enum.__new__": """
import enum
class C(enum.Enum):
    A = 1
    def __new__(cls, value):
        made = object.__new__(cls)
        made._value_ = value + «1|2»
        return made
@step
def f(): return C.A.value
>>> f()
""",
    "an attribute that Enum.__init__ sets": """
import enum
class C(enum.Enum):
    A = 1
    def __init__(self, value): self.rate = value + «1|2»
@step
def f(): return C.A.rate
>>> f()
""",
    "an enum's property": """
import enum
class C(enum.Enum):
    A = 1
    @property
    def rate(self): return self.value + «1|2»
@step
def f(): return C.A.rate
>>> f()
""",
    "an enum's _missing_": """
import enum
class C(enum.Enum):
    A = 1
    B = 2
    @classmethod
    def _missing_(cls, value): return cls.«A|B»
@step
def f(): return C("x").value
>>> f()
""",
    "an enum's other member, when all are listed": """
import enum
class C(enum.Enum):
    A = 1
    B = «2|3»
@step
def f(): return [c.value for c in C]
>>> f()
""",
    "the functional Enum": """
import enum
C = enum.Enum("C", {"A": «1|2»})
@step
def f(): return C.A.value
>>> f()
""",
    "an enum member's method, as an argument": """
import enum
class C(enum.Enum):
    A = 1
    def rate(self): return «1|2»
@step
def f(c): return c.rate()
>>> f(C.A)
""",
    "a class attribute that is a builtin": """
class C:
    turn = «str.upper|str.lower»
@step
def f(): return C.turn("Ab")
>>> f()
""",
    "a class attribute that is a builtin function": """
class C:
    total = «max|min»
@step
def f(): return C.total([1, 2])
>>> f()
""",
    "a class attribute that is a function of a library": """
import operator
class C:
    turn = staticmethod(operator.«add|sub»)
@step
def f(): return C.turn(2, 1)
>>> f()
""",
    "a class attribute that is a type": """
class C:
    kind = «int|float»
@step
def f(): return C.kind("1")
>>> f()
""",
    "a class attribute that is a callable instance": """
class Add:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n
class C:
    turn = Add(«1|2»)
@step
def f(): return C.turn(1)
>>> f()
""",
    "a class attribute that is a bound method": """
class Add:
    def __init__(self, n): self.n = n
    def to(self, x): return x + self.n
class C:
    turn = Add(«1|2»).to
@step
def f(): return C.turn(1)
>>> f()
""",
    "a class attribute that is a builtin's bound method": """
class C:
    turn = {1: «1|2»}.get
@step
def f(): return C.turn(1)
>>> f()
""",
    "a class attribute that is a partial": """
import functools
def add(a, b): return a + b
class C:
    turn = functools.partial(add, «1|2»)
@step
def f(): return C.turn(1)
>>> f()
""",
    "a class attribute that is an itemgetter": """
import operator
class C:
    first = operator.itemgetter(«0|1»)
@step
def f(): return C.first("ab")
>>> f()
""",
    "a class attribute that is a partialmethod": """
import functools
class C:
    def add(self, a, b): return a + b
    one = functools.partialmethod(add, «1|2»)
@step
def f(): return C().one(1)
>>> f()
""",
    "a class attribute that is another class": """
class A:
    def m(self): return «1|2»
class C:
    kind = A
@step
def f(): return C.kind().m()
>>> f()
""",
    "a class attribute that is a list": """
class C:
    rates = [«1|2»]
@step
def f(): return C().rates
>>> f()
""",
    "a dunder table": """
class C:
    __rates__ = {"a": «1|2»}
@step
def f(): return C.__rates__["a"]
>>> f()
""",
    "a name-mangled attribute": """
class C:
    __rate = «1|2»
    def get(self): return self.__rate
@step
def f(): return C().get()
>>> f()
""",
    "__match_args__": """
class C:
    __match_args__ = («"a", "b"|"b", "a"»)
    def __init__(self): self.a, self.b = 1, 2
@step
def f():
    match C():
        case C(x, y): return x, y
>>> f()
""",
    "__slots__": """
class C:
    __slots__ = ("a"«|, "b"»,)
@step
def f(): return len(C.__slots__)
>>> f()
""",
    "__len__": "class C:\n    def __len__(self): return «1|2»\n@step\ndef f(): return len(C())\n>>> f()",
    "__eq__": "class C:\n    def __eq__(self, other): return «True|False»\n@step\ndef f(): return C() == 1\n>>> f()",
    "__hash__": "class C:\n    def __hash__(self): return «1|2»\n@step\ndef f(): return hash(C())\n>>> f()",
    "__getattr__": "class C:\n    def __getattr__(self, name): return «1|2»\n@step\ndef f(): return C().x\n>>> f()",
    "__getattribute__": "class C:\n    def __getattribute__(self, name): return «1|2»\n@step\ndef f(): return C().x\n>>> f()",
    "__getitem__": "class C:\n    def __getitem__(self, key): return «1|2»\n@step\ndef f(): return C()[0]\n>>> f()",
    "__class_getitem__": "class C:\n    def __class_getitem__(cls, key): return «1|2»\n@step\ndef f(): return C[0]\n>>> f()",
    "__missing__": "class C(dict):\n    def __missing__(self, key): return «1|2»\n@step\ndef f(): return C()[0]\n>>> f()",
    "__contains__": "class C:\n    def __contains__(self, key): return «True|False»\n@step\ndef f(): return 1 in C()\n>>> f()",
    "__bool__": "class C:\n    def __bool__(self): return «True|False»\n@step\ndef f(): return 1 if C() else 2\n>>> f()",
    "__add__ and __radd__": "class C:\n    def __radd__(self, other): return other + «1|2»\n@step\ndef f(): return 1 + C()\n>>> f()",
    "__iter__": "class C:\n    def __iter__(self): return iter([«1|2»])\n@step\ndef f(): return list(C())\n>>> f()",
    "__enter__": "class C:\n    def __enter__(self): return «1|2»\n    def __exit__(self, *a): pass\n@step\ndef f():\n    with C() as x: return x\n>>> f()",
    "__exit__": "class C:\n    def __enter__(self): return 1\n    def __exit__(self, *a): return «True|False»\n@step\ndef f():\n    try:\n        with C(): raise ValueError\n        return 1\n    except ValueError: return 2\n>>> f()",
    "__format__": "class C:\n    def __format__(self, spec): return '«1|2»'\n@step\ndef f(): return f'{C()}'\n>>> f()",
    "__str__": "class C:\n    def __str__(self): return '«1|2»'\n@step\ndef f(): return str(C())\n>>> f()",
    "__new__": "class C:\n    def __new__(cls):\n        made = super().__new__(cls)\n        made.a = «1|2»\n        return made\n@step\ndef f(): return C().a\n>>> f()",
    "__set_name__ and __get__": "class D:\n    def __get__(self, one, kind): return «1|2»\nclass C:\n    a = D()\n@step\ndef f(): return C().a\n>>> f()",
    "a metaclass's __call__": "class M(type):\n    def __call__(cls): return «1|2»\nclass C(metaclass=M): pass\n@step\ndef f(): return C()\n>>> f()",
    "a metaclass's __getattr__": "class M(type):\n    def __getattr__(cls, name): return «1|2»\nclass C(metaclass=M): pass\n@step\ndef f(): return C.x\n>>> f()",
    "a metaclass's __prepare__": "class M(type):\n    @classmethod\n    def __prepare__(mcs, name, bases): return {'rate': «1|2»}\nclass C(metaclass=M): pass\n@step\ndef f(): return C.rate\n>>> f()",
    "__init_subclass__ with an argument": "class B:\n    def __init_subclass__(cls, rate): cls.rate = rate\nclass C(B, rate=«1|2»): pass\n@step\ndef f(): return C.rate\n>>> f()",
    "__init_subclass__'s own code": "class B:\n    def __init_subclass__(cls): cls.rate = «1|2»\nclass C(B): pass\n@step\ndef f(): return C.rate\n>>> f()",
    "a class decorator": "def deco(cls):\n    cls.rate = «1|2»\n    return cls\n@deco\nclass C: pass\n@step\ndef f(): return C.rate\n>>> f()",
    "__del__ that writes": "SEEN = []\nclass C:\n    def __del__(self): SEEN.append(«1|2»)\n@step\ndef f():\n    C()\n    return list(SEEN)\n>>> f()",
    "an attribute set after the class": "class C: pass\nC.rate = «1|2»\n@step\ndef f(): return C.rate\n>>> f()",
    "a method set after the class": "class C: pass\nC.rate = lambda self: «1|2»\n@step\ndef f(): return C().rate()\n>>> f()",
    "the order of bases": "class A:\n    def m(self): return 1\nclass B:\n    def m(self): return 2\nclass C(«A, B|B, A»): pass\n@step\ndef f(): return C().m()\n>>> f()",
    "a mixin of a module": "from tool import Mixin\nclass C(Mixin): pass\n@step\ndef f(): return C().m()\n>>> f()\n--- tool.py\nclass Mixin:\n    def m(self): return «1|2»\n",
    "super() reaches a base of a module": "import tool\nclass C(tool.Base):\n    def m(self): return super().m()\n@step\ndef f(): return C().m()\n>>> f()\n--- tool.py\nclass Base:\n    def m(self): return «1|2»\n",
    "an abstract base's method": "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\n    def n(self): return self.m() + «1|2»\nclass C(A):\n    def m(self): return 1\n@step\ndef f(): return C().n()\n>>> f()",
    "a virtual subclass": "import abc\nclass A(abc.ABC): pass\nclass C: pass\n«A.register(C)|»\n@step\ndef f(): return isinstance(C(), A)\n>>> f()",
    "a NewType's supertype": "import typing\nT = typing.NewType('T', «int|str»)\n@step\ndef f(): return T.__supertype__('1')\n>>> f()",
    "a NewType's supertype, a class": "import typing\nclass C:\n    def m(self): return «1|2»\nT = typing.NewType('T', C)\n@step\ndef f(): return T.__supertype__().m()\n>>> f()",
    "a type alias's arguments": "import typing\nT = typing.Union[«int, str|str, int»]\n@step\ndef f(): return typing.get_args(T)[0]('1')\n>>> f()",
    "a Literal's values": "import typing\nT = typing.Literal[«1|2»]\n@step\ndef f(): return typing.get_args(T)\n>>> f()",
    "a TypedDict's keys": "import typing\nclass T(typing.TypedDict):\n    a: int\n    «b|c»: int\n@step\ndef f(): return sorted(T.__annotations__)\n>>> f()",
    "a local class": "@step\ndef f():\n    class C:\n        def m(self): return «1|2»\n    return C().m()\n>>> f()",
    "a class made in a function": "def make():\n    class C:\n        def m(self): return «1|2»\n    return C\nC = make()\n@step\ndef f(): return C().m()\n>>> f()",
    "a closure value of a class made in a function": "def make(n):\n    class C:\n        def m(self): return n\n    return C\nC = make(«1|2»)\n@step\ndef f(): return C().m()\n>>> f()",
    "type() with a table": "C = type('C', (), {'rate': «1|2»})\n@step\ndef f(): return C.rate\n>>> f()",
    "type() with a function": "def rate(self): return «1|2»\nC = type('C', (), {'rate': rate})\n@step\ndef f(): return C().rate()\n>>> f()",
    "types.new_class": "import types\nC = types.new_class('C', (), {}, lambda ns: ns.update(rate=«1|2»))\n@step\ndef f(): return C.rate\n>>> f()",
    "a ctypes structure": "import ctypes\nclass C(ctypes.Structure):\n    _fields_ = [('a', ctypes.«c_int8|c_uint8»)]\n@step\ndef f(): return C(255).a\n>>> f()",
    "a generic class's method": "import typing\nT = typing.TypeVar('T')\nclass C(typing.Generic[T]):\n    def m(self): return «1|2»\n@step\ndef f(): return C[int]().m()\n>>> f()",
    "a subclass of a library's class": "import json\nclass E(json.JSONEncoder):\n    def default(self, x): return «1|2»\n@step\ndef f(): return json.dumps({1j}.pop(), cls=E)\n>>> f()",
    "a subclass of an exception": "class E(Exception):\n    def __str__(self): return '«one|two»'\n@step\ndef f():\n    try: raise E\n    except Exception as e: return str(e)\n>>> f()",
    "an exception class that is caught": "class A(Exception): pass\nclass E(«A|Exception»): pass\n@step\ndef f():\n    try: raise E\n    except A: return 1\n    except Exception: return 2\n>>> f()",
    "a SQLAlchemy column's default": "import sqlalchemy as sa\nfrom sqlalchemy.orm import declarative_base\nBase = declarative_base()\nclass T(Base):\n    __tablename__ = 't'\n    id = sa.Column(sa.Integer, primary_key=True)\n    a = sa.Column(sa.Integer, default=«1|2»)\n@step\ndef f(): return T.__table__.c.a.default.arg\n>>> f()",
    "a SQLAlchemy table's name": "import sqlalchemy as sa\nfrom sqlalchemy.orm import declarative_base\nBase = declarative_base()\nclass T(Base):\n    __tablename__ = '«t|u»'\n    id = sa.Column(sa.Integer, primary_key=True)\n@step\ndef f(): return str(sa.select(T.id))\n>>> f()",
    "a registry of subclasses": """
class Rule:
    known = []
    def __init_subclass__(cls): Rule.known.append(cls)
class Strip(Rule):
    def apply(self, s): return s.«upper|lower»()
@step
def clean(s):
    for rule in Rule.known: s = rule().apply(s)
    return s
>>> clean("Ab")
""",
    "another member of a registry of subclasses": """
class Rule:
    known = []
    def __init_subclass__(cls): Rule.known.append(cls)
class Up(Rule):
    def apply(self, s): return s.upper()
«|class Twice(Rule):
    def apply(self, s): return s * 2»
@step
def clean(s):
    for rule in Rule.known: s = rule().apply(s)
    return s
>>> clean("Ab")
""",
    "a registry by a metaclass": """
class M(type):
    known = {}
    def __new__(mcs, name, bases, space):
        made = super().__new__(mcs, name, bases, space)
        mcs.known[name] = made
        return made
class A(metaclass=M):
    def go(self): return «1|2»
@step
def f(name): return M.known[name]().go()
>>> f("A")
""",
    "a registry by a class decorator": """
KNOWN = {}
def known(cls):
    KNOWN[cls.__name__] = cls
    return cls
@known
class A:
    def go(self): return «1|2»
@step
def f(name): return KNOWN[name]().go()
>>> f("A")
""",
    "__subclasses__": """
class Base: pass
class A(Base):
    def go(self): return «1|2»
@step
def f(): return [c().go() for c in Base.__subclasses__()]
>>> f()
""",
    "a registry of an instance's class": """
class Rule:
    known = {}
    def __init__(self, name): self.name = name
    def apply(self): return self.known[self.name]()
def rate(): return «1|2»
Rule.known["a"] = rate
@step
def f(rule): return rule.apply()
>>> f(Rule("a"))
""",
    "the state of an instance's class": """
class C:
    rate = 0
    def get(self): return self.rate
C.rate = «1|2»
c = C()
@step
def f(): return c.get()
>>> f()
""",
    "the state of an argument's class": """
class C:
    table = {}
    def get(self): return self.table["a"]
C.table["a"] = «1|2»
@step
def f(c): return c.get()
>>> f(C())
""",
    "the method of an argument's class": """
class C:
    def get(self): return «1|2»
@step
def f(c): return c.get()
>>> f(C())
""",
    "the method of an element's class": """
class C:
    def get(self): return «1|2»
@step
def f(cs): return [c.get() for c in cs]
>>> f([C()])
""",
    "the class as an argument": """
class C:
    def get(self): return «1|2»
@step
def f(kind): return kind().get()
>>> f(C)
""",
    "an instance attribute": """
class C:
    def __init__(self): self.a = «1|2»
c = C()
@step
def f(): return c.a
>>> f()
""",
    "an instance's slots": """
class C:
    __slots__ = ("a",)
    def __init__(self): self.a = «1|2»
c = C()
@step
def f(): return c.a
>>> f()
""",
    "a namedtuple made of a row by pandas": """
import pandas as pd
@step
def place(row): return f"{row.lat} north, {row.lon} east"
>>> df = pd.DataFrame([[48.1, 11.6]], columns=["«lon|lat»", "«lat|lon»"])
>>> place.map(df.itertuples(index=False)).result()
""",
    "itertuples with an index": """
import pandas as pd
@step
def place(row): return row._fields
>>> df = pd.DataFrame([[1, 2]], columns=["a", "«b|c»"])
>>> place.map(df.itertuples()).result()
""",
    "itertuples under another name": """
import pandas as pd
@step
def place(row): return row._fields, type(row).__name__
>>> df = pd.DataFrame([[1, 2]], columns=["«a|b»", "c"])
>>> place.map(df.itertuples(name="Row")).result()
""",
    "a namedtuple's class as a row": """
import collections
@step
def place(row): return row._asdict()
>>> R = collections.namedtuple("R", "«a b|b a»")
>>> place(R(1, 2))
""",
    "a make_dataclass instance as an argument": """
import dataclasses
@step
def f(c): return dataclasses.asdict(c)
>>> C = dataclasses.make_dataclass("C", ["«a|b»"])
>>> f(C(1))
""",
    "a pydantic create_model instance as an argument": """
import pydantic
@step
def f(c): return c.model_dump()
>>> C = pydantic.create_model("C", a=(int, 1), **{"«b|c»": (int, 2)})
>>> f(C())
""",
    "a class of create_model as an argument": """
import pydantic
@step
def f(C): return C().model_dump()
>>> C = pydantic.create_model("C", a=(int, «1|2»))
>>> f(C)
""",
    "an argument's pydantic validator": """
import pydantic
class C(pydantic.BaseModel):
    a: int = 1
    @pydantic.field_validator("a")
    @classmethod
    def check(cls, x): return x + «1|2»
@step
def f(C): return C(a=1).a
>>> f(C)
""",
    "a response format's field": """
import pydantic
class Answer(pydantic.BaseModel):
    text: str
    «rate: float|score: float»
def call(response_format): return list(response_format.model_fields)
@step
def f(): return call(response_format=Answer)
>>> f()
""",
}  # fmt: skip

HARMLESS_TEXTS = {
    "another method": "class C:\n    def m(self): return 1\n    def n(self): return «1|2»\n@step\ndef f(): return 1\n>>> f()",
    "a method of a class that is not reached": "class C:\n    def m(self): return «1|2»\n@step\ndef f(): return 1\n>>> f()",
    "an attribute of a class that is not reached": "class C:\n    rate = «1|2»\n@step\ndef f(): return 1\n>>> f()",
    "a subclass that registers itself nowhere": "class C:\n    def m(self): return 1\nclass D(C):\n    def m(self): return «1|2»\n@step\ndef f(): return C().m()\n>>> f()",
    "a method's docstring": "class C:\n    def m(self):\n        '«one|two»'\n        return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a class's docstring": "class C:\n    '«one|two»'\n    def m(self): return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a method's annotation": "class C:\n    def m(self, x: «int|float» = 1): return x\n@step\ndef f(): return C().m()\n>>> f()",
    "a method's return annotation": "class C:\n    def m(self)«| -> int»: return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a plain class's annotation": "class C:\n    a: «int|float»\n    def m(self): return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a comment in a class": "class C:\n    # «one|two»\n    def m(self): return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a pass in a class": "class C:\n    «|pass»\n    def m(self): return 1\n@step\ndef f(): return C().m()\n>>> f()",
    "a renamed local of a method": "class C:\n    def m(self):\n        «x|y» = 1\n        return «x|y»\n@step\ndef f(): return C().m()\n>>> f()",
    "a bare string in a method": "class C:\n    def m(self):\n        x = 1\n        '«one|two»'\n        return x\n@step\ndef f(): return C().m()\n>>> f()",
    "another class of the module": "import tool\n@step\ndef f(): return tool.C().m()\n>>> f()\n--- tool.py\nclass C:\n    def m(self): return 1\nclass D:\n    def m(self): return «1|2»\n",
    "a class's place": "«class D: pass|»\nclass C:\n    def m(self): return 1\n«|class D: pass»\n@step\ndef f(): return C().m()\n>>> f()",
    "a class that moves within its module": "from tool import C\n@step\ndef f(): return C().m()\n>>> f()\n--- tool.py\n«|X = 5»\nclass C:\n    def m(self): return 1\n",
    "the order of an instance's attributes": "class C:\n    def __init__(self, **k): self.__dict__.update(k)\n@step\ndef f(c): return c.a\n>>> f(C(«a=1, b=2|b=2, a=1»))",
    "an attrs class's docstring": "import attrs\n@attrs.define\nclass C:\n    '«one|two»'\n    a: int = 1\n@step\ndef f(): return C().a\n>>> f()",
    "a NamedTuple's docstring": "import typing\nclass C(typing.NamedTuple):\n    '«one|two»'\n    a: int = 1\n@step\ndef f(): return C().a\n>>> f()",
    "a dataclass's docstring": "import dataclasses\n@dataclasses.dataclass\nclass C:\n    '«one|two»'\n    a: int = 1\n@step\ndef f(): return C().a\n>>> f()",
    "a base's docstring": "class B:\n    '«one|two»'\n    def m(self): return 1\nclass C(B): pass\n@step\ndef f(): return C().m()\n>>> f()",
    "a comment in an attrs class": "import attrs\n@attrs.define\nclass C:\n    a: int = 1  # «one|two»\n@step\ndef f(): return C().a\n>>> f()",
    "a comment in a pydantic model": "import pydantic\nclass C(pydantic.BaseModel):\n    a: int = 1  # «one|two»\n@step\ndef f(): return C().a\n>>> f()",
    "a comment in a registered class": "class R:\n    known = []\n    def __init_subclass__(cls): R.known.append(cls)\nclass A(R):\n    # «one|two»\n    def m(self): return 1\n@step\ndef f(): return [k().m() for k in R.known]\n>>> f()",
    "an attrs instance as an argument, written otherwise": "import attrs\n@attrs.define\nclass C:\n    a: int = 1\n    b: int = 2\n@step\ndef f(c): return c.a\n>>> f(C(«a=1, b=2|b=2, a=1»))",
    "rows of itertuples": "import pandas as pd\n@step\ndef f(row): return row.a  # «one|two»\n>>> df = pd.DataFrame({'a': [1], 'b': [2]})\n>>> f.map(df.itertuples()).result()",
    "an instance of a class made at run time": "import dataclasses\n@step\ndef f(c): return c.a  # «one|two»\n>>> C = dataclasses.make_dataclass('C', ['a'])\n>>> f(C(1))",
    "a set among a class's attributes": "class C:\n    names = {«'a', 'b', 'c'|'c', 'b', 'a'»}\n    def m(self): return sorted(self.names)\n@step\ndef f(): return C().m()\n>>> f()",
    "a declarative model": "import sqlalchemy as sa\nfrom sqlalchemy.orm import declarative_base\nBase = declarative_base()\nclass T(Base):\n    __tablename__ = 't'\n    id = sa.Column(sa.Integer, primary_key=True)\n    a = sa.Column(sa.String)\n@step\ndef f(): return str(sa.select(T.a))  # «one|two»\n>>> f()",
    "two declarative models that name each other": "import sqlalchemy as sa\nfrom sqlalchemy.orm import declarative_base, relationship\nBase = declarative_base()\nclass A(Base):\n    __tablename__ = 'a'\n    id = sa.Column(sa.Integer, primary_key=True)\n    bs = relationship('B', back_populates='a')\nclass B(Base):\n    __tablename__ = 'b'\n    id = sa.Column(sa.Integer, primary_key=True)\n    a_id = sa.Column(sa.ForeignKey('a.id'))\n    a = relationship('A', back_populates='bs')\nsa.orm.configure_mappers()\n@step\ndef f(): return str(sa.select(A.id).join(A.bs))  # «one|two»\n>>> f()",
    "an abstract class": "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\nclass C(A):\n    def m(self): return 1\n@step\ndef f(): return isinstance(C(), A)  # «one|two»\n>>> f()",
}  # fmt: skip

NOTICED = [Row(name, text) for name, text in TEXTS.items()]
HARMLESS = [Row(name, text) for name, text in HARMLESS_TEXTS.items()]

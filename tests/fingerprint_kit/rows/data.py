"""Data: values that a step is given, or reads as a global, and that are not all in `__dict__`."""

from fingerprint_kit.editing import Row

VALUES = {
    "a view of keys": ("", "{«1|2»: 0}.keys()", "list(v)"),
    "a view of values": ("", "{0: «1|2»}.values()", "list(v)"),
    "a view of items": ("", "{0: «1|2»}.items()", "list(v)"),
    "a view of an OrderedDict": ("import collections", "collections.OrderedDict(a=«1|2»).items()", "list(v)"),
    "StringIO": ("import io", "io.StringIO('«one|two»')", "v.getvalue()"),
    "StringIO's position": ("import io\ndef at(n):\n    s = io.StringIO('abc')\n    s.seek(n)\n    return s", "at(«0|1»)", "v.tell()"),
    "BytesIO": ("import io", "io.BytesIO(b'«one|two»')", "v.getvalue()"),
    "a row of sqlite3": ("import sqlite3\ncon = sqlite3.connect(':memory:')\ncon.row_factory = sqlite3.Row", "con.execute('select «1|2» as a').fetchone()", "v['a']"),
    "a column's name of a row of sqlite3": ("import sqlite3\ncon = sqlite3.connect(':memory:')\ncon.row_factory = sqlite3.Row", "con.execute('select 1 as «a|b»').fetchone()", "v.keys()"),
    "a match": ("import re", "re.match('(.)', '«a|b»')", "v.group(1)"),
    "a match's place": ("import re", "re.search('b', '«ab|aab»')", "v.span()"),
    "a match's group": ("import re", "re.match('(?P<«a|b»>.)', 'x')", "v.groupdict()"),
    "CompletedProcess's output": ("import subprocess", "subprocess.CompletedProcess(['x'], 0, stdout='«one|two»')", "v.stdout"),
    "CompletedProcess's code": ("import subprocess", "subprocess.CompletedProcess(['x'], «0|1»)", "v.returncode"),
    "a ZoneInfo without key": ("import datetime, importlib.resources, zoneinfo\ndef zone(name):\n    with (importlib.resources.files('tzdata') / 'zoneinfo' / 'Europe' / name).open('rb') as file:\n        return zoneinfo.ZoneInfo.from_file(file)", "zone('«Paris|Moscow»')", "str(datetime.datetime(2026, 7, 1, tzinfo=v).utcoffset())"),
    "a datetime in a ZoneInfo without key": ("import datetime, importlib.resources, zoneinfo\ndef zone(name):\n    with (importlib.resources.files('tzdata') / 'zoneinfo' / 'Europe' / name).open('rb') as file:\n        return datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo.from_file(file))", "zone('«Paris|Moscow»')", "str(v.utcoffset())"),
    "a ZoneInfo": ("import datetime, zoneinfo", "zoneinfo.ZoneInfo('Europe/«Paris|Moscow»')", "str(datetime.datetime(2026, 7, 1, tzinfo=v).utcoffset())"),
    "a fixed time zone": ("import datetime", "datetime.timezone(datetime.timedelta(hours=«1|2»))", "str(v)"),
    "an element tree": ("import xml.etree.ElementTree as et", "et.fromstring('<a>«1|2»</a>')", "v.text"),
    "an element tree's attribute": ("import xml.etree.ElementTree as et", "et.fromstring('<a b=\"«1|2»\"/>')", "v.get('b')"),
    "a deque's length": ("import collections", "collections.deque([1], maxlen=«1|2»)", "v.maxlen"),
    "a defaultdict's factory": ("import collections", "collections.defaultdict(«int|list»)", "v.default_factory.__name__"),
    "a UserDict": ("import collections", "collections.UserDict(a=«1|2»)", "v['a']"),
    "a ChainMap": ("import collections", "collections.ChainMap({'a': «1|2»}, {})", "v['a']"),
    "a struct.Struct": ("import struct", "struct.Struct('«i|h»')", "v.size"),
    "a string.Template": ("import string", "string.Template('«$a|$b»')", "v.template"),
    "an email message": ("import email.message\ndef message(text):\n    m = email.message.EmailMessage()\n    m.set_content(text)\n    return m", "message('«one|two»')", "v.get_content()"),
    "an argparse namespace": ("import argparse", "argparse.Namespace(a=«1|2»)", "v.a"),
    "an argparse parser's default": ("import argparse\ndef parser(n):\n    p = argparse.ArgumentParser()\n    p.add_argument('--a', default=n)\n    return p", "parser(«1|2»)", "v.parse_args([]).a"),
    "a configparser": ("import configparser\ndef config(n):\n    c = configparser.ConfigParser()\n    c['a'] = {'b': n}\n    return c", "config('«1|2»')", "v['a']['b']"),
    "a JSON encoder": ("import json", "json.JSONEncoder(indent=«1|2»)", "v.encode([1])"),
    "a TextWrapper": ("import textwrap", "textwrap.TextWrapper(width=«3|5»)", "v.fill('a b c d')"),
    "a decimal context": ("import decimal", "decimal.Context(prec=«3|5»)", "v.prec"),
    "a bound method of a string": ("", "'«-|+»'.join", "v(['a', 'b'])"),
    "a bound method of a dict": ("", "{1: «1|2»}.get", "v(1)"),
    "a bound method of a pattern": ("import re", "re.compile('«a|b»').sub", "v('-', 'ab')"),
    "an exception's notes": ("def noted(text):\n    e = ValueError('a')\n    e.add_note(text)\n    return e", "noted('«one|two»')", "v.__notes__"),
    "an exception's cause": ("def caused(text):\n    try:\n        raise ValueError('a') from KeyError(text)\n    except ValueError as e: return e", "caused('«one|two»')", "str(v.__cause__)"),
    "an exception group": ("", "ExceptionGroup('a', [ValueError('«one|two»')])", "str(v.exceptions[0])"),
    "an attribute of an exception": ("class E(Exception):\n    def __init__(self, code):\n        super().__init__('a')\n        self.code = code", "E(«1|2»)", "v.code"),
    "a generic alias": ("", "list[«int|str»]", "str(v)"),
    "an annotated type": ("import typing", "typing.Annotated[int, «1|2»]", "v.__metadata__"),
    "a mock's sentinel": ("import unittest.mock", "unittest.mock.sentinel.«a|b»", "v.name"),
    "a sentinel": ("A, B = object(), object()", "«A|B»", "v is A"),
    "a sentinel in a dict": ("A, B = object(), object()", "{'a': «A|B»}", "v['a'] is A"),
    "the order of a dict": ("", "{«'a': 1, 'b': 2¦'b': 2, 'a': 1»}", "list(v)"),
    "the order of a dict in a list": ("", "[{«'a': 1, 'b': 2¦'b': 2, 'a': 1»}]", "list(v[0])"),
    "the order of a dict in a dict": ("", "{'x': {«'a': 1, 'b': 2¦'b': 2, 'a': 1»}}", "list(v['x'])"),
    "the order of a dict of numbers": ("", "{«1: 1, 2: 2¦2: 2, 1: 1»}", "list(v)"),
    "the order of an OrderedDict": ("import collections", "collections.OrderedDict(«a=1, b=2|b=2, a=1»)", "list(v)"),
    "the order of a defaultdict": ("import collections", "collections.defaultdict(int, «a=1, b=2|b=2, a=1»)", "list(v)"),
    "the order of a Counter": ("import collections", "collections.Counter('«ab|ba»')", "list(v)"),
    "the order of a mapping proxy": ("import types", "types.MappingProxyType({«'a': 1, 'b': 2¦'b': 2, 'a': 1»})", "list(v)"),
    "the order of a dict's subclass": ("class D(dict): pass", "D({«'a': 1, 'b': 2¦'b': 2, 'a': 1»})", "list(v)"),
    "the order of a dict in an instance": ("class C:\n    def __init__(self, d): self.d = d", "C({«'a': 1, 'b': 2¦'b': 2, 'a': 1»})", "list(v.d)"),
    "the order of a dict in a dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass C:\n    d: dict", "C({«'a': 1, 'b': 2¦'b': 2, 'a': 1»})", "list(v.d)"),
    "the order of a dict in a pydantic model": ("import pydantic\nclass C(pydantic.BaseModel):\n    d: dict", "C(d={«'a': 1, 'b': 2¦'b': 2, 'a': 1»})", "list(v.d)"),
    "the order of a view": ("", "{«'a': 1, 'b': 2¦'b': 2, 'a': 1»}.keys()", "list(v)"),
    "numpy titles": ("import numpy as np", "np.zeros(1, dtype=[(('«one|two»', 'a'), 'i4')])", "sorted(v.dtype.fields)"),
    "a numpy dtype's titles": ("import numpy as np", "np.dtype([(('«one|two»', 'a'), 'i4')])", "sorted(v.fields)"),
    "a masked array's fill value": ("import numpy as np", "np.ma.array([1, 2], mask=[0, 1], fill_value=«7|8»)", "v.filled().tolist()"),
    "a numpy matrix": ("import numpy as np", "np.«array|matrix»([[1, 2], [3, 4]])", "(v * v).tolist()"),
    "a record array": ("import numpy as np", "np.zeros(1, dtype=[('a', 'i4')])«|.view(np.recarray)»", "type(v).__name__"),
    "a poly1d": ("import numpy as np", "np.poly1d([1, «1|2»])", "float(v(1))"),
    "an object array": ("import numpy as np", "np.array([{'a': «1|2»}], dtype=object)", "v[0]['a']"),
    "attrs of a frame": ("import pandas as pd\ndef frame(unit):\n    df = pd.DataFrame({'a': [1]})\n    df.attrs['unit'] = unit\n    return df", "frame('«m|km»')", "v.attrs['unit']"),
    "flags of a frame": ("import pandas as pd", "pd.DataFrame({'a': [1]}).set_flags(allows_duplicate_labels=«True|False»)", "v.flags.allows_duplicate_labels"),
    "the name of a frame's columns": ("import pandas as pd", "pd.DataFrame({'a': [1]}).rename_axis(columns='«x|y»')", "v.columns.name"),
    "the order of categories": ("import pandas as pd", "pd.Series(pd.Categorical(['a'], categories=[«'a', 'b'|'b', 'a'»]))", "v.cat.codes.tolist()"),
    "an unused category": ("import pandas as pd", "pd.Series(pd.Categorical(['a'], categories=['a', '«b|c»']))", "v.cat.categories.tolist()"),
    "the frequency of an index": ("import pandas as pd", "pd.date_range('2026-01-01', periods=2)«|._with_freq(None)»", "str(v.freq)"),
    "an offset": ("import pandas as pd", "pd.offsets.BDay(«1|2»)", "str(pd.Timestamp('2026-01-01') + v)"),
    "a groupby": ("import pandas as pd", "pd.DataFrame({'a': [1, 1], 'b': [1, 2]}).groupby('«a|b»')", "v.keys"),
    "a rolling window": ("import pandas as pd", "pd.Series([1, 2, 3]).rolling(«1|2»)", "v.window"),
    "an interval's sides": ("import pandas as pd", "pd.Interval(0, 1, closed='«left|right»')", "0 in v"),
    "polars categories": ("import polars as pl", "pl.Series(['a', 'b'], dtype=pl.Enum([«'a', 'b'|'b', 'a'»]))", "v.to_physical().to_list()"),
    "an unused polars category": ("import polars as pl", "pl.Series(['a'], dtype=pl.Enum(['a', '«b|c»']))", "v.dtype.categories.to_list()"),
    "polars categories in a frame": ("import polars as pl", "pl.DataFrame({'x': pl.Series(['a'], dtype=pl.Enum([«'a', 'b'|'b', 'a'»]))})", "v['x'].to_physical().to_list()"),
    "a polars dtype": ("import polars as pl", "pl.Enum([«'a', 'b'|'b', 'a'»])", "v.categories.to_list()"),
    "a polars expression": ("import polars as pl", "pl.col('a') + «1|2»", "pl.DataFrame({'a': [1]}).select(v).item()"),
    "a lazy frame": ("import polars as pl", "pl.LazyFrame({'a': [1]}).select(pl.col('a') + «1|2»)", "v.collect().item()"),
    "a lazy frame's data": ("import polars as pl", "pl.LazyFrame({'a': [«1|2»]})", "v.collect().item()"),
    "a polars schema": ("import polars as pl", "pl.Schema({'a': pl.«Int64|Int32»})", "str(v['a'])"),
    "an Arrow extension's parameter": ("import pyarrow as pa", "pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [«1, 2|2, 1»]), pa.array([[1, 2]], pa.list_(pa.int32(), 2)))", "v.type.shape"),
    "an Arrow extension's own parameter": ("import pyarrow as pa\nclass Unit(pa.ExtensionType):\n    def __init__(self, unit):\n        self.unit = unit\n        super().__init__(pa.int64(), 'kit.unit')\n    def __arrow_ext_serialize__(self): return self.unit.encode()\n    @classmethod\n    def __arrow_ext_deserialize__(cls, storage, data): return cls(data.decode())", "pa.ExtensionArray.from_storage(Unit('«m|km»'), pa.array([1]))", "v.type.unit"),
    "an Arrow extension's parameter in a table": ("import pyarrow as pa", "pa.table({'a': pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [«1, 2|2, 1»]), pa.array([[1, 2]], pa.list_(pa.int32(), 2)))})", "v.schema.field('a').type.shape"),
    "an Arrow opaque type": ("import pyarrow as pa", "pa.opaque(pa.int64(), '«one|two»', 'x')", "v.type_name"),
    "the order of an Arrow dictionary": ("import pyarrow as pa", "pa.DictionaryArray.from_arrays(pa.array([«0|1»]), pa.array([«'a', 'b'|'b', 'a'»]))", "v.indices.to_pylist()"),
    "an Arrow dictionary's unused entry": ("import pyarrow as pa", "pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(['a', '«b|c»']))", "v.dictionary.to_pylist()"),
    "an Arrow dictionary that is ordered": ("import pyarrow as pa", "pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(['a']), ordered=«True|False»)", "v.type.ordered"),
    "an Arrow field's metadata": ("import pyarrow as pa", "pa.table({'a': [1]}, schema=pa.schema([pa.field('a', pa.int64(), metadata={'unit': '«m|km»'})]))", "v.schema.field('a').metadata[b'unit'].decode()"),
    "an Arrow schema's metadata": ("import pyarrow as pa", "pa.table({'a': [1]}).replace_schema_metadata({'unit': '«m|km»'})", "v.schema.metadata[b'unit'].decode()"),
    "a nested Arrow field's metadata": ("import pyarrow as pa", "pa.array([{'a': 1}], pa.struct([pa.field('a', pa.int64(), metadata={'unit': '«m|km»'})]))", "v.type.field('a').metadata[b'unit'].decode()"),
    "an Arrow field that may be null": ("import pyarrow as pa", "pa.schema([pa.field('a', pa.int64(), nullable=«True|False»)])", "v.field('a').nullable"),
    "an Arrow schema": ("import pyarrow as pa", "pa.schema([pa.field('a', pa.int64(), metadata={'unit': '«m|km»'})])", "v.field('a').metadata[b'unit'].decode()"),
    "an Arrow record batch": ("import pyarrow as pa", "pa.record_batch({'a': [«1|2»]})", "v.to_pydict()"),
    "an Arrow expression": ("import pyarrow.compute as pc", "pc.field('a') > «1|2»", "str(v)"),
    "a sparse matrix": ("import scipy.sparse", "scipy.sparse.csr_matrix([[0, «1|2»]])", "v.toarray().tolist()"),
    "a KDTree": ("import scipy.spatial", "scipy.spatial.KDTree([[«1|2», 0]])", "v.data.tolist()"),
    "a fitted spline": ("import numpy as np, scipy.interpolate", "scipy.interpolate.interp1d([0, 1], [0, «1|2»])", "float(v(1))"),
    "a scaler's option": ("import sklearn.preprocessing", "sklearn.preprocessing.StandardScaler(with_mean=«True|False»)", "v.with_mean"),
    "a SQLAlchemy statement": ("import sqlalchemy as sa", "sa.text('select «1|2»')", "str(v)"),
    "a SQLAlchemy URL": ("import sqlalchemy as sa", "sa.make_url('sqlite:///«a|b».db')", "str(v)"),
}  # fmt: skip
"""Name: (definitions, the value with its marks, what the body does with it)."""

ONCE = {
    "a list's iterator": ("", "iter([«1|2»])", "list(v)"),
    "a generator": ("", "(x for x in [«1|2»])", "list(v)"),
    "a generator of a function": ("def g(n):\n    yield n", "g(«1|2»)", "list(v)"),
    "a map": ("", "map(str, [«1|2»])", "list(v)"),
    "a zip": ("", "zip([«1|2»], 'a')", "list(v)"),
    "an enumerate": ("", "enumerate(['«a|b»'])", "list(v)"),
    "an enumerate's start": ("", "enumerate(['a'], «0|1»)", "list(v)"),
    "a filter": ("", "filter(None, [«1|2»])", "list(v)"),
    "a reversed": ("", "reversed([«1|2»])", "list(v)"),
    "a chain": ("import itertools", "itertools.chain([«1|2»], [3])", "list(v)"),
    "an islice": ("import itertools", "itertools.islice([1, 2, 3], «1|2»)", "list(v)"),
    "a dict's iterator": ("", "iter({«1|2»: 0})", "list(v)"),
    "an iterator of a set": ("", "iter({«1|2»})", "list(v)"),
    "a csv reader": ("import csv, io", "csv.reader(io.StringIO('«a|b»'))", "list(v)"),
    "rows of a frame": ("import pandas as pd", "pd.DataFrame({'a': [«1|2»]}).iterrows()", "[row['a'].item() for _, row in v]"),
    "matches": ("import re", "re.finditer('.', '«a|b»')", "[m.group() for m in v]"),
    "a product": ("import itertools", "itertools.product([«1|2»], [3])", "list(v)"),
    "an iterator of one's own": ("class It:\n    def __init__(self, n): self.n = n\n    def __iter__(self): return iter([self.n])", "It(«1|2»)", "list(v)"),
}  # fmt: skip
"""What can be read once: taken as its items, or refused."""

SAME = {
    "a set of strings": ("", "{'a', 'b', 'c', 'd'}", "sorted(v)"),
    "the order of a set's elements": ("", "{«'a', 'b', 'c'|'c', 'a', 'b'»}", "sorted(v)"),
    "a frozen set in a tuple": ("", "(frozenset({'a', 'b', 'c'}), 1)", "sorted(v[0])"),
    "a set of tuples": ("", "{('a', 1), ('b', None), ('c', 'x')}", "len(v)"),
    "a set of enum members": ("import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    C = 3", "{E.A, E.B, E.C}", "len(v)"),
    "a set of classes": ("class A: pass\nclass B: pass", "{A, B, int, str}", "len(v)"),
    "a set of functions": ("def a(): return 1\ndef b(): return 2", "{a, b, len}", "len(v)"),
    "a set of instances": ("class C:\n    def __init__(self, n): self.n = n", "{C(1), C(2), C(3)}", "sorted(c.n for c in v)"),
    "a cycle with sets": ("class N:\n    def __init__(self, n):\n        self.n = n\n        self.near = set()\na, b, c = N(1), N(2), N(3)\nfor x in (a, b, c):\n    for y in (a, b, c):\n        x.near.add(y)", "a", "len(v.near)"),
    "a cycle of two": ("class N:\n    def __init__(self, n): self.n = n\na, b = N(1), N(2)\na.other, b.other = b, a", "[a, b]", "v[0].other.n"),
    "a cycle through a dict of sets": ("class N:\n    def __init__(self, n): self.n, self.by = n, {}\na, b, c = N(1), N(2), N(3)\na.by['x'] = {b, c}\nb.by['x'] = {a, c}\nc.by['x'] = {a, b}", "[a, b, c]", "len(v)"),
    "a graph of dicts": ("g = {'a': {'b', 'c'}, 'b': {'a'}, 'c': set()}", "g", "sorted(v['a'])"),
    "a dict keyed by instances": ("class K:\n    def __init__(self, n): self.n = n", "{K(1): 'a', K(2): 'b'}", "sorted(v.values())"),
    "a KDTree": ("import scipy.spatial", "scipy.spatial.KDTree([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])", "v.n"),
    "a cKDTree": ("import scipy.spatial", "scipy.spatial.cKDTree([[1.0, 2.0], [3.0, 4.0]])", "v.n"),
    "a Styler": ("import pandas as pd", "pd.DataFrame({'a': [1]}).style.format(precision=2)", "type(v).__name__"),
    "a Styler with a function": ("import pandas as pd", "pd.DataFrame({'a': [1]}).style.map(lambda x: 'color: red')", "type(v).__name__"),
    "a sentinel": ("MISSING = object()", "MISSING", "v is None"),
    "a sentinel in a list": ("MISSING = object()", "[MISSING, 1]", "len(v)"),
    "a lock in an instance": ("import threading\nclass C:\n    def __init__(self): self.lock, self.n = threading.Lock(), 1", "C()", "v.n"),
    "a weak dictionary": ("import weakref\nclass C:\n    def __init__(self): self.known, self.n = weakref.WeakValueDictionary(), 1", "C()", "v.n"),
    "a logger": ("import logging", "logging.getLogger('kit')", "v.name"),
    "Fortran order": ("import numpy as np", "np.arange(6).reshape(2, 3)«|.copy(order='F')»", "int(v.sum())"),
    "a strided array": ("import numpy as np", "«np.arange(10)[::2]|np.arange(0, 10, 2)»", "int(v.sum())"),
    "a nan": ("", "float('nan')«|*1»", "v != v"),
    "a frame built otherwise": ("import pandas as pd", "«pd.DataFrame({'a': [1, 2]})|pd.concat([pd.DataFrame({'a': [1]}), pd.DataFrame({'a': [2]})], ignore_index=True)»", "int(v['a'].sum())"),
    "chunks of Arrow": ("import pyarrow as pa", "«pa.chunked_array([[1, 2]])|pa.chunked_array([[1], [2]])»", "v.to_pylist()"),
    "chunks of polars": ("import polars as pl", "«pl.Series([1, 2])|pl.Series([1]).append(pl.Series([2]))»", "v.to_list()"),
    "a polars frame with a Categorical": ("import polars as pl", "pl.DataFrame({'x': pl.Series(['a', 'b', 'a'], dtype=pl.Categorical)})", "v['x'].to_list()"),
    "a polars Categorical, after other strings": ("import polars as pl\n«|other = pl.Series(['z', 'b'], dtype=pl.Categorical)»", "pl.Series(['a', 'b'], dtype=pl.Categorical)", "v.to_list()"),
    "a lazy frame": ("import polars as pl", "pl.LazyFrame({'a': [1]}).select(pl.col('a') + 1)", "v.collect().item()"),
    "an Arrow table": ("import pyarrow as pa", "pa.table({'a': [1, 2], 'b': ['x', 'y']})", "v.num_rows"),
    "a fitted model": ("import numpy as np\nfrom sklearn.linear_model import Ridge", "Ridge().fit(np.eye(3), [1.0, 2.0, 3.0])", "round(float(v.coef_.sum()), 3)"),
    "the library's version in a model": ("import sklearn, sklearn.base\nfrom sklearn.linear_model import Ridge\nsklearn.__version__ = sklearn.base.__version__ = '«1.9.0|1.9.1»'", "Ridge(alpha=2.0)", "v.alpha"),
    "the library's version in a fitted model": ("import numpy as np, sklearn, sklearn.base\nfrom sklearn.linear_model import Ridge\nsklearn.__version__ = sklearn.base.__version__ = '«1.9.0|1.9.1»'", "Ridge().fit(np.eye(2), [1.0, 2.0])", "v.alpha"),
    "the library's version in a pipeline": ("import sklearn, sklearn.base, sklearn.pipeline, sklearn.preprocessing\nsklearn.__version__ = sklearn.base.__version__ = '«1.9.0|1.9.1»'", "sklearn.pipeline.make_pipeline(sklearn.preprocessing.StandardScaler())", "len(v.steps)"),
    "a bound method": ("class C:\n    def __init__(self): self.names = {'a', 'b', 'c'}\n    def m(self): return 1", "C().m", "v()"),
    "a pattern": ("import re", "re.compile('a')", "v.pattern"),
    "a match": ("import re", "re.match('a', 'abc')", "v.group()"),
    "StringIO": ("import io", "io.StringIO('a')", "v.getvalue()"),
    "a view": ("", "{'a': 1, 'b': 2}.keys()", "sorted(v)"),
    "a view of a set's dict": ("", "dict.fromkeys(sorted({'a', 'b', 'c'})).keys()", "sorted(v)"),
    "CompletedProcess": ("import subprocess", "subprocess.CompletedProcess(['x'], 0, stdout='a')", "v.stdout"),
    "a ZoneInfo": ("import zoneinfo", "zoneinfo.ZoneInfo('Europe/Paris')", "v.key"),
    "an element tree": ("import xml.etree.ElementTree as et", "et.fromstring('<a><b/></a>')", "v.tag"),
    "a random generator": ("import random", "random.Random(1)", "v is not None"),
    "a numpy generator": ("import numpy as np", "np.random.default_rng(1)", "v is not None"),
    "a generator's items": ("", "list(x for x in [1])", "v"),
    "a SQLAlchemy statement": ("import sqlalchemy as sa", "sa.text('select 1')", "str(v)"),
    "a SQLAlchemy table": ("import sqlalchemy as sa", "sa.Table('t', sa.MetaData(), sa.Column('a', sa.Integer))", "v.name"),
    "a module": ("import json", "json", "v.dumps(1)"),
}  # fmt: skip
"""Equal in every process; where there are marks, in both spellings."""


def _argument(setup, value, use):
    return f"{setup}\n@step\ndef f(v): return {use}  # COMMENT\n>>> f({value})"


def _global(setup, value, use):
    return f"{setup}\nv = {value}\n@step\ndef f(): return {use}  # COMMENT\n>>> f()"


def _edits(table, way, how):
    return [
        Row(f"{name}, {how}", way(*parts).replace("  # COMMENT", ""))
        for name, parts in table.items()
    ]


def _unedited(table, way, how):
    rows = []
    for name, parts in table.items():
        text = way(*parts)
        edit = "" if "«" in text else "  # «one|two»"
        rows.append(Row(f"{name}, {how}", text.replace("  # COMMENT", edit)))
    return rows


TEXTS = {
    "the order of collected keywords": "@step\ndef f(**k): return list(k)\n>>> f(«a=1, b=2|b=2, a=1»)",
    "the order of keywords that a class collects": "class C:\n    def __init__(self, **k): self.k = k\n@step\ndef f(c): return list(c.k)\n>>> f(C(«a=1, b=2|b=2, a=1»))",
    "the order of a frame's columns": "import pandas as pd\n@step\ndef f(t): return list(pd.DataFrame(t).columns)\n>>> f({«'lon': 1, 'lat': 2¦'lat': 2, 'lon': 1»})".replace(": 1", ": [1]").replace(": 2", ": [2]"),
    "the order of a dict in a closure": "def make(d): return lambda: list(d)\ng = make({«'a': 1, 'b': 2¦'b': 2, 'a': 1»})\n@step\ndef f(): return g()\n>>> f()",
    "the order of a dict in a default": "@step\ndef f(d={«'a': 1, 'b': 2¦'b': 2, 'a': 1»}): return list(d)\n>>> f()",
    "the order of a class's dict": "class C:\n    d = {«'a': 1, 'b': 2¦'b': 2, 'a': 1»}\n@step\ndef f(): return list(C.d)\n>>> f()",
    "the order of a module's dict": "import tool\n@step\ndef f(): return list(tool.D)\n>>> f()\n--- tool.py\nD = {«'a': 1, 'b': 2¦'b': 2, 'a': 1»}\n",
    "the order of a dict that another step gives": "@step\ndef g(): return {«'a': 1, 'b': 2¦'b': 2, 'a': 1»}\n@step\ndef f(d): return list(d)\n>>> f(g.go())",
    "an iterator in a list": "@step\ndef f(vs): return list(vs[0])\n>>> f([iter([«1|2»])])",
    "an environment as an argument": "import os\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(e): return e['KIT_RATE']\n>>> f(os.environ)",
    "an environment's copy": "import os\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(e): return e['KIT_RATE']\n>>> f(dict(os.environ))",
    "lists of fresh lambdas": "class Op:\n    def __init__(self, fn): self.fn = fn\n@step\ndef f(ops): return [op.fn(1) for op in ops]\n>>> f([Op(lambda x: x + 1), Op(lambda x: x + 2)])\n>>> f([Op(lambda x: x + 3), Op(lambda x: x + «4|5»)])",
    "fresh closures": "def make(n): return lambda x: x + n\n@step\ndef f(fns): return [fn(1) for fn in fns]\n>>> [f([make(n), make(n + 1)]) for n in (1, «2|5», 3)]",
    "fresh classes": "def make(n):\n    class C:\n        def m(self): return n\n    return C\n@step\ndef f(kinds): return [k().m() for k in kinds]\n>>> [f([make(n), make(n + 1)]) for n in (1, «2|5», 3)]",
    "fresh partials of fresh lambdas": "import functools\n@step\ndef f(fn): return fn()\n>>> [f(functools.partial(lambda x, y: x + y, n, n)) for n in (1, «2|5», 3)]",
    "fresh instances with fresh methods": "class C:\n    def __init__(self, n): self.m = lambda: n\n@step\ndef f(cs): return [c.m() for c in cs]\n>>> [f([C(n), C(n * 10)]) for n in (1, «2|5», 3)]",
}  # fmt: skip

TOLD = {
    "an environment variable by its name": "import os\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(): return os.environ['KIT_RATE']\n>>> f()",
    "an environment variable by getenv": "import os\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(): return os.getenv('KIT_RATE')\n>>> f()",
    "an environment variable by get": "import os\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(): return os.environ.get('KIT_RATE', '0')\n>>> f()",
    "an environment variable in a helper": "import os\nos.environ['KIT_RATE'] = '«1|2»'\ndef g(): return os.environ['KIT_RATE']\n@step\ndef f(): return g()\n>>> f()",
    "an environment variable by a name that is imported": "import os\nfrom os import environ\nos.environ['KIT_RATE'] = '«1|2»'\n@step\ndef f(): return environ['KIT_RATE']\n>>> f()",
}  # fmt: skip

INSERTED = {
    "lists of fresh lambdas, one more before them": "class Op:\n    def __init__(self, n): self.fn = lambda x: x + n\n@step\ndef f(ops): return [op.fn(1) for op in ops]\n>>> [f([Op(n), Op(n + 1)]) for n in range(«1|0», 12)]",
    "fresh closures, one more before them": "def make(n): return lambda: n\n@step\ndef f(fns): return [fn() for fn in fns]\n>>> [f([make(n), make(n)]) for n in range(«1|0», 12)]",
    "fresh classes, one more before them": "def make(n):\n    class C:\n        def m(self): return n\n    return C\n@step\ndef f(kinds): return [k().m() for k in kinds]\n>>> [f([make(n)]) for n in range(«1|0», 12)]",
}  # fmt: skip

SETS = {"a set of strings", "a cycle with sets", "a KDTree", "a Styler", "a cKDTree", "a sentinel",
        "a set of instances", "a cycle of two", "a weak dictionary", "a lazy frame"}  # fmt: skip

NOTICED = [
    *_edits(VALUES, _argument, "an argument"),
    *_edits(VALUES, _global, "a global"),
    *(Row(f"{name}, an argument", _argument(*parts).replace("  # COMMENT", ""), refused=True) for name, parts in ONCE.items()),
    *(Row(name, text, refused="iterator" in name) for name, text in TEXTS.items()),
    *(Row(name, text, told=True) for name, text in TOLD.items()),
    *(Row(name, text, runs=1) for name, text in INSERTED.items()),
]  # fmt: skip

HARMLESS = [
    *_unedited(SAME, _argument, "an argument"),
    *_unedited({name: SAME[name] for name in SAME if name in SETS}, _global, "a global"),
]

"""Values that lose a link, a class or a state where they are saved name by name: a table.

``definitions`` are executed in both kernels, as a notebook's own classes and functions are;
``cell`` only in the first. ``check`` must hold in both: it changes something and looks at it
through another name. ``groups`` are the names that belong together.
"""

from typing import NamedTuple


class Hazard(NamedTuple):
    """One kind of values."""

    cell: str
    groups: str  # groups divided by "|", names by blanks
    check: str = ""
    definitions: str = ""
    library: str = ""


HAZARDS = {
    # --- lists, dictionaries, sets
    "one list, two names": Hazard("a = [1]; b = a", "a b", "b.append(2); assert a == [1, 2]"),
    "list in a list": Hazard(
        "x = [1]; a = [x, x]; b = list(a); c = [[1], [1]]",
        "a b x | c",
        "x.append(2); assert a == [[1, 2], [1, 2]] == b; assert a is not b and c == [[1], [1]]",
    ),
    "tuple that holds a list": Hazard(
        "t = ([],); u = (t, 1); n = (1, 2); m = n",
        "t u | n | m",
        "t[0].append(3); assert u[0][0] == [3]",
    ),
    "cyclic list": Hazard("a = []; a.append(a); b = [a]", "a b", "assert a[0] is a is b[0]"),
    "cyclic dictionary": Hazard(
        "d = {}; d['self'] = d; d['v'] = [1]; v = d['v']", "d v", "assert d['self']['v'] is v"
    ),
    "dictionary order": Hazard(
        "a = {'x': 1, 'y': 2}; b = {'y': 2, 'x': 1}", "a | b", "assert list(b) == ['y', 'x']"
    ),
    "equal numbers and strings": Hazard("a = 5; b = 5; s = 'x'; t = 'x'", "a | b | s | t"),
    "empty lists": Hazard("a = []; b = []; c = a", "a c | b", "c.append(1); assert a == [1]"),
    "dictionary shared by two instances": Hazard(
        "shared = {}; p = P(shared); q = P(shared)",
        "p q shared",
        "p.d['k'] = 1; assert q.d == {'k': 1} == shared; assert type(p) is P",
        "class P:\n    def __init__(self, d): self.d = d",
    ),
    "set of instances": Hazard(
        "items = {N(1), N(2), N(3)}; one = next(n for n in items if n.v == 2)",
        "items one",
        "assert one in items and {n.v for n in items} == {1, 2, 3}",
        "class N:\n    def __init__(self, v): self.v = v",
    ),
    "set that holds itself by an instance": Hazard(
        "h = H(); h.all = {h}; f = frozenset([h])",
        "f h",
        "assert h in h.all and h in f",
        "class H: pass",
    ),
    "set of strings": Hazard(
        "s = {'a', 'b', 'c', 'd', 'e'}; t = s", "s t", "t.add('f'); assert 'f' in s"
    ),
    "defaultdict with a lambda": Hazard(
        "from collections import defaultdict\nd = defaultdict(lambda: [base]); d['k'].append(2)",
        "d",
        "assert d['new'] == [7] and d['k'] == [7, 2]",
        "base = 7",
    ),
    "deque, heap, counter": Hazard(
        "from collections import deque, Counter\nimport heapq\n"
        "h = [3, 1, 2]; heapq.heapify(h); q = deque(h, maxlen=5); c = Counter('aab'); r = [q, c]",
        "c q r | h",
        "q.append(9); c['z'] += 1; assert r[0][-1] == 9 and r[1]['z'] == 1; assert q.maxlen == 5",
    ),
    "ordered dictionary": Hazard(
        "from collections import OrderedDict\no = OrderedDict(a=1, b=2); o.move_to_end('a'); p = o",
        "o p",
        "assert list(p) == ['b', 'a'] and p is o",
    ),
    "mapping proxy and views": Hazard(
        "import types\nd = {'a': 1}; k = d.keys(); v = d.values(); i = d.items()\n"
        "p = types.MappingProxyType(d)",
        "d i k p v",
        "d['b'] = 2; assert p['b'] == 2; assert list(k) == ['a', 'b'] and list(v) == [1, 2] and ('b', 2) in i",
    ),
    "subclass of list with attributes": Hazard(
        "x = L([1]); x.tag = ['t']; tag = x.tag",
        "tag x",
        "tag.append('u'); assert x.tag == ['t', 'u'] and type(x) is L and x == [1]",
        "class L(list): pass",
    ),
    # --- instances and classes
    "dataclass and slots": Hazard(
        "d = D([1]); s = S(d.items); items = s.items",
        "d items s",
        "items.append(2); assert d.items == [1, 2] == s.items and d == D([1, 2])",
        "from dataclasses import dataclass\n@dataclass\nclass D:\n    items: list\n"
        "class S:\n    __slots__ = ('items', 'unset')\n    def __init__(self, i): self.items = i",
    ),
    "property and cached property": Hazard(
        "c = C([1, 2]); c.total",
        "c",
        "assert c.double == [1, 2, 1, 2] and c.total == 3",
        "import functools\nclass C:\n    def __init__(self, v): self.v = v\n"
        "    @property\n    def double(self): return self.v * 2\n"
        "    @functools.cached_property\n    def total(self): return sum(self.v)",
    ),
    "registry on a class": Hazard(
        "a = R('a'); b = R('b'); R.count += 5; listed = R.registry",
        "R a b listed",
        "assert R.registry == [a, b] and R.count == 7 and listed is R.registry",
        "class R:\n    registry = []\n    count = 0\n    def __init__(self, n):\n"
        "        self.n = n; R.registry.append(self); R.count += 1",
    ),
    "registry of subclasses": Hazard(
        "one = Base.known['Sub']()",
        "Base | Sub | one",
        "assert Base.known == {'Sub': Sub} and type(one) is Sub",
        "class Base:\n    known = {}\n    def __init_subclass__(cls, **k):\n"
        "        super().__init_subclass__(**k); Base.known[cls.__name__] = cls\n"
        "class Sub(Base): pass",
    ),
    "class that was patched": Hazard(
        "W.limit = 9; W.extra = [1]; W.doubled = lambda self: self.v * 2; w = W()",
        "W | w",
        "assert W.limit == 9 and W.extra == [1] and w.doubled() == 6",
        "class W:\n    limit = 3\n    v = 3",
    ),
    "class attribute that was deleted": Hazard(
        "del V.gone",
        "V",
        "assert not hasattr(V, 'gone') and V.kept == 1",
        "class V:\n    gone = 1\n    kept = 1",
    ),
    "enumeration": Hazard(
        "c = Color.RED; d = {Color.BLUE: [c]}",
        "c | d",
        "assert c is Color.RED and d == {Color.BLUE: [Color.RED]}",
        "import enum\nclass Color(enum.Enum):\n    RED = 1\n    BLUE = 2",
    ),
    "named tuple made by a call": Hazard(
        "from collections import namedtuple\nPoint = namedtuple('Point', 'x y'); p = Point([1], 2)",
        "Point | p",
        "assert p == Point([1], 2) and type(p) is Point and p.x == [1]",
    ),
    "class with state made by a call": Hazard(
        "K = type('K', (), {'seen': [], 'add': lambda self: K.seen.append(self)})\n"
        "k = K(); k.add(); K.seen.append(K)",
        "K k",
        "assert K.seen == [k, K] and type(k) is K; k.add(); assert len(K.seen) == 3",
    ),
    "class made in a function": Hazard(
        "K = make(); k = K(); k.v = [1]; v = k.v",
        "K k v",
        "v.append(2); assert k.v == [1, 2] and k.twice() == [1, 2, 1, 2] and isinstance(k, K)",
        "def make():\n    class Inner:\n        def twice(self): return self.v * 2\n    return Inner",
    ),
    "exception with a traceback": Hazard(
        "try:\n    try:\n        1 / 0\n    except ZeroDivisionError as inner:\n"
        "        raise Wrong('bad', [1]) from inner\nexcept Wrong as error:\n    e = error\n",
        "e",
        "assert type(e) is Wrong and e.args == ('bad', [1])\n"
        "assert type(e.__cause__) is ZeroDivisionError",
        "class Wrong(Exception): pass",
    ),
    # --- functions
    "lambda in a dictionary": Hazard(
        "table = {'f': lambda x: x + base}; g = table['f']",
        "g table",
        "assert table['f'](1) == 8 and g is table['f']",
        "base = 7",
    ),
    "closures that share a cell": Hazard(
        "up, get = counter(); up()",
        "get up",
        "assert get() == 1; up(); assert get() == 2",
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
        "    def get(): return n\n    return up, get",
    ),
    "closure over a list": Hazard(
        "seen = []; note = keeper(seen)",
        "note seen",
        "note(3); assert seen == [3]",
        "def keeper(into):\n    def note(x): into.append(x)\n    return note",
    ),
    "function with state": Hazard(
        "acc(1); acc(2); acc.calls = 2",
        "acc",
        "assert acc(3) == [1, 2, 3] and acc.calls == 2",
        "def acc(x, into=[]):\n    into.append(x)\n    return into",
    ),
    "generator in a default": Hazard(
        "roll(); g = roll.__defaults__[0]",
        "g roll",
        "x = random.Random(1); x.random(); assert g.random() == x.random() and roll() == x.random()",
        "import random\ndef roll(r=random.Random(1)): return r.random()",
    ),
    "function in a list": Hazard(
        "fs = [f, f]", "fs", "assert fs[0] is f is fs[1]", "def f(): return 1"
    ),
    "bound method": Hazard(
        "b = B(); call = b.add; other = {'c': call}",
        "b call other",
        "call(4); other['c'](5); assert b.v == [4, 5]",
        "class B:\n    def __init__(self): self.v = []\n    def add(self, x): self.v.append(x)",
    ),
    "method of a list": Hazard("a = []; push = a.append", "a push", "push(1); assert a == [1]"),
    "partial": Hazard(
        "import functools\nl = [1]; p = functools.partial(add, l)",
        "l p",
        "assert p(2) == [1, 2]; assert l == [1, 2]",
        "def add(l, x):\n    l.append(x)\n    return l",
    ),
    "lru_cache over a lambda": Hazard(
        "import functools\nf = functools.lru_cache(maxsize=3)(lambda x: x * base); f(2)",
        "f",
        "assert f(3) == 21 and f.cache_info().maxsize == 3",
        "base = 7",
    ),
    "source of a lambda": Hazard(
        "f = lambda x: x + 41  # the line",
        "f",
        "import inspect\nassert 'x + 41' in inspect.getsource(f)",
    ),
    # --- bytes
    "bytearray and memoryview": Hazard(
        "ba = bytearray(b'abcdef'); mv = memoryview(ba)[2:4]; ro = memoryview(ba).toreadonly()",
        "ba mv ro",
        "ba[2] = 88; assert mv[0] == 88 and bytes(ro)[:3] == b'abX' and ro.readonly",
    ),
    "array and memoryview": Hazard(
        "from array import array\nar = array('d', [1, 2, 3]); mv = memoryview(ar)[1:]",
        "ar mv",
        "ar[1] = 9; assert mv[0] == 9.0 and mv.format == 'd'",
    ),
    "text buffer at a position": Hazard(
        "import io\ns = io.StringIO('abcdef'); s.read(2); t = s",
        "s t",
        "assert t.read(1) == 'c' and s.read() == 'def'",
    ),
    # --- what stands still
    "moments, paths, patterns": Hazard(
        "import datetime, zoneinfo, re, pathlib, decimal, fractions, uuid\n"
        "when = datetime.datetime(2026, 3, 29, 2, 30, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))\n"
        "p = pathlib.Path('a/b'); q = p; r = re.compile('a+', re.I); d = decimal.Decimal('1.10')\n"
        "fr = fractions.Fraction(1, 3); u = uuid.UUID(int=5)",
        "d | fr | p | q | r | u | when",
        "assert when.utcoffset().total_seconds() in (3600, 7200) and r.match('AAA')\n"
        "assert str(d) == '1.10' and p.name == 'b'",
    ),
    "decimal context": Hazard(
        "import decimal\nc = decimal.Context(prec=4); d = [c]",
        "c d",
        "d[0].prec = 3; assert c.prec == 3",
    ),
    "logger": Hazard(
        "import logging\nlog = logging.getLogger('a.b'); logs = [log]; other = [log]",
        "log | logs | other",
        "assert logs[0] is log is other[0] and log.name == 'a.b'",
    ),
    "random generators": Hazard(
        "import random\nr = random.Random(3); r.random(); s = r; draws = [r]; other = random.Random(3)",
        "draws r s | other",
        "import random\nassert s is r is draws[0]; x = random.Random(3); x.random(); assert r.random() == x.random()",
    ),
    # --- numpy
    "view": Hazard(
        "a = np.arange(10); b = a[2:]; c = b[1:]",
        "a b c",
        "a[3] = -1; assert b[1] == -1 == c[0]; c[1] = -2; assert a[4] == -2",
        library="numpy",
    ),
    "two views without their base": Hazard(
        "base = np.zeros(100); a = base[:60]; b = base[40:]; del base",
        "a b",
        "a[50] = 5; assert b[10] == 5",
        library="numpy",
    ),
    "transposed and reversed": Hazard(
        "a = np.arange(12).reshape(3, 4); t = a.T; r = a[::-1, ::2]",
        "a r t",
        "a[2, 0] = -7; assert t[0, 2] == -7 == r[0, 0]; assert t.shape == (4, 3)",
        library="numpy",
    ),
    "reinterpreted": Hazard(
        "a = np.zeros(4, 'f8'); b = a.view('u1')",
        "a b",
        "a[0] = 1.0; assert b[7] == 0x3F",
        library="numpy",
    ),
    "field of a structured array": Hazard(
        "a = np.zeros(3, dtype=[('x', 'i4'), ('y', 'f8')]); x = a['x']",
        "a x",
        "x[1] = 5; assert a[1]['x'] == 5",
        library="numpy",
    ),
    "row of a structured array": Hazard(
        "a = np.zeros(3, dtype=[('x', 'i4'), ('y', 'f8')]); row = a[1]",
        "a row",
        "row['x'] = 5; assert a['x'][1] == 5",
        library="numpy",
    ),
    "read only": Hazard(
        "a = np.arange(5); a.flags.writeable = False; v = np.arange(6).reshape(2, 3).T\n"
        "v.flags.writeable = False",
        "a | v",
        "assert not a.flags.writeable and not v.flags.writeable and a.sum() == 10",
        library="numpy",
    ),
    "strings of any length": Hazard(
        "s = np.array(['a', 'b' * 100], dtype=np.dtypes.StringDType()); t = s.copy()\n"
        "t.flags.writeable = False",
        "s | t",
        "assert s[1] == 'b' * 100 == t[1] and not t.flags.writeable",
        library="numpy",
    ),
    "broadcast": Hazard(
        "b = np.broadcast_to(np.arange(3), (1000, 3))",
        "b",
        "assert b.shape == (1000, 3) and b.strides[0] == 0 and not b.flags.writeable",
        library="numpy",
    ),
    "no dimensions, no elements": Hazard(
        "z = np.array(3.0); y = z; e = np.zeros((0, 3)); f = e",
        "e f | y z",
        "z[()] = 4; assert y == 4 and f is e and e.shape == (0, 3)",
        library="numpy",
    ),
    "views of an array of objects": Hazard(
        "l = [1]; o = np.array([l, {'k': l}, None], dtype=object); p = o[1:]; o[2] = o",
        "l o p",
        "p[0] = 5; assert o[1] == 5; l.append(2); assert o[0] == [1, 2] and o[2] is o",
        library="numpy",
    ),
    "large array": Hazard(
        "a = np.arange(100_000.0); b = a[50_000:]; c = np.arange(100_000.0)",
        "a b | c",
        "a[50_000] = -1; assert b[0] == -1 and c[50_000] == 50_000",
        library="numpy",
    ),
    "array in an instance": Hazard(
        "m = M(); row = m.w[0]",
        "m row",
        "row[0] = 3; assert m.w[0, 0] == 3",
        "class M:\n    def __init__(self): self.w = np.zeros((2, 2))",
        library="numpy",
    ),
    "array over a bytearray": Hazard(
        "ba = bytearray(16); a = np.frombuffer(ba, 'i4'); b = a[1:]",
        "a b ba",
        "ba[4] = 1; assert a[1] == 1 == b[0]",
        library="numpy",
    ),
    "memoryview of an array": Hazard(
        "a = np.arange(4.0); mv = memoryview(a)",
        "a mv",
        "a[0] = 9; assert mv[0] == 9.0",
        library="numpy",
    ),
    "generators that share bits": Hazard(
        "bits = np.random.PCG64(1); g = np.random.Generator(bits); h = np.random.Generator(bits)",
        "bits g h",
        "x = np.random.default_rng(1); assert g.random() == x.random() and h.random() == x.random()",
        library="numpy",
    ),
    "several memories": Hazard(
        "l = []\nfor n in range(30):\n    a = np.zeros(n + 1); l += [a, a[:1], a[n:]]\n",
        "a l",
        "a[0] = 1; assert l[-2][0] == 1 == l[-3][0]",
        library="numpy",
    ),
    "data of a masked array": Hazard(
        "m = np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=7); d = m.data",
        "d m",
        "d[0] = 9; assert m[0] == 9 and m.fill_value == 7 and m.mask.tolist() == [False, True, False]",
        library="numpy",
    ),
    "bunch": Hazard(
        "from sklearn.datasets import load_iris\niris = load_iris(); X = iris.data",
        "X iris",
        "X[0, 0] = -1; assert iris.data[0, 0] == -1 and iris['target'].size == 150",
        library="sklearn",
    ),
    "matrix and masked array": Hazard(
        "m = np.ma.array([1, 2, 3], mask=[0, 1, 0]); x = np.matrix([[1, 2]]); k = [m]",
        "k m | x",
        "m[0] = 9; assert k[0][0] == 9 and m.mask[1] and x.shape == (1, 2) and type(x) is np.matrix",
        library="numpy",
    ),
    # --- pandas
    "one frame, two names": Hazard(
        "df = pd.DataFrame({'a': [1, 2], 's': ['x', 'y']}); df2 = df; c = df.copy()",
        "df df2 | c",
        "df2['b'] = 3; assert 'b' in df and 'b' not in c",
        library="pandas",
    ),
    "column that shares its block": Hazard(
        "df = pd.DataFrame({'a': [1.0, 2.0], 'b': [3.0, 4.0]}); s = df['a']; x = df.to_numpy()",
        "df s x",
        "s.iloc[0] = 9; assert df.loc[0, 'a'] == 1.0",
        library="pandas",
    ),
    "array under a series": Hazard(
        "a = np.arange(3.0); s = pd.Series(a, copy=False)",
        "a s",
        "a[0] = 7; assert s[0] == 7",
        library="pandas",
    ),
    "shared index": Hazard(
        "i = pd.Index(['x', 'y'], name='k'); df = pd.DataFrame({'a': [1, 2]}, index=i)",
        "df i",
        "df.index.name = 'z'; assert i.name == 'z' and list(df.index) == list(i)",
        library="pandas",
    ),
    "groupby": Hazard(
        "df = pd.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]}); g = df.groupby('k')",
        "df g",
        "assert g['v'].sum()['a'] == 4",
        library="pandas",
    ),
    "categorical and dates": Hazard(
        "s = pd.Series(['a', 'b', 'a'], dtype='category'); t = pd.date_range('2026', periods=3)\n"
        "df = pd.DataFrame({'s': s, 't': t}); m = df.set_index(['s', 't'])",
        "df | m | s | t",
        "assert list(s.cat.categories) == ['a', 'b'] and df['t'].dt.day.tolist() == [1, 2, 3]",
        library="pandas",
    ),
    "strings": Hazard(
        "df = pd.DataFrame({'s': [f'row {n}' for n in range(50_000)]}); t = df['s']; o = df.astype(object)",
        "df | o | t",
        "assert t[49_999] == 'row 49999' == o.loc[49_999, 's']",
        library="pandas",
    ),
    "lists in a frame": Hazard(
        "l = [1]; df = pd.DataFrame({'a': [l, [2]]}); df.attrs['of'] = l",
        "df l",
        "l.append(3); assert df['a'][0] == [1, 3]",
        library="pandas",
    ),
    # --- others
    "polars frame": Hazard(
        "df = pl.DataFrame({'a': [1, 2], 's': ['x', None]}); e = df; s = df['a']",
        "df e | s",
        "assert e is df and s.to_list() == [1, 2] and df['s'].to_list() == ['x', None]",
        library="polars",
    ),
    "Arrow table": Hazard(
        "t = pa.table({'a': [1, 2, 3], 's': ['x', 'y', 'z']}); u = t.slice(1); c = t['a']",
        "c | t | u",
        "assert u['a'].to_pylist() == [2, 3] and c.to_pylist() == [1, 2, 3]",
        library="pyarrow",
    ),
    "figure with axes": Hazard(
        "fig, ax = plt.subplots(); line, = ax.plot([1, 2, 3]); plt.close(fig); lone = plt.figure()\n"
        "plt.close(lone)",
        "ax fig line | lone",
        "assert ax.figure is fig and line.axes is ax; ax.set_title('x')\n"
        "assert fig.axes[0].get_title() == 'x' and list(line.get_ydata()) == [1, 2, 3]",
        library="matplotlib",
    ),
    "colour bar and image": Hazard(
        "fig, axs = plt.subplots(1, 2); im = axs[0].imshow([[1, 2]]); bar = fig.colorbar(im)\n"
        "plt.close(fig); cm = plt.cm.viridis; norm = matplotlib.colors.Normalize(0, 1)",
        "axs bar fig im | cm | norm",
        "assert im.axes is axs[0] and bar.ax.figure is fig and im.colorbar is bar",
        library="matplotlib",
    ),
    "sparse matrix": Hazard(
        "import scipy.sparse as sp\nm = sp.csr_array(np.eye(3)); data = m.data",
        "data m",
        "data[0] = 5; assert m[0, 0] == 5",
        library="sklearn",
    ),
    "estimator of the notebook in a pipeline": Hazard(
        "from sklearn.pipeline import make_pipeline\nadd = Add(2); p = make_pipeline(add)\n"
        "p.fit(np.zeros((2, 2)))",
        "add p",
        "assert p[0] is add and type(add) is Add and p.transform(np.zeros((1, 1)))[0, 0] == 2",
        "from sklearn.base import BaseEstimator, TransformerMixin\n"
        "class Add(TransformerMixin, BaseEstimator):\n    def __init__(self, k=1): self.k = k\n"
        "    def fit(self, X, y=None):\n        self.n_ = 1\n        return self\n    def transform(self, X): return X + self.k",
        library="sklearn",
    ),
    "pydantic and attrs": Hazard(
        "m = M(x=2); l = m.l; a = A(); b = a.l",
        "a b | l m",
        "l.append(1); b.append(2); assert m.l == [1] and a.l == [2] and type(m) is M",
        "import pydantic, attrs\nclass M(pydantic.BaseModel):\n    x: int = 1\n    l: list[int] = []\n"
        "@attrs.define\nclass A:\n    l: list = attrs.Factory(list)",
        library="pydantic",
    ),
    "estimator": Hazard(
        "from sklearn.linear_model import LinearRegression\n"
        "X = np.arange(6.0).reshape(3, 2); y = X.sum(1); m = LinearRegression().fit(X, y)\n"
        "coef = m.coef_",
        "X | coef m | y",
        "coef[0] = 5; assert m.coef_[0] == 5",
        library="sklearn",
    ),
}

LIVE = {
    "generator": ("g = (n for n in [1])", "`g` (generator)"),
    "iterator over a list": ("l = [1]; it = iter(l)", "`it` (list_iterator)"),
    "itertools": ("import itertools\nc = itertools.cycle([1])", "`c` (itertools.cycle)"),
    "zip": ("z = zip([1], [2])", "`z` (zip)"),
    "open file": ("f = open('/dev/null')", "`f` (_io.TextIOWrapper)"),
    "lock in an instance": (
        "import threading\nclass A: pass\na = A(); a.lock = threading.Lock()",
        "`a.lock` (_thread.lock)",
    ),
    "connection": ("import sqlite3\nc = sqlite3.connect(':memory:')", "`c` (sqlite3.Connection)"),
    "socket": ("import socket\ns = socket.socket(); s.close()", "`s` (socket.socket)"),
    "thread": ("import threading\nt = threading.Thread(target=print)", "`t` (threading.Thread)"),
    "weak reference": (
        "import weakref\nclass A: pass\na = A(); r = weakref.ref(a)",
        "`r` (weakref.ReferenceType)",
    ),
    "coroutine": ("async def f(): pass\nc = f(); c.close()", "`c` (coroutine)"),
}
"""What is never kept and never compared: a cell, and how the reason begins."""

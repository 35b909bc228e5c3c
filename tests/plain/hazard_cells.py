"""A notebook of what has broken tools that restore notebooks, cell by cell."""

CELLS = [
    "import logging, os, random, sys, threading, warnings\nimport numpy as np\nimport pandas as pd\n"
    "import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt",
    "random.seed(7); np.random.seed(7); rng = np.random.default_rng(7)",
    # Views, in the cell and in a later one.
    "a = np.arange(12.0)\nwindow = a[3:9]",
    "grid = a.reshape(3, 4)\nrow = grid[1]",
    "row[:] = -1\nwindow[0] = 100\nprint(a)",
    "turned = grid.T\nturned[0, 0] = 5",
    # Lists that are shared, dicts and their order.
    "shared = [1, 2]\nbox = {'z': shared, 'a': (shared, 3)}\nagain = box['a'][0]",
    "again.append(3)\nbox['m'] = box.pop('z')\nlist(box)",
    "matrix = [[0] * 2] * 2\nmatrix[0][0] = 1\nmatrix",
    "ring = [1]\nring.append(ring)",
    # State through functions, classes, closures and defaults.
    "count = {'n': 0}\ndef bump(by=1, seen=[]):\n    global latest\n    count['n'] += by\n"
    "    seen.append(by)\n    latest = len(seen)\n    return count['n']",
    "bump(); bump(5)",
    "class Plug:\n    known = {}\n    def __init__(self, name):\n        self.name = name\n"
    "        Plug.known[name] = self\n    def __init_subclass__(cls):\n"
    "        Plug.known[cls.__name__] = cls",
    "class Special(Plug):\n    level = 1",
    "one = Plug('one'); Special.level += 1\nsorted(Plug.known)",
    "Plug.known['one'] is one, Plug.known['Special'] is Special",
    "def counter():\n    kept = []\n    def add(x):\n        kept.append(x)\n        return len(kept)\n"
    "    return add, lambda: list(kept)",
    "add, look = counter()",
    "add('x'); add('y');",
    "total = look()",
    "scale = 2\ntimes = [lambda x, k=k: x * k * scale for k in range(3)]",
    "[f(10) for f in times]",
    "scale = 3",
    "tripled = [f(10) for f in times]",
    # Random state, drawn in several ways.
    "d1 = random.random(), np.random.rand(), rng.normal()",
    "picks = random.sample(range(100), 5)\nrng.shuffle(picks)",
    "spare = np.random.RandomState(3); d2 = spare.rand(2)",
    "d3 = spare.rand(), rng.integers(10), random.choice('abc')",
    # Settings of the process and of libraries.
    "os.environ['HAZARD'] = '1'\nsys.path.append('/no/such/place')\nos.makedirs('work', exist_ok=True)",
    "logging.getLogger('hazard').setLevel(logging.ERROR)\n"
    "warnings.filterwarnings('ignore', message='hazard')",
    "pd.set_option('display.max_rows', 5)\nnp.set_printoptions(precision=2)\n"
    "plt.rcParams['lines.linewidth'] = 3",
    "os.chdir('work')\nopen('kept.txt', 'w').write(str(d1[0]));",
    "read = open('kept.txt').read() == str(d1[0])\nread",
    # Frames, their index and their columns.
    "df = pd.DataFrame({'g': list('aabb'), 'v': [1.0, 2, 3, 4]})\nalias = df\nindex = df.index",
    "other = pd.DataFrame({'w': range(4)}, index=index)\ndf['x'] = df.v * 2",
    "df.loc[0, 'v'] = 99\ndf.columns.name = 'cols'\nalias is df, other.index is index",
    "means = df.groupby('g').mean()\nmeans",
    "df = df.rename(columns=str.upper)\nlist(df), list(alias)",
    "cat = pd.Series(pd.Categorical(['x', 'y', 'x']))\nstamps = pd.date_range('2020', periods=3)",
    # A figure with its axes.
    "fig, ax = plt.subplots()\nline, = ax.plot([1, 2, 3])\nplt.close(fig)",
    "ax.set_title('hazard')\nline.set_color('red')",
    "checks = fig.axes[0] is ax, ax.lines[0] is line, ax.get_title(), line.get_color()\nchecks",
    # What is live.
    "numbers = iter([10, 20, 30])",
    "first = next(numbers)",
    "after_first = first + 1",
    "lock = threading.Lock()",
    "with lock:\n    guarded = 1",
    "with open('log.txt', 'a') as log:\n    log.write('x')",
    # Errors, deletions, names that come and go.
    "half = [1]\nhalf.append(2)\nhalf.missing()",
    "rest = len(half)",
    "temp = 5\ndel shared",
    "try:\n    shared\nexcept NameError:\n    found = False",
    "del temp",
    "for i in range(3):\n    last = i",
    "value = (lambda: (yield))\nvalue.__name__",
    "print('done', end='')",
]

LIVE = {"lock", "numbers", "log"}
"""Names of what can't be compared by anybody."""

DRAWN = {"fig", "ax", "line"}
"""Names of what is compared by `checks`."""

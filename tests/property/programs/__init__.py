"""Random programs of nbdurable, interpreted twice: by the engine, and by an oracle.

A program is data: a list of operations, each a dict. ``do`` says what it does, ``id``
names the handle that it makes, and ``of`` the handles that it uses:

=========== ==============================================================================
``go``      start ``step``; its handle
``call``    call ``step`` in place (``catch``: the error is handled; ``wrap``: another is
            raised from it)
``map``     ``step`` for each of ``items``, which are ids; the handle on all; ``exceptions``
``after``   a timer of ``seconds``
``sleep``   wait for ``seconds``, or (``until``) until so many after the beginning of time
``select``  over ``of``; ``success``
``race``    as ``select``
``gather``  over ``of``; ``exceptions``, ``keyed`` (a dict)
``ask``     ``how``: result, outcome, winner or index; ``seconds``: result(timeout); ``catch``
``each``    loop over as_completed(``of``); leave it after ``most``
``cancel``  the handle ``of``
``print``   ``text``
``if``      does ``of`` end with a value? ``then`` or ``otherwise``
``try``     ``body``; if an error escapes from it, ``handler``
=========== ==============================================================================

A step is a dict too: ``name`` (several may have one), ``fails`` (is its outcome an
error?), ``outage`` (its first so many outcomes are), ``local`` (of a class made in a
function), ``stumbles`` (so many attempts fail before), ``retries``, ``prints``,
``redirects`` (it collects what it prints, and returns it),
``asynchronous``, ``takes`` (handles among its arguments, in the form ``shape``), and
``body``, the operations that it does as a sub-workflow.

What can happen at different moments is an *event*: a step's body stands at its gate
until it is opened; a timer waits until the clock is moved. A schedule opens one at a
time, the next only when the one before has been committed: so it is the order of
outcomes, which decides all that a program can see.

=============== ==========================================================================
``syntax``      what is in a program; its text, as Python
``build``       operations by hand, for programs that are kept
``drawing``     Hypothesis draws programs and schedules
``interpreter`` what the operations do, in terms of a `Fiber`: of the engine's or the oracle's
``oracle``      plain Python: what must happen, in which order, and what must be saved
``engine``      the process that runs a program with nbdurable, gates opened in order
``trial``       a program run, killed, resumed and replayed; all of it compared
``mutants``     engines broken on purpose
=============== ==========================================================================
"""

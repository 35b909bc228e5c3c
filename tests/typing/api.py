"""What a type checker must accept, and know, about the public names: checked by mypy."""

from concurrent.futures import ThreadPoolExecutor
from typing import assert_type

from nbdurable import after, current_step, gather, go, select, step, workflow
from nbdurable.handles.combinators import Gather
from nbdurable.handles.handle import Outcome, StepHandle


@step
def double(number: int, times: int = 1) -> int:
    return 2 * number * times


@step(retries=3, timeout=20)
def shout(text: str) -> str:
    return text.upper()


assert_type(double(1), int)
assert_type(double.go(1), StepHandle[int])
assert_type(double.go(1, times=2).result(), int)
assert_type(shout("a"), str)
assert_type(shout.go("a").outcome(), Outcome[str])
assert_type(go(len, "abc"), StepHandle[int])
assert_type(step(str.upper, name="upper").go("a").result(), str)
assert_type(after(1).result(), None)
assert_type(double.map([1, 2], times=2), Gather[list[int]])
assert_type(double.starmap([(1, 2)], limit=3).result(), list[int])
assert_type(shout.starmap(zip("ab"), return_exceptions=True).result(), list[str])
assert_type(gather({"a": go(len, "a")}), Gather[dict[str, int]])
select(go(len, "a"), go(len, "b")).index

assert_type(current_step().attempt, int)
assert_type(current_step().idempotency_key, str)
assert_type(current_step().save([1]), None)
current_step().progress(1)
current_step().progress(1, total=2.5)

step(len, reads="tell")
step(len, executor="process", memory="2 GiB")
step(len, executor=ThreadPoolExecutor(2))
step(len, executor="elsewhere")  # type: ignore[call-overload]
step(len, reads="never")  # type: ignore[call-overload]
double("a")  # type: ignore[arg-type] # a step keeps its function's parameters
double.go(1, 2, 3)  # type: ignore[call-arg]
double.map([1], [2])  # type: ignore[arg-type] # several iterables are for starmap
double.starmap([1])  # type: ignore[list-item] # rows, not items
double.starmap([(1, 2)], [(3, 4)])  # type: ignore[arg-type,call-arg]
go(len)  # type: ignore[call-arg]
current_step().progress("half")  # type: ignore[arg-type]


@workflow("typed")
def pipeline(day: str) -> int:
    return double(len(day))


assert_type(pipeline("2026-01-01"), int)

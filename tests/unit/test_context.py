"""Context: what an event would carry, wherever the code runs, and what is restored."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

import pytest

from bizlog.context import (
    bind_context,
    correlation,
    current_context,
    current_state,
    session,
    trace_id_of,
    user,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

OUTER = {"session_id": "outer"}


@pytest.fixture(autouse=True)
def clean():
    """Each test starts without context, and has to leave it so."""
    assert current_context() == {}
    with bind_context():
        yield
        assert current_context() == {}


@pytest.fixture
def outer():
    """Run the test inside a session, which has to be there at its end."""
    with session("outer"):
        yield
        assert current_context() == OUTER


# Scopes


def test_each_scope_sets_what_it_is_named_for():
    """session, correlation and user set their id; properties come along."""
    with session("s", user_id="u", tenant="t") as inside:
        assert inside == {"session_id": "s", "user_id": "u", "tenant": "t"}
    with correlation("c", tenant="t") as inside:
        assert inside == {"correlation_id": "c", "tenant": "t"}
    with user("u", tenant="t") as inside:
        assert inside == {"user_id": "u", "tenant": "t"}


def test_a_session_without_a_user_leaves_the_user(outer):
    """What a scope does not say, it does not take away."""
    with user("u"), session("inner") as inside:
        assert inside == {"session_id": "inner", "user_id": "u"}


@pytest.mark.parametrize(
    ("make", "field"), [(session, "session_id"), (correlation, "correlation_id")]
)
def test_an_id_is_made_where_none_is_given(make, field):
    """Each entry of a scope without an id makes one, a UUID of version 7."""
    scope = make()
    with scope as first, scope as second:
        ids = [UUID(first[field]), UUID(second[field])]

    assert ids[0] != ids[1]
    assert [each.version for each in ids] == [7, 7]


@pytest.mark.parametrize("falsy", [0, ""])
def test_an_id_is_an_id_even_if_it_is_false(falsy):
    """Only None means that there is none."""
    with session(falsy, user_id=falsy), correlation(falsy):
        assert current_context() == {
            "session_id": falsy,
            "user_id": falsy,
            "correlation_id": falsy,
        }


def test_nesting_restores(outer):
    """Leaving a scope restores exactly what was there before."""
    with session("inner"), user("v", tenant="t"):
        with user("w"):
            assert current_context() == {
                "session_id": "inner",
                "user_id": "w",
                "tenant": "t",
            }
        assert current_context()["user_id"] == "v"


def test_an_error_restores(outer):
    """An exception leaves a scope like its end, and is passed on."""

    def fail():
        with session("inner"):
            bind_context(deep=1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_one_scope_may_be_entered_again_inside_itself(outer):
    """A scope that is kept restores one level at each end."""
    scope = session("kept", n=1)
    with scope:
        with user("u"), scope:
            assert current_context() == {"session_id": "kept", "n": 1, "user_id": "u"}
        assert current_context() == {"session_id": "kept", "n": 1}


def test_what_is_shown_is_a_copy(outer):
    """Whoever changes what current_context returned changes no event."""
    current_context()["session_id"] = "changed"
    with user("u") as inside:
        inside.clear()
        assert current_context() == {**OUTER, "user_id": "u"}


def test_a_state_never_changes(outer):
    """What the chain took before a scope is what it was, afterwards."""
    before = current_state()
    with user("u"):
        bind_context(tenant="t")

    assert current_state() is before
    assert before.values == OUTER


# bind_context


def test_binding_takes_effect_at_once(outer):
    """bind_context lasts until the scope around it ends."""
    with session("inner"):
        bind_context(cart="1", user_id="u")
        assert current_context() == {
            "session_id": "inner",
            "cart": "1",
            "user_id": "u",
        }


def test_binding_none_leaves_a_value_as_it_is(outer):
    """None means nothing to say, in scopes as in bind_context."""
    with user(None, tenant=None), bind_context(session_id=None, cart=None) as inside:
        assert inside == OUTER


def test_a_binding_may_end_with_a_block(outer):
    """Used with `with`, it restores what was there when it was called."""
    binding = bind_context(cart="1")
    bind_context(coupon="2")
    with binding as inside:
        assert inside == {**OUTER, "cart": "1", "coupon": "2"}

    assert current_context() == OUTER


# traceparent


@pytest.mark.parametrize(
    "header",
    [
        TRACEPARENT,
        f"  {TRACEPARENT}\t",
        f"00-{TRACE}-{SPAN}-00",
        f"01-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-what-comes-later",
        f"fe-{TRACE}-{SPAN}-ff-",
    ],
)
def test_the_trace_id_is_the_second_part(header):
    """Version 00 has four parts; later versions may append some."""
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        5,
        TRACEPARENT.encode(),
        "",
        "garbage",
        f"{TRACEPARENT}-more",
        f" {TRACEPARENT}-more",
        f"01-{TRACE}-{SPAN}-01x",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00_{TRACE}_{SPAN}_01",
    ],
)
def test_what_the_specification_calls_invalid_is_as_if_it_were_not_there(header):
    """A malformed header gives no id, replaces none, and never raises."""
    assert trace_id_of(header) is None
    with session("s", traceparent=header) as inside:
        assert inside == {"session_id": "s"}
    with correlation(traceparent=header) as inside:
        assert UUID(inside["correlation_id"])
    with bind_context(traceparent=TRACEPARENT), user("u", traceparent=header) as inside:
        assert inside == {"correlation_id": TRACE, "user_id": "u"}


@pytest.mark.parametrize(
    "scope",
    [
        lambda: correlation(traceparent=TRACEPARENT),
        lambda: session("s", traceparent=TRACEPARENT),
        lambda: user("u", traceparent=TRACEPARENT),
        lambda: bind_context(traceparent=TRACEPARENT),
    ],
    ids=["correlation", "session", "user", "bind_context"],
)
def test_the_trace_id_correlates_where_nothing_else_does(scope):
    """Wherever the header comes in; the header itself is no property."""
    with scope() as inside:
        assert inside["correlation_id"] == TRACE
        assert "traceparent" not in inside


def test_a_correlation_id_stands_before_a_trace_id():
    """The header only fills what nobody set, outside or inside."""
    with correlation("mine", traceparent=TRACEPARENT) as inside:
        assert inside == {"correlation_id": "mine"}
    with correlation("mine"), session("s", traceparent=TRACEPARENT) as inside:
        assert inside["correlation_id"] == "mine"
    with (
        session("s", traceparent=TRACEPARENT),
        bind_context(correlation_id="mine") as inside,
    ):
        assert inside["correlation_id"] == "mine"


def test_a_correlation_of_its_own_header_replaces_the_one_outside():
    """correlation() with a header is about that request, whatever surrounds it."""
    with correlation("outside"), correlation(traceparent=TRACEPARENT) as inside:
        assert inside["correlation_id"] == TRACE


def test_the_nearer_header_counts():
    """Inside another request its trace id holds, and is restored at its end."""
    with bind_context(traceparent=TRACEPARENT):
        with session("s", traceparent=f"00-{OTHER_TRACE}-{SPAN}-01") as inside:
            assert inside["correlation_id"] == OTHER_TRACE
        assert current_context() == {"correlation_id": TRACE}


# Threads, tasks, loops


def test_a_thread_starts_without_context(outer):
    """Context follows no thread by itself, new or pooled."""
    found = []
    thread = threading.Thread(target=lambda: found.append(current_context()))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        found.append(pool.submit(current_context).result())

    assert found == [{}, {}]


def test_a_copied_context_goes_into_a_thread(outer):
    """`copy_context().run` carries it over; what the thread changes stays there."""

    def change():
        bind_context(user_id="thread")
        return current_context()

    with ThreadPoolExecutor(1) as pool:
        carried = pool.submit(contextvars.copy_context().run, change).result()
        later = pool.submit(current_context).result()

    assert carried == {**OUTER, "user_id": "thread"}
    assert later == {}


def test_to_thread_inherits(outer):
    """asyncio.to_thread carries the context; what it changes stays there."""

    async def main():
        with user("u"):
            return await asyncio.to_thread(bind_and_show), current_context()

    def bind_and_show():
        bind_context(cart=1)
        return current_context()

    there, here = asyncio.run(main())

    assert there == {**OUTER, "user_id": "u", "cart": 1}
    assert here == {**OUTER, "user_id": "u"}


def test_tasks_inherit_and_change_only_their_own(outer):
    """Tasks that run in turns never see each other's context."""

    async def one(name):
        first = current_context()
        bind_context(user_id=name)
        await asyncio.sleep(0)
        return first, current_context()

    async def main():
        return await asyncio.gather(one("a"), one("b"), one("c"))

    assert asyncio.run(main()) == [
        (OUTER, {**OUTER, "user_id": name}) for name in ("a", "b", "c")
    ]


def test_a_task_keeps_the_context_it_was_started_in(outer):
    """A task that outlives the scope around its start does not lose it."""

    async def later(may_look):
        await may_look.wait()
        return current_context()

    async def main():
        may_look = asyncio.Event()
        with user("u"):
            task = asyncio.create_task(later(may_look))
        may_look.set()
        return await task

    assert asyncio.run(main()) == {**OUTER, "user_id": "u"}


def test_callbacks_of_a_loop_inherit(outer):
    """call_soon runs its callback in the context of the call."""

    async def main():
        found = asyncio.get_running_loop().create_future()
        with user("u"):
            asyncio.get_running_loop().call_soon(
                lambda: found.set_result(current_context())
            )
        return await found

    assert asyncio.run(main()) == {**OUTER, "user_id": "u"}


def test_scopes_work_with_async_with(outer):
    """`async with` means the same as `with`, also when the body raises."""

    async def main():
        async with session("inner", user_id="u") as inside:
            assert inside == {"session_id": "inner", "user_id": "u"}
            await asyncio.sleep(0)
            assert current_context() == inside
        with suppress(KeyError):
            async with user("v"):
                raise KeyError
        return current_context()

    assert asyncio.run(main()) == OUTER


# Decorators


def test_a_function_runs_inside(outer):
    """The decorated function has the context; arguments and result pass through."""

    @session("f", user_id="u")
    def function(one, *, two):
        return one, two, current_context()

    assert function(1, two=2) == (1, 2, {"session_id": "f", "user_id": "u"})


def test_a_function_that_raises_restores(outer):
    """The error passes, the context does not."""

    @user("u")
    def function():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        function()


def test_a_coroutine_function_runs_inside(outer):
    """The context holds over every await, and not before the coroutine runs."""

    @user("u")
    async def coroutine(value):
        await asyncio.sleep(0)
        return value, current_context()

    async def main():
        waiting = coroutine(5)
        assert current_context() == OUTER
        return await waiting, current_context()

    assert asyncio.run(main()) == ((5, {**OUTER, "user_id": "u"}), OUTER)


def test_calls_of_one_coroutine_function_do_not_mix():
    """Calls that run in turns each restore the context of their own task."""

    @session("f")
    async def handle(turns):
        for _ in range(turns):
            await asyncio.sleep(0)

    async def request(name, turns):
        bind_context(user_id=name)
        await handle(turns)
        return current_context()

    async def main():
        return await asyncio.gather(request("first out", 1), request("last out", 3))

    assert asyncio.run(main()) == [{"user_id": "first out"}, {"user_id": "last out"}]


def test_methods_can_be_decorated(outer):
    """Methods, class methods and static methods run inside as functions do."""

    class Shop:
        @user("u")
        def method(self):
            return self, current_context()["user_id"]

        @classmethod
        @user("v")
        def of_class(cls):
            return cls, current_context()["user_id"]

        @staticmethod
        @user("w")
        def static():
            return current_context()["user_id"]

    shop = Shop()
    assert shop.method() == (shop, "u")
    assert Shop.of_class() == (Shop, "v")
    assert shop.static() == "w"


def test_each_call_has_a_scope_of_its_own():
    """A decorator without an id makes a new one for each call, recursion included."""

    @session()
    def function(depth):
        inner = function(depth - 1) if depth else []
        return [current_context()["session_id"], *inner]

    ids = function(2) + function(0)

    assert len(set(ids)) == 4


def test_the_values_of_a_decorator_are_found_at_each_call(outer):
    """A decorated function sees the context of its caller, not of its definition."""
    with user("definition"):

        @session("f")
        def function():
            return current_context()

    with user("call"):
        assert function() == {"session_id": "f", "user_id": "call"}


def test_decorated_functions_remain_what_they_were():
    """Name, docstring, signature and kind stay, for frameworks that look at them."""
    scope = session("s")

    @scope
    def function(one: int) -> int:
        """Explain."""
        return one

    @scope
    async def coroutine(): ...

    @scope
    def generator():
        yield

    @scope
    async def async_generator():
        yield

    assert (function.__name__, function.__doc__) == ("function", "Explain.")
    assert list(inspect.signature(function).parameters) == ["one"]
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)


def test_a_partial_is_decorated_as_what_it_calls():
    """A functools.partial of a coroutine function is awaited inside the scope."""

    async def coroutine(value):
        await asyncio.sleep(0)
        return value, current_context()

    async def main():
        called = functools.partial(coroutine, 5)
        return await user("u")(functools.update_wrapper(called, coroutine))()

    assert asyncio.run(main()) == (5, {"user_id": "u"})


# Generators


@session("g")
def echo():
    """Yield what came in, with the context; end with the last context."""
    got = None
    while True:
        try:
            got = yield (got, current_context())
        except KeyError as error:
            got = error.args[0]
        if got == "bind":
            bind_context(step=1)
        if got == "end":
            return current_context()


def test_a_decorated_generator_has_the_context_only_while_it_runs(outer):
    """While it is suspended, the caller's context is the caller's."""
    generator = echo()
    assert next(generator) == (None, {"session_id": "g"})
    assert current_context() == OUTER
    assert generator.send("bind") == ("bind", {"session_id": "g", "step": 1})
    assert current_context() == OUTER
    assert next(generator) == (None, {"session_id": "g", "step": 1})
    generator.close()


def test_errors_thrown_into_a_generator_arrive_inside(outer):
    """What is thrown in reaches the body, and the generator goes on."""
    generator = echo()
    next(generator)

    assert generator.throw(KeyError("bind"))[1] == {"session_id": "g", "step": 1}
    with pytest.raises(ZeroDivisionError):
        generator.throw(ZeroDivisionError())
    assert list(generator) == []


def test_a_generator_returns_its_value(outer):
    """`yield from` gets what the body returned."""

    def delegate():
        return (yield from echo())

    generator = delegate()
    next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send("end")

    assert stop.value.value == {"session_id": "g"}


def test_closing_a_generator_runs_its_end_inside(outer):
    """A finally clause of the body still has the body's context."""
    found = []

    @session("g")
    def generate():
        try:
            yield
        finally:
            found.append(current_context())

    generator = generate()
    next(generator)
    generator.close()

    assert found == [{"session_id": "g"}]


def test_a_generator_that_is_dropped_ends_inside(outer):
    """Garbage collection closes it, with the body's context as well."""
    found = []

    @session("g")
    def generate():
        try:
            yield
        finally:
            found.append(current_context())

    next(generate())
    gc.collect()

    assert found == [{"session_id": "g"}]


def test_generators_in_turns_do_not_mix():
    """Two generators that run alternately each keep what they bound."""

    @session()
    def generate(name):
        bind_context(user_id=name)
        while True:
            yield current_context()["user_id"]

    one, two = generate("one"), generate("two")

    assert [next(g) for g in (one, two, one, two)] == ["one", "two", "one", "two"]


def test_a_generator_takes_the_context_of_its_first_step(outer):
    """It starts where it is first run, as its body does."""
    with user("definition"):
        generator = echo()

    with user("first"):
        assert next(generator)[1] == {"session_id": "g", "user_id": "first"}
    with user("second"):
        assert next(generator)[1] == {"session_id": "g", "user_id": "first"}
    generator.close()


def test_a_scope_inside_a_generator_may_end_in_another_context():
    """A generator that is closed elsewhere raises nothing, unlike a context token."""

    def generate():
        with session("g"):
            yield

    generator = generate()
    contextvars.copy_context().run(next, generator)

    generator.close()


# Asynchronous generators


@session("g")
async def async_echo():
    """Yield what came in, with the context."""
    got = None
    while True:
        try:
            got = yield (got, current_context())
        except KeyError as error:
            got = error.args[0]
        await asyncio.sleep(0)
        if got == "bind":
            bind_context(step=1)
        if got == "end":
            return


def test_a_decorated_async_generator_has_the_context_only_while_it_runs(outer):
    """While it is suspended, the caller's context is the caller's."""

    async def main():
        generator = async_echo()
        assert await anext(generator) == (None, {"session_id": "g"})
        assert current_context() == OUTER
        assert await generator.asend("bind") == (
            "bind",
            {"session_id": "g", "step": 1},
        )
        assert current_context() == OUTER
        with pytest.raises(StopAsyncIteration):
            await generator.asend("end")
        assert current_context() == OUTER

    asyncio.run(main())


def test_errors_thrown_into_an_async_generator_arrive_inside(outer):
    """What is thrown in reaches the body, and the generator goes on."""

    async def main():
        generator = async_echo()
        await anext(generator)
        answer = await generator.athrow(KeyError("bind"))
        assert answer == ("bind", {"session_id": "g", "step": 1})
        with pytest.raises(ZeroDivisionError):
            await generator.athrow(ZeroDivisionError())
        assert [each async for each in generator] == []

    asyncio.run(main())


def test_closing_an_async_generator_runs_its_end_inside(outer):
    """A finally clause of the body still has the body's context, over awaits."""
    found = []

    @session("g")
    async def generate():
        try:
            yield
        finally:
            await asyncio.sleep(0)
            found.append(current_context())

    async def main():
        generator = generate()
        await anext(generator)
        await generator.aclose()
        return current_context()

    assert asyncio.run(main()) == OUTER
    assert found == [{"session_id": "g"}]


def test_an_async_generator_may_be_left_early(outer):
    """`break` out of `async for` leaves the caller's context as it was."""

    async def main():
        generator = async_echo()
        async for _, inside in generator:
            assert inside == {"session_id": "g"}
            break
        found = current_context()
        await generator.aclose()
        return found, current_context()

    assert asyncio.run(main()) == (OUTER, OUTER)

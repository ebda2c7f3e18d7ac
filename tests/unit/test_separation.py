"""The mark of a sink's context, and OpenTelemetry kept quiet inside it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
import types

import pytest
from opentelemetry import context as telemetry

from bizlog import separation

KEYS = (
    "suppress_instrumentation",
    telemetry._SUPPRESS_INSTRUMENTATION_KEY,
    telemetry._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
)


def suspended():
    """Say what OpenTelemetry's instrumentations would read here, key by key."""
    return [telemetry.get_value(key) for key in KEYS]


# The mark


def test_code_is_outside_unless_a_sink_is_called():
    """The application is never marked, and no longer after the call."""
    assert not separation.inside()
    entry = separation.enter()
    assert separation.inside()
    separation.leave(entry)
    assert not separation.inside()


def test_a_call_inside_a_call_ends_only_itself():
    """A sink may call another one, as a composite does."""
    with separation.suppressed():
        with separation.suppressed():
            assert separation.inside()
        assert separation.inside()
        assert suspended() == [True, True, True]
    assert not separation.inside()


def test_an_error_leaves_as_well():
    """A sink that raises leaves no mark behind."""
    with pytest.raises(OSError, match="no route"), separation.suppressed():
        raise OSError("no route")
    assert not separation.inside()


def test_tasks_and_threads_of_the_call_are_inside():
    """What a sink starts with asyncio is a part of its call; other tasks are not."""

    async def look():
        return separation.inside()

    async def scenario():
        entry = separation.enter()
        ours = asyncio.create_task(look())
        in_thread = await asyncio.to_thread(separation.inside)
        separation.leave(entry)
        return await ours, in_thread, await asyncio.create_task(look())

    assert asyncio.run(scenario()) == (True, True, False)


def test_a_thread_of_its_own_is_not_seen():
    """As documented: a bare thread starts with a context of its own."""
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append(separation.inside()), **_own_context()
    )
    with separation.suppressed():
        thread.start()
        thread.join(5)
    assert seen == [False]


def _own_context():
    # A free-threaded or later Python can be told to hand the context on.
    if getattr(sys.flags, "thread_inherit_context", 0):
        return {"context": contextvars.Context()}
    return {}


def test_leaving_twice_does_nothing():
    """The second time there is nothing to undo, whatever was entered since."""
    entry = separation.enter()
    separation.leave(entry)
    with separation.suppressed():
        separation.leave(entry)
        assert separation.inside()


def test_leaving_elsewhere_does_nothing(caplog):
    """A coroutine closed in another context is silent: OpenTelemetry would log an error."""
    entry = contextvars.Context().run(separation.enter)
    with separation.suppressed(), caplog.at_level(logging.DEBUG):
        separation.leave(entry)
        assert separation.inside()
        assert suspended() == [True, True, True]
    assert caplog.records == []


# OpenTelemetry


def test_tracing_is_suspended_inside_and_nowhere_else():
    """Its instrumentations record nothing of a sink's call, all of the application's."""
    assert suspended() == [None, None, None]
    with separation.suppressed():
        assert suspended() == [True, True, True]
    assert suspended() == [None, None, None]


def test_threads_of_the_call_are_suspended():
    """Blocking clients run in asyncio.to_thread, which takes the context along."""

    async def scenario():
        with separation.suppressed():
            return await asyncio.to_thread(suspended)

    assert asyncio.run(scenario()) == [True, True, True]


def test_the_hosts_values_stay():
    """Whatever else the application keeps in OpenTelemetry's context is still there."""
    token = telemetry.attach(telemetry.set_value("tenant", "north"))
    try:
        with separation.suppressed():
            assert telemetry.get_value("tenant") == "north"
        assert telemetry.get_value("tenant") == "north"
    finally:
        telemetry.detach(token)


def test_a_mark_alone_leaves_tracing_as_it_is():
    """A handler of the host that gets our lines is the host's, and so are its spans."""
    entry = separation.mark()
    assert (separation.inside(), suspended()) == (True, [None, None, None])
    separation.leave(entry)
    assert not separation.inside()


def test_opentelemetry_is_never_imported():
    """Who has not imported it does not pay for it."""
    script = """
import sys
import bizlog
from bizlog import separation
with separation.suppressed():
    assert separation.inside()
assert not separation.inside()
assert "opentelemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_without_opentelemetry_there_is_the_mark_alone(monkeypatch):
    """Where the application has not imported it there is nothing to suspend."""
    monkeypatch.delitem(sys.modules, "opentelemetry.context")
    with separation.suppressed():
        assert separation.inside()
        assert suspended() == [None, None, None]
    assert "opentelemetry.context" not in sys.modules


@pytest.mark.parametrize("missing", ["get_current", "_SUPPRESS_INSTRUMENTATION_KEY"])
def test_another_opentelemetry_is_left_alone(monkeypatch, missing):
    """Half imported, or of a version without the keys: the sink is called all the same."""
    other = types.ModuleType("opentelemetry.context")
    vars(other).update(vars(telemetry))
    delattr(other, missing)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", other)
    with separation.suppressed():
        assert separation.inside()
        assert suspended() == [None, None, None]


def test_a_detach_that_fails_is_nobodys_trouble(monkeypatch):
    """A runtime context of the application's own may do anything."""
    calls = []

    def detach(_):
        calls.append(1)
        raise RuntimeError("no")

    monkeypatch.setattr(telemetry, "detach", detach)
    # In a context of its own, which ends with the run: nothing stays suspended.
    contextvars.copy_context().run(lambda: separation.leave(separation.enter()))
    assert calls == [1]

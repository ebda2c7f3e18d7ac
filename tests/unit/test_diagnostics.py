"""What bizlog says of itself: seldom, on its own logger, never to the host's."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading

import pytest

from bizlog import diagnostics, separation
from bizlog.testing import ManualClock


class Collector(logging.Handler):
    """Keeps the lines it gets."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.levelname, record.getMessage()))


@pytest.fixture
def clock(monkeypatch):
    """Start without memory of earlier reports, at a time that is told."""
    manual = ManualClock(1_000.0)
    monkeypatch.setattr(diagnostics, "_last", {})
    monkeypatch.setattr(diagnostics.time, "monotonic", manual)
    return manual


@pytest.fixture
def collected(clock):
    """Collect our lines as a host does: with a handler on our logger."""
    handler = Collector()
    logging.getLogger("bizlog").addHandler(handler)
    yield handler.lines
    logging.getLogger("bizlog").removeHandler(handler)


def test_a_report_is_a_warning_that_says_who_speaks(collected):
    """The line names bizlog, whatever format the host has chosen."""
    diagnostics.report("queue", "the queue is full")

    assert collected == [("WARNING", "bizlog: the queue is full")]


def test_a_topic_is_told_once_a_minute(clock, collected):
    """A fault that lasts does not flood the log; it is told again while it lasts."""
    for _ in range(1_000):
        diagnostics.report("queue", "the queue is full")
    clock.advance(diagnostics.INTERVAL_SECONDS - 1)
    diagnostics.report("queue", "the queue is full")
    assert len(collected) == 1

    clock.advance(1)
    diagnostics.report("queue", "the queue is full")
    assert len(collected) == 2


def test_what_was_held_back_does_not_start_the_minute_anew(clock, collected):
    """Reports in quick succession never silence each other for good."""
    for _ in range(9):
        diagnostics.report("queue", "the queue is full")
        clock.advance(diagnostics.INTERVAL_SECONDS / 4)

    assert len(collected) == 3


def test_topics_are_limited_each_on_its_own(collected):
    """A noisy sink hides no other one."""
    for sink in ("file", "console", "file"):
        diagnostics.report(sink, f"{sink} is slow")

    assert [line for _, line in collected] == [
        "bizlog: file is slow",
        "bizlog: console is slow",
    ]


def test_the_first_report_is_told_however_young_the_machine_is(monkeypatch, collected):
    """The clock may start at zero: that is no reason to be silent."""
    monkeypatch.setattr(diagnostics.time, "monotonic", ManualClock(0.0))

    diagnostics.report("queue", "the queue is full")

    assert len(collected) == 1


def test_a_message_is_no_format(collected):
    """Percent signs in a message are percent signs."""
    diagnostics.report("disk", "100%s full, %d left")

    assert collected == [("WARNING", "bizlog: 100%s full, %d left")]


def test_our_lines_never_reach_the_hosts_handlers(clock):
    """A handler of the host may lead back into bizlog: nothing propagates."""
    handler = Collector()
    logging.getLogger().addHandler(handler)
    try:
        diagnostics.report("queue", "the queue is full")
    finally:
        logging.getLogger().removeHandler(handler)

    assert handler.lines == []


def test_without_a_handler_the_line_goes_to_stderr(clock, capsys, monkeypatch):
    """A loss is visible although nobody prepared for it."""
    monkeypatch.setattr(diagnostics.logger, "handlers", [])

    diagnostics.report("queue", "the queue is full")

    assert capsys.readouterr() == ("", "bizlog: the queue is full\n")


# What is held back


def test_the_next_line_tells_how_many_were_held_back(clock, collected):
    """A line a minute, and nothing hidden: the count since the last one is part of it."""
    for _ in range(1_000):
        diagnostics.report("queue", "the queue is full")
    clock.advance(diagnostics.INTERVAL_SECONDS)
    diagnostics.report("queue", "the queue is full")
    clock.advance(diagnostics.INTERVAL_SECONDS)
    diagnostics.report("queue", "the queue is full")

    assert [line for _, line in collected] == [
        "bizlog: the queue is full",
        "bizlog: the queue is full (999 more reports of this kind since the last line)",
        "bizlog: the queue is full",
    ]


def test_topics_are_bounded(collected):
    """Topics that somebody names without end share one place, and one line a minute."""
    for number in range(10_000):
        diagnostics.report(f"sink-{number}", "slow")

    assert len(collected) == diagnostics.MOST_TOPICS + 1
    assert len(diagnostics._last) == diagnostics.MOST_TOPICS + 1
    assert diagnostics._last[diagnostics.OTHER].held_back == 9_799


def test_threads_that_report_at_the_same_time_make_one_line(collected):
    """No lock, and yet one line a minute and none uncounted."""
    barrier = threading.Barrier(8)

    def work():
        barrier.wait(5)
        for _ in range(500):
            diagnostics.report("queue", "the queue is full")

    threads = [threading.Thread(target=work) for _ in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    finally:
        sys.setswitchinterval(before)

    # The one that speaks may be overtaken before it does: then it tells of those.
    ((_, line),) = collected
    told = re.search(r"\((\d+) more", line)
    counted = diagnostics._last["queue"].held_back + (int(told[1]) if told else 0)
    assert counted == 8 * 500 - 1


def test_a_level_may_be_given(collected):
    """What stops bizlog altogether is an error, all else a warning."""
    diagnostics.report("configure", "not configured", logging.ERROR)

    assert collected == [("ERROR", "bizlog: not configured")]


# Handlers are foreign code


@pytest.fixture
def attach(clock):
    """Attach handlers to our logger that do as told."""
    attached = []

    def attach_one(emit):
        handler = logging.Handler()
        handler.emit = emit
        attached.append(handler)
        diagnostics.logger.addHandler(handler)

    yield attach_one
    for handler in attached:
        diagnostics.logger.removeHandler(handler)


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, asyncio.CancelledError, RecursionError]
)
def test_what_a_handler_raises_stays_here(clock, attach, collected, error):
    """A sink's lane and the caller of configure live on; the line counts as held back."""
    broken = [True]

    def emit(_):
        if broken.pop():
            raise error

    attach(emit)
    diagnostics.logger.handlers.reverse()  # before the one that collects
    diagnostics.report("queue", "the queue is full")
    broken.append(False)
    clock.advance(diagnostics.INTERVAL_SECONDS)
    diagnostics.report("queue", "the queue is full")

    assert [line for _, line in collected] == [
        "bizlog: the queue is full (1 more reports of this kind since the last line)"
    ]


def test_a_wish_to_end_passes(attach):
    """Ctrl-C during a line is the user's, and the next line is told as ever."""

    def interrupt(_):
        raise KeyboardInterrupt

    attach(interrupt)
    with pytest.raises(KeyboardInterrupt):
        diagnostics.report("queue", "the queue is full")

    assert diagnostics._speaking == {}
    assert diagnostics._last["queue"].turn == [True]


def test_a_handler_that_logs_here_is_not_called_again(attach, collected):
    """What it logs on our logger ends there: no recursion, no second line."""
    calls = []

    def emit(record):
        calls.append(record.getMessage())
        diagnostics.logger.warning("heard: %s", record.getMessage())

    attach(emit)
    diagnostics.report("queue", "the queue is full")

    assert calls == ["bizlog: the queue is full"]
    assert collected == [("WARNING", "bizlog: the queue is full")]


def test_a_handler_that_causes_reports_causes_no_lines(clock, attach, collected):
    """Reports from within a line are held back, of its own topic and of others."""

    def emit(_):
        diagnostics.report("queue", "the queue is full")
        diagnostics.report("disk", "the disk is full")

    attach(emit)
    diagnostics.report("queue", "the queue is full")
    assert [line for _, line in collected] == ["bizlog: the queue is full"]

    diagnostics.logger.handlers.pop()
    diagnostics.report("disk", "the disk is full")
    assert [line for _, line in collected][1:] == [
        "bizlog: the disk is full (1 more reports of this kind since the last line)"
    ]


def test_the_host_may_use_our_logger(collected):
    """Its own lines there are none of our business."""
    diagnostics.logger.warning("one")
    diagnostics.logger.warning("two")

    assert [line for _, line in collected] == ["one", "two"]


def test_the_time_of_a_line_is_marked(attach):
    """What a handler logs elsewhere because of our line can be told from events."""
    seen = []
    attach(lambda _: seen.append(separation.inside()))
    diagnostics.report("queue", "the queue is full")

    assert seen == [True]
    assert not separation.inside()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_may_speak_where_its_parent_was_speaking(attach, collected):
    """A fork in the middle of another thread's line leaves no topic mute in the child."""
    told, done = threading.Event(), threading.Event()

    def emit(_):
        told.set()
        done.wait(10)

    attach(emit)
    speaker = threading.Thread(target=diagnostics.report, args=("queue", "full"))
    speaker.start()
    assert told.wait(10)
    child = os.fork()
    if not child:
        free = diagnostics._last["queue"].turn == [True] and not diagnostics._speaking
        os._exit(0 if free else 1)
    done.set()
    speaker.join(10)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

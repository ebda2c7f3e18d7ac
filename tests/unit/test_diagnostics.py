"""What bizlog says of itself: seldom, on its own logger, never to the host's."""

from __future__ import annotations

import logging

import pytest

from bizlog import diagnostics
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

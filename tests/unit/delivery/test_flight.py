"""A batch under way: what is the sink's, what is sent next, what becomes a letter."""

from __future__ import annotations

import threading

import pytest

from bizlog import Route
from bizlog.delivery.cursor import Cursor
from bizlog.delivery.flight import (
    ROUTE_RAISED,
    Burial,
    Flight,
    all_refused,
    arrivals_within,
    letters,
    routed,
)
from bizlog.delivery.journal import DAMAGED, MemoryJournal
from bizlog.delivery.policy import Backoff, Delivery, Refusal
from bizlog.sinks import Batch, Rejection, SendResult
from bizlog.testing import MemorySink


def batch_of(records):
    """Seal records."""
    return Batch("journal", 0, len(records) - 1, records)


@pytest.fixture
def mixed(make_record):
    """Make an order, a product, a record that the disk damaged, and a riddle."""
    names = ("order.a", "product.a", "order.bad")
    order, product, riddle = (make_record(name) for name in names)
    return batch_of([order, product, DAMAGED, riddle])


@pytest.fixture
def route():
    """Make a route for orders that cannot decide one of them."""

    def when(event):
        return event["event_type"] != "order.bad" or 1 / 0

    return Route(MemorySink(), "order.*", when)


@pytest.fixture
def flight(mixed, route):
    """Take the mixed batch up."""
    journal = MemoryJournal()
    ours = routed(route, mixed)
    delivery = Delivery(len(ours.batch.records), backoff=Backoff())
    return Flight(Cursor(journal, "sink"), mixed, ours, delivery)


def test_a_route_parts_a_batch(mixed, route):
    """Its own, what it could not decide, what is damaged; the rest is others'."""
    ours = routed(route, mixed)

    assert list(ours.batch.records) == [mixed.records[0]]
    assert ours.astray == [mixed.records[3]]
    assert ours.damaged == 1
    assert ours.batch.name == mixed.name


def test_without_conditions_a_batch_stays_what_it_is(make_records):
    """Nothing is copied."""
    whole = batch_of(make_records(3))
    ours = routed(Route(MemorySink()), whole)

    assert ours.batch is whole
    assert (ours.astray, ours.damaged) == ([], 0)


def test_what_is_not_routed_is_counted(flight):
    """Neither damaged records nor those astray are another sink's."""
    assert flight.not_routed == 1


def test_what_goes_astray_is_refused(flight):
    """After what the sink refused, with the route's reason."""
    flight.delivery.answered(SendResult(rejected=(Rejection(0, "no"),)), 0.0)

    assert [each.reason for each in flight.refused] == ["no", ROUTE_RAISED]
    found = flight.letters("sink")
    assert [letter.reason for letter in found] == ["no", ROUTE_RAISED]
    assert {letter.sink for letter in found} == {"sink"}
    assert [letter.event_id for letter in found] == [
        flight.batch.records[0].event_id,
        flight.astray[0].event_id,
    ]


def test_a_part_has_a_name_of_its_own(make_records):
    """The whole batch keeps the sealed one."""
    whole = batch_of(make_records(4))
    ours = routed(Route(MemorySink()), whole)
    delivery = Delivery(4, backoff=Backoff(draw=lambda: 0.0))
    flight = Flight(Cursor(MemoryJournal(), "sink"), whole, ours, delivery)
    assert flight.part() is whole
    delivery.answered(SendResult(retry=(1, 3)), 0.0)
    part = flight.part()

    assert list(part.records) == [whole.records[1], whole.records[3]]
    assert part.name != whole.name
    assert part.name.startswith(whole.name)


def test_arrivals_follow_the_route(make_records):
    """An index counts the sink's own events only."""
    records = make_records(6)
    whole, own = batch_of(records), batch_of([records[1], records[4]])

    assert arrivals_within(whole, whole, [(3, 1.0), (6, 2.0)]) == [(3, 1.0), (6, 2.0)]
    assert arrivals_within(own, whole, [(3, 1.0), (6, 2.0)]) == [(1, 1.0), (2, 2.0)]


def test_all_are_refused_alike(make_records):
    """One refusal an event."""
    records = make_records(2)
    refused = all_refused(records, "late", "shutdown", attempts=0)

    assert refused == [
        Refusal(0, "late", error_type="shutdown", attempts=0),
        Refusal(1, "late", error_type="shutdown", attempts=0),
    ]
    assert [each.attempts for each in letters(records, refused, "s", "t")] == [0, 0]


class Folder:
    """Counts what is written; fails if it is told to."""

    def __init__(self, error=None):
        self.error = error
        self.written = []

    def write(self, found):
        if self.error:
            raise self.error
        self.written += found


def test_letters_are_written_once(flight):
    """Though two threads meet over them."""
    folder = Folder()
    burial = Burial(folder, flight.letters("sink"))
    threads = [threading.Thread(target=burial.write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert folder.written == burial.letters
    assert burial.error is None


def test_letters_that_cannot_be_written_are_told(flight):
    """The error stays with the burial; a second try would count them twice."""
    folder = Folder(OSError("full"))
    burial = Burial(folder, flight.letters("sink"))
    burial.write()
    folder.error = None
    burial.write()

    assert str(burial.error) == "full"
    assert folder.written == []

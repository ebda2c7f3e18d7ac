"""Ids are unique and sorted, times are right, whatever the clock does."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from unittest import mock

import pytest

from bizlog import stamps

SECOND = 1_000_000_000
NOON = 1_795_600_800 * SECOND


@pytest.fixture
def at():
    """Set the wall clock, in nanoseconds."""
    with mock.patch.object(stamps.time, "time_ns") as clock:

        def set_to(nanoseconds: int) -> None:
            clock.return_value = nanoseconds

        yield set_to


def test_an_id_is_a_uuid_of_version_7_of_this_moment(at):
    """Version, variant and milliseconds are where RFC 9562 wants them."""
    at(NOON + 123_456_789)
    text, _ = stamps.next_stamp()
    found = uuid.UUID(text)
    assert str(found) == text
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == (NOON + 123_456_789) // 1_000_000


@pytest.mark.parametrize("nanoseconds", [0, 999, 1_000, 999_999_999, 500_000_000])
def test_the_time_has_microseconds_and_is_utc(at, nanoseconds):
    """The text is the clock's, cut to microseconds."""
    at(NOON + nanoseconds)
    for _ in range(2):
        _, text = stamps.next_stamp()
        moment = datetime.fromtimestamp(NOON // SECOND, UTC)
        whole = moment.replace(microsecond=nanoseconds // 1_000)
        assert text == f"{whole:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_one_millisecond_may_have_any_number_of_events(at):
    """Beyond 256 the id draws anew, and still none comes twice."""
    at(NOON)
    ids = [stamps.next_stamp()[0] for _ in range(10_000)]
    assert len(set(ids)) == 10_000


def test_ids_of_different_milliseconds_sort_by_time(at):
    """A later event has the greater id."""
    ids = []
    for number in range(100):
        at(NOON + number * 1_000_000)
        ids += [stamps.next_stamp()[0] for _ in range(3)]
    assert ids == sorted(ids)


@pytest.mark.parametrize("jump", [-3600 * SECOND, 3600 * SECOND, 365 * 86_400 * SECOND])
def test_a_clock_that_jumps_makes_no_id_twice(at, jump):
    """Back and forth over the same millisecond the ids stay different."""
    ids = []
    for _ in range(3):
        for moment in (NOON, NOON + jump):
            at(moment)
            ids += [stamps.next_stamp()[0] for _ in range(5)]
            assert stamps.next_stamp()[1].startswith(
                f"{datetime.fromtimestamp(moment // SECOND, UTC):%Y-%m-%dT%H}"
            )
    assert len(set(ids)) == len(ids)


def test_eight_threads_never_share_an_id():
    """Threads that change places every microsecond get different ids."""
    found: list[list[str]] = [[] for _ in range(8)]

    def draw(mine: list[str]) -> None:
        mine.extend([stamps.next_stamp()[0] for _ in range(5_000)])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=draw, args=(mine,)) for mine in found]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len({each for mine in found for each in mine}) == 40_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_draws_other_ids(at):
    """Parent and child in the same millisecond do not meet."""
    at(NOON)
    stamps.next_stamp()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "\n".join(stamps.next_stamp()[0] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    theirs = os.read(read, 10_000).decode().split()
    os.close(read)
    ours = [stamps.next_stamp()[0] for _ in range(50)]
    assert len(theirs) == 50
    assert not set(theirs) & set(ours)


def test_the_real_clock_is_followed():
    """Without any double the text is that of now."""
    _, text = stamps.next_stamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    moment = datetime.fromisoformat(text)
    assert abs(moment.timestamp() - time.time()) < 5

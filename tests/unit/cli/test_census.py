"""Events by producer and number: what came again, what is not there."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bizlog.cli.census import EXAMPLES, Census, report_of
from bizlog.cli.entries import Place, read_entry


def event(producer, number):
    """Write an event with nothing but what counts here."""
    return (
        b'{"event_id":"%d","event_type":"a.b","event_time":"2026-11-23T10:00:00Z",'
        b'"producer_id":"%b","sequence":%d}' % (number, producer.encode(), number)
    )


def letter(producer, number):
    """Write a dead letter around it."""
    return (
        b'{"reason":"no","path":null,"sink":"http","attempts":1,"first_at":"","last_at'
        b'":"","event_id":null,"record":%b}' % event(producer, number)
    )


def census_of(*files, buried=()):
    """Take a census of files, each a list of (producer, number), and of letters."""
    census = Census()
    for index, numbers in enumerate(files):
        path = Path(f"{index}.jsonl")
        for line, (producer, number) in enumerate(numbers, 1):
            census.add(read_entry(event(producer, number), Place(path, line)))
    for producer, number in buried:
        place = Place(Path("dead.jsonl"), number)
        census.add(read_entry(letter(producer, number), place))
    return census


def report(numbers, buried=(), *, partial=False):
    """Report on one producer whose events stand in one file."""
    letters = [("p", number) for number in buried]
    census = census_of([("p", number) for number in numbers], buried=letters)
    return report_of(census.producers["p"], partial=partial)


EVENTS = st.tuples(st.sampled_from("ab"), st.integers(1, 30))
FILES = st.lists(st.lists(EVENTS, max_size=25), max_size=4)


@given(FILES)
def test_it_agrees_with_counting_by_hand(files):
    """Missing, doubled and out of order, for each producer: as a plain model says."""
    census = census_of(*files)
    for producer_id, producer in census.producers.items():
        per_file = [[n for p, n in file if p == producer_id] for file in files]
        every = [number for numbers in per_file for number in numbers]
        told = report_of(producer, partial=False)
        missing = [n for n in range(1, max(every) + 1) if n not in every]
        assert told.events == len(set(every))
        assert (told.first, told.last) == (min(every), max(every))
        assert [n for a, b in told.missing_ranges for n in range(a, b + 1)] == missing
        assert told.missing == len(missing)
        assert told.doubled == len(every) - len(set(every))
        assert told.out_of_order == sum(
            number < max(numbers[:index], default=0)
            for numbers in per_file
            for index, number in enumerate(numbers)
        )


def test_the_first_places_are_told():
    """Of what came again and what stands too late, the first few with their places."""
    told = report([*range(1, 9), *range(1, 9)])
    assert (told.doubled, told.out_of_order) == (8, 7)
    assert told.doubled_at[0] == "1 at 0.jsonl:9"
    assert told.out_of_order_at[-1] == "5 at 0.jsonl:13"
    assert len(told.doubled_at) == len(told.out_of_order_at) == EXAMPLES


def test_order_is_that_within_a_file():
    """A file sink spreads events over files: what a file holds may begin anywhere."""
    census = census_of([("p", 2), ("p", 4)], [("p", 1), ("p", 3)])
    assert report_of(census.producers["p"], partial=False).out_of_order == 0


def test_a_part_begins_at_its_first_number():
    """With `partial` what was before the first number is somewhere else."""
    assert report([5, 7]).missing_ranges == [(1, 4), (6, 6)]
    assert report([5, 7], partial=True).missing_ranges == [(6, 6)]
    assert report([5, 7], buried=[3], partial=True).missing_ranges == [(4, 4), (6, 6)]


def test_what_is_in_the_dead_letters_is_not_missing():
    """It is counted apart; what was also delivered to another sink is no double."""
    told = report([1, 2, 5], buried=[2, 3, 9])
    assert told.missing_ranges == [(4, 4), (6, 8)]
    assert (told.buried, told.doubled, told.events, told.last) == (2, 0, 3, 9)


def test_a_producer_may_have_nothing_but_dead_letters():
    """Then it has no first event, and its numbers are accounted for all the same."""
    [producer] = census_of(buried=[("p", 1), ("p", 2)]).producers.values()
    told = report_of(producer, partial=False)
    assert (told.events, told.first, told.last) == (0, None, 2)
    assert (told.missing, told.buried) == (0, 2)


def test_what_has_no_number_is_counted_apart():
    """Events of other programs, and lines that are none."""
    census = Census()
    place = Place(Path("a"), 1)
    bare = b'{"event_id":"1","event_type":"a.b","event_time":"2026-11-23T10:00:00Z"%b}'
    for more in (b"", b',"producer_id":"p"', b',"producer_id":"p","sequence":-1'):
        census.add(read_entry(bare % more, place))
    census.add(read_entry(b"broken", place))
    census.add(read_entry(letter("p", 0), place))
    census.add(read_entry(letter("p", 1).replace(b"event_time", b"time"), place))
    assert (census.unnumbered, census.bad_lines.count, census.producers) == (3, 1, {})

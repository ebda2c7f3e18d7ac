"""The ledger: the identity, its table, and the counters behind it."""

from __future__ import annotations

import pytest

from bizlog.ledger import (
    DURATION_SECONDS,
    OTHER,
    Counts,
    Durations,
    Labels,
    Ledger,
    SinkLedger,
    Tallies,
    merge,
)


def sink_ledger(**figures):
    """Make the ledger of a sink where everything not said is zero."""
    nothing = {
        "offered": 0,
        "delivered": 0,
        "rejected": 0,
        "dropped": {},
        "dead_lettered": 0,
        "pending": 0,
    }
    return SinkLedger(**nothing | figures)


# The identity


def test_every_state_counts_once():
    """What was offered is in one of five places, dropped by each of its reasons."""
    ledger = sink_ledger(
        offered=111_111,
        delivered=1,
        rejected=10,
        dropped={"queue_full": 100, "closed": 1_000},
        dead_lettered=10_000,
        pending=100_000,
    )

    assert ledger.settled == 111_111
    assert ledger.balanced


@pytest.mark.parametrize("offered", [0, 2])
def test_a_lost_or_doubled_event_is_seen(offered):
    """One event more or less than offered opens the ledger."""
    ledger = sink_ledger(offered=offered, delivered=1)

    assert not ledger.balanced
    assert not ledger.closed


def test_a_ledger_closes_when_nothing_is_pending():
    """Balanced with events that wait is not yet closed."""
    assert sink_ledger(offered=1, delivered=1).closed
    waiting = sink_ledger(offered=1, pending=1)
    assert waiting.balanced and not waiting.closed


def test_pending_cannot_make_up_for_a_double():
    """An event that was delivered but never offered closes no ledger."""
    ledger = sink_ledger(offered=0, delivered=1, pending=-1)

    assert ledger.balanced
    assert not ledger.closed


@pytest.mark.parametrize(
    ("other", "balanced", "closed"),
    [
        (sink_ledger(offered=2, delivered=2), True, True),
        (sink_ledger(offered=2, pending=2), True, False),
        (sink_ledger(offered=2), False, False),
    ],
)
def test_a_client_is_as_good_as_its_worst_sink(other, balanced, closed):
    """The identity holds for each sink, not for their sum."""
    good = sink_ledger(offered=1, delivered=1)
    ledger = Ledger({"good": good, "other": other})

    assert (ledger.balanced, ledger.closed) == (balanced, closed)


def test_without_sinks_nothing_is_open():
    """No sink, no event: the empty ledger is closed."""
    assert Ledger({}).balanced
    assert Ledger({}).closed


# The table


def test_the_table_is_aligned_and_complete():
    """One line a sink, numbers in columns, reasons by name, and the verdict."""
    ledger = Ledger(
        {
            "file": sink_ledger(offered=1_234_567, delivered=1_234_567),
            "console": sink_ledger(
                offered=1_234_567,
                delivered=1_234_500,
                rejected=7,
                dropped={"lane_full": 40, "closed": 10},
                dead_lettered=9,
                pending=1,
            ),
        }
    )

    assert str(ledger).splitlines() == [
        "sink       offered  delivered  rejected                  dropped  dead_lettered  pending",
        "file     1,234,567  1,234,567         0                        0              0        0    closed",
        "console  1,234,567  1,234,500         7  lane_full 40, closed 10              9        1  balanced",
    ]


def test_the_table_shouts_when_the_identity_is_broken():
    """A reader does not have to add up to see that events are missing."""
    table = str(Ledger({"file": sink_ledger(offered=2, delivered=1)}))

    assert table.endswith("OPEN")


def test_the_table_of_no_sinks_is_its_head():
    """Nothing to show is no error."""
    assert str(Ledger({})).split() == ["sink", *SinkLedger.__struct_fields__]


# Counters


def test_reasons_that_did_not_occur_are_not_shown():
    """A snapshot names only what happened."""
    counts = Counts("queue_full", "closed")
    assert counts.snapshot() == {}

    counts.add("closed")
    counts.add("closed", 4)
    counts.add("queue_full", 0)

    assert counts.snapshot() == {"closed": 5}


def test_a_snapshot_stays_as_it_was():
    """What is counted later does not change what was read."""
    counts = Counts("closed")
    counts.add("closed")
    before = counts.snapshot()

    counts.add("closed")

    assert before == {"closed": 1}


def test_a_reason_is_known_from_the_start():
    """Adding never changes the shape of what a reader walks over."""
    with pytest.raises(KeyError):
        Counts("closed").add("invented")


def test_merging_adds_by_reason():
    """Counts of several places become one, and stay what they were."""
    one, two = {"closed": 1, "queue_full": 2}, {"closed": 10}

    assert merge(one, two, {}) == {"closed": 11, "queue_full": 2}
    assert one == {"closed": 1, "queue_full": 2}
    assert merge() == {}


# Labels and durations


def test_values_beyond_the_limit_share_one():
    """The first values are kept, also when they come again; later ones are other."""
    labels = Labels(limit=2)

    shown = [labels.admit(value) for value in ("a", "b", "c", "a", "b", "d")]

    assert shown == ["a", "b", OTHER, "a", "b", OTHER]


def test_other_takes_no_place():
    """Who is called other joins those who share it, and costs nobody a place."""
    labels = Labels(limit=1)

    assert [labels.admit(value) for value in (OTHER, "a", "b")] == [OTHER, "a", OTHER]


def test_a_place_taken_twice_is_given_back():
    """Two threads with the same new value use one place, not two."""
    labels = Labels(limit=2)

    class Raced(dict):
        def get(self, key):
            # The other thread's value comes in just after this one has looked.
            found = super().get(key)
            self.setdefault(key, (key,))
            return found

    labels._kept = Raced(labels._kept)
    assert labels.admit("a") == "a"
    labels._kept = dict(labels._kept)

    assert [labels.admit(value) for value in ("b", "c", "d")] == ["b", "c", OTHER]


def test_a_tally_belongs_to_its_values():
    """The same values find the same tally; what counted nothing is not shown."""
    tallies = Tallies(("source", "event_type"), limit=2)
    tallies.of("shop", "order.placed").events += 2
    tallies.of("shop", "order.placed").events += 1
    tallies.of("shop", "order.failed")

    assert tallies.snapshot() == {("shop", "order.placed"): 3}


def test_a_tally_needs_a_value_for_each_label():
    """A value too many or too few is a fault of ours, and is told."""
    with pytest.raises(ValueError):
        Tallies(("error_type",)).of("a", "b")


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        (0.0, 0),
        (DURATION_SECONDS[0], 0),
        (DURATION_SECONDS[0] * 1.01, 1),
        (DURATION_SECONDS[-1], len(DURATION_SECONDS) - 1),
        (DURATION_SECONDS[-1] * 2, len(DURATION_SECONDS)),
    ],
)
def test_a_call_counts_up_to_its_bound(seconds, place):
    """A bound belongs to its own bucket; the last one takes all longer calls."""
    durations = Durations()
    durations.add(seconds)

    calls = durations.snapshot()
    assert [index for index, number in enumerate(calls) if number] == [place]
    assert len(calls) == len(DURATION_SECONDS) + 1


def test_durations_add_up():
    """Number and sum of the calls give their mean."""
    durations = Durations()
    for seconds in (0.5, 0.25, 100.0):
        durations.add(seconds)

    assert sum(durations.snapshot()) == 3
    assert durations.seconds == 100.75

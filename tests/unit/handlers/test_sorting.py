"""Which partition each event of a batch goes to, and beside which others."""

from __future__ import annotations

from bizlog.sinks import Record
from bizlog_handlers._sorting import by_key, by_partition


def sort(how, keys, **options):
    """Sort events with these keys; `-` is none. Capitals have a partition of their own."""
    records = [Record(key.encode(), "", "x", "", n) for n, key in enumerate(keys)]

    def rule(record):
        key = record.data.decode()
        return None if key == "-" else key

    def partition_of(key):
        asked.append(key)
        return "1" if key and key.isupper() else "0"

    asked = []
    found = how(records, rule, partition_of, **options)
    return {name: list(group) for name, group in found.items()}, asked


def test_events_keep_their_order_within_a_partition():
    """Whatever their keys are."""
    found, _ = sort(by_partition, "aAb-a")

    assert found == {"0": [("a", 0), ("b", 2), (None, 3), ("a", 4)], "1": [("A", 1)]}


def test_groups_hold_the_events_of_one_key():
    """Keys come in the order they appear; no key is like a key of its own."""
    found, _ = sort(by_key, "aA-ba-", mixed=False)

    assert found == {
        "0": [("a", [0, 4]), (None, [2, 5]), ("b", [3])],
        "1": [("A", [1])],
    }


def test_keys_can_share_a_group():
    """Then it has no key, and all events of the partition stand in their order."""
    found, _ = sort(by_key, "aAb-aB", mixed=True)

    assert found == {"0": [(None, [0, 2, 3, 4])], "1": [(None, [1, 5])]}


def test_a_partition_is_asked_for_once_for_each_key():
    """Events without a key ask each time: they take turns."""
    for how, options in ((by_partition, {}), (by_key, {"mixed": False})):
        _, asked = sort(how, "aba--b", **options)

        assert asked == ["a", "b", None, None]


def test_nothing_is_sorted_into_nothing():
    """Without events there is no partition."""
    assert sort(by_partition, "") == ({}, [])
    assert sort(by_key, "", mixed=True) == ({}, [])

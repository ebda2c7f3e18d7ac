"""
Whether what was read back is what was emitted: complete, unchanged and in order.

Two things know what must be there: the file sink that ran beside the sink in question,
which has every body, and a plain reading of the CSV file, which knows nothing of
bizlog. No I/O but `bizlog gaps`, which reads the events as any of its users has it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from cell import Cell
from processes import ROOT
from reading import Landed
from retail import EXACT, Expected

Event: TypeAlias = dict[str, Any]
Name: TypeAlias = tuple[Any, ...]

LINE_TYPES = {"product.added_to_cart", "order.returned"}
_decode = json.JSONDecoder(parse_float=Decimal).decode


@dataclass(frozen=True)
class Arrival:
    """One event as it was read: where, under which key, and what it says."""

    landed: Landed
    event: Event

    @property
    def id(self) -> str:
        """Its own, which it keeps when it is sent again."""
        return str(self.event["event_id"])

    @property
    def number(self) -> int:
        """Its place among the events of its producer."""
        return int(self.event["sequence"])

    @property
    def name(self) -> Name:
        """What it is about."""
        return name_of(self.event)


def name_of(event: Event) -> Name:
    """Say what an event is about: the same line, order or checkpoint is the same."""
    own = event["custom_properties"]
    if event["event_type"] in LINE_TYPES:
        return "line", own["invoice"], own["line"]
    if event["event_type"] == "order.placed":
        items = str(event["order_items"])
        return "order", own["invoice"], event["event_time"], items
    return "checkpoint", own["checkpoint"]


@dataclass
class Judgement:
    """
    Looks at what was read.

    Args:
        landed: All events, by partition and in order, with those that came again.
        witness: What was emitted, by event id.
        expected: What the CSV file says.
        resumed: Whether processes died: what was not confirmed then may be missing, if
            another process has emitted it anew.
    """

    landed: Sequence[Landed]
    witness: dict[str, bytes]
    expected: Expected
    resumed: bool = False

    @cached_property
    def arrivals(self) -> list[Arrival]:
        """All of them, with what they say."""
        return [Arrival(each, _decode(each.body.decode())) for each in self.landed]

    @cached_property
    def first(self) -> dict[str, Arrival]:
        """Those that came for the first time, by id."""
        found: dict[str, Arrival] = {}
        for each in self.arrivals:
            found.setdefault(each.id, each)
        return found

    @cached_property
    def named(self) -> dict[Name, list[Arrival]]:
        """Those that came for the first time, by what they are about."""
        found: dict[Name, list[Arrival]] = defaultdict(list)
        for each in self.first.values():
            found[each.name].append(each)
        return found

    @cached_property
    def _witnessed(self) -> dict[str, Name]:
        return {
            id_: name_of(_decode(body.decode())) for id_, body in self.witness.items()
        }

    @property
    def doubled(self) -> int:
        """How often an event came that was there already."""
        return len(self.arrivals) - len(self.first)

    def faults(self) -> Iterator[str]:
        """Say what is wrong, whatever happened on the way."""
        yield from self._conservation()
        yield from self._integrity()
        yield from self._order()
        yield from self._lines()
        yield from self._totals()

    def _conservation(self) -> Iterator[str]:
        lost = self.witness.keys() - self.first.keys()
        foreign = self.first.keys() - self.witness.keys()
        if self.resumed:
            named = self._witnessed
            lost = {id_ for id_ in lost if named[id_] not in self.named}
            known = {*named.values()}
            foreign = {id_ for id_ in foreign if self.first[id_].name not in known}
        if lost:
            yield f"{len(lost)} of {len(self.witness)} events lost, as {min(lost)}"
        if foreign:
            yield f"{len(foreign)} events that nobody emitted, as {min(foreign)}"

    def _integrity(self) -> Iterator[str]:
        other = sum(
            each.landed.body != self.witness.get(each.id, each.landed.body)
            for each in self.arrivals
        )
        keyed = sum(
            each.landed.key != each.event.get("session_id") for each in self.arrivals
        )
        named = sum(
            each.landed.message_id not in {None, each.id} for each in self.arrivals
        )
        if other:
            yield f"{other} events are not what was emitted"
        if keyed or named:
            yield f"{keyed} messages with another key, {named} with another id"

    def _order(self) -> Iterator[str]:
        numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
        places: dict[str, set[str]] = defaultdict(set)
        for each in self.first.values():
            if (key := each.event.get("session_id")) is not None:
                numbers[each.event["producer_id"], key].append(each.number)
                places[key].add(each.landed.partition)
        astray = sum(found != sorted(found) for found in numbers.values())
        spread = sum(len(found) > 1 for found in places.values())
        if astray:
            yield f"{astray} of {len(numbers)} keys out of order"
        if spread:
            yield f"{spread} of {len(places)} keys in several partitions"

    def _lines(self) -> Iterator[str]:
        found = {name[1:]: each for name, [each, *_] in self._of("line")}
        missing = self.expected.lines.keys() - found.keys()
        strange = found.keys() - self.expected.lines.keys()
        wrong = sum(
            (each.event["event_type"], _amount(each)) != self.expected.lines.get(line)
            for line, each in found.items()
        )
        orders = len([*self._of("order")])
        if missing or strange or wrong:
            yield (
                f"of {len(self.expected.lines)} lines {len(missing)} are missing, "
                f"{wrong} wrong, {len(strange)} strange"
            )
        if orders != self.expected.sales:
            yield f"{orders} orders for {self.expected.sales} sales"

    def _of(self, what: str) -> Iterator[tuple[Name, list[Arrival]]]:
        return ((name, all_) for name, all_ in self.named.items() if name[0] == what)

    def _totals(self) -> Iterator[str]:
        alone = [each for each, *_ in self.named.values()]
        orders = {"order.placed", "order.returned"}
        for what, types in (("lines", LINE_TYPES), ("orders", orders)):
            found = _by_country(a for a in alone if a.event["event_type"] in types)
            if found != self.expected.totals:
                yield f"the totals by country of the {what} differ: {found}"

    def again(self) -> set[Name]:
        """Name the lines and orders that were emitted more than once."""
        return {name for name, found in self.named.items() if len(found) > 1}

    def runs(self) -> int:
        """
        Count the batches that came again: unbroken runs of events that were there.

        A batch that is sent again brings its events in their order, which begins
        before that of the event in front of it.
        """
        streams: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
        for each in self.arrivals:
            streams[each.landed.partition, each.event["producer_id"]].append(each)
        return sum(map(_runs_of, streams.values()))

    def judge_gaps(self, cell: Cell, folder: Path) -> None:
        """Have `bizlog gaps` read it all: nothing is missing, and as much came twice."""
        said = _gaps(self.landed, folder)
        if said is None:
            cell.misses.append("bizlog gaps could not read it")
            return
        missing = sum(each["missing"] for each in said)
        doubled = sum(each["doubled"] for each in said)
        cell.expect(not missing, f"bizlog gaps: {missing} missing")
        cell.expect(
            doubled == self.doubled,
            f"bizlog gaps: {doubled} doubled, not {self.doubled}",
        )


def _amount(arrival: Arrival) -> Any:
    event = arrival.event
    own = event["custom_properties"]
    return event["order_total"] if "order_total" in event else own["line_total"]


def _by_country(arrivals: Iterable[Arrival]) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = {}
    for each in arrivals:
        country = each.event["custom_properties"]["country"]
        totals[country] = EXACT.add(
            totals.get(country, Decimal(0)), Decimal(_amount(each))
        )
    return totals


def _runs_of(stream: list[Arrival]) -> int:
    seen: set[str] = set()
    is_again = [each.id in seen or bool(seen.add(each.id)) for each in stream]
    return sum(
        again and not (before_again and before.number < each.number)
        for (before, before_again), (each, again) in pairwise(
            zip(stream, is_again, strict=True)
        )
    )


def _gaps(landed: Sequence[Landed], folder: Path) -> list[dict[str, Any]] | None:
    file = folder / "landed.jsonl"
    file.write_bytes(b"".join(each.body + b"\n" for each in landed))
    said = subprocess.run(
        [sys.executable, "-m", "bizlog.cli", "gaps", "--json", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    try:
        producers: list[dict[str, Any]] = json.loads(said.stdout)["producers"]
    except ValueError:
        return None
    return producers


def read_witness(folder: Path) -> dict[str, bytes]:
    """Read what the file sink wrote, by event id."""
    found: dict[str, bytes] = {}
    for path in folder.glob("event_type=*/date=*/*.jsonl"):
        for line in path.read_bytes().splitlines():
            found[json.loads(line)["event_id"]] = line
    return found

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
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from cell import Cell
from processes import ROOT
from reading import Landed
from retail import EXACT, Expected

Name: TypeAlias = tuple[Any, ...]
"""What an event is about: the same line, order or checkpoint has the same name."""

LINE_TYPES = {"product.added_to_cart", "order.returned"}
ORDER_TYPES = {"order.placed", "order.returned"}
_decode = json.JSONDecoder(parse_float=Decimal).decode


class Arrival(NamedTuple):
    """
    One event as it was read.

    Attributes:
        landed: Where, under which key, and its body.
        id: Its own, which it keeps when it is sent again.
        producer: Who emitted it.
        number: Its place among all of that producer.
        session: The invoice.
        kind: Its type.
        name: What it is about.
        country: Of the customer; None for checkpoints.
        amount: Of the line or order.
    """

    landed: Landed
    id: str
    producer: str
    number: int
    session: str | None
    kind: str
    name: Name
    country: str | None
    amount: Any


def arrival_of(landed: Landed) -> Arrival:
    """Read what an event says."""
    event: dict[str, Any] = _decode(landed.body.decode())
    own = event["custom_properties"]
    return Arrival(
        landed,
        id=event["event_id"],
        producer=event["producer_id"],
        number=event["sequence"],
        session=event.get("session_id"),
        kind=event["event_type"],
        name=_name_of(event, own),
        country=own.get("country"),
        amount=event.get("order_total", own.get("line_total")),
    )


def _name_of(event: dict[str, Any], own: dict[str, Any]) -> Name:
    if event["event_type"] in LINE_TYPES:
        return "line", own["invoice"], own["line"]
    if event["event_type"] == "order.placed":
        items = hash(str(event["order_items"]))
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
        return [arrival_of(each) for each in self.landed]

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

    @property
    def doubled(self) -> int:
        """How often an event came that was there already."""
        return len(self.arrivals) - len(self.first)

    @property
    def again(self) -> set[Name]:
        """What was emitted more than once, under several ids."""
        return {name for name, found in self.named.items() if len(found) > 1}

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
            lost = {each for each in lost if named[each] not in self.named}
            known = {*named.values()}
            foreign = {each for each in foreign if self.first[each].name not in known}
        if lost:
            yield f"{len(lost)} of {len(self.witness)} events lost, as {min(lost)}"
        if foreign:
            yield f"{len(foreign)} events that nobody emitted, as {min(foreign)}"

    @property
    def _witnessed(self) -> dict[str, Name]:
        bodies = (Landed("", None, body, None) for body in self.witness.values())
        return {each.id: each.name for each in map(arrival_of, bodies)}

    def _integrity(self) -> Iterator[str]:
        changed = keyed = named = 0
        for each in self.arrivals:
            landed = each.landed
            changed += landed.body != self.witness.get(each.id, landed.body)
            keyed += landed.key != each.session
            named += landed.message_id not in {None, each.id}
        if changed:
            yield f"{changed} events are not what was emitted"
        if keyed or named:
            yield f"{keyed} messages with another key, {named} with another id"

    def _order(self) -> Iterator[str]:
        numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
        places: dict[str, set[str]] = defaultdict(set)
        for each in self.first.values():
            if each.session is not None:
                numbers[each.producer, each.session].append(each.number)
                places[each.session].add(each.landed.partition)
        astray = sum(found != sorted(found) for found in numbers.values())
        spread = sum(len(found) > 1 for found in places.values())
        if astray:
            yield f"{astray} of {len(numbers)} keys out of order"
        if spread:
            yield f"{spread} of {len(places)} keys in several partitions"

    def _lines(self) -> Iterator[str]:
        found = {name[1:]: each for name, each in self._alone() if name[0] == "line"}
        missing = self.expected.lines.keys() - found.keys()
        strange = found.keys() - self.expected.lines.keys()
        wrong = sum(
            (each.kind, each.amount) != self.expected.lines.get(line)
            for line, each in found.items()
        )
        if missing or strange or wrong:
            yield (
                f"of {len(self.expected.lines)} lines {len(missing)} are missing, "
                f"{wrong} wrong, {len(strange)} strange"
            )
        orders = sum(name[0] == "order" for name in self.named)
        if orders != self.expected.sales:
            yield f"{orders} orders for {self.expected.sales} sales"

    def _totals(self) -> Iterator[str]:
        for what, kinds in (("lines", LINE_TYPES), ("orders", ORDER_TYPES)):
            found = _by_country(each for _, each in self._alone() if each.kind in kinds)
            wrong = dict(found.items() ^ self.expected.totals.items())
            if wrong:
                yield f"the totals of the {what} differ in {', '.join(sorted(wrong))}"

    def _alone(self) -> Iterator[tuple[Name, Arrival]]:
        return ((name, found[0]) for name, found in self.named.items())

    def runs(self) -> int:
        """
        Count the batches that came again, by what each partition got of them.

        A batch that is sent again brings its events in their order, from one on that
        was there before the event in front of it. Some may be new to the partition:
        without a key they go to any.
        """
        streams: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
        for each in self.arrivals:
            streams[each.landed.partition, each.producer].append(each)
        return sum(map(_runs_of, streams.values()))

    def judge_gaps(self, cell: Cell, folder: Path) -> None:
        """Have `bizlog gaps` read it all: nothing is missing, and as much came twice."""
        said = _gaps(self.landed, folder)
        if said is None:
            cell.misses.append("bizlog gaps could not read it")
            return
        missing = [span for each in said for span in each["missing_ranges"]]
        doubled = sum(each["doubled"] for each in said)
        cell.expect(not missing, f"bizlog gaps: missing {missing[:5]}")
        cell.expect(
            doubled == self.doubled,
            f"bizlog gaps: {doubled} doubled, not {self.doubled}",
        )


def _by_country(arrivals: Iterable[Arrival]) -> dict[str | None, Decimal]:
    totals: dict[str | None, Decimal] = {}
    for each in arrivals:
        so_far = totals.get(each.country, Decimal(0))
        totals[each.country] = EXACT.add(so_far, Decimal(each.amount))
    return totals


def _runs_of(stream: Iterable[Arrival]) -> int:
    seen: set[str] = set()
    runs, before, is_again = 0, -1, False
    for each in stream:
        is_again = is_again and each.number > before
        if each.id in seen and not is_again:
            runs, is_again = runs + 1, True
        seen.add(each.id)
        before = each.number
    return runs


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

"""
The landings in short: real invoice lines through both sinks and back out.

`make faults` runs them with 200,000 lines, and 20,000 for each fault. Here there are a
few thousand, and the faults follow each other in one run; what is held is the same:
nothing lost, doubled, changed or out of order. And each of these would be noticed.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MATRIX = Path(__file__).with_name("matrix.py")

IN_SHORT = "land-silent,land-told,land-outage,land-sigkill,land"
COLUMNS = "eventhub,kafka"
SINKS = {"eventhub": "EventHubSink", "kafka": "KafkaSink"}

# A sink that drops, doubles, swaps and forges in its first call of some size; and a
# journal that nobody finds again.
CHEAT = """
import os
from msgspec.structs import replace
from bizlog_handlers.{module} import {sink} as Sink
from contenders.bizlog_{module} import make as honest

def make(url, folder, journal=None, **options):
    if journal:
        os.makedirs(journal, exist_ok=True)
        options["journal"] = f"{{journal}}-{{os.getpid()}}"
    return honest(url, folder, **options)

deliver = Sink.deliver
done = []

async def cheat(sink, batch):
    records = [*batch.records]
    if len(records) >= 50 and not done:
        done.append(True)
        swapped = next(
            n for n in range(30, len(records) - 1)
            if records[n].data.partition(b'session_id')[2][:20]
            == records[n + 1].data.partition(b'session_id')[2][:20]
        )
        records[swapped : swapped + 2] = records[swapped + 1], records[swapped]
        forged = records[20].data.replace(b'"quantity":', b'"quantity": ')
        records[20] = replace(records[20], data=forged)
        records.append(records[10])
        del records[0]
    return await deliver(sink, replace(batch, records=records))

Sink.deliver = cheat
"""


@pytest.fixture(scope="module")
def retail(beside: Callable[[str], ModuleType]) -> ModuleType:
    """Skip what there are no lines or no packages for."""
    found = beside("retail")
    if not found.DATA.is_file():
        pytest.skip("the real invoice lines are not beside the project")
    pytest.importorskip("proton", reason="the extra loopback is not installed")
    pytest.importorskip("azure.eventhub", reason="the extra eventhub is not installed")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka has no wheel here")
    return found


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the matrix as `make faults` does, in short."""
    return subprocess.run(
        [sys.executable, MATRIX, "--quick", "--patience", "10", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(
    retail: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """Run all at the same time, since most of it is waiting."""
    folder = tmp_path_factory.mktemp("landing")
    with ThreadPoolExecutor() as pool:
        yield {
            "honest": pool.submit(run, "--only", IN_SHORT, "--contender", COLUMNS),
            "cheats": pool.submit(cheated, folder, "land", *SINKS),
            "killed": pool.submit(cheated, folder, "land-sigkill", "kafka"),
        }


def cheated(folder: Path, row: str, *modules: str) -> list[dict[str, Any]]:
    """Send lines through sinks that cheat; the cells, all of which must be misses."""
    columns: list[str] = []
    for module in modules:
        cheat = folder / f"{row}-{module}.py"
        cheat.write_text(CHEAT.format(module=module, sink=SINKS[module]))
        columns.append(f"{module}={cheat}")
    answer = folder / f"{row}.json"
    done = run("--only", row, "--contender", ",".join(columns), "--json", answer)
    cells: list[dict[str, Any]] = json.loads(answer.read_text())["cells"]
    assert done.returncode == 1, done.stdout + done.stderr
    assert [cell["contender"] for cell in cells] == [*modules]
    return cells


@pytest.mark.timeout(240)
def test_all_that_was_emitted_lands(runs: dict[str, Future[Any]]) -> None:
    """Through both sinks, under every fault, and with the process killed meanwhile."""
    done = runs["honest"].result()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(240)
def test_sinks_that_cheat_are_noticed(runs: dict[str, Future[Any]]) -> None:
    """One event lost, one doubled, one forged and two of a key swapped fail the run."""
    for cell in runs["cheats"].result():
        assert (cell["delivered"], cell["doubled"]) == (cell["emitted"] - 1, 1)
        said = "\n".join(cell["misses"])
        assert f"1 of {cell['emitted']} events lost" in said
        assert "1 events are not what was emitted" in said
        assert "keys out of order" in said
        assert "1 are missing" in said
        assert "1 batches came again, not 0 to 0" in said
        assert "bizlog gaps: missing [[1, 1]]" in said


@pytest.mark.timeout(240)
def test_a_journal_that_nobody_takes_over_is_noticed(
    runs: dict[str, Future[Any]],
) -> None:
    """What was confirmed and never came is a loss."""
    [cell] = runs["killed"].result()
    said = "\n".join(cell["misses"])
    assert re.search(r"of 1000 lines \d\d+ are missing", said), said
    assert "confirmed checkpoints lost" in said
    assert "totals of the lines differ" in said


def test_every_trouble_is_in_the_short_run(
    beside: Callable[[str], ModuleType],
) -> None:
    """What befalls hubs and topics in single rows befalls them in short, too."""
    landing = beside("landing")
    shared = {*landing.TOLD, *landing.SILENT, *landing.OF_TOPICS}
    own = {landing._calm, landing._down, landing._killed}  # of rows that run in short
    troubles = {
        each
        for each in vars(landing).values()
        if inspect.isfunction(each)
        and [*inspect.signature(each).parameters][1:] == ["go"]
    }
    assert troubles == shared | own


# What a judgement looks at, in small: two invoices of a customer each.


def an_event(number: int, **more: Any) -> dict[str, Any]:
    """Make the event of a line; every second one is of the second invoice."""
    invoice, line = str(number % 2), (number + 1) // 2
    return {
        "event_id": f"id-{number}",
        "event_type": "order.returned",
        "producer_id": "p",
        "sequence": number,
        "session_id": invoice,
        "order_total": 1.5,
        "custom_properties": {"invoice": invoice, "line": line, "country": "France"},
        **more,
    }


EVENTS = [an_event(number) for number in range(1, 9)]


@pytest.fixture
def judge(beside: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """Judge events that landed, each in its invoice's partition, as all there were."""
    judgement, reading, retail = map(beside, ("judgement", "reading", "retail"))

    def judge(events: list[dict[str, Any]], **given: Any) -> Any:
        witness = given.pop("witness", EVENTS)
        landed = [
            reading.Landed(
                event.get("session_id", "0"),
                event.get("session_id"),
                json.dumps(event).encode(),
                event["event_id"],
            )
            for event in events
        ]
        expected = retail.Expected(
            {
                (e["custom_properties"]["invoice"], e["custom_properties"]["line"]): (
                    e["event_type"],
                    Decimal("1.5"),
                )
                for e in EVENTS
            },
            {"France": Decimal(12)},
        )
        bodies = {e["event_id"]: json.dumps(e).encode() for e in witness}
        return judgement.Judgement(landed, bodies, expected, **given)

    return judge


def test_what_is_whole_is_accepted(judge: Callable[..., Any]) -> None:
    """Nothing is said of events that came once, in their order."""
    found = judge(EVENTS)
    assert [*found.faults()] == []
    assert (found.doubled, found.runs(), found.again) == (0, 0, set())


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (EVENTS[1:], "1 of 8 events lost, as id-1"),
        ([*EVENTS, an_event(9)], "1 events that nobody emitted, as id-9"),
        (
            [*EVENTS[:2], EVENTS[4], EVENTS[3], EVENTS[2], *EVENTS[5:]],
            "1 of 2 keys out",
        ),
        (
            [an_event(1, note="forged"), *EVENTS[1:]],
            "1 events are not what was emitted",
        ),
        (
            [an_event(1, order_total=2), *EVENTS[1:]],
            "0 are missing, 1 wrong, 0 strange",
        ),
        ([an_event(1, order_total=2), *EVENTS[1:]], "totals of the lines differ in Fr"),
        (
            [an_event(1, order_total=2), *EVENTS[1:]],
            "totals of the orders differ in Fr",
        ),
        ([an_event(1, session_id="2"), *EVENTS[1:]], "1 events are not what was"),
    ],
)
def test_each_fault_has_its_word(
    judge: Callable[..., Any], events: list[dict[str, Any]], said: str
) -> None:
    """What is lost, foreign, forged, wrong or out of order is told."""
    assert said in "\n".join(judge(events).faults())


def test_a_key_in_two_partitions_is_told(judge: Callable[..., Any]) -> None:
    """So is a message whose key or id is not the event's."""
    found = judge(EVENTS)
    found.landed[0] = found.landed[0]._replace(partition="9", key="9", message_id="9")
    said = [*found.faults()]
    assert said == [
        "1 messages with another key, 1 with another id",
        "1 of 2 keys in several partitions",
    ]


@pytest.mark.parametrize(
    ("numbers", "doubled", "runs"),
    [
        ([1, 3, 5, 7], 0, 0),
        ([1, 3, 1, 3, 5, 7], 2, 1),
        ([1, 3, 1, 3, 1, 3, 5, 7], 4, 2),
        ([1, 1, 3, 3, 5, 7], 2, 2),
        ([1, 3, 5, 1, 3, 5, 7, 7], 4, 2),
    ],
)
def test_batches_that_came_again_are_counted(
    judge: Callable[..., Any], numbers: list[int], doubled: int, runs: int
) -> None:
    """A batch begins with an event that was there before the one in front of it."""
    others = [event for event in EVENTS if event["session_id"] == "0"]
    found = judge([*[EVENTS[number - 1] for number in numbers], *others])
    assert [*found.faults()] == []
    assert (found.doubled, found.runs()) == (doubled, runs)


def test_a_batch_that_came_again_may_hold_what_is_new(
    judge: Callable[..., Any],
) -> None:
    """What has no key may have been in another partition the first time."""
    assert judge([EVENTS[number - 1] for number in (1, 5, 1, 3, 5, 7)]).runs() == 1


def test_what_was_not_confirmed_may_have_another_id(judge: Callable[..., Any]) -> None:
    """After a crash a line may be emitted anew; that it is nowhere is a loss even then."""
    anew = an_event(9, custom_properties=EVENTS[0]["custom_properties"])
    events, witness = [*EVENTS[1:], anew], [*EVENTS, anew]
    assert [*judge(events, witness=witness, resumed=True).faults()] == []
    assert [*judge(events, witness=witness).faults()] == ["1 of 9 events lost, as id-1"]
    assert "1 of 8 events lost, as id-1" in judge(EVENTS[1:], resumed=True).faults()
    both = judge([*EVENTS, anew], witness=EVENTS, resumed=True)
    assert [*both.faults()] == []
    assert both.again == {("line", "1", 1)}

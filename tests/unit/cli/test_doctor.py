"""`bizlog doctor`: steps in turn, each with its outcome, whatever the sink is."""

from __future__ import annotations

import asyncio
import json

import pytest

from bizlog.cli import doctor, main
from bizlog.exceptions import MissingExtraError, RetryableSinkError, SinkError
from bizlog.sinks import BaseSink, Rejection, SendResult


class Advised(SinkError):
    """An error that brings its own advice."""

    advice = ("look here", "or there")


class Step:
    """A step that finds something, or meets an error."""

    def __init__(self, name, found="all is well"):
        self.name = name
        self.found = found
        self.seconds = None

    async def run(self, seconds):
        self.seconds = seconds
        if isinstance(self.found, Exception):
            raise self.found
        if self.found == "hang":
            await asyncio.Event().wait()
        return self.found


class Sink(BaseSink):
    """A sink that brings its steps and answers as it is told."""

    name = "sink"

    def __init__(self, *steps, answer=None):
        self.steps = steps
        self.answer = answer
        self.got = []
        self.stopped = 0

    def checks(self):
        return self.steps

    def advice(self, reason):
        return (f"about {reason}",)

    async def deliver(self, batch):
        self.got.append(batch)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "hang":
            await asyncio.Event().wait()
        return self.answer or SendResult()

    async def stop(self):
        self.stopped += 1
        raise RetryableSinkError("stopping does not count")


@pytest.fixture
def examine(monkeypatch, capsys):
    """Run the command on a sink; returns its code and what it says as JSON."""

    def run(sink, *arguments):
        monkeypatch.setattr(doctor, "make_sink", lambda _: sink)
        code = main(["doctor", "null:", "--json", *arguments])
        told = json.loads(capsys.readouterr().out)
        assert told["well"] is (code == 0)
        return code, {step.pop("step"): step for step in told["steps"]}

    return run


def test_all_steps_and_the_event_in_turn(examine):
    """Each step gets its time and says what it found; the event comes last; code 0."""
    steps = Step("first", "one"), Step("second", "two")
    sink = Sink(*steps)

    code, told = examine(sink, "--timeout", "7")

    assert code == 0
    assert list(told) == ["first", "second", "event"]
    assert {step["state"] for step in told.values()} == {"ok"}
    assert [told["first"]["told"], told["second"]["told"]] == ["one", "two"]
    assert [step.seconds for step in steps] == [7, 7]
    [batch] = sink.got
    [event] = batch.events
    assert event["event_type"] == "bizlog.doctor"
    assert event["event_id"] in told["event"]["told"]
    assert sink.stopped == 1


def test_what_follows_a_failure_is_not_done(examine):
    """It says which step failed; nothing is sent; code 1."""
    second = Step("second")
    sink = Sink(Step("first", Advised("it is broken")), second)

    code, told = examine(sink)

    assert code == 1
    assert told["first"]["state"] == "failed"
    assert told["first"]["told"] == "it is broken"
    assert told["first"]["advice"] == ["look here", "or there"]
    for step in ("second", "event"):
        assert told[step]["state"] == "not done"
        assert told[step]["told"] == "first failed"
    assert second.seconds is None
    assert sink.got == []
    assert sink.stopped == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RetryableSinkError("the hub is full"), "the hub is full"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError"),
        (
            SendResult(rejected=(Rejection(0, "too odd"),)),
            "the event was refused: too odd",
        ),
        (
            SendResult(retry=(0,), retry_reason="busy"),
            "the event was not taken: busy",
        ),
        ("hang", "no answer within 0.05 s"),
    ],
)
def test_an_event_that_is_not_taken(examine, answer, told):
    """Whatever the sink answers is told, and the sink is asked for advice."""
    code, steps = examine(Sink(answer=answer), "--timeout", "0.05")

    assert code == 1
    assert told in steps["event"]["told"]
    assert steps["event"]["advice"] == [f"about {steps['event']['told']}"]


def test_no_send_leaves_the_event_out(examine):
    """With `--no-send` all can be well without anything having been sent."""
    sink = Sink(Step("first"))

    code, told = examine(sink, "--no-send")

    assert code == 0
    assert told["event"]["state"] == "left out"
    assert sink.got == []


def test_a_step_that_does_not_end_is_cut(examine, monkeypatch):
    """A step has its time and a moment to explain itself; then the next is not done."""
    monkeypatch.setattr(doctor, "GRACE_SECONDS", 0.05)

    code, told = examine(Sink(Step("first", "hang")), "--timeout", "0.05")

    assert code == 1
    assert told["first"]["told"] == "no answer within 0.05 s"
    assert told["event"]["state"] == "not done"


def test_any_sink_can_be_checked(tmp_path, capsys):
    """A sink that brings no steps is built and given the event."""
    assert main(["doctor", f"file:{tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "ok      configuration" in out
    assert "ok      event" in out
    [path] = tmp_path.rglob("*.jsonl")
    assert json.loads(path.read_text())["event_type"] == "bizlog.doctor"


def test_a_sink_without_advice_gets_a_plain_one(monkeypatch, capsys):
    """A time-out is never left without a word on what to try."""

    class Silent(BaseSink):
        async def deliver(self, batch):
            await asyncio.Event().wait()

    monkeypatch.setattr(doctor, "make_sink", lambda _: Silent())

    assert main(["doctor", "null:", "--timeout", "0.05"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  event" in out
    assert "* the destination may be slow: try --timeout 30" in out


def test_a_configuration_that_cannot_work_is_the_first_step(capsys):
    """The message is the sink's; all other steps are not done; code 1."""
    assert main(["doctor", "file:./x?rotat=1"]) == 1
    out = capsys.readouterr().out
    assert "FAILED  configuration" in out
    assert "has no option 'rotat'" in out
    assert "-       all others" in out
    assert "not done: configuration failed" in out


def test_a_sink_that_nobody_knows_cannot_start(capsys):
    """The schemes that are known are named; code 2."""
    assert main(["doctor", "nix:somewhere"]) == 2
    assert "sink 'nix' is unknown; known are" in capsys.readouterr().err


@pytest.mark.parametrize(
    "string",
    [
        "SharedAccessKey=c2VjcmV0;Endpoint=sb://shop/;SharedAccessKeyName=k",
        "Endpoint=sb://shop/;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0",
        "",
    ],
)
def test_a_connection_string_is_no_url_and_is_not_shown(string, capsys):
    """Where it belongs is said instead; code 2."""
    assert main(["doctor", string]) == 2
    error = capsys.readouterr().err
    assert "expected a sink URL" in error
    assert "c2VjcmV0" not in error


def test_a_sink_without_its_packages_cannot_start(monkeypatch, capsys):
    """What to install is said; code 2."""

    def missing(_):
        raise MissingExtraError("EventHubSink", "eventhub")

    monkeypatch.setattr(doctor, "make_sink", missing)

    assert main(["doctor", "null:"]) == 2
    assert "pip install 'bizlog[eventhub]'" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "soon"])
def test_a_timeout_must_be_some_seconds(seconds, capsys):
    """Anything else ends with 2."""
    assert main(["doctor", "null:", f"--timeout={seconds}"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_text_is_wrapped_and_cannot_steer_a_terminal(monkeypatch, capsys):
    """Long reasons and advice go on below their beginning; control codes are replaced."""
    monkeypatch.setenv("COLUMNS", "80")
    words = " ".join(["reason"] * 20)
    error = Advised(f"\x1b[31m {words}\nand more")
    error.advice = (" ".join(["advice"] * 20),)
    monkeypatch.setattr(doctor, "make_sink", lambda _: Sink(Step("first", error)))

    assert main(["doctor", "null:"]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("reason") == 20
    assert f"\n{'':32}and more\n{'':32}* advice" in out
    assert f"\n{'':34}advice" in out
    assert max(map(len, out.splitlines())) <= 80

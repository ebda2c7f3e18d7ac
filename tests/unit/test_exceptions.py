"""The errors: what their messages say, and what else they are."""

from __future__ import annotations

import pickle

import pytest

from bizlog.exceptions import (
    BatchTooLargeError,
    BizlogError,
    ConfigurationError,
    InvalidEventError,
    MissingExtraError,
    PermanentSinkError,
    RegistrationError,
    RetryableSinkError,
    SinkError,
    UnknownEventError,
)


@pytest.mark.parametrize("problems", ["source: empty", ["source: empty"]])
def test_one_problem_is_its_own_message(problems):
    """A single fault needs no list: text and list of one read alike."""
    error = ConfigurationError(problems)

    assert str(error) == "source: empty"
    assert error.problems == ("source: empty",)


def test_many_problems_are_counted_and_listed():
    """Several faults stand one a line below their number, in their order."""
    error = ConfigurationError(["a: bad", "b: worse"])

    assert str(error) == "2 settings cannot work:\n  - a: bad\n  - b: worse"
    assert error.problems == ("a: bad", "b: worse")


def test_problems_are_kept_as_they_were():
    """Whoever goes on filling the list does not change the error."""
    problems = ["a: bad", "b: worse"]
    error = ConfigurationError(problems)

    problems.clear()

    assert error.problems == ("a: bad", "b: worse")


@pytest.mark.parametrize("cls", [InvalidEventError, UnknownEventError])
def test_an_invalid_event_names_the_path_before_the_reason(cls):
    """The message is path and reason; both can be read apart."""
    error = cls("expected decimal, got bool", "$.order_total")

    assert str(error) == "$.order_total: expected decimal, got bool"
    assert error.path == "$.order_total"
    assert error.reason == "expected decimal, got bool"


@pytest.mark.parametrize("path", [None, ""])
def test_an_event_that_is_wrong_as_a_whole_has_no_path(path):
    """Without a path the message is the reason alone."""
    assert str(InvalidEventError("too large", path)) == "too large"


def test_a_missing_extra_names_the_command_that_installs_it():
    """The message can be copied into a shell, brackets and all."""
    error = MissingExtraError("zstd compression", "zstd")

    assert error.extra == "zstd"
    assert str(error) == (
        "zstd compression needs packages that are not installed: "
        "run  pip install 'bizlog[zstd]'"
    )


def test_a_missing_extra_is_caught_as_what_it_is():
    """`except ImportError` finds it, and so does whoever waits for our errors."""
    for expected in (ImportError, BizlogError):
        with pytest.raises(expected):
            raise MissingExtraError("zstd compression", "zstd")


@pytest.mark.parametrize("seconds", [None, 2.5])
def test_a_retryable_error_may_say_when(seconds):
    """The destination's wish travels beside the reason, not inside it."""
    error = RetryableSinkError("busy", retry_after=seconds)

    assert str(error) == "busy"
    assert error.retry_after == seconds


def test_a_sink_says_whether_again_helps():
    """The two answers exclude each other, and both are the sink's."""
    assert issubclass(RetryableSinkError, SinkError)
    assert issubclass(PermanentSinkError, SinkError)
    assert not issubclass(RetryableSinkError, PermanentSinkError)
    assert not issubclass(PermanentSinkError, RetryableSinkError)


def test_too_large_is_for_good_unless_it_is_split():
    """Who knows nothing of splitting treats it as a refusal."""
    assert issubclass(BatchTooLargeError, PermanentSinkError)


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a: bad"),
        ConfigurationError(["a: bad", "b: worse"]),
        RegistrationError("taken"),
        InvalidEventError("too large"),
        RetryableSinkError("busy"),
        BatchTooLargeError("413"),
    ],
    ids=repr,
)
def test_errors_travel_between_processes(error):
    """A worker's error can be pickled and reads the same in its parent."""
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)

"""What `$cbs` and `$management` answer, without a connection."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.broker import Broker  # after the skip
from bizlog.dev.eventhubs.requests import (  # after the skip
    ManagementLink,
    TokenLink,
)

CONNECTION = SimpleNamespace(
    service=SimpleNamespace(broker=Broker({"events": 2}, 1000), check_token=None)
)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"operation": "DELETE"}, 400),
        ({"operation": "READ", "type": "com.microsoft:eventhub", "name": "x"}, 404),
        (
            {"operation": "READ", "type": "com.microsoft:eventhub", "name": "Events"},
            200,
        ),
        ({"operation": "READ", "name": "events", "partition": "7"}, 404),
        ({"operation": "READ", "name": "x", "partition": "0"}, 404),
        ({"operation": "READ", "name": "events", "partition": "1"}, 200),
    ],
)
def test_management(asked, code):
    """READ describes what is there; the rest is 404, and other operations 400."""
    assert ManagementLink(None, CONNECTION).answer(asked, None)[0] == code


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"operation": "delete-token"}, 400),
        ({"operation": "put-token", "name": "sb://localhost/nowhere"}, 404),
    ],
)
def test_tokens_that_cannot_be_put(asked, code):
    """Other operations are 400, and a token for a hub that is not there is 404."""
    assert TokenLink(None, CONNECTION).answer(asked, "token")[0] == code

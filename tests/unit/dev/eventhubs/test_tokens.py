"""Tokens open the hub they were made for, until they expire."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.epochs import displaced  # after the skip
from bizlog.dev.eventhubs.tokens import Grants, expires_in  # after the skip


def test_a_token_is_for_one_hub():
    """The audience's hub is open, others are not; one for the namespace opens all."""
    grants = Grants(lambda: 100.0, None)
    grants.put("sb://localhost:1/events", "Bearer")
    assert grants.cover("Events")
    assert grants.cover("")
    assert not grants.cover("other")
    assert grants.next_expiry() is None
    grants.put("sb://localhost", "Bearer")
    assert grants.cover("other")


def test_tokens_expire():
    """After the lifetime the hub is closed; a new token opens it again."""
    now = [100.0]
    grants = Grants(lambda: now[0], 10.0)
    grants.put("sb://localhost/events", "Bearer")
    assert grants.next_expiry() == 110.0
    now[0] = 110.0
    assert not grants.cover("events")
    grants.put("sb://localhost/events", "Bearer")
    assert grants.cover("events")


def test_shared_access_signatures_say_when_they_expire():
    """The field se is the end; other tokens have none."""
    token = "SharedAccessSignature sr=x&sig=y&se=1000&skn=z"
    assert expires_in(token, 400.0) == 600.0
    assert expires_in("eyJ0", 400.0) == float("inf")


class Reader:
    def __init__(self, epoch):
        self.epoch = epoch


def test_epochs():
    """A higher or equal epoch displaces, a lower one or none is refused, none share."""
    shared, low, high = Reader(None), Reader(1), Reader(2)
    assert displaced([shared], Reader(None)) == []
    assert displaced([shared, low], high) == [shared, low]
    assert displaced([low], Reader(1)) == [low]
    assert displaced([high], low) is None
    assert displaced([high], shared) is None

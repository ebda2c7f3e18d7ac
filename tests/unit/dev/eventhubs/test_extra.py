"""What is said when the packages of the extra are missing."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from bizlog.exceptions import MissingExtraError

COMMAND = r"pip install 'bizlog\[loopback\]'"


def forget_the_package(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("bizlog.dev")]:
        monkeypatch.delitem(sys.modules, name)


def test_without_proton_the_extra_is_named(monkeypatch):
    """The import fails with the command that mends it."""
    forget_the_package(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=COMMAND):
        importlib.import_module("bizlog.dev.eventhubs")


def test_without_cryptography_tls_names_the_extra(monkeypatch):
    """Only TLS needs it; the server does not start, and leaves no folder."""
    pytest.importorskip("proton", reason="the loopback server's extra is not installed")
    from bizlog.dev.eventhubs import LoopbackEventHubs  # noqa: PLC0415  # an extra

    monkeypatch.setitem(sys.modules, "cryptography", None)
    server = LoopbackEventHubs({"events": 1}, tls=True)
    with pytest.raises(MissingExtraError, match=COMMAND):
        server.start()
    with pytest.raises(RuntimeError, match="ca_file"):
        _ = server.ca_file

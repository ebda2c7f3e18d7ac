"""`bizlog dev eventhubs` as a function and as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from bizlog.cli import dev, main

pytest.importorskip("proton", reason="the loopback server's extra is not installed")


def serve(*arguments):
    """Run the command in this thread, and send it Ctrl-C when it says it listens."""

    def interrupt():
        deadline = time.monotonic() + 20
        while signal.getsignal(signal.SIGINT) is before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        return main(["dev", "eventhubs", "--port", "0", *arguments])
    finally:
        thread.join()


def test_it_tells_how_to_reach_it(capsys):
    """Address, connection string and lines for bizlog's settings; Ctrl-C is its end, not an error."""
    assert serve("--hub", "orders:2", "--hub", "clicks:1") == 0
    out = capsys.readouterr().out
    assert "orders (2), clicks (1); Ctrl-C ends it" in out
    assert "connection string  Endpoint=sb://localhost:" in out
    assert "export BIZLOG_EVENTHUB_CONNECTION_STRING='Endpoint=" in out
    assert "/orders,eventhub://localhost:" in out
    assert "orders: 0 events stored\nclicks: 0 events stored\n" in out


def test_json_and_tls(capsys):
    """One line of JSON at the start, with what TLS needs, and one at the end."""
    assert serve("--json", "--tls", "--delay-ms", "20") == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["endpoint"] == f"sb://localhost:{first['port']}"
    assert first["ca_file"].endswith(".pem")
    assert last == {"stored": {"events": 0}}


def test_tls_is_explained_in_text(capsys):
    """The text has the endpoint and the certificate, too."""
    assert serve("--tls") == 0
    out = capsys.readouterr().out
    assert "certificate        " in out
    assert "endpoint           sb://localhost:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hub", "events"], "expected NAME:PARTITIONS, got events"),
        (["--hub", "events:0"], "a hub has 1 to 2048 partitions, got 0"),
        (["--port", "65536"], "expected 0 to 65535, got 65536"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, capsys):
    """Each with what is expected; the code is 2."""
    assert main(["dev", "eventhubs", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_taken_port_is_told(capsys):
    """A port in use is a message, not a traceback."""
    from bizlog.dev.eventhubs import LoopbackEventHubs  # noqa: PLC0415  # an extra

    with LoopbackEventHubs({"events": 1}) as hubs:
        assert main(["dev", "eventhubs", "--port", str(hubs.port)]) == 2
    assert f"port {hubs.port} cannot be used" in capsys.readouterr().err


def test_without_a_server_the_servers_are_listed(capsys):
    """`bizlog dev` alone names what it can serve."""
    assert main(["dev"]) == 2
    assert "SERVER" in capsys.readouterr().err


def test_sigterm_ends_a_process():
    """A process prints its port at once and ends well at SIGTERM."""
    command = [sys.executable, "-m", "bizlog.cli", "dev", "eventhubs"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert json.loads(process.stdout.readline())["port"] > 0
        process.terminate()
        assert json.loads(process.stdout.readline()) == {"stored": {"events": 0}}
        assert process.wait(20) == 0


def test_hubs_are_read():
    """A name, a colon, a number."""
    assert dev.hub_and_partitions("a-b.c:12") == ("a-b.c", 12)

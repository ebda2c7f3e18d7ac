"""Web servers in processes of their own: every event is delivered when they stop."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 30

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

WSGI_APP = """
import os
import bizlog
from bizlog.integrations.serverless import WSGIFlushMiddleware

bizlog.configure(source="x", sinks=["file:events"], flush_interval=60, batch_size=1000)
log = bizlog.get_logger()
log.info("product.listed", product_id="import")

def application(environ, start_response):
    for number in range(10):
        log.info("product.viewed", product_id=environ["PATH_INFO"], number=number)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

flushing = WSGIFlushMiddleware(application)
"""

# A signal that comes while gunicorn starts a worker is lost on that worker.
GUNICORN = """
control_socket_disable = True

def post_worker_init(worker):
    worker.log.info("ready")
"""

ASGI_APP = """
import bizlog
from bizlog.integrations.serverless import FlushMiddleware

SETTINGS = dict(source="x", sinks=["file:events"], flush_interval=60, batch_size=1000)
if __name__ != "__main__":
    bizlog.configure(**SETTINGS)
log = bizlog.get_logger()

async def application(scope, receive, send):
    assert scope["type"] == "http"
    for number in range(10):
        log.info("product.viewed", product_id=scope["path"], number=number)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

flushing = FlushMiddleware(application)
ending = FlushMiddleware(application, each_response=False)
"""

SCRIPT = """
if __name__ == "__main__":
    import uvicorn
    bizlog.configure(**SETTINGS, handle_sigterm=True)
    uvicorn.run(application, host="127.0.0.1", port=0, lifespan="off")
"""


@contextmanager
def serving(folder: Path, *command: str, ready: str = "", times: int = 0):
    """Run a server until it has said its port, and `ready`; its process and the port."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIZLOG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "handlers")))
    said = folder / "said"
    with said.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield server, _port(server, said, ready, times)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait(PATIENCE)


def _port(server, said, ready, times):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        text = said.read_text()
        found = re.search(r"http://127\.0\.0\.1:([1-9]\d*)", text)
        if found and text.count(ready) >= times:
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(said.read_text())


def get(port: int, path: str) -> str:
    """Ask for a page, as long as the server needs to come up."""
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def events(folder: Path) -> list[dict]:
    """Read the events that have reached a file with its final name."""
    files = (folder / "events").glob("*/*/*.jsonl")
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


def gunicorn(folder: Path, *options: str, workers: int = 1):
    """Serve the WSGI application with gunicorn."""
    (folder / "app.py").write_text(WSGI_APP)
    (folder / "gunicorn.conf.py").write_text(GUNICORN)
    command = ("-m", "gunicorn", "--bind=127.0.0.1:0", f"--workers={workers}", *options)
    return serving(folder, *command, ready="] ready", times=workers)


def uvicorn(folder: Path, *command: str):
    """Serve the ASGI application with uvicorn."""
    (folder / "app.py").write_text(ASGI_APP)
    return serving(folder, *command)


def stop(server) -> int:
    """Ask a server to stop, as an orchestrator does; its exit code."""
    server.send_signal(signal.SIGTERM)
    return server.wait(PATIENCE)


def test_gunicorn_with_preload_and_four_workers(tmp_path: Path) -> None:
    """Each worker delivers its own, under an id of its own; the parent its own, once."""
    paths = [f"/{number}" for number in range(24)]
    with gunicorn(tmp_path, "--preload", "app:application", workers=4) as (
        server,
        port,
    ):
        workers = {get(port, path) for path in paths}
        assert stop(server) == 0

    found = events(tmp_path)
    counts = Counter(event["product_id"] for event in found)
    producers = {event["producer_id"] for event in found}
    numbers = {(event["producer_id"], event["sequence"]) for event in found}
    assert counts == Counter({**dict.fromkeys(paths, 10), "import": 1})
    assert len(producers) == len(workers) + 1
    assert len(numbers) == len(found) == len({event["event_id"] for event in found})
    assert not list((tmp_path / "events").glob("*/*/.*"))


def test_gunicorn_with_the_gevent_worker(tmp_path: Path) -> None:
    """Patched in the worker, after bizlog was imported and had emitted."""
    pytest.importorskip("gevent", reason="gevent has no wheel here")
    paths = [f"/{number}" for number in range(6)]
    with gunicorn(
        tmp_path, "--preload", "--worker-class=gevent", "app:application"
    ) as (server, port):
        for path in paths:
            get(port, path)
        assert stop(server) == 0

    counts = Counter(event["product_id"] for event in events(tmp_path))
    assert counts == Counter({**dict.fromkeys(paths, 10), "import": 1})


def test_wsgi_middleware_delivers_after_the_response(tmp_path: Path) -> None:
    """A worker that is killed right after a response has lost nothing."""
    with gunicorn(tmp_path, "app:flushing") as (server, port):
        worker = int(get(port, "/a"))
        deadline = time.monotonic() + PATIENCE
        while len(events(tmp_path)) < 11 and time.monotonic() < deadline:
            time.sleep(0.02)  # the server closes the body when the client has it
        os.kill(worker, signal.SIGKILL)
        server.kill()

    counts = Counter(event["product_id"] for event in events(tmp_path))
    assert counts["/a"] == 10


@pytest.mark.parametrize("application", ["flushing", "ending"])
def test_uvicorn_with_the_middleware_delivers_at_sigterm(
    tmp_path: Path, application: str
) -> None:
    """Uvicorn dies of the signal after its graceful end: bizlog is shut down by then."""
    command = ("-m", "uvicorn", f"app:{application}", "--host=127.0.0.1", "--port=0")
    with uvicorn(tmp_path, *command) as (server, port):
        assert get(port, "/a") == "ok"
        assert stop(server) == -signal.SIGTERM

    assert Counter(event["product_id"] for event in events(tmp_path)) == {"/a": 10}


def test_uvicorn_with_handle_sigterm_delivers(tmp_path: Path) -> None:
    """Asked for before the server runs, it delivers when uvicorn raises the signal."""
    (tmp_path / "serve.py").write_text(ASGI_APP + SCRIPT)
    with uvicorn(tmp_path, "serve.py") as (server, port):
        assert get(port, "/a") == "ok"
        assert stop(server) == -signal.SIGTERM

    assert Counter(event["product_id"] for event in events(tmp_path)) == {"/a": 10}

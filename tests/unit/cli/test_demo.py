"""`bizlog demo` as a function: arguments, bad rows, losses, interruptions."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time

import pytest

import bizlog
from bizlog import client as client_module
from bizlog.cli import demo, main

ROW = "1,A,Cup,2,2011-01-03 10:00:00,1.25,77,France"


@pytest.fixture
def out(tmp_path):
    """Name the folder for the files."""
    return tmp_path / "out"


def replay(path, out, *more):
    """Run `bizlog demo --replay`."""
    return main(["demo", "--replay", str(path), "--out", str(out), *more])


def test_the_made_up_shop_needs_nothing(out, capsys):
    """Without a file it runs anywhere and ends with 0 and a closed ledger."""
    assert main(["demo", "--seconds", "0.1", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "product.added_to_cart" in captured.out
    assert "closed" in captured.out
    assert captured.err == ""


def test_the_process_wide_client_stays(out, monkeypatch):
    """Called as a function, the demo leaves the configuration in force alone."""
    with bizlog.BusinessTelemetryClient(source="mine", sinks=["null:"]) as mine:
        monkeypatch.setattr(client_module, "_default", mine)
        assert main(["demo", "--seconds", "0.01", "--out", str(out)]) == 0
        assert client_module.default_client() is mine
        assert all(sink.offered == 0 for sink in mine.ledger().sinks.values())


def test_bad_rows_are_counted_and_the_first_are_listed(write_csv, out, capsys):
    """Bad rows stop nothing; they are named without their values, and the code is 1."""
    bad = ROW.replace("1.25", "secret")
    path = write_csv(ROW, *[bad] * 7, "1,A", ROW)
    assert replay(path, out) == 1
    captured = capsys.readouterr()
    assert "8 rows could not be read" in captured.err
    assert "line 3: UnitPrice: expected a number such as 2.55" in captured.err
    assert "and 3 more" in captured.err
    assert "secret" not in captured.err
    assert "product.added_to_cart  2" in captured.out


def test_limit_counts_lines(write_csv, out, capsys):
    """`--limit` ends after that many lines, with the order they belong to."""
    assert replay(write_csv(*[ROW] * 5), out, "--limit", "3") == 0
    text = capsys.readouterr().out
    assert "product.added_to_cart  3" in text
    assert "order.placed           1" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "0"], "more than 0"),
        (["--seconds", "inf"], "more than 0"),
        (["--seconds", "nan"], "more than 0"),
        (["--seconds", "x"], "seconds"),
        (["--limit", "0"], "at least 1"),
        (["--replay", "a.csv", "--seconds", "1"], "not allowed with"),
        (["--replay", "no-such-file.csv"], "InvoiceNo, StockCode"),
    ],
)
def test_wrong_arguments_end_with_2(words, message, capsys):
    """An argument that cannot work is explained, the code is 2, nothing is written."""
    assert main(["demo", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_header_ends_with_2(write_csv, out, capsys):
    """A file of another kind is an error that names the expected columns."""
    assert replay(write_csv(header="a,b"), out) == 2
    assert "InvoiceNo, StockCode" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_cannot_be_made_ends_with_2(tmp_path, capsys):
    """`--out` below a file is an error before the start."""
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_wrong_settings_end_with_2(out, capsys, monkeypatch):
    """Settings of the environment that cannot work are listed, without a traceback."""
    monkeypatch.setenv("BIZLOG_QUEUE_EVENTS", "none")
    assert main(["demo", "--out", str(out)]) == 2
    assert "BIZLOG_QUEUE_EVENTS" in capsys.readouterr().err


def test_a_loss_is_an_error(write_csv, out, capsys, monkeypatch):
    """When the ledger says that events are missing, the code is 1 and it is said."""
    monkeypatch.setattr(demo, "all_delivered", lambda _: False)
    assert replay(write_csv(ROW), out) == 1
    assert "not every event is in the files" in capsys.readouterr().err


def test_ctrl_c_ends_with_the_table(out, capsys):
    """Ctrl-C stops between two lines; the table is closed, the code is 130."""
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    started = time.monotonic()
    assert main(["demo", "--seconds", "30", "--out", str(out)]) == 130
    timer.join()
    assert time.monotonic() - started < 10
    captured = capsys.readouterr()
    assert "closed" in captured.out
    assert captured.err == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_sigint_of_a_process(out):
    """The real signal to the real command does the same."""
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "bizlog.cli", "demo"),
            *("--seconds", "30", "--out", str(out)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not any(out.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    text, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "closed" in text
    assert err == ""


def test_it_runs_in_any_thread(out):
    """Outside the main thread, where no signal handler can be set, it works, too."""
    codes: list[int] = []
    words = ["demo", "--seconds", "0.05", "--out", str(out)]
    thread = threading.Thread(target=lambda: codes.append(main(words)))
    thread.start()
    thread.join()
    assert codes == [0]

"""The `bizlog` command: what it says, and its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bizlog
from bizlog.cli import demo, main
from bizlog.cli.errors import CommandError
from bizlog.exceptions import ConfigurationError


def test_help_teaches(capsys):
    """`--help` names the commands, shows an example and ends with 0."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "bizlog demo" in out
    assert "get_logger" in out


def test_version(capsys):
    """`--version` prints the version of the package."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bizlog {bizlog.__version__}\n"


def test_no_command_shows_the_help(capsys):
    """Without a command the help appears where errors do, and the code is 2."""
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "commands" in captured.err


def test_an_unknown_command_is_an_error(capsys):
    """A command that does not exist ends with 2 and names those that do."""
    assert main(["dmeo"]) == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [CommandError("the reason"), ConfigurationError("the reason")]
)
def test_errors_are_one_plain_line(error, monkeypatch, capsys):
    """What the user can mend is said in one line without a traceback, code 2."""

    def fail(_):
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "bizlog: error: the reason\n"


def test_ctrl_c_has_its_own_code(monkeypatch, capsys):
    """Ctrl-C that reaches the command ends with 130, without a traceback."""

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "bizlog: interrupted\n"


def test_a_reader_that_goes_is_no_traceback():
    """Output piped into a reader that stops early ends quietly."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "bizlog.cli", "demo", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout
    child.stdout.close()
    _, err = child.communicate(timeout=30)
    assert err == b""

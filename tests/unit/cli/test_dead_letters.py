"""`bizlog dead-letters` ls, show and drop as functions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from bizlog.cli import main


@pytest.fixture(autouse=True)
def folder(write_lines, make_event, make_letter):
    """Write two files of letters of three kinds where the default setting looks."""
    name = "bizlog-dead-letters/dead-letters-{}.jsonl"
    write_lines(
        name.format("a"),
        make_letter(make_event(1)),
        make_letter(make_event(2, "product.viewed"), reason="HTTP 400: \x1b[2J"),
    )
    path = write_lines(
        name.format("b"),
        make_letter(
            make_event(3),
            sink=None,
            attempts=0,
            path="$.order_total",
            first_at="2026-11-01T00:00:00.000000Z",
        ),
        make_letter(make_event(4), last_at="2026-11-30T00:00:00.000000Z"),
    )
    return path.parent


def letters(*words):
    """Run `bizlog dead-letters`."""
    return main(["dead-letters", *map(str, words)])


def test_ls_counts_by_sink_type_and_reason(capsys):
    """The most frequent first; with oldest and newest, files and bytes."""
    assert letters("ls") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("bizlog-dead-letters: 4 letters in 2 files, ")
    assert out[1] == "from 2026-11-01T00:00:00.000000Z to 2026-11-30T00:00:00.000000Z"
    assert [line.split(maxsplit=3) for line in out[3:5]] == [
        ["2", "http", "order.placed", "HTTP 503"],
        ["1", "http", "product.viewed", "HTTP 400: \ufffd[2J"],
    ]
    assert "none" in out[5]


def test_ls_as_json(capsys, folder):
    """The same for programs; filters hold here, too."""
    assert letters("ls", folder, "--json", "--from-sink", "none") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["letters"], told["files"], told["bad_lines"]) == (1, 2, 0)
    assert told["oldest"] == "2026-11-01T00:00:00.000000Z"
    [group] = told["groups"]
    assert group == {
        "sink": "none",
        "event_type": "order.placed",
        "reason": "HTTP 503",
        "letters": 1,
    }


def test_ls_of_nothing(capsys):
    """No letter that was asked for is no error."""
    assert letters("ls", "--type", "x.*") == 0
    assert "0 letters in 2 files, 0 bytes" in capsys.readouterr().out


def test_show_prints_what_a_person_needs(capsys):
    """Reason with its path, attempts, place and event; nothing steers the terminal."""
    assert letters("show") == 0
    out = capsys.readouterr().out
    assert "because     HTTP 503 at $.order_total" in out
    assert "attempts    2, the first at 2026-11-23T10:00:00.000000Z" in out
    assert "stands in   bizlog-dead-letters/dead-letters-a.jsonl:2" in out
    assert '"event_type":"product.viewed"' in out
    assert "\x1b" not in out


def test_show_as_json_is_the_letter_itself(capsys, folder):
    """One line a letter, byte for byte, for jq and the like."""
    assert letters("show", "--json", "--type", "product.*") == 0
    line = (folder / "dead-letters-a.jsonl").read_text().splitlines()[1]
    assert capsys.readouterr().out == f"{line}\n"


def test_show_stops_at_its_limit(capsys):
    """And says that there are more; a limit below one is an error."""
    assert letters("show", "--limit", "2") == 0
    captured = capsys.readouterr()
    assert captured.out.count("stands in") == 2
    assert "more than 2" in captured.err
    assert letters("show", "--limit", "4") == 0
    assert capsys.readouterr().err == ""
    assert letters("show", "--limit", "0") == 2


def test_show_a_letter_without_a_name_or_id(capsys, folder):
    """What an event lacks is said in words."""
    line = (folder / "dead-letters-a.jsonl").read_bytes().splitlines()[0]
    letter = {**json.loads(line), "record": None, "event_id": None}
    (folder / "dead-letters-c.jsonl").write_text(json.dumps(letter) + "\n")
    assert letters("show") == 0
    assert "an event without a name  without an id" in capsys.readouterr().out


def test_broken_lines_are_named_and_stay(capsys, folder):
    """File and line are told, the code is 1, and dropping everything keeps them."""
    path = folder / "dead-letters-a.jsonl"
    path.write_bytes(path.read_bytes() + b"broken")
    for words in (["ls"], ["show"], ["drop", "--yes"]):
        assert letters(*words) == 1
        err = capsys.readouterr().err
        assert "dead-letters-a.jsonl:3: no whole JSON object" in err
        assert "(they stay where they are)" in err
    [left] = folder.glob("dead-letters-*")
    assert left.read_bytes() == b"broken\n"


def test_drop_removes_what_was_asked_for(capsys, folder):
    """The other letters stay, byte for byte; files without any are not touched."""
    first, second = sorted(folder.glob("dead-letters-*"))
    kept = first.read_bytes().splitlines()[0]
    assert letters("drop", "--type", "product.*", "--yes") == 0
    assert "1 letter dropped from bizlog-dead-letters" in capsys.readouterr().out
    assert second.exists()
    [taken] = folder.glob("*-taken-*")
    assert taken.read_bytes() == kept + b"\n"


def test_drop_needs_a_yes(capsys, folder):
    """Without a terminal: --yes. Nothing to drop needs none."""
    assert letters("drop") == 2
    assert "say so with --yes" in capsys.readouterr().err
    assert len(list(folder.glob("dead-letters-*"))) == 2
    assert letters("drop", "--type", "x.*") == 0
    assert "0 letters dropped" in capsys.readouterr().out


class Terminal(io.StringIO):
    """A person at the keyboard."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 2)])
def test_drop_asks_on_a_terminal(capsys, monkeypatch, answer, code):
    """Only a yes drops; anything else leaves all as it was."""
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert letters("drop") == code
    captured = capsys.readouterr()
    assert "drop 4 letters from bizlog-dead-letters for good? [y/N]" in captured.err
    assert ("4 letters dropped" in captured.out) is (code == 0)
    assert ("nothing was dropped" in captured.err) is (code == 2)


def test_the_folder_is_the_services_setting(monkeypatch, capsys, tmp_path):
    """BIZLOG_DEAD_LETTERS names it; one that is not there is explained."""
    monkeypatch.setenv("BIZLOG_DEAD_LETTERS", str(tmp_path / "none"))
    assert letters("ls") == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_help_teaches(capsys):
    """Without a verb it is an error that names them; --help shows examples."""
    assert letters() == 2
    assert "VERB" in capsys.readouterr().err
    assert letters("--help") == 0
    assert "bizlog dead-letters show --json | jq .record" in capsys.readouterr().out
    assert letters("replay", "--help") == 0
    assert Path("bizlog-dead-letters").is_dir()

"""Folders by the same settings as the service's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bizlog.cli.errors import CommandError
from bizlog.cli.places import DEAD_LETTERS, JOURNAL, configured_folder


def test_environment_then_file_then_default(own_folder, monkeypatch):
    """The order is that of the settings; only this one setting is looked at."""
    assert configured_folder(DEAD_LETTERS) == Path("./bizlog-dead-letters")
    (own_folder / "bizlog.toml").write_text('dead_letters = "a"\nsinks = 5\n')
    assert configured_folder(DEAD_LETTERS) == Path("a")
    monkeypatch.setenv("BIZLOG_DEAD_LETTERS", " b ")
    assert configured_folder(DEAD_LETTERS) == Path("b")


def test_a_setting_of_another_kind_is_not_a_folder(own_folder):
    """A number in the file counts as not set here; the service will complain."""
    (own_folder / "bizlog.toml").write_text("dead_letters = 5\n")
    assert configured_folder(DEAD_LETTERS) == Path("./bizlog-dead-letters")


def test_without_a_default_it_must_be_named():
    """The journal has no folder by default: the error says how to name it."""
    with pytest.raises(
        CommandError, match=r"BIZLOG_JOURNAL or journal in bizlog\.toml"
    ):
        configured_folder(JOURNAL)


@pytest.mark.parametrize("content", [b"no = = toml", b"\xff"])
def test_a_file_that_is_no_toml_is_an_error(own_folder, content):
    """It may hold the setting: better to say so than to look elsewhere."""
    (own_folder / "bizlog.toml").write_bytes(content)
    with pytest.raises(CommandError, match=r"bizlog\.toml: cannot be read as TOML"):
        configured_folder(DEAD_LETTERS)

"""Segments are safe, bounded and distinct, and directories stay below their root."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizlog_handlers._paths import (
    MAX_SEGMENT,
    make_directory,
    partition_segment,
    safe_segment,
)

HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2f",
    "a\0b",
    "CON",
    "con.txt",
    "lpt1",
    "NUL.",
    "trailing.",
    ".hidden",
    "x" * 300,
    "con." + "x" * 300,
    "\u202egnp.exe",
    "\ud800",
    "a=b",
    "a b",
    "a\n",
    "é",
    "CON\n",
]

any_text = st.one_of(
    st.text(st.characters(codec=None)),
    st.text("./\\-_=abCON\0\n:~ é", max_size=12),
    st.sampled_from(HOSTILE),
)


def is_safe(segment: str) -> bool:
    """State the rule in other words than the code does."""
    stem = segment.partition(".")[0].upper()
    return (
        re.fullmatch(r"[A-Za-z0-9._-]+", segment) is not None
        and not segment.startswith(".")
        and not segment.endswith(".")
        and len(segment) <= MAX_SEGMENT
        and stem not in {"CON", "PRN", "AUX", "NUL"}
        and not re.fullmatch(r"(COM|LPT)[0-9]", stem)
    )


@pytest.mark.parametrize(
    "name", ["order.placed", "product_viewed-2", "Console", "x" * 100, "a..b", "com10"]
)
def test_a_safe_name_stays_as_it_is(name):
    """Names of the catalogue can be read off the path."""
    assert safe_segment(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_safe_one(name):
    """What had to be changed is safe and carries a hash."""
    segment = safe_segment(name)

    assert is_safe(segment)
    assert re.search(r"-[0-9a-f]{16}$", segment)


@given(any_text)
def test_any_text_becomes_one_segment_below_the_root(text):
    """The segment is safe, and a path made of it lies directly below the root."""
    segment = safe_segment(text)
    root = Path("/root/of/sink")

    assert is_safe(segment)
    assert Path(os.path.normpath(root / segment)).parent == root


@given(any_text, any_text)
def test_two_names_never_share_a_segment(one, other):
    """Distinct names stay distinct after they were made safe."""
    assert (safe_segment(one) == safe_segment(other)) == (one == other)


@given(any_text)
def test_a_name_made_to_look_changed_collides_with_none(text):
    """A name that equals the segment of another is changed itself."""
    segment = safe_segment(text)

    assert segment == text or safe_segment(segment) != segment


@given(any_text)
def test_a_partition_has_one_equals_sign(text):
    """Hive readers split at `=`: the value holds none."""
    key, value = partition_segment("event_type", text).split("=")

    assert (key, value) == ("event_type", safe_segment(text))


def test_directories_are_made_with_their_parents(tmp_path):
    """Root and segments are made; doing it again changes nothing."""
    root = tmp_path / "new" / "root"

    made = [make_directory(root, "a", "b") for _ in range(2)]

    assert made == [root / "a" / "b"] * 2
    assert made[0].is_dir()


def test_a_link_out_of_the_root_is_refused(tmp_path):
    """A link that somebody planted is not followed, and nothing is made behind it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "a").symlink_to(outside)

    with pytest.raises(OSError, match="out of the sink's folder") as caught:
        make_directory(root, "a", "b")

    assert caught.value.errno == errno.ELOOP
    assert list(outside.iterdir()) == []


def test_the_root_itself_may_be_a_link(tmp_path):
    """Whoever configures the folder may point elsewhere."""
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")

    assert make_directory(tmp_path / "root", "a").is_dir()

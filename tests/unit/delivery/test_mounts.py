"""Journals stay on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bizlog.delivery import mounts
from bizlog.exceptions import ConfigurationError

TABLE = """\
/dev/vda / ext4 rw 0 0
server:/export /srv/share nfs4 rw 0 0
//server/c /srv/my\\040share cifs rw 0 0
tmpfs /srv/share/scratch tmpfs rw 0 0
host:/ /srv/ssh fuse.sshfs rw 0 0
proc /twice proc rw 0 0
server:/ /twice nfs rw 0 0
"""


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """A table of mounts of our own."""
    path = tmp_path / "mounts"
    path.write_text(TABLE)
    monkeypatch.setattr(mounts, "TABLE", path)
    return path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/share/journal", "nfs4"),
        ("/srv/share", "nfs4"),
        ("/srv/my share/a/b", "cifs"),
        ("/srv/ssh/x", "fuse.sshfs"),
        ("/twice/x", "nfs"),
    ],
)
def test_network_file_systems_are_refused(folder, kind):
    """The message names folder and kind, and says what to do."""
    assert mounts.file_system(Path(folder)) == kind
    with pytest.raises(ConfigurationError) as caught:
        mounts.refuse_network(Path(folder))

    assert folder in str(caught.value)
    assert f"({kind})" in str(caught.value)
    assert "a disk of this machine" in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/x", "ext4"),
        ("/srv/shared/x", "ext4"),
        ("/srv/share/scratch/x", "tmpfs"),
    ],
)
def test_disks_of_this_machine_are_let_through(folder, kind):
    """The nearest mount above the folder counts, by whole names."""
    assert mounts.file_system(Path(folder)) == kind
    mounts.refuse_network(Path(folder))


def test_an_unknown_system_is_let_through(table):
    """Where nothing tells the kind, the journal itself finds out."""
    table.write_text("")
    assert mounts.file_system(Path("/x")) is None
    table.unlink()

    assert mounts.file_system(Path("/x")) is None
    mounts.refuse_network(Path("/x"))


def test_a_link_is_followed_to_its_disk(tmp_path):
    """The folder that counts is where the files are, not what it is called."""
    link = tmp_path / "journal"
    link.symlink_to("/srv/share")

    assert mounts.file_system(link) == "nfs4"

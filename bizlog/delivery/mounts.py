"""
Network file systems are no place for a journal.

SQLite's write-ahead log needs memory that all who open the file share, and locks that
hold (https://sqlite.org/wal.html): on these file systems neither can be relied upon.
What is not in the list is let through: where it does not work either, the journal falls
back to memory and says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from bizlog.exceptions import ConfigurationError

TABLE = Path("/proc/self/mounts")

NETWORK_TYPES = frozenset(
    (
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    )
)


def refuse_network(folder: Path) -> None:
    """
    Refuse a folder that stands on another machine.

    Raises:
        ConfigurationError: It does; says what to do.
    """
    kind = file_system(folder)
    if kind in NETWORK_TYPES:
        raise ConfigurationError(
            f"journal: {folder} is on a network file system ({kind}), where SQLite "
            "cannot keep a journal: name a folder on a disk of this machine (in a "
            "container: an emptyDir, hostPath or local volume)"
        )


def file_system(folder: Path) -> str | None:
    """Name the file system below a folder that may not exist yet; None: unknown."""
    try:
        table = TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    resolved = folder.resolve()
    found: tuple[int, str] | None = None
    for line in table.splitlines():
        _, point, kind, *_ = line.split(" ")
        path = Path(_plain(point))
        # Of mounts over each other the last one counts.
        if resolved.is_relative_to(path) and (
            found is None or len(path.parts) >= found[0]
        ):
            found = len(path.parts), kind
    return found[1] if found else None


def _plain(point: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)

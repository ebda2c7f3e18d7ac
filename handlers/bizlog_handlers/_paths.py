"""
Path segments made from what events say, which may be hostile (fault test S01).

A segment holds `[A-Za-z0-9._-]` only, begins and ends without a dot, is no name that
Windows reserves and is at most 100 characters long. Whatever had to be changed for
that carries a hash of the original, so two names never share a segment. (A file system
that ignores case may still store two spellings in one folder.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_SEGMENT = 100

_HASH_DIGITS = 16
_KEPT = MAX_SEGMENT - _HASH_DIGITS - len("_-")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]|^\.|\.$")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)

# A name that ends like one of ours is hashed too: it could be written to collide.
_HASHED = re.compile(rf".*-[0-9a-f]{{{_HASH_DIGITS}}}")


def safe_segment(text: str) -> str:
    """
    Turn any text into one path segment that is safe on every platform.

    Args:
        text: A field of an event; any characters, any length, perhaps empty.

    Returns:
        The text itself if it is safe; otherwise its safe characters and a hash.
    """
    return text if _is_safe(text) else _hashed(text)


def partition_segment(key: str, value: str) -> str:
    """
    Name a Hive partition, `key=value`, with a value that is safe as a path.

    Args:
        key: Name of the partition column; chosen by the program.
        value: A field of an event.

    Returns:
        One path segment; the `=` is the only one in it.
    """
    return f"{key}={safe_segment(value)}"


def make_directory(root: Path, *segments: str) -> Path:
    """
    Make the directory `root/segment/…` and refuse links that lead out of the root.

    Args:
        root: The folder to stay in; made with its parents if missing.
        segments: One name for each level, made by `safe_segment`.

    Returns:
        The directory, which exists.

    Raises:
        OSError: It cannot be made; `ELOOP` if a link on the way leaves the root.
    """
    root.mkdir(parents=True, exist_ok=True)
    home, path = root.resolve(), root
    for segment in segments:
        path = path / segment
        path.mkdir(exist_ok=True)
        if not path.resolve().is_relative_to(home):
            reason = "a link leads out of the sink's folder"
            raise OSError(errno.ELOOP, reason, os.fspath(path))
    return path


def _is_safe(text: str) -> bool:
    return not (
        not text
        or len(text) > MAX_SEGMENT
        or _UNSAFE.search(text)
        or _DEVICE.fullmatch(text)
        or _HASHED.fullmatch(text)
    )


def _hashed(text: str) -> str:
    # Lone surrogates are legal in a str: they have to survive the encoding.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    kept = _UNSAFE.sub("_", text[:_KEPT])
    mark = "_" if _DEVICE.fullmatch(kept) else ""
    return f"{mark}{kept}-{digest[:_HASH_DIGITS]}"

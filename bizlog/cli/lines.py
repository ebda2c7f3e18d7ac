"""
The lines of a file, whether it is stored plain or compressed with gzip or zstd.

What it is is seen by its first bytes, not by its name. A damaged file gives the lines
before the damage, then says what is wrong. Reads, writes nothing.
"""

from __future__ import annotations

import gzip
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, cast

from bizlog.cli.errors import CommandError
from bizlog.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SQLITE_MAGIC = b"SQLite format 3\0"

_CHUNK_BYTES = 64 * 1024


class _Decoder(Protocol):
    """What zstandard calls a decompression object."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def first_bytes(path: Path) -> bytes:
    """
    Read what tells the kind of a file.

    Raises:
        CommandError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None


class LineFile:
    """
    One file; iterate over it once, inside `with`.

    Args:
        path: The file.
        size: Bytes to read of a plain file: what others append meanwhile is left out.

    Attributes:
        number: Number of the last line that was given, from 1.
        damage: Why reading ended before the end, or None.

    Raises:
        CommandError: It cannot be opened.
        MissingExtraError: It is a zstd file and `zstandard` is not installed.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self.number = 0
        self.damage: str | None = None
        self._path = path
        self._size = size
        magic = first_bytes(path)
        self._packed = magic.startswith((_GZIP_MAGIC, _ZSTD_MAGIC))
        self._faults: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
        try:
            self._raw: BinaryIO = path.open("rb")
        except OSError as error:
            raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
        self._lines: Iterable[bytes] = self._raw
        if magic.startswith(_GZIP_MAGIC):
            self._lines = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw))
        elif magic.startswith(_ZSTD_MAGIC):
            self._lines = _split(self._unpacked())

    def _unpacked(self) -> Iterator[bytes]:
        try:
            import zstandard  # noqa: PLC0415  # an extra: loaded only when it is used
        except ImportError:
            self._raw.close()
            raise MissingExtraError(f"reading {self._path} (zstd)", "zstd") from None
        self._faults += (zstandard.ZstdError,)
        return _frames(self._raw, zstandard.ZstdDecompressor().decompressobj)

    @property
    def position(self) -> int:
        """Bytes read so far, as stored."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[bytes]:
        """Give each line without its end."""
        done = 0
        try:
            for line in self._lines:
                done += len(line)
                if not self._packed and self._size is not None and done > self._size:
                    return
                self.number += 1
                yield line.rstrip(b"\r\n")
        except self._faults as error:
            self.damage = (
                f"{self._path}: damaged after line {self.number:,} "
                f"({type(error).__name__}); what stands before it was read"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._raw.close()


def _frames(file: BinaryIO, new_decoder: Callable[[], _Decoder]) -> Iterator[bytes]:
    """Unpack frame after frame; zstandard's own reader takes a cut one for whole."""
    decoder, whole = new_decoder(), True
    while chunk := file.read(_CHUNK_BYTES):
        while chunk:
            yield decoder.decompress(chunk)
            whole = decoder.eof
            if not whole:
                break
            chunk = decoder.unused_data
            decoder = new_decoder()
    if not whole:
        raise EOFError


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest

"""
How JSON Lines are stored: plain, gzip or zstd, always in pieces that stand alone.

Each write becomes one piece: whole lines, one gzip member or one zstd frame. So a file
that is cut where a piece ends reads well, and the end of the last whole piece can be
found again in a file whose writer died. gzip's and zstd's own formats say that pieces
in a row are one file (RFC 1952 section 2.2, RFC 8878 section 3.1).
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeAlias

from bizlog.exceptions import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

Compression: TypeAlias = Literal["none", "gzip", "zstd"]

_CHUNK = 64 * 1024

# Measured on 2.4 MB of events: 15 ms; level 6 takes 37 ms for 10 % less.
_GZIP_LEVEL = 3
_ZSTD_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Codec:
    """
    One way to store lines.

    Attributes:
        suffix: End of the file name.
        encode: Turns whole lines into one piece of the file; may be the same memory.
        whole: Finds where the last whole piece of an open file ends, in bytes.
    """

    suffix: str
    encode: Callable[[bytes | memoryview], bytes | memoryview]
    whole: Callable[[BinaryIO], int]


class _Decoder(Protocol):
    """What zlib and zstandard call a decompression object."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def codec_for(compression: Compression) -> Codec:
    """
    Choose the codec of a compression by its name.

    Args:
        compression: `none`, `gzip` or `zstd`.

    Returns:
        The codec; it may be used by one thread at a time.

    Raises:
        MissingExtraError: `zstd` is asked for and `zstandard` is not installed.
    """
    if compression == "none":
        return Codec(".jsonl", _as_it_is, _whole_lines)
    return _gzip() if compression == "gzip" else _zstd()


def codec_of(name: str) -> Codec:
    """
    Choose the codec that wrote a file, by the end of its name.

    Raises:
        MissingExtraError: It is a zstd file and `zstandard` is not installed.
    """
    if name.endswith(".gz"):
        return codec_for("gzip")
    return codec_for("zstd" if name.endswith(".zst") else "none")


def _as_it_is(lines: bytes | memoryview) -> bytes | memoryview:
    return lines


def _gzip() -> Codec:
    encode = partial(gzip.compress, compresslevel=_GZIP_LEVEL, mtime=0)
    new_decoder = partial(zlib.decompressobj, wbits=zlib.MAX_WBITS | 16)
    return Codec(".jsonl.gz", encode, partial(_whole_pieces, new_decoder, zlib.error))


def _zstd() -> Codec:
    try:
        import zstandard  # noqa: PLC0415 - an extra: loaded only when it is used
    except ImportError:
        raise MissingExtraError("zstd compression", "zstd") from None
    encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
    new_decoder = zstandard.ZstdDecompressor().decompressobj
    whole = partial(_whole_pieces, new_decoder, zstandard.ZstdError)
    return Codec(".jsonl.zst", encoder.compress, whole)


def _whole_lines(file: BinaryIO) -> int:
    """Find the end of the last line, reading backwards."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        cut = file.read(end - start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0


def _whole_pieces(
    new_decoder: Callable[[], _Decoder], fault: type[Exception], file: BinaryIO
) -> int:
    """Find the end of the last member or frame that decodes, checksum included."""
    decoder, position, whole = new_decoder(), 0, 0
    while chunk := file.read(_CHUNK):
        position += len(chunk)
        while chunk:
            try:
                decoder.decompress(chunk)
            except fault:
                return whole
            if not decoder.eof:
                break
            chunk = decoder.unused_data
            whole = position - len(chunk)
            decoder = new_decoder()
    return whole

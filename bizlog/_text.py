"""Texts that fit: what UTF-8 can write, and no longer than asked. Pure."""

from __future__ import annotations

import re

_MARK = r"…\(truncated (\d{1,15})\)\Z"
_MARK_CHARACTERS = 30


def cut(text: str, limit: int) -> str:
    """Keep the first `limit` characters and say how many went."""
    gone = len(text) - limit
    if gone <= 0:
        return text
    mark = re.search(_MARK, text[-_MARK_CHARACTERS:])
    if mark:  # cut before: count from the whole
        gone += int(mark[1]) - len(mark[0])
    return f"{text[:limit]}…(truncated {gone})"


def readable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot write; join pairs of them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

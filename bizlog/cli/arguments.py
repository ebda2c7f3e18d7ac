"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse


def positive_int(text: str) -> int:
    """Read a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value

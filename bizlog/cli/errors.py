"""What a command says when it cannot start."""

from __future__ import annotations


class CommandError(Exception):
    """A fault the user can mend; shown without a traceback, exit code 2."""

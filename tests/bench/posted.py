"""
Stands in for `requests.Session` in the clients that post: the body goes to a file.

Everything above the session stays the client's own: queue, batching, message building,
JSON encoding, headers, the reading of the answer.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import requests


class FileSession:
    """Writes each posted body as one line and answers 200."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._answer = requests.Response()
        self._answer.status_code = 200
        self._answer._content = b'{"status": 1}'

    def post(self, url: str, data: str, **options: Any) -> requests.Response:
        """Take one request."""
        self._file.write(data.encode() + b"\n")
        return self._answer

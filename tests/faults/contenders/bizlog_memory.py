"""bizlog with the HTTP sink, everything else by default: what waits is in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import bizlog
from bizlog_handlers.http import HttpSink


class Bizlog:
    """bizlog under the verbs of the matrix, with more of them than its peers."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self._client = bizlog.configure(
            source="faults",
            sinks=[HttpSink(f"{url}/events/batch")],
            dead_letters=str(folder / "dead-letters"),
            **options,
        )
        self._log = bizlog.get_logger()

    def emit(self, n: int, **properties: Any) -> None:
        """Log one event."""
        self._log.info("product.viewed", n=n, **properties)

    def accept(self, n: int, **properties: Any) -> bool:
        """Emit one event; say whether it was taken."""
        return self._client.send_sync("product.viewed", n=n, **properties) is not None

    def confirm(self, n: int, timeout: float = 10.0, **properties: Any) -> bool:
        """Emit one event and wait until it is in the journal; was it confirmed?"""
        receipt = asyncio.run(
            self._client.confirm(
                "product.viewed", level="journal", timeout=timeout, n=n, **properties
            )
        )
        return receipt.confirmed

    def flush(self, timeout: float) -> bool:
        """Wait until all is settled."""
        return bizlog.flush(timeout)

    def ledger(self) -> dict[str, Any]:
        """Where every event is, by the account of the one sink."""
        [account] = bizlog.ledger().sinks.values()
        names = account.__struct_fields__
        figures = {name: getattr(account, name) for name in names}
        return figures | {"balanced": account.balanced}


make = Bizlog

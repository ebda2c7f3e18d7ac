"""bizlog with a sink and, beside it, the file sink: the witness of what was emitted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import bizlog
from bizlog.cli.sales import Replay
from bizlog.sinks import BaseSink

# How long a full queue holds the shop back: longer than any fault lasts.
BLOCK_SECONDS = 120.0

# A sink that lags behind the fastest one by more than this loses events, whatever
# `overflow` says, and the witness is always faster.
LAG_EVENTS, LAG_BYTES = 1_000_000, 1024 * 1024 * 1024


class Shop:
    """A service that turns invoice lines into events, and can say where they are."""

    def __init__(self, sink: BaseSink, folder: Path, **options: Any) -> None:
        witness = {"type": "file", "directory": str(folder / "witness")}
        self._client = bizlog.configure(
            source="shop",
            sinks=[sink, witness],
            dead_letters=str(folder / "dead-letters"),
            overflow="block",
            block_timeout=BLOCK_SECONDS,
            queue_events=LAG_EVENTS,
            queue_bytes=LAG_BYTES,
            **options,
        )

    def replay(self) -> Replay:
        """Begin to emit, through the logger that a service would use."""
        return Replay(bizlog.get_logger())

    def confirm(self, checkpoint: int) -> bool:
        """Wait until the journal has all that was emitted; it keeps the order."""
        receipt = asyncio.run(
            self._client.confirm(
                "shop.checkpoint", level="journal", timeout=30.0, checkpoint=checkpoint
            )
        )
        return receipt.confirmed

    def flush(self, timeout: float) -> bool:
        """Wait until all is settled."""
        return bizlog.flush(timeout)

    def ledger(self) -> dict[str, Any]:
        """Where every event is, by sink."""
        accounts = bizlog.ledger().sinks
        return {
            name: {figure: getattr(account, figure) for figure in FIGURES}
            for name, account in accounts.items()
        }


FIGURES = (
    *("offered", "delivered", "rejected", "dropped", "dead_lettered", "pending"),
    "balanced",
)

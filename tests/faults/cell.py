"""What one contender showed in one scenario, and whether bizlog met its target. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Cell:
    """
    One field of the matrix.

    Attributes:
        emitted: Events that the contender was given.
        delivered: Different events that the sink has.
        doubled: How often the sink stored one that it had already.
        kept: Events that are not at the sink but in dead letters.
        seconds: From the last emit to the end of the process; None where it does not
            matter.
        notes: What else there is to say, in a few words each.
        misses: Which targets were missed, for bizlog only.
    """

    emitted: int
    delivered: int = 0
    doubled: int = 0
    kept: int = 0
    seconds: float | None = None
    notes: list[str] = field(default_factory=list[str])
    misses: list[str] = field(default_factory=list[str])

    def expect(self, met: bool, miss: str) -> None:
        """Hold the cell to a target; `miss` says what was seen instead."""
        if not met:
            self.misses.append(miss)

    def expect_all(self) -> None:
        """Hold the cell to conservation: delivered or kept, and nothing twice."""
        missing = self.emitted - self.delivered - self.kept
        self.expect(missing <= 0, f"{missing} of {self.emitted} events lost")
        self.expect(not self.doubled, f"{self.doubled} events doubled")

    def expect_seconds(self, limit: float) -> None:
        """Hold the cell to its time."""
        took = self.seconds or 0.0
        self.expect(took <= limit, f"took {took:.2f} s, {limit:.2f} s allowed")

    def __str__(self) -> str:
        """Write the field of the table."""
        text = f"{self.delivered:,}"
        if self.kept:
            text += f"+{self.kept:,} kept"
        text += f"/{self.emitted:,}"
        if self.doubled:
            text += f" {self.doubled:,} doubled"
        if self.seconds is not None:
            text += f" {self.seconds:.1f}s"
        text += "".join(f", {note}" for note in self.notes)
        return f"MISS {text}" if self.misses else text

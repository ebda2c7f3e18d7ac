"""
What processes that died left behind: their journals, delivered by this one.

Owned by bizlog's thread. A journal is taken over once, handed to the lanes, freed as
they settle it, and deleted when nothing in it waits for anybody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from bizlog import diagnostics
from bizlog.delivery.journal import Journal, LaneState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bizlog.delivery.lane import Lane


class Heirloom(Journal, Protocol):
    """A journal of another process, in this one's hands."""

    def position_at(self, wall_time: float) -> int:
        """Position of the first record that was appended at or after a time."""
        ...

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; delete it where nothing in it waits for anybody."""
        ...


class Inheritance:
    """
    Hands journals of dead processes to the lanes.

    Args:
        adopt: Takes over what is free now.
        lanes: Who delivers it.
        max_age: Seconds after which events are too old; None where they never are.
        wall_clock: Seconds since 1970.
    """

    def __init__(
        self,
        adopt: Callable[[], Sequence[Heirloom]],
        lanes: Sequence[Lane],
        max_age: float | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._adopt = adopt
        self._lanes = lanes
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._journals: list[tuple[Heirloom, dict[str, LaneState]]] = []

    def look(self) -> None:
        """Take over what is free now."""
        for journal in self._adopt():
            self._hand_out(journal)
        self.release()

    def _hand_out(self, journal: Heirloom) -> None:
        states, fresh = self._states_in(journal), self._fresh_in(journal)
        for lane in self._lanes:
            lane.adopt(journal, states.pop(lane.name, None), fresh)
        strangers = {
            name: state for name, state in states.items() if state.settled < journal.end
        }
        self._journals.append((journal, strangers))
        _report_strangers(journal, strangers)

    def _states_in(self, journal: Heirloom) -> dict[str, LaneState]:
        # Without any lane in it, its process died before it could write them down.
        everyone = {lane.name: LaneState(journal.start) for lane in self._lanes}
        return journal.lanes() or everyone

    def _fresh_in(self, journal: Heirloom) -> int:
        if self._max_age is None:
            return journal.start
        return journal.position_at(self._wall_clock() - self._max_age)

    def release(self) -> None:
        """Let the journals forget what is settled; delete those that are done."""
        for journal, strangers in tuple(self._journals):
            settled = [lane.settled_in(journal) for lane in self._lanes]
            settled += [state.settled for state in strangers.values()]
            position = min(settled)
            journal.release(position)
            if position >= journal.end:
                journal.close(remove=True)
                self._journals.remove((journal, strangers))

    def close(self) -> None:
        """Let go of the journals; what waits in them is for the next process."""
        for journal, _ in self._journals:
            journal.close()
        self._journals.clear()


def _report_strangers(journal: Journal, strangers: dict[str, LaneState]) -> None:
    for name, state in strangers.items():
        diagnostics.report(
            f"stranger.{name}",
            f"a journal holds {journal.end - state.settled} events for a sink "
            f"{name!r} that is not configured: they stay; configure it, or deliver "
            "them with `bizlog journal drain` when this process has ended",
        )

"""
Who may read a partition: the rule of epochs (owner levels). No I/O.

A consumer with an epoch owns the partition for its consumer group: it takes it from
everybody with the same epoch, a lower one or none, and whoever comes with less is
refused. Consumers without an epoch share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class Reader(Protocol):
    """Whoever reads a partition."""

    epoch: int | None


R = TypeVar("R", bound=Reader)


def displaced(holders: Iterable[R], newcomer: Reader) -> list[R] | None:
    """
    Say who has to go when somebody comes.

    Returns:
        Those that lose the partition; None if it is the newcomer that is refused.
    """
    owners = [holder for holder in holders if holder.epoch is not None]
    if newcomer.epoch is None:
        return None if owners else []
    if any(owner.epoch > newcomer.epoch for owner in owners if owner.epoch is not None):
        return None
    return list(holders)

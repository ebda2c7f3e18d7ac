"""Locks that tell whose a journal is."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest

from bizlog.delivery import locks
from bizlog.delivery.journal import JournalError
from bizlog.exceptions import ConfigurationError


@pytest.fixture
def path(tmp_path):
    """The side file."""
    return tmp_path / "j.lock"


def test_one_holds_it(path):
    """A lock that is held is taken by nobody else, and seen by those who look."""
    lock = locks.take(path)

    assert lock.holds
    assert locks.take(path) is None
    assert locks.is_held(path)
    lock.drop(unlink=False)
    assert not locks.is_held(path)
    assert path.exists()


def test_looking_makes_nothing(path):
    """Where there is no side file nobody holds it, and none is made."""
    assert not locks.is_held(path)
    assert not path.exists()


@pytest.mark.parametrize("umask", [0, 0o277])
def test_nobody_else_may_lock_it(path, umask):
    """The side file is 0600 whatever the umask is: who can open it can lock it."""
    before = os.umask(umask)
    try:
        lock = locks.take(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.drop(unlink=True)
    assert not path.exists()


def test_a_lock_on_a_deleted_file_is_none(path):
    """Whoever locks a file that is no longer in the folder owns nothing."""
    lock = locks.take(path)
    path.unlink()
    other = locks.take(path)

    assert not lock.holds
    assert other.holds
    lock.drop(unlink=True)
    assert other.holds  # not the other's file
    other.drop(unlink=True)


def test_a_file_deleted_while_it_is_locked_is_tried_again(path, monkeypatch):
    """The owner of before deletes the file between opening and locking: a new one."""
    flock, raced = fcntl.flock, []

    def late(descriptor, kind):
        if not raced:
            raced.append(1)
            path.unlink()
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = locks.take(path)

    assert lock.holds
    lock.drop(unlink=True)


def test_a_link_is_not_followed(path, tmp_path):
    """A link in the place of the side file locks nothing elsewhere."""
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(JournalError):
        locks.take(path)

    assert not locks.is_held(path)
    assert not (tmp_path / "elsewhere").exists()


def test_closing_keeps_the_lock_for_whoever_shares_it(path):
    """A descriptor inherited by a child can be closed there without unlocking."""
    lock = locks.take(path)
    inherited = locks.FileLock(path, os.dup(lock._descriptor))

    inherited.close()

    assert locks.is_held(path)
    lock.close()
    assert not locks.is_held(path)
    lock.close()  # a second time harms nothing


def test_a_system_without_locks_is_told(monkeypatch):
    """Where there is no flock a journal is a setting that cannot work."""
    locks.require_locks()
    monkeypatch.setattr(locks, "find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match="leave `journal` unset"):
        locks.require_locks()

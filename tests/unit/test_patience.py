"""Waiting for a machine that is at fault."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable

import pytest

from helpers import FakeClock
from pigeonholed.patience import GivenUp, Patience


def _failing(code: int, times: int, result: str = "done") -> Callable[[], str]:
    left = [times]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return result

    return action


class _Stop(threading.Event):
    """Remembers how long it was waited for, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def test_what_succeeds_is_done_once_without_waiting() -> None:
    stop = _Stop()
    assert Patience(stop).retry("file", "do it", lambda: 3) == 3
    assert stop.waits == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE])
def test_fault_that_passes_is_waited_for(code: int) -> None:
    assert Patience(_Stop()).retry("file", "do it", _failing(code, 30)) == "done"


def test_wait_grows_to_a_bound() -> None:
    stop = _Stop()
    Patience(stop, first_wait_s=0.1, longest_wait_s=1.0).retry("file", "do it", _failing(errno.ENOSPC, 6))
    assert stop.waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOENT, errno.EXDEV])
def test_fault_that_does_not_pass_is_raised_at_once(code: int) -> None:
    stop = _Stop()
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as raised:
        Patience(stop).retry("file", "do it", _failing(code, 1))
    assert raised.value.errno == code
    assert stop.waits == []


def test_each_failure_is_told_with_its_stage() -> None:
    told: list[tuple[str, int | None]] = []
    patience = Patience(_Stop(), lambda stage, error: told.append((stage, error.errno)))
    patience.retry("claim", "do it", _failing(errno.ENOSPC, 2))
    assert told == [("claim", errno.ENOSPC)] * 2


def test_told_to_end_it_tries_for_the_time_of_grace_and_gives_up() -> None:
    stop, clock = _Stop(), FakeClock()
    tries: list[float] = []

    def action() -> None:
        tries.append(clock.advance(1.0))
        raise OSError(errno.ENOSPC, "No space left on device")

    stop.set()
    with pytest.raises(GivenUp, match="move it: No space left"):
        Patience(stop, first_wait_s=0.0, grace_s=3.0, clock=clock).retry("file", "move it", action)
    assert len(tries) == 4


def test_told_to_end_it_still_succeeds_within_the_time_of_grace() -> None:
    stop = _Stop()
    stop.set()
    patience = Patience(stop, first_wait_s=0.0, clock=FakeClock())
    assert patience.retry("file", "move it", _failing(errno.ENOSPC, 5)) == "done"


def test_other_errors_are_none_of_its_business() -> None:
    with pytest.raises(ZeroDivisionError):
        Patience(_Stop()).retry("file", "divide", lambda: 1 // 0)

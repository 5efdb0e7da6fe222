"""The life of the process: what ends it, and with which words."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from pigeonholed import supervising
from pigeonholed.errors import Misconfigured, Spent, Unavailable
from pigeonholed.supervising import Supervisor

SETTINGS: Any = SimpleNamespace(source="pigeonholed.toml")
NO_DISK = OSError(errno.EIO, os.strerror(errno.EIO))
NO_DATABASE = sa.exc.OperationalError("SELECT 1", {}, Exception("disk I/O error"))


class Play:
    """Services whose fates are written down; one that fails before it serves is `("build", error)`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *fates: BaseException | tuple[str, BaseException] | None
    ) -> None:
        self.fates = list(fates)
        self.built = 0
        self.on_run: Callable[[], None] = lambda: None
        monkeypatch.setattr(supervising, "build", self._build)
        monkeypatch.setattr(Supervisor, "_FIRST_PAUSE_S", 0.0)
        monkeypatch.setattr(Supervisor, "_LONGEST_PAUSE_S", 0.0)
        monkeypatch.setattr(signal, "signal", lambda *_arguments: None)

    @contextmanager
    def _build(self, _settings: Any, **_more: Any) -> Iterator[Any]:
        self.built += 1
        fate = self.fates.pop(0)
        if isinstance(fate, tuple):
            raise fate[1]

        def run() -> None:
            self.on_run()
            if fate is not None:
                raise fate

        yield SimpleNamespace(run=run, end=lambda: None, reporter=SimpleNamespace(filed=0))


def _supervisor(*, once: bool = False) -> Supervisor:
    return Supervisor(lambda: SETTINGS, once=once, may_upgrade=True)


@pytest.mark.parametrize("fault", [NO_DISK, NO_DATABASE, Unavailable("it is away")], ids=["disk", "database", "other"])
def test_service_that_a_fault_of_the_machine_ends_is_built_anew(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    play = Play(monkeypatch, fault, ("build", fault), fault, None)
    _supervisor().run(SETTINGS)
    assert play.built == 4


@pytest.mark.parametrize("fault", [NO_DISK, NO_DATABASE], ids=["disk", "database"])
def test_service_that_never_served_says_in_one_sentence_what_failed(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    Play(monkeypatch, ("build", fault))
    with pytest.raises(Unavailable, match="no file is lost by it") as told:
        _supervisor().run(SETTINGS)
    assert "\n" not in str(told.value)


def test_one_run_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Play(monkeypatch, NO_DISK)
    with pytest.raises(Unavailable, match="Input/output error"):
        _supervisor(once=True).run(SETTINGS)


@pytest.mark.parametrize(
    "fault", [NO_DISK, Unavailable("it is away"), Spent("all hang")], ids=["disk", "other", "spent"]
)
def test_told_to_end_it_ends_well_though_the_machine_fails(
    monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    play = Play(monkeypatch, fault)
    supervisor = _supervisor()
    play.on_run = lambda: supervisor._end(signal.SIGTERM, None)
    assert supervisor.run(SETTINGS).reporter.filed == 0  # type: ignore[comparison-overlap]


def test_told_to_end_between_two_services_it_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, NO_DISK)
    monkeypatch.setattr(Supervisor, "_FIRST_PAUSE_S", 60.0)
    supervisor = _supervisor()
    ending = threading.Timer(0.05, lambda: supervisor._end(signal.SIGTERM, None))
    ending.start()
    supervisor.run(SETTINGS)
    ending.join()
    assert play.built == 1


def test_told_to_end_before_it_served_it_says_why_it_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    Play(monkeypatch, ("build", Misconfigured("no such model")))
    supervisor = _supervisor()
    supervisor._end(signal.SIGTERM, None)
    with pytest.raises(Misconfigured):
        supervisor.run(SETTINGS)


def test_process_that_is_spent_ends_so_that_a_fresh_one_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, Spent("all decoders hang"))
    with pytest.raises(Spent):
        _supervisor().run(SETTINGS)
    assert play.built == 1

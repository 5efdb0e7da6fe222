"""What ends the process, and what it outlasts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pigeonholed import supervising
from pigeonholed.errors import Spent, Unavailable
from pigeonholed.supervising import Supervisor


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def _supervisor(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> tuple[Supervisor, list[Any]]:
    """One whose services end with these errors in turn, and the list of those that were built."""
    built: list[Any] = []

    @contextmanager
    def build(*_: object, **__: object) -> Iterator[Any]:
        error = errors[len(built)]

        def run() -> None:
            if error is not None:
                raise error

        service = SimpleNamespace(run=run, reporter=SimpleNamespace(filed=0))
        built.append(service)
        yield service

    monkeypatch.setattr(supervising, "build", build)
    monkeypatch.setattr(Supervisor, "_FIRST_PAUSE_S", 0.0)
    return Supervisor(lambda: None, once=False, may_upgrade=True), built  # type: ignore[arg-type, return-value]


def test_fault_of_the_machine_is_outlasted_by_a_service_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, built = _supervisor(monkeypatch, Unavailable("a disk"), OSError(5, "Input/output error"), None)
    assert supervisor.run(None) is built[2]  # type: ignore[arg-type]


def test_process_whose_threads_hang_ends_for_another_to_take_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, built = _supervisor(monkeypatch, Unavailable("a disk"), Spent("hanging threads"), None)
    with pytest.raises(Spent, match="hanging threads"):
        supervisor.run(None)  # type: ignore[arg-type]
    assert len(built) == 2
    assert Spent.exit_code == 69

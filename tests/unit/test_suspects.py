"""Who is to blame when a decoding process dies: only who was alone with three, and nobody once the end has come."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from helpers import fingerprint_of, make_arrival
from pigeonholed import suspects
from pigeonholed.decoding import Decode, Demand
from pigeonholed.images import Arrival, Decoded, Reason, Rejected
from pigeonholed.imaging import Picture, PixelSpec
from pigeonholed.isolation import Died, Interrupted
from pigeonholed.patience import Patience
from pigeonholed.suspects import Suspects

DEMAND = Demand(PixelSpec(2, 2), 100, 100)


@dataclass
class Court:
    """Suspects by their names, processes that die as the names tell, and what came of it in order."""

    stop: threading.Event = field(default_factory=threading.Event)
    told: list[Any] = field(default_factory=list)
    distrusted: set[str | None] = field(default_factory=set)
    processes: int = 0
    asked: list[str] = field(default_factory=list)
    on_death: Callable[[], None] = lambda: None

    def examine(self, arrival: Arrival, decode: Decode) -> Decoded | Rejected:
        fingerprint = fingerprint_of(arrival, sha256=arrival.file.path)
        look = partial(decode, arrival.file.path.encode(), fingerprint, DEMAND)
        picture = Patience(self.stop, first_wait_s=0.0).retry("decode", "read a claimed file", look)
        return Decoded(arrival, fingerprint, picture.pixels, picture.width, picture.height)

    def done(self, result: Any) -> None:
        reason = result.reason if isinstance(result, Rejected) else "decoded"
        self.told.append((result.arrival.file.path, reason))

    def record_deaths(self, arrival: Arrival) -> None:
        self.told.append((arrival.file.path, arrival.deaths))

    def judge(self, *arrivals: Arrival) -> list[Any]:
        patience = Patience(self.stop, grace_s=0.0)
        suspects = Suspects(self.examine, self.done, self, patience, 5.0, self.distrusted)
        suspects.add(arrivals)
        suspects.close()
        suspects.run()
        return self.told


@pytest.fixture
def court(monkeypatch: pytest.MonkeyPatch) -> Iterator[Court]:
    court = Court()

    class Process:
        def __init__(self) -> None:
            court.processes += 1
            self.fresh = True
            self.dead = False

        def decode(self, data: bytes, _demand: Demand, _limit_s: float, told_to_end: Callable[[], bool]) -> Picture:
            assert not self.dead, "a dead process was asked"
            court.asked.append(data.decode())
            was_fresh, self.fresh = self.fresh, False
            if data.startswith(b"kills") or (data.startswith(b"tired") and not was_fresh):
                self.dead = True
                court.on_death()
                raise Died("dead")
            if data.startswith(b"interrupted") and was_fresh and court.processes == 1:
                self.dead = True  # it still owes an answer
                raise OSError(errno.ENOMEM, "no memory")
            if data.startswith(b"slow"):
                court.stop.set()
                assert told_to_end()
                self.dead = True
                raise Interrupted
            return Picture(np.zeros((2, 2, 3), np.uint8), 2, 2)

        def close(self) -> None:
            pass

    monkeypatch.setattr(suspects, "DecodingProcess", Process)
    return court


def named(*names: str) -> list[Arrival]:
    return [make_arrival(name, number) for number, name in enumerate(names, 1)]


def test_three_deaths_of_processes_that_decoded_it_alone_make_a_poison(court: Court) -> None:
    assert court.judge(*named("kills")) == [("kills", 1), ("kills", 2), ("kills", 3), ("kills", Reason.POISON)]
    assert court.processes == 3
    assert court.distrusted == {"kills"}


def test_innocent_ones_share_a_process_and_do_not_wait_for_the_guilty(court: Court) -> None:
    told = court.judge(*named("a", "kills", "b", "c"))
    assert told[:3] == [("a", "decoded"), ("b", "decoded"), ("c", "decoded")]
    assert told[3:] == [("kills", 1), ("kills", 2), ("kills", 3), ("kills", Reason.POISON)]
    assert court.processes == 2 + 3
    assert court.asked == ["a", "kills", "b", "c", "kills", "kills", "kills"]


def test_death_of_a_process_that_has_decoded_others_proves_nothing(court: Court) -> None:
    assert court.judge(*named("a", "tired")) == [("a", "decoded"), ("tired", "decoded")]


def test_deaths_that_an_earlier_daemon_counted_count(court: Court) -> None:
    (arrival,) = named("kills")
    assert court.judge(replace(arrival, deaths=2)) == [("kills", 3), ("kills", Reason.POISON)]


def test_nothing_is_held_against_it_once_the_service_was_told_to_end(court: Court) -> None:
    court.on_death = court.stop.set
    assert court.judge(*named("kills", "b")) == []
    assert court.distrusted == set()


def test_what_is_not_done_when_the_service_ends_is_left(court: Court) -> None:
    assert court.judge(*named("a", "slow", "b")) == [("a", "decoded")]


def test_process_that_cannot_start_is_waited_for_and_nobody_is_blamed(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, failures = suspects.DecodingProcess, iter([BlockingIOError(11, "no"), OSError(12, "no memory")])

    def starting() -> Any:
        for failure in failures:
            raise failure
        return works()

    monkeypatch.setattr(suspects, "DecodingProcess", starting)
    assert court.judge(*named("a")) == [("a", "decoded")]


def test_process_that_could_not_be_asked_is_never_asked_again(court: Court) -> None:
    assert court.judge(*named("interrupted", "a")) == [("interrupted", "decoded"), ("a", "decoded")]
    assert court.processes == 2

"""Decoding threads that hang: found out, left behind, and replaced; what they come back with is not passed on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from helpers import FakeClock, fingerprint_of, make_arrival
from pigeonholed import imaging
from pigeonholed.crew import Crew
from pigeonholed.decoding import Demand
from pigeonholed.engines.decoders import Decoders, Hands, Suspected
from pigeonholed.errors import Spent
from pigeonholed.images import Arrival
from running import until

DEMAND = Demand(imaging.PixelSpec(2, 2), 100, 100)
LIMIT_S = 60.0


class Shop:
    """Decoders that hang until released, whose clock is the test's."""

    def __init__(self, count: int) -> None:
        self.files: queue.Queue[Arrival | None] = queue.Queue()
        self.release = threading.Event()
        self.passed_on: list[Arrival] = []
        self.distrusted: set[str | None] = set()
        self.failed = threading.Event()
        self.crew = Crew(self.failed.set)
        self.count = count
        self.decoders = Decoders(count, self.work, self.crew, 0.05, self.distrusted)

    def work(self, hands: Hands) -> None:
        while (arrival := self.files.get()) is not None:
            hands.take([arrival])
            hands.decode(arrival.file.path.encode(), fingerprint_of(arrival, arrival.file.path), DEMAND)
            if not hands.let_go():
                return
            self.passed_on.append(arrival)

    def end(self) -> None:
        self.release.set()
        for _ in range(self.count):
            self.files.put(None)
        until(lambda: self.decoders.join(0.1), "the decoders")


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Shop]]:
    shops: list[Shop] = []

    def hang(data: bytes, *_more: object, **_named: object) -> None:
        if data == b"hangs":
            shops[-1].release.wait()

    monkeypatch.setattr(imaging, "decode", hang)

    def make(count: int) -> Shop:
        shops.append(Shop(count))
        return shops[-1]

    yield make
    for made in shops:
        made.end()


def taken(shop: Shop) -> list[Arrival]:
    """What is taken over next."""
    found: list[Arrival] = []
    until(lambda: found.extend(one for files in shop.decoders.take_over() for one in files) or found, "a hang", 5.0)
    return found


def test_file_of_a_thread_that_hangs_is_taken_over_once_and_another_thread_goes_on(shop: Callable[[int], Shop]) -> None:
    shop1 = shop(1)
    left_behind = shop1.decoders._decoders[0].thread
    hangs, healthy = make_arrival("hangs", 1), make_arrival("healthy", 2)
    shop1.files.put(hangs)
    assert taken(shop1) == [hangs]
    assert shop1.distrusted == {"hangs"}
    shop1.files.put(healthy)
    until(lambda: shop1.passed_on == [healthy], "the other file")
    assert shop1.decoders.take_over() == []
    shop1.release.set()
    left_behind.join(5.0)
    assert not left_behind.is_alive()
    assert shop1.crew.dead() == [], "a thread that nobody expects anything of was missed"
    shop1.end()
    assert shop1.passed_on == [healthy], "a file that was taken over was passed on as well"


def test_with_more_threads_hanging_than_working_the_service_ends(shop: Callable[[int], Shop]) -> None:
    shop1 = shop(1)
    for number in range(2):
        assert not shop1.failed.is_set()
        shop1.distrusted.clear()
        shop1.files.put(make_arrival("hangs", number))
        taken(shop1)
    assert shop1.failed.is_set()
    with pytest.raises(Spent, match="2 decoders hang"):
        shop1.crew.check()


def test_bytes_that_are_distrusted_are_not_decoded_in_a_thread() -> None:
    arrival = make_arrival()
    with pytest.raises(Suspected):
        Hands({"bad"}).decode(b"", fingerprint_of(arrival, "bad"), DEMAND)


def test_only_decoding_counts_as_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is away is waited for, however long."""
    clock = FakeClock()
    hands = Hands(set(), clock)
    arrival = make_arrival()
    during: list[object] = []

    def look(*_more: object, **_named: object) -> None:
        clock.advance(LIMIT_S - 1)
        during.append(hands.take_away(LIMIT_S))
        clock.advance(1)
        during.append(hands.take_away(LIMIT_S))

    monkeypatch.setattr(imaging, "decode", look)
    hands.take([arrival])
    clock.advance(LIMIT_S * 10)
    assert hands.take_away(LIMIT_S) is None
    hands.decode(b"", fingerprint_of(arrival, "a"), DEMAND)
    assert during == [None, ([arrival], "a")]
    assert not hands.let_go()
    hands.take([arrival])
    clock.advance(LIMIT_S * 10)
    assert hands.take_away(LIMIT_S) is None
    assert hands.let_go()

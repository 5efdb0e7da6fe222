"""When a file counts as complete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pigeonholed.settling import Marks, Signature, Window

S = 1_000_000_000


def _signature(size: int = 1, mtime_ns: int = 0, ctime_ns: int = 0, inode: int = 1) -> Signature:
    return Signature(size, mtime_ns, ctime_ns, inode)


def test_signature_changes_when_anything_of_the_file_does(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1")
    before = Signature.of(os.stat(file))
    assert before == Signature.of(os.stat(file))
    file.write_bytes(b"22")
    assert Signature.of(os.stat(file)) != before
    same = Signature.of(os.stat(file))
    os.utime(file, ns=(1, 1))  # a copier that sets an old time changes the ctime all the same
    assert Signature.of(os.stat(file)) != same


def _seen(window: Window, path: str, signature: Signature, now_s: float) -> float:
    return window.unchanged_s(path, signature, now_s, announced=True)


class TestMarks:
    def test_file_older_than_a_mark_that_is_old_enough_is_settled(self) -> None:
        marks = Marks(5.0)
        marks.add(100.0, 50 * S)
        assert not marks.settled(49 * S, 104.9)
        assert marks.settled(49 * S, 105.0)

    def test_file_changed_after_the_mark_is_not_settled_by_it(self) -> None:
        marks = Marks(5.0)
        marks.add(100.0, 50 * S)
        assert not marks.settled(51 * S, 105.0)

    def test_file_changed_in_the_same_tick_as_the_mark_is_not_settled_by_it(self) -> None:
        marks = Marks(5.0)
        marks.add(100.0, 50 * S)
        assert not marks.settled(50 * S, 200.0)

    def test_newest_mark_that_is_old_enough_is_the_one_that_counts(self) -> None:
        marks = Marks(5.0)
        for second in range(10):
            marks.add(100.0 + second, (50 + second) * S)
        assert marks.settled(53 * S + S // 2, 109.0)
        assert not marks.settled(54 * S + S // 2, 109.0)

    def test_no_mark_settles_nothing(self) -> None:
        assert not Marks(0.0).settled(0, 100.0)

    @pytest.mark.parametrize("step_s", [-3600, 3600])
    def test_step_of_the_system_clock_makes_earlier_marks_void(self, step_s: int) -> None:
        marks = Marks(5.0)
        marks.add(100.0, 5000 * S)
        marks.add(104.0, (5004 + step_s) * S)
        assert not marks.settled(0, 105.0)
        assert marks.settled(0, 109.0)

    def test_slow_drift_does_not_make_marks_void(self) -> None:
        marks = Marks(5.0)
        marks.add(100.0, 5000 * S)
        marks.add(104.0, 5004 * S + S // 10)
        assert marks.settled(0, 105.0)

    def test_marks_are_made_seldom_and_kept_few(self) -> None:
        marks = Marks(5.0)
        made = 0
        now_s = 0.0
        for _ in range(10_000):
            now_s += 0.01
            if marks.due(now_s):
                made += 1
                marks.add(now_s, int(now_s * S))
        assert made <= 401
        assert len(marks._at_s) <= 23

    def test_age_is_told_by_the_clock_of_the_file_system(self) -> None:
        marks = Marks(5.0)
        assert marks.age_s(0, 100.0) == 0.0
        marks.add(100.0, 50 * S)
        assert marks.age_s(20 * S, 110.0) == pytest.approx(40.0)

    @given(
        st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), min_size=1, max_size=40),
        st.floats(0.0, 0.004),
        st.floats(0.1, 8.0),
    )
    def test_nothing_is_settled_that_changed_within_the_quiet_time(
        self, steps: list[tuple[float, bool]], tick_s: float, settle_s: float
    ) -> None:
        """Whatever marks are made and whenever a file changes: what is settled has been unchanged for that long."""
        marks = Marks(settle_s)
        now_s, changed_s, ctime_ns = 10.0, 0.0, 0

        def coarse(moment_s: float) -> int:  # a kernel's time stands still between its ticks
            return int((moment_s - moment_s % tick_s if tick_s else moment_s) * S)

        for pause_s, changes in steps:
            now_s += pause_s
            if changes:
                changed_s, ctime_ns = now_s, coarse(now_s)
            elif marks.due(now_s):
                marks.add(now_s, coarse(now_s))
            if marks.settled(ctime_ns, now_s):
                assert now_s - changed_s >= settle_s - 1e-6


class TestWindow:
    def test_time_counts_from_the_first_look_at_the_same_signature(self) -> None:
        window = Window()
        assert _seen(window, "a", _signature(), 100.0) == 0.0
        assert _seen(window, "a", _signature(), 103.0) == 3.0
        assert _seen(window, "a", _signature(size=2), 104.0) == 0.0
        assert _seen(window, "a", _signature(size=2), 105.0) == 1.0

    def test_replaced_file_of_the_same_size_and_times_starts_anew(self) -> None:
        window = Window()
        _seen(window, "a", _signature(inode=1), 100.0)
        assert _seen(window, "a", _signature(inode=2), 105.0) == 0.0

    def test_file_without_room_is_not_remembered(self) -> None:
        window = Window(capacity=1)
        _seen(window, "a", _signature(), 100.0)
        assert window.full()
        _seen(window, "b", _signature(), 100.0)
        assert "b" not in window
        assert len(window) == 1
        window.forget("a")
        assert not window.full()

    def test_file_with_room_is_followed_though_the_window_is_full(self) -> None:
        window = Window(capacity=1)
        _seen(window, "a", _signature(), 100.0)
        _seen(window, "a", _signature(size=2), 101.0)
        assert _seen(window, "a", _signature(size=2), 103.0) == 2.0

    def test_changed_ones_and_incomplete_ones_are_named(self) -> None:
        window = Window()
        _seen(window, "a", _signature(), 100.0)
        _seen(window, "b", _signature(), 110.0)
        window.mark_incomplete("b")
        window.mark_incomplete("unknown")
        assert window.changed_after(105.0) == ["b"]
        assert window.incomplete() == ["b"]
        assert window.paths() == ["a", "b"]
        assert window.oldest_s() == 100.0
        assert Window().oldest_s() is None

    def test_it_remembers_whether_any_event_announced_a_file(self) -> None:
        window = Window()
        window.unchanged_s("a", _signature(), 100.0, announced=False)
        window.unchanged_s("b", _signature(), 100.0, announced=True)
        assert (window.was_announced("a"), window.was_announced("b"), window.was_announced("c")) == (False, True, None)
        window.unchanged_s("a", _signature(size=2), 101.0, announced=True)
        window.unchanged_s("b", _signature(size=2), 101.0, announced=False)
        assert (window.was_announced("a"), window.was_announced("b")) == (True, True)

    def test_change_ends_being_incomplete(self) -> None:
        window = Window()
        _seen(window, "a", _signature(), 100.0)
        window.mark_incomplete("a")
        _seen(window, "a", _signature(size=2), 101.0)
        assert window.incomplete() == []

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.floats(0.0, 9.0)), max_size=40))
    def test_it_never_says_longer_than_the_signature_was_seen(self, looks: list[tuple[str, int, float]]) -> None:
        window = Window(capacity=2)
        since: dict[str, tuple[int, float]] = {}
        now_s = 0.0
        for path, size, pause_s in looks:
            now_s += pause_s
            if since.get(path, (None, 0.0))[0] != size:
                since[path] = (size, now_s)
            assert _seen(window, path, _signature(size), now_s) <= now_s - since[path][1]
            assert len(window) <= 2

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pigeonholed import imaging
from pigeonholed.imaging import PixelSpec
from pigeonholed_training.data import decoding, store
from pigeonholed_training.data.cache import Contents, PixelCache, place
from pigeonholed_training.data.rows import Rows
from pigeonholed_training.errors import Misconfigured, Unavailable
from tiny_pictures import make_data_set, write_picture

SPEC = PixelSpec(8, 8)
ROW = 8 * 8 * 3
ODD = Path(__file__).resolve().parents[3] / "shared/data/odd-images.tar"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data_set(tmp_path / "data", 4)


def _paths(data: Path) -> list[str]:
    return sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())


def _fill(data: Path, **options) -> Contents:
    return PixelCache(data.parent / "cache", SPEC, **options).fill(data, _paths(data), workers=2)


def _assert_true(contents: Contents, data: Path) -> None:
    """What the cache says of the files is what decoding them says."""
    for position, index in enumerate(contents.kept.tolist()):
        picture = decoding.decode_file(str(data / _paths(data)[index]), SPEC)
        assert isinstance(picture, decoding.Decoded)
        assert np.array_equal(contents.rows.read([position])[0], picture.pixels)
        assert np.array_equal(contents.thumbnails[position], picture.thumbnail)
        assert contents.records[index].sha256 == picture.sha256


# ---- decoded once


def test_the_second_time_nothing_is_decoded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _fill(data)
    assert (first.decoded, len(first.rows)) == (12, 12)
    _assert_true(first, data)
    monkeypatch.setattr(imaging, "decode", None)
    again = _fill(data)
    assert again.decoded == 0
    assert again.records == first.records
    assert np.array_equal(again.rows.read(range(12)), first.rows.read(range(12)))


def test_only_what_changed_or_came_is_decoded_and_what_went_is_forgotten(data: Path) -> None:
    before = _fill(data)
    old = before.rows.read(range(12))
    write_picture(data / "blue/000.png", "red", 77)
    write_picture(data / "blue/new.png", "blue", 78)
    (data / "red/003.png").unlink()
    after = _fill(data)
    assert (after.decoded, len(after.rows)) == (2, 12)
    _assert_true(after, data)
    assert np.array_equal(before.rows.read(range(12)), old), "who reads the old ones is not disturbed"


def test_a_file_is_read_once_and_a_path_named_twice_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = decoding._read
    monkeypatch.setattr(decoding, "_read", lambda path: opened.append(path) or read(path))
    paths = [*_paths(data), *_paths(data)[:3]]
    contents = PixelCache(data.parent / "cache", SPEC).fill(data, paths)
    assert (contents.decoded, len(opened), len(contents.records)) == (12, 12, 15)
    assert contents.records[:3] == contents.records[12:]


def test_large_pictures_are_decoded_straight_to_the_size_of_the_model(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "data").mkdir()
    cv2.imwrite(str(tmp_path / "data/x.jpg"), np.full((900, 1600, 3), (10, 20, 230), np.uint8))
    contents = _fill(tmp_path / "data")
    assert contents.rows.read([0]).shape == (1, 8, 8, 3)
    assert abs(contents.rows.read([0])[0, 4, 4].astype(int) - (230, 20, 10)).max() < 4
    (pixels,) = (tmp_path / "cache").glob("*.pixels")
    assert pixels.stat().st_size == ROW


def test_progress_counts_up_to_all_files(data: Path) -> None:
    told: list[tuple[int, int]] = []
    _fill(data)
    write_picture(data / "blue/new.png", "blue", 78)
    cache = PixelCache(data.parent / "cache", SPEC)
    cache.fill(data, _paths(data), on_picture=lambda done, total: told.append((done, total)))
    assert told == [(12, 13), (13, 13)]


def test_each_data_set_size_and_fit_has_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    asked = [("a", SPEC), ("b", SPEC), ("a", PixelSpec(8, 9)), ("a", PixelSpec(8, 8, "crop"))]
    places = {place(tmp_path / "cache", tmp_path / name, spec) for name, spec in asked}
    assert len(places) == 4
    assert {path.parent for path in places} == {tmp_path / "cache"}
    assert place(tmp_path / "cache", tmp_path / "link", SPEC) in places, "a link is what it leads to"


# ---- bad pictures


def test_what_is_no_picture_is_refused_with_its_reason(data: Path) -> None:
    whole = (data / "red/000.png").read_bytes()
    (data / "red/cut.png").write_bytes(whole[:-20])
    (data / "red/text.jpg").write_bytes(b"no picture at all")
    (data / "red/empty.png").write_bytes(b"")
    os.mkfifo(data / "red/pipe.png")
    paths = [*_paths(data), "red/pipe.png", "red/gone.png"]
    contents = PixelCache(data.parent / "cache", SPEC).fill(data, paths)
    reasons = {paths[i]: record.reason for i, record in enumerate(contents.records) if not record.is_picture}
    assert reasons == {
        "red/cut.png": "truncated",
        "red/text.jpg": "unsupported",
        "red/empty.png": "empty",
        "red/pipe.png": "io-error",
        "red/gone.png": "io-error",
    }
    assert contents.records[-1].detail == "No such file or directory"
    assert len(contents.rows) == len(contents.thumbnails) == 12


def test_a_broken_picture_is_not_decoded_again_but_what_may_pass_is_asked_again(data: Path) -> None:
    (data / "red/cut.png").write_bytes((data / "red/000.png").read_bytes()[:-20])
    (data / "red/heif.png").write_bytes(b"perhaps an extra is installed later")
    os.symlink("nowhere", data / "red/gone.png")
    paths = [*_paths(data), "red/gone.png"]
    cache = PixelCache(data.parent / "cache", SPEC)
    assert cache.fill(data, paths).decoded == 15
    assert cache.fill(data, paths).decoded == 2
    (data / "red/nowhere").write_bytes((data / "red/000.png").read_bytes())
    assert cache.fill(data, paths).records[-1].is_picture


def test_a_file_that_vanishes_between_listing_and_reading_is_refused(data: Path, monkeypatch) -> None:
    read = decoding._read

    def vanishing(path: str) -> object:
        (data / "green/001.png").unlink(missing_ok=True)
        return read(path)

    paths = _paths(data)
    monkeypatch.setattr(decoding, "_read", vanishing)
    contents = PixelCache(data.parent / "cache", SPEC).fill(data, paths)
    assert [paths[i] for i, record in enumerate(contents.records) if record.reason == "io-error"] == ["green/001.png"]


def test_a_picture_larger_than_memory_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = imaging.decode

    def hungry(content: bytes, spec: PixelSpec) -> imaging.Picture:
        if content == (data / "red/000.png").read_bytes():
            raise MemoryError
        return decode(content, spec)

    monkeypatch.setattr(imaging, "decode", hungry)
    assert [record.reason for record in _fill(data).records if record.reason] == ["too-large"]


@pytest.mark.slow
def test_no_odd_picture_ends_it(tmp_path: Path) -> None:
    if not ODD.exists():
        pytest.skip("../shared/data/odd-images.tar is not there")
    with tarfile.open(ODD) as tar:
        tar.extractall(tmp_path / "data", filter="data")
    contents = _fill(tmp_path / "data")
    assert 100 < len(contents.rows) < len(contents.records)
    assert all(record.is_picture or record.detail for record in contents.records)
    again = _fill(tmp_path / "data")
    assert again.records == contents.records


# ---- killed, damaged, full, shared

_KILLED = """
import os, signal, sys
from pathlib import Path
from pigeonholed.imaging import PixelSpec
from pigeonholed_training.data import cache, index, store

data, moment, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0

def killing(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == count and not moment.endswith("after"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

if moment.startswith("write"):
    os.pwrite = killing(os.pwrite)
elif moment.startswith("sync"):
    os.fsync = killing(os.fsync)
elif moment.startswith("commit"):
    index.Index.add = killing(index.Index.add)
elif moment.startswith("rename"):
    os.replace = killing(os.replace)
paths = sorted(str(path.relative_to(data)) for path in data.rglob("*.png"))
cache.PixelCache(data.parent / "cache", PixelSpec(8, 8), batch_bytes=3 * 192).fill(data, paths, workers=1)
"""


@pytest.mark.parametrize(
    ("moment", "count", "kept"),
    [
        ("rename-before", 1, 0),
        ("rename-after", 1, 0),
        ("write-before", 1, 0),
        ("write-before", 4, 3),
        ("write-after", 5, 6),
        ("sync-after", 6, 6),
        ("commit-before", 2, 3),
        ("commit-after", 3, 9),
    ],
)
def test_a_killed_training_goes_on_where_it_was(data: Path, moment: str, count: int, kept: int) -> None:
    child = subprocess.run([sys.executable, "-c", _KILLED, data, moment, str(count)], check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    said: list[str] = []
    contents = _fill(data, say=said.append)
    assert contents.decoded == 12 - kept
    assert len(contents.rows) == 12
    assert said == []
    _assert_true(contents, data)
    assert len(list((data.parent / "cache").glob("*.pixels"))) == 1


def _wreck_index(folder: Path) -> None:
    (folder / "index.db").write_bytes(b"no database" * 200)


def _cut_pixels(folder: Path) -> None:
    (pixels,) = folder.glob("*.pixels")
    os.truncate(pixels, ROW * 11)


def _lose_thumbnails(folder: Path) -> None:
    next(folder.glob("*.thumbnails")).unlink()


def _other_rule(folder: Path) -> None:
    with sqlite3.connect(folder / "index.db") as connection:
        connection.execute("UPDATE store SET rule = 'other'")
    connection.close()


def _other_program(folder: Path) -> None:
    (folder / "index.db").unlink()
    with sqlite3.connect(folder / "index.db") as connection:
        connection.execute("CREATE TABLE store (x)")
    connection.close()


def _beyond(folder: Path) -> None:
    with sqlite3.connect(folder / "index.db") as connection:
        connection.execute("UPDATE files SET row = 999")
    connection.close()


@pytest.mark.parametrize("spoil", [_wreck_index, _cut_pixels, _lose_thumbnails, _other_rule, _other_program, _beyond])
def test_a_damaged_or_foreign_cache_is_made_anew_and_said(data: Path, spoil) -> None:
    before = _fill(data)
    held = None if spoil is _cut_pixels else before.rows.read(range(12))
    spoil(data.parent / "cache")
    said: list[str] = []
    contents = _fill(data, say=said.append)
    assert contents.decoded == 12
    _assert_true(contents, data)
    assert len(said) == 1
    assert f"{data.parent}/cache cannot be used (" in said[0]
    if held is not None:
        assert np.array_equal(before.rows.read(range(12)), held), "a running training keeps what it reads from"
    assert _fill(data).decoded == 0


def test_a_cache_deleted_under_a_training_is_still_read_and_then_made_again(data: Path) -> None:
    before = _fill(data)
    held = before.rows.read(range(12))
    shutil.rmtree(data.parent / "cache")
    assert np.array_equal(before.rows.read(range(12)), held)
    assert _fill(data).decoded == 12


def test_a_cache_full_of_what_went_is_made_anew(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pigeonholed_training.data.cache._WASTE_BYTES", 0)
    _fill(data)
    for path in sorted(data.rglob("*.png"))[:7]:
        path.unlink()
    said: list[str] = []
    assert _fill(data, say=said.append).decoded == 5
    assert "changed or went" in said[0]
    (pixels,) = (data.parent / "cache").glob("*.pixels")
    assert pixels.stat().st_size == 5 * ROW


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_sentence_and_keeps_what_was_done(data: Path, monkeypatch, code: int) -> None:
    write, calls = os.pwrite, iter(range(100))

    def filling(fd: int, rows: memoryview, offset: int) -> int:
        if next(calls) < 2:
            return write(fd, rows, offset)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", filling)
        with pytest.raises(Unavailable) as caught:
            _fill(data, batch_bytes=3 * ROW)
    folder = data.parent / "cache"
    assert str(caught.value) == (
        f"Cannot decode the pictures into {folder}: the disk is full; make room, and the same command goes on where it "
        "stopped."
    )
    contents = _fill(data)
    assert contents.decoded == 9
    _assert_true(contents, data)


def test_short_writes_are_gone_on_with(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, rows, offset: write(fd, rows[:100], offset))
    _assert_true(_fill(data), data)


def test_what_a_killed_training_left_beside_a_new_beginning_is_removed(data: Path) -> None:
    _fill(data)
    for kind in ("pixels", "thumbnails"):
        (data.parent / f"cache/0123abcd.{kind}").write_bytes(bytes(99))
    _fill(data)
    assert len(list((data.parent / "cache").iterdir())) == 4


def test_an_index_that_finds_the_disk_full_says_so_too(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = store.Index.add

    def cramped(self, records, rows) -> None:
        self._connection.execute("PRAGMA max_page_count = 1")
        add(self, ((path + "x" * 3000, record) for path, record in records), rows)

    with monkeypatch.context() as patch:
        patch.setattr(store.Index, "add", cramped)
        with pytest.raises(Unavailable, match="the disk is full"):
            _fill(data)
    assert _fill(data).decoded == 12


def test_room_is_looked_for_before_anything_is_decoded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=12 * ROW - 1))
    with monkeypatch.context() as patch:
        patch.setattr(imaging, "decode", None)
        with pytest.raises(Unavailable, match="12 at 8x8 need 0 MB, and 0 MB are free; make room, or give a folder"):
            _fill(data)
    monkeypatch.undo()
    _fill(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    assert _fill(data).decoded == 0, "what is there needs no room"


def test_a_cache_that_cannot_be_made_is_told(data: Path) -> None:
    (data.parent / "cache").write_bytes(b"")
    with pytest.raises(Misconfigured, match=r"Cannot decode the pictures into .*/cache: "):
        _fill(data)


def test_a_second_training_waits_for_the_first_and_says_so(data: Path) -> None:
    _fill(data)
    fd = os.open(data.parent / "cache/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    said: list[str] = []

    def let_go(sentence: str) -> None:
        said.append(sentence)
        os.close(fd)

    assert _fill(data, say=let_go).decoded == 0
    assert len(said) == 1
    assert "Another training is decoding" in said[0]


# ---- rows


def _sparse(path: Path, size: int) -> Path:
    with open(path, "wb") as stream:
        stream.truncate(size)
    return path


def test_resident_memory_does_not_grow_with_the_pixels(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGESIZE")

    spec, count = PixelSpec(64, 64), 20_000
    file = _sparse(tmp_path / "x.pixels", count * 64 * 64 * 3)  # 246 MB
    rows = Rows(file, spec, np.arange(count, dtype=np.int64), resident_bytes=16 << 20)
    before, peak = resident(), 0
    order = np.random.default_rng(0).permutation(count)
    for start in range(0, count, 500):
        rows.read(order[start : start + 500])
        peak = max(peak, resident() - before)
    assert peak < 96 << 20
    careless = Rows(file, spec, np.arange(count, dtype=np.int64), resident_bytes=1 << 40)
    assert not careless.read(order[:2000]).any()
    careless.read(order)
    assert resident() - before > 200 << 20, "the measure sees what stays mapped"


def test_rows_are_read_in_the_order_asked_for_from_many_threads(tmp_path: Path) -> None:
    pixels = np.arange(300 * ROW, dtype=np.uint32).astype(np.uint8).reshape(300, 8, 8, 3)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(300) % 251, np.arange(300) // 251
    (tmp_path / "x.pixels").write_bytes(pixels.tobytes())
    numbers = np.random.default_rng(0).permutation(300).astype(np.int64)
    rows = Rows(tmp_path / "x.pixels", SPEC, numbers, resident_bytes=1)
    asked = [np.random.default_rng(seed).integers(0, 300, 200) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        for wanted, found in zip(asked, pool.map(rows.read, asked), strict=True):
            assert np.array_equal(found, pixels[numbers[wanted]])
    assert np.array_equal(rows.subset(np.array([7, 3])).read([1, 0]), pixels[numbers[[3, 7]]])


def test_rows_are_copies_and_strangers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pixels").write_bytes(bytes(3 * ROW))
    rows = Rows(tmp_path / "x.pixels", SPEC, np.arange(3, dtype=np.int64))
    rows.read([1])[:] = 9
    assert not rows.read([1]).any()
    with pytest.raises(IndexError):
        rows.read([3])
    assert rows.read([]).shape == (0, 8, 8, 3)
    assert Rows(tmp_path / "x.pixels", SPEC, np.empty(0, np.int64)).read([]).shape == (0, 8, 8, 3)
    with pytest.raises(OSError, match="shorter"):
        Rows(tmp_path / "x.pixels", SPEC, np.array([3]))

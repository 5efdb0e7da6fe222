"""Sidecars travel with their pictures: into the work folder, to the name that the picture gets, and back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from structlog.testing import capture_logs

from forking import Forker, forking
from gauges import Scraped
from helpers import FakeClock, NothingFiled, files_of, make_classified, make_rejected, make_tree
from mounts import another_mount
from pigeonholed import recovery, tables
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.companions import beside, candidates, is_companion, room_for
from pigeonholed.contents import sha256_of
from pigeonholed.copy_custody import Copying
from pigeonholed.custody import Custody, Renaming
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.finishing import Finisher
from pigeonholed.hold_folder import HoldFolder
from pigeonholed.holding import Holds
from pigeonholed.ignoring import NameFilter
from pigeonholed.images import Arrival, Fingerprint, Handled, Status, Withdrawn
from pigeonholed.ledger import Ledger
from pigeonholed.memory import Memory
from pigeonholed.metrics import Ineligible, Metrics
from pigeonholed.originals import Held, InPlace
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.returning import Returner
from pigeonholed.watching import Rules, Watch
from running import FILING, RENAMING, Variant, Workspace, accompanied, environment, picture, until, working

SUFFIXES = (".xmp", ".json")


class TestNames:
    @pytest.mark.parametrize(
        ("destination", "picture", "companions", "places"),
        [
            ("cat/s/x.jpg", "s/x.jpg", ["s/x.jpg.xmp", "s/x.xmp"], ("cat/s/x.jpg.xmp", "cat/s/x.xmp")),
            ("cat/x-1.jpg", "x.jpg", ["x.jpg.XMP", "x.json"], ("cat/x-1.jpg.XMP", "cat/x-1.json")),
            ("cat/2026.jpeg", "x.jpg", ["x.xmp"], ("cat/2026.xmp",)),
            ("cat/x", "x.jpg", ["x.jpg.xmp", "x.xmp"], ("cat/x.xmp", "cat/x.1.xmp")),
            ("cat/x.xmp", "x.jpg", ["x.xmp"], ("cat/x.xmp.1.xmp",)),
            ("cat/x", "x", ["x.xmp"], ("cat/x.xmp",)),
        ],
    )
    def test_companions_get_the_name_of_their_picture(
        self, destination: str, picture: str, companions: list[str], places: tuple[str, ...]
    ) -> None:
        assert beside(destination, picture, companions) == places

    def test_they_are_looked_for_behind_the_name_and_behind_the_stem(self) -> None:
        assert set(candidates("s/x.jpg", (".xmp",))) == {"s/x.jpg.xmp", "s/x.jpg.XMP", "s/x.xmp", "s/x.XMP"}
        assert set(candidates("x", (".xmp",))) == {"x.xmp", "x.XMP"}

    def test_case_does_not_matter_and_without_the_setting_there_are_none(self) -> None:
        assert is_companion("X.XMP", SUFFIXES)
        assert not is_companion("x.xmp.jpg", SUFFIXES)
        assert not is_companion("x.xmp", ())

    def test_room_is_what_the_longest_takes(self) -> None:
        assert room_for("s/x.jpg", ["s/x.jpg.json", "s/x.xmp"]) == 5
        assert room_for("s/x.jpg", []) == 0


class Yard:
    """A watched inbox whose sidecars travel."""

    def __init__(self, root: Path, clock: FakeClock, *, settle_s: float = 2.0, **of_names: Any) -> None:
        self.root = root
        self.clock = clock
        make_tree(root, {})
        rules = Rules("camera", str(root), settle_s, 10.0, 1.0, True, SUFFIXES)
        self.watch = Watch(rules, NameFilter(**of_names), lambda: 0)

    def take(self) -> dict[str, list[str]]:
        return {
            file.path: sorted(companion.path for companion in file.companions)
            for file in self.watch.take(self.clock(), 10)
        }

    def after(self, seconds: float) -> dict[str, list[str]]:
        """What is complete after a time with a look at each second."""
        for _ in range(round(seconds)):
            self.clock.advance(1.0)
            if found := self.take():
                return found
        return {}


class TestWatching:
    def test_sidecars_are_no_pictures_travel_and_are_counted_while_they_wait(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        yard = Yard(tmp_path, clock, settle_s=0.0)
        make_tree(tmp_path, {"s": {"x.png": b"1", "x.png.xmp": b"2", "x.JSON": b"3", "y.xmp": b"4"}})
        assert yard.take() == {"s/x.png": ["s/x.JSON", "s/x.png.xmp"]}
        assert yard.watch.ineligible[Ineligible.SIDECAR] == 3

    def test_sidecar_that_still_changes_is_waited_for(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = Yard(tmp_path, clock)
        make_tree(tmp_path, {"x.png": b"1"})
        yard.take()
        clock.advance(1.5)
        make_tree(tmp_path, {"x.png.xmp": b"2"})
        assert yard.after(1) == {}
        make_tree(tmp_path, {"x.png.xmp": b"22"})
        assert yard.after(1) == {}
        assert yard.after(3) == {"x.png": ["x.png.xmp"]}
        assert len(yard.watch.window) == 0

    def test_one_that_never_rests_is_left_behind(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = Yard(tmp_path, clock)
        make_tree(tmp_path, {"x.png": b"1"})
        found: dict[str, list[str]] = {}
        for size in range(30):
            make_tree(tmp_path, {"x.xmp": b"2" * size})
            if found := yard.after(1):
                break
        assert found == {"x.png": []}

    def test_one_that_is_open_for_writing_is_waited_for(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = Yard(tmp_path, clock, settle_s=0.0)
        make_tree(tmp_path, {"x.png": b"1"})
        with (tmp_path / "x.xmp").open("wb") as file:
            file.write(b"half")
            file.flush()
            yard.watch.marks.add(clock(), os.stat(tmp_path / "x.xmp").st_ctime_ns)
            assert yard.take() == {}
        assert yard.after(2) == {"x.png": ["x.xmp"]}

    def test_what_exclude_names_stays_and_include_speaks_of_pictures(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = Yard(tmp_path, clock, settle_s=0.0, include=["*.png"], exclude=["*.json"])
        make_tree(tmp_path, {"x.png": b"1", "x.xmp": b"2", "x.json": b"3"})
        assert yard.take() == {"x.png": ["x.xmp"]}

    def test_links_and_folders_of_that_name_stay(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = Yard(tmp_path, clock, settle_s=0.0)
        make_tree(tmp_path, {"x.png": b"1", "x.json": {}})
        (tmp_path / "x.xmp").symlink_to("/etc/passwd")
        assert yard.take() == {"x.png": []}


WAYS = ("renaming", "hostile", "other-mount", "keeping")


class Desk:
    """A claimer, a finisher and a ledger, for one way of taking files; `start` is a new process."""

    def __init__(self, root: Path, way: str, output: Output, ledger: Ledger, db: Engine, mount: Path) -> None:
        self.way, self.output, self.ledger, self.db = way, output, ledger, db
        self.inbox = (mount if way == "other-mount" else root) / "inbox"
        make_tree(self.inbox, {})
        self.start()

    def custody(self) -> Custody:
        inbox = str(self.inbox)
        if self.way == "renaming":
            return Renaming(inbox, self.output)
        if self.way == "keeping":
            return Copying(InPlace(inbox, Memory("camera", inbox, self.ledger)), self.output, self.ledger)
        hold = HoldFolder.in_output(self.output) if self.way == "hostile" else HoldFolder.in_inbox(inbox, private=False)
        return Copying(Held(inbox, hold), self.output, self.ledger)

    def start(self) -> list[Arrival]:
        """As a new process does; what is to be decoded again."""
        self.deliveries = {"camera": Delivery(str(self.inbox), self.output, Placer(), self.custody())}
        self.finisher = Finisher(
            self.deliveries, self.ledger, NothingFiled(), Patience(), lambda _plans: None, lambda _items: None
        )
        return recovery.recover(self.ledger, self.finisher, self.deliveries, 0.0, metrics=Metrics(process=False))

    def claim(self) -> list[Arrival]:
        custody = self.deliveries["camera"].custody
        watch = Watch(
            Rules("camera", str(self.inbox), 0.0, 0.0, 1.0, True, SUFFIXES),
            NameFilter(),
            lambda: 0,
            passes_over=lambda path, _size, _mtime_ns: custody.knows(path),
        )
        feed = Feed(watch, self.output, custody)
        claimer = Claimer([feed], self.ledger, None, Patience(), Metrics(process=False))  # type: ignore[arg-type]
        files = list(custody.fresh(watch.take(1.0, 100)))
        return claimer.claim(feed, files) if files else []

    def outcome(self, arrival: Arrival, *, rejected: bool = False) -> Handled:
        path = self.output.work_path(arrival)
        status = os.lstat(path)
        fingerprint = Fingerprint(sha256_of(path), status.st_size, status.st_mtime_ns)
        return replace(make_rejected(arrival) if rejected else make_classified(arrival), fingerprint=fingerprint)

    def file(self, *, rejected: bool = False) -> dict[str, bytes]:
        """Take and file everything."""
        self.finish([self.outcome(arrival, rejected=rejected) for arrival in self.claim()])
        return self.filed()

    def finish(self, handled: list[Handled]) -> None:
        self.finisher.turn(handled)
        self.finisher.settle()

    def filed(self) -> dict[str, bytes]:
        return {path: data for path, data in files_of(self.output.root).items() if not path.endswith(".reason.json")}

    def dropped(self) -> dict[str, bytes]:
        return {path: data for path, data in files_of(self.inbox).items() if ".pigeonholed" not in path}

    def undo(self) -> None:
        returner = Returner(self.ledger, self.deliveries, Holds())
        assert returner.put_back(self.ledger.filed(), hold=False).refused == ()

    def leftovers(self) -> list[str]:
        """What is in the work and hold folders."""
        roots = [self.output.private, str(self.inbox / ".pigeonholed-hold")]
        return [path for root in roots for path in files_of(root) if path not in {"lock", "owner"}]


@pytest.fixture(params=WAYS)
def desk(request: pytest.FixtureRequest, tmp_path: Path, output: Output, ledger: Ledger, db: Engine) -> Iterator[Desk]:
    if request.param == "other-mount":
        with another_mount(tmp_path) as mount:
            yield Desk(tmp_path, request.param, output, ledger, db, mount)
    else:
        yield Desk(tmp_path, request.param, output, ledger, db, tmp_path)


@pytest.fixture
def renaming(tmp_path: Path, output: Output, ledger: Ledger, db: Engine) -> Desk:
    return Desk(tmp_path, "renaming", output, ledger, db, tmp_path)


PAIR = {"s": {"x.png": b"1", "x.png.xmp": b"2", "x.json": b"3"}}
FILED = {"cat/s/x.png": b"1", "cat/s/x.png.xmp": b"2", "cat/s/x.json": b"3"}
LAID_OUT = {"s/x.png": b"1", "s/x.png.xmp": b"2", "s/x.json": b"3"}


class TestFiling:
    def test_they_end_beside_their_picture_and_have_no_row_of_their_own(self, desk: Desk) -> None:
        make_tree(desk.inbox, PAIR)
        assert desk.file() == FILED
        assert desk.dropped() == (LAID_OUT if desk.way == "keeping" else {})
        with desk.db.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(tables.images)) == 1
        assert desk.leftovers() == []

    def test_they_go_with_a_rejected_one_and_our_reason_keeps_its_name(self, desk: Desk) -> None:
        make_tree(desk.inbox, {"x.png": b"1", "x.png.json": b"2"})
        assert desk.file(rejected=True) == {
            "_rejected/unreadable/x.png": b"1",
            "_rejected/unreadable/x.png.json": b"2",
        }
        assert os.path.isfile(os.path.join(desk.output.root, "_rejected/unreadable/x.png.reason.json"))

    def test_taken_name_of_a_sidecar_is_taken_for_the_picture(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"cat/s/x.json": b"a user's"})
        make_tree(desk.inbox, PAIR)
        assert desk.file() == {
            "cat/s/x.json": b"a user's",
            "cat/s/x-1.png": b"1",
            "cat/s/x-1.png.xmp": b"2",
            "cat/s/x-1.json": b"3",
        }

    def test_sidecars_of_one_batch_do_not_meet(self, desk: Desk) -> None:
        make_tree(desk.inbox, {"x.png": b"1", "x.png.xmp": b"2", "a": {"b.png": b"3"}})
        (one, other) = sorted(desk.claim(), key=lambda arrival: arrival.file.path)
        twin = replace(one, file=replace(one.file, path="x.png"))
        desk.finish([desk.outcome(twin), desk.outcome(other)])
        assert sorted(desk.filed().values()) == [b"1", b"2", b"3"]

    def test_name_of_255_bytes_leaves_room(self, desk: Desk) -> None:
        name = "n" * 247 + ".png"
        make_tree(desk.inbox, {name: b"1", name + ".xmp": b"2"})
        filed = desk.file()
        assert sorted(filed.values()) == [b"1", b"2"]
        assert all(len(os.path.basename(path)) <= 255 for path in filed)

    def test_one_that_comes_later_stays(self, desk: Desk) -> None:
        make_tree(desk.inbox, {"x.png": b"1"})
        desk.file()
        make_tree(desk.inbox, {"x.xmp": b"2"})
        assert desk.file() == {"cat/x.png": b"1"}
        assert desk.dropped()["x.xmp"] == b"2"

    def test_one_that_goes_before_it_is_taken_is_nobodys(self, renaming: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(renaming.inbox, PAIR)
        taken = Renaming.take

        def take(custody: Renaming, arrival: Arrival) -> None:
            if arrival.part == 1:
                os.unlink(renaming.inbox / arrival.file.path)
            taken(custody, arrival)

        monkeypatch.setattr(Renaming, "take", take)
        assert renaming.file() == {"cat/s/x.png": b"1", "cat/s/x.json": b"3"}

    def test_copy_of_one_that_still_changes_is_not_made(
        self, tmp_path: Path, output: Output, ledger: Ledger, db: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk = Desk(tmp_path, "keeping", output, ledger, db, tmp_path)
        make_tree(desk.inbox, PAIR)
        taken = InPlace.take

        def take(originals: InPlace, arrival: Arrival) -> None:
            if arrival.part == 1:
                (desk.inbox / arrival.file.path).write_bytes(b"longer than before")
            taken(originals, arrival)

        monkeypatch.setattr(InPlace, "take", take)
        assert desk.file() == {"cat/s/x.png": b"1", "cat/s/x.json": b"3"}
        assert desk.leftovers() == []


class TestNamesThatAreTakenInTheInstant:
    @pytest.mark.parametrize("rejected", [False, True], ids=["sorted", "rejected"])
    @pytest.mark.parametrize("which", [".xmp", ".json", ".png"])
    def test_what_went_ahead_comes_back_and_all_get_another_name(
        self, renaming: Desk, which: str, rejected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first look found the names free; an outsider is faster than the move."""
        make_tree(renaming.inbox, PAIR)
        rename = Disk.rename_new
        done: list[str] = []

        def renamed(disk: Disk, source: str, target: str, **more: Any) -> None:
            if target.endswith(which) and not done and ".reason" not in target:
                done.append(target)
                fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=more["target_dir"])
                os.close(fd)
            rename(disk, source, target, **more)

        monkeypatch.setattr(Disk, "rename_new", renamed)
        filed = renaming.file(rejected=rejected)
        top = "_rejected/unreadable" if rejected else "cat"
        assert {path: data for path, data in filed.items() if data} == {
            f"{top}/s/x-1.png": b"1",
            f"{top}/s/x-1.png.xmp": b"2",
            f"{top}/s/x-1.json": b"3",
        }
        assert [path for path, data in filed.items() if not data] == [f"{top}/s/{done[0]}"]
        assert renaming.leftovers() == []

    def test_name_that_is_too_long_for_the_disk_is_another_one(
        self, renaming: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_tree(renaming.inbox, PAIR)
        rename = Disk.rename_new

        def renamed(disk: Disk, source: str, target: str, **more: Any) -> None:
            if target == "x.json":
                raise OSError(errno.ENAMETOOLONG, "too long")
            rename(disk, source, target, **more)

        monkeypatch.setattr(Disk, "rename_new", renamed)
        assert renaming.file() == {"cat/s/x-1.png": b"1", "cat/s/x-1.png.xmp": b"2", "cat/s/x-1.json": b"3"}

    def test_other_failures_are_not_taken_for_that(self, renaming: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(renaming.inbox, PAIR)

        def fail(*_arguments: Any, **_more: Any) -> None:
            raise OSError(errno.EIO, "broken")

        arrivals = renaming.claim()
        monkeypatch.setattr(Disk, "rename_new", fail)
        with pytest.raises(OSError, match="broken"):
            renaming.finish([renaming.outcome(arrival) for arrival in arrivals])


class TestGoingBack:
    def test_undo_puts_all_back(self, desk: Desk) -> None:
        make_tree(desk.inbox, PAIR)
        desk.file()
        desk.undo()
        assert (desk.filed(), desk.dropped()) == ({}, LAID_OUT)

    def test_old_place_that_is_taken_makes_another_name(self, renaming: Desk) -> None:
        make_tree(renaming.inbox, PAIR)
        renaming.file()
        make_tree(renaming.inbox, {"s": {"x.json": b"new"}})
        renaming.undo()
        assert renaming.filed() == {}
        assert renaming.dropped() == LAID_OUT | {"s/x.json": b"new", "s/x-1.json": b"3"}

    def test_sidecar_that_somebody_took_away_is_no_hindrance(self, desk: Desk) -> None:
        make_tree(desk.inbox, PAIR)
        desk.file()
        os.unlink(os.path.join(desk.output.root, "cat/s/x.json"))
        desk.undo()
        assert desk.filed() == {}

    def test_one_that_cannot_go_back_is_told_of_and_stays(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(desk.inbox, {"s": {"x.png": b"1", "x.json": b"2"}})
        desk.file()
        custody = desk.deliveries["camera"].custody
        put_back = custody.put_back

        def fail(source: str, target: str) -> None:
            if source.endswith(".json"):
                raise OSError(errno.EIO, "broken")
            put_back(source, target)

        monkeypatch.setattr(custody, "put_back", fail)
        if desk.way == "keeping":
            os.unlink(desk.inbox / "s/x.json")
        desk.undo()
        assert desk.filed() == {"cat/s/x.json": b"2"}

    def test_return_that_a_kill_has_cut_short_is_finished(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(desk.inbox, PAIR)
        desk.file()

        class Killed(BaseException):
            pass

        def kill(_returner: Returner, _file: Any) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Returner, "_move_companions", kill)
            with pytest.raises(Killed):
                desk.undo()
        Returner(desk.ledger, desk.deliveries, Holds()).resume()
        assert (desk.filed(), desk.dropped()) == ({}, LAID_OUT)

    def test_where_no_name_is_free_it_stays(self, renaming: Desk) -> None:
        make_tree(renaming.inbox, {"x.png": b"1", "x.json": b"2"})
        (arrival,) = renaming.claim()
        renaming.finish([renaming.outcome(arrival)])
        numbers = ["", *(f"-{number}" for number in range(1, 10)), f"-{arrival.key[-12:]}"]
        make_tree(renaming.inbox, {f"x{number}.json": b"new" for number in numbers})
        renaming.undo()
        assert renaming.filed() == {"cat/x.json": b"2"}

    def test_link_in_the_place_of_its_folder_leads_nowhere(self, renaming: Desk, tmp_path: Path) -> None:
        make_tree(renaming.inbox, PAIR)
        renaming.file()
        make_tree(tmp_path / "elsewhere", {"x.json": b"a user's"})
        returner = Returner(renaming.ledger, renaming.deliveries, Holds())
        (file,) = renaming.ledger.filed()
        folder = Path(renaming.output.root, "cat/s")
        os.rename(folder, tmp_path / "aside")
        folder.symlink_to(tmp_path / "elsewhere")
        returner._move_companions(file)
        assert files_of(tmp_path / "elsewhere") == {"x.json": b"a user's"}
        assert "s/x.json" not in renaming.dropped()

    def test_picture_goes_back_without_what_somebody_took_out_of_the_work_folder(self, renaming: Desk) -> None:
        make_tree(renaming.inbox, PAIR)
        (arrival,) = renaming.claim()
        os.unlink(renaming.output.work_path(arrival.companions[0]))
        renaming.finish([Withdrawn(arrival, Status.VANISHED, "it was still being written to")])
        assert len(renaming.dropped()) == 2

    def test_picture_that_still_changes_goes_back_with_them(self, desk: Desk) -> None:
        make_tree(desk.inbox, PAIR)
        arrivals = desk.claim()
        desk.finish([Withdrawn(arrival, Status.VANISHED, "it was still being written to") for arrival in arrivals])
        assert (desk.dropped(), desk.filed(), desk.leftovers()) == (LAID_OUT, {}, [])


class TestAfterACrash:
    def test_between_claim_and_plan(self, desk: Desk) -> None:
        make_tree(desk.inbox, PAIR)
        desk.claim()
        again = desk.start()
        desk.finish([desk.outcome(arrival) for arrival in again])
        assert (desk.filed(), desk.leftovers()) == (FILED, [])

    @pytest.mark.parametrize("part", [0, 1, 2])
    def test_before_anything_was_taken(self, desk: Desk, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(desk.inbox, PAIR)

        class Killed(BaseException):
            pass

        custody = desk.deliveries["camera"].custody
        take = custody.take

        def kill(arrival: Arrival) -> None:
            if arrival.part == part:
                raise Killed
            take(arrival)

        monkeypatch.setattr(custody, "take", kill)
        with pytest.raises(Killed):
            desk.claim()
        again = desk.start()
        desk.finish([desk.outcome(arrival) for arrival in again])
        assert (desk.filed(), desk.leftovers()) == (FILED, [])

    @pytest.mark.parametrize("undone", [".png", ".xmp", ".json"])
    def test_power_cut_that_undoes_one_move(self, renaming: Desk, undone: str) -> None:
        make_tree(renaming.inbox, PAIR)
        (arrival,) = renaming.claim()
        renaming.finisher.turn([renaming.outcome(arrival)])  # moved, and not confirmed
        (moved,) = [path for path in FILED if path.endswith(undone)]
        part = next(one for one in (arrival, *arrival.companions) if one.file.path.endswith(undone))
        os.makedirs(renaming.output.batch_folder(arrival.token), exist_ok=True)
        os.rename(os.path.join(renaming.output.root, moved), renaming.output.work_path(part))
        assert renaming.start() == []
        assert (renaming.filed(), renaming.leftovers()) == (FILED, [])

    def test_move_that_was_undone_finds_its_name_taken(self, renaming: Desk) -> None:
        make_tree(renaming.inbox, {"x.png": b"1", "x.xmp": b"2"})
        (arrival,) = renaming.claim()
        renaming.finisher.turn([renaming.outcome(arrival)])
        place = os.path.join(renaming.output.root, "cat/x.xmp")
        os.makedirs(renaming.output.batch_folder(arrival.token), exist_ok=True)
        os.rename(place, renaming.output.work_path(arrival.companions[0]))
        Path(place).write_bytes(b"a user's")
        assert renaming.start() == []
        assert renaming.filed() == {"cat/x.png": b"1", "cat/x.xmp": b"a user's", "cat/x-1.xmp": b"2"}
        renaming.undo()
        assert renaming.dropped() == {"x.png": b"1", "x.xmp": b"2"}

    def test_claim_that_a_power_cut_undid_leaves_no_sidecar_behind(self, renaming: Desk) -> None:
        """The picture is in the inbox again, and other than it was; the sidecar is still in the work folder."""
        make_tree(renaming.inbox, PAIR)
        (arrival,) = renaming.claim()
        os.unlink(renaming.output.work_path(arrival))
        make_tree(renaming.inbox, {"s": {"x.png": b"another"}})
        assert renaming.start() == []
        assert renaming.dropped() == LAID_OUT | {"s/x.png": b"another"}
        assert renaming.leftovers() == []

    def test_sidecar_that_is_nowhere_raises_the_alarm(self, renaming: Desk) -> None:
        make_tree(renaming.inbox, {"x.png": b"1", "x.xmp": b"2"})
        (arrival,) = renaming.claim()
        os.unlink(renaming.output.work_path(arrival.companions[0]))
        with capture_logs() as told:
            renaming.finish([renaming.outcome(arrival)])
        assert "sidecar_lost" in [event["event"] for event in told]

    def test_copy_of_a_sidecar_that_is_gone_raises_the_alarm(
        self, tmp_path: Path, output: Output, ledger: Ledger, db: Engine
    ) -> None:
        desk = Desk(tmp_path, "hostile", output, ledger, db, tmp_path)
        make_tree(desk.inbox, {"x.png": b"1", "x.xmp": b"2"})
        (arrival,) = desk.claim()
        os.unlink(output.work_path(arrival.companions[0]))
        with capture_logs() as told:
            (again,) = desk.start()
        assert again.companions == ()
        assert "sidecar_lost" in [event["event"] for event in told]

    def test_original_that_was_held_while_its_inbox_was_away_is_given_back(
        self, tmp_path: Path, output: Output, ledger: Ledger, db: Engine
    ) -> None:
        with another_mount(tmp_path) as mount:
            desk = Desk(tmp_path, "other-mount", output, ledger, db, mount)
            make_tree(desk.inbox, {"x.png": b"1", "x.xmp": b"2"})
            custody = desk.deliveries["camera"].custody
            ingest = custody.ingest
            custody.ingest = lambda arrivals, patience: (  # type: ignore[method-assign]
                ingest(arrivals, patience) if not any(arrival.part for arrival in arrivals) else exit(9)
            )
            with pytest.raises(SystemExit):
                desk.claim()
            custody.close()
            os.rename(desk.inbox, mount / "away")
            again = desk.start()
            desk.finish([desk.outcome(arrival) for arrival in again])
            assert desk.filed() == {"cat/x.png": b"1"}
            os.rename(mount / "away", desk.inbox)
            assert desk.start() == []
            assert (desk.dropped(), desk.leftovers()) == ({"x.xmp": b"2"}, [])


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


def drop_some(workspace: Workspace) -> None:
    workspace.drop_with("x.png", picture(220, 60, 40, 1), ".xmp", "*.json")
    workspace.drop_with("s/x.png", picture(220, 60, 40, 1), "*.xmp")
    workspace.drop_with("s/bad.png", b"\x89PNG\r\n\x1a\nbroken", ".json", ".XMP")
    workspace.drop_with("grey.png", picture(120, 60, 120, 2), ".xmp")


@pytest.mark.parametrize("variant", FILING, ids=str)
def test_whole_program_takes_them_along_and_back(tmp_path: Path, forker: Forker, variant: Variant) -> None:
    with working(tmp_path, accompanied(variant)) as workspace:
        drop_some(workspace)
        ended = forker.end(workspace.root, forker.start(workspace.root, "--once"))
        assert ended.code == 0, ended.log
        assert workspace.audit() == []
        if variant is not RENAMING:  # the others by `TestGoingBack`
            return
        undone = workspace.run("undo", "--last", "10")
        assert undone.returncode == 0, undone.stderr
        assert len(files_of(workspace.inbox)) == len(workspace.dropped) + len(workspace.sidecars)
        assert workspace.run("undo", "--release").returncode == 0
        ended = forker.end(workspace.root, forker.start(workspace.root, "--once"))
        assert ended.code == 0, ended.log
        assert workspace.audit() == []


def test_sidecar_alone_stays_and_counts_until_its_picture_comes(tmp_path: Path) -> None:
    workspace = Workspace.make(tmp_path, variant=accompanied(RENAMING), listen="127.0.0.1:0")
    with workspace.serving() as daemon:

        def waiting() -> int:
            return Scraped.of(daemon.fetch("/metrics")[1]).total("ineligible_files", "sidecar")

        daemon.await_event("service_ready")
        workspace.drop("x.png.xmp", b"about x")
        workspace.sidecars.append(workspace.dropped.pop())
        until(lambda: waiting() == 1, "the sidecar to be counted")
        workspace.drop("x.png", picture(220, 60, 40, 1))
        until(workspace.filed, "its picture to be filed")
        until(lambda: waiting() == 0, "nothing to be counted")
        assert daemon.terminate() == 0
    assert workspace.audit() == []

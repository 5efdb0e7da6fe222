"""Filing results anew: moved within the output or left as they were, through a kill at any moment."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from helpers import NothingFiled, files_of, make_arrival, make_tree
from pigeonholed import database, tables
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.entries import Plan
from pigeonholed.errors import Unavailable
from pigeonholed.finishing import Finisher
from pigeonholed.images import Fingerprint, ImageFile, Placement, Prediction, Status
from pigeonholed.ledger import Ledger
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer
from pigeonholed.recovery import recover
from pigeonholed.refiling import Refiler
from pigeonholed.refilings import Candidate, Choice, Refiling, Refilings, Result
from pigeonholed.results import Selection
from pigeonholed.writer import Writer
from servers import address_in, put_database, take_database

CONTENT = b"A"
OLD = Prediction("tiny", 1, (("cat", 0.9), ("dog", 0.1)))
NEW = Prediction("tiny", 2, (("dog", 0.8), ("cat", 0.15), ("cow", 0.05)))


@dataclass
class Desk:
    """Filed files, and who files them anew."""

    inbox: Path
    output: Output
    db: Engine
    ledger: Ledger
    records: Refilings
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_tree(self.inbox, {})
        self.deliveries["camera"] = Delivery(str(self.inbox), self.output, Placer())

    def file(
        self,
        destination: str = "cat/s/x",
        number: int = 1,
        content: bytes = CONTENT,
        beside: Sequence[tuple[str, str]] = (),
    ) -> Candidate:
        """A filed file; `beside` has the names that its sidecars had, and their places now."""
        arrival = make_arrival("s/x", number, size=len(content), mtime_ns=5)
        parts = [(part, ImageFile("camera", name, 3, 5), False) for part, (name, _place) in enumerate(beside, 1)]
        arrival = arrival.with_companions(parts)
        places = tuple(place for _name, place in beside)
        fingerprint = Fingerprint(hashlib.sha256(content).hexdigest(), len(content), 5)
        self.ledger.claim([arrival])
        plan = Plan(arrival, fingerprint, Placement.SORTED, destination, OLD, width=3, height=4, beside=places)
        self.ledger.plan([plan])
        self.ledger.confirm([arrival])
        make_tree(Path(self.output.root), {destination: content} | {place: _about(place) for place in places})
        (candidate,), _ = self.records.candidates(Choice("camera"), number - 1, number, 5)
        return candidate

    def refiling(self, candidate: Candidate, destination: str = "dog/s/x") -> Refiling:
        return Refiling(candidate, Result(Placement.SORTED, NEW, destination), destination)

    def refiler(self) -> Refiler:
        return Refiler(self.records, self.deliveries)

    def move(self, destination: str = "dog/s/x") -> tuple[list[Refiling], list[tuple[Candidate, str]]]:
        return self.refiler().file([self.refiling(self.file(), destination)])

    def begun(self, destination: str = "dog/s/x") -> Refiling:
        """A move whose plan was committed, and not more."""
        refiling = self.refiling(self.file(), destination)
        self.records.begin([refiling])
        return refiling

    def row(self, number: int = 1) -> dict[str, Any]:
        with self.db.connect() as connection:
            query = sa.select(tables.images).where(tables.images.c.id == number)
            return dict(connection.execute(query).mappings().one())

    def predictions(self) -> list[tuple[str, float]]:
        """All, the best of each picture first, whose ranks are 1, 2 and so on."""
        query = sa.select(tables.predictions).order_by(tables.predictions.c.rank)
        with self.db.connect() as connection:
            rows = connection.execute(query).all()
        assert {row.rank for row in rows} == {*range(1, 1 + len({row.rank for row in rows}))}
        return [(row.label, row.confidence) for row in rows]

    def said(self, number: int = 1) -> tuple[Any, ...]:
        """What a row says of its picture."""
        row = self.row(number)
        return tuple(row[name] for name in ("status", "model_version", "label", "confidence", "destination"))

    def beside(self, number: int = 1) -> list[str]:
        """Where its row says that the sidecars of a picture are."""
        columns = tables.sidecars.c
        query = sa.select(columns.destination).where(columns.image_id == number).order_by(columns.part)
        with self.db.connect() as connection:
            return list(connection.scalars(query))

    def files(self) -> dict[str, bytes]:
        return files_of(self.output.root)


def _about(place: str) -> bytes:
    return f"was at {place}".encode()


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, db: Engine, writer: Writer) -> Desk:
    return Desk(tmp_path / "inbox", output, db, ledger, Refilings(db, writer))


AS_IT_WAS = ("filed", 1, "cat", 0.9, "cat/s/x")
ANEW = ("filed", 2, "dog", 0.8, "dog/s/x")


class TestFile:
    def test_file_moves_and_its_row_says_who_says_so_and_where_it_is(self, desk: Desk) -> None:
        done, left = desk.move()
        assert ([one.result.destination for one in done], left) == (["dog/s/x"], [])
        assert desk.files() == {"dog/s/x": CONTENT}
        assert (desk.said(), desk.predictions()) == (ANEW, list(NEW.ranked))
        row = desk.row()
        assert timedelta(0) <= datetime.now(UTC) - row["classified_at"] < timedelta(seconds=30)
        assert row["arrived_at"] <= row["classified_at"] <= row["filed_at"]
        assert (row["outcome"], row["width"], row["mtime_ns"], row["source_path"]) == ("sorted", 3, 5, "s/x")
        assert desk.records.begun() == []
        assert desk.output.leaving == set()

    def test_file_that_stays_has_its_row_renewed_and_is_not_touched(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate = desk.file()
        monkeypatch.setattr(Disk, "rename_new", _raising(errno.EIO))
        done, left = desk.refiler().file([desk.refiling(candidate, "cat/s/x")])
        assert (len(done), left) == (1, [])
        assert desk.said() == ("filed", 2, "dog", 0.8, "cat/s/x")
        assert desk.predictions() == list(NEW.ranked)

    def test_plan_is_committed_before_the_move_and_result_only_when_it_is_durable(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, Any]] = []
        rename, sync = Disk.rename_new, Disk.sync

        def rename_new(disk: Disk, *arguments: Any, **named: Any) -> None:
            seen.append(("rename", desk.said()[0]))
            assert desk.output.leaving == {"cat/s/x", "dog/s/x"}, "nobody else may take its names"
            rename(disk, *arguments, **named)

        def synced(disk: Disk, files: Any, folders: Any) -> None:
            seen.append(("sync", {os.path.relpath(folder, desk.output.root) for folder in folders}))
            seen.append(("status", desk.said()[0]))
            sync(disk, files, folders)

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        monkeypatch.setattr(Disk, "sync", synced)
        desk.move()
        assert seen == [("rename", "planned"), ("sync", {"cat/s", "dog/s", "dog", "."}), ("status", "planned")]

    def test_taken_name_is_never_overwritten(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"dog/s/x": b"somebody else's"})
        done, _left = desk.move()
        assert desk.files() == {"dog/s/x": b"somebody else's", "dog/s/x-1": CONTENT}
        assert desk.said()[-1] == done[0].result.destination == "dog/s/x-1"
        assert desk.output.leaving == set()

    def test_name_that_somebody_takes_at_the_last_moment_is_not_overwritten(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twice: what is committed is always the name that is tried next."""
        rename = Disk.rename_new
        tried: list[str] = []

        def rename_new(disk: Disk, old: str, new: str, **named: Any) -> None:
            tried.append(new)
            assert desk.said()[-1] == f"dog/s/{new}"
            if len(tried) < 3:
                make_tree(Path(desk.output.root), {f"dog/s/{new}": b"quick"})
            rename(disk, old, new, **named)

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        desk.move()
        assert tried == ["x", "x-1", "x-2"]
        assert desk.files() == {"dog/s/x": b"quick", "dog/s/x-1": b"quick", "dog/s/x-2": CONTENT}
        assert desk.said()[-1] == "dog/s/x-2"
        assert desk.output.leaving == set()

    def test_file_with_the_name_of_a_class_folder_is_gone_around(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"dog": b"somebody else's"})
        desk.move()
        assert desk.files() == {"dog": b"somebody else's", "dog-1/s/x": CONTENT}
        assert desk.said()[-1] == "dog-1/s/x"

    def test_names_that_others_take_for_ever_are_given_up(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Disk, "rename_new", _raising(errno.EEXIST))
        done, ((_candidate, why),) = desk.move()
        assert (done, why) == ([], "others took every name that it could have")
        assert (desk.said(), desk.predictions()) == (AS_IT_WAS, list(OLD.ranked))

    @pytest.mark.parametrize(
        ("what", "told"),
        [
            ("gone", "it is not where it was filed"),
            ("link on the way", "a link or a file is on the way"),
            ("no room", "it cannot be moved: No space left"),
            ("read-only", "it cannot be moved: Read-only"),
        ],
    )
    def test_what_cannot_be_moved_is_as_it_was_in_every_column(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str, told: str
    ) -> None:
        candidate = desk.file()
        row, filed = desk.row(), Path(desk.output.root, "cat/s/x")
        match what:
            case "gone":
                filed.unlink()
            case "link on the way":
                filed.parent.rename(desk.inbox / "s")
                filed.parent.symlink_to(desk.inbox / "s")
            case "no room":
                monkeypatch.setattr(os, "mkdir", _raising(errno.ENOSPC))
            case "read-only":
                monkeypatch.setattr(Disk, "rename_new", _raising(errno.EROFS))
        before = desk.files()
        done, ((left, why),) = desk.refiler().file([desk.refiling(candidate)])
        assert (done, left.arrival.id) == ([], 1)
        assert told in why
        assert (desk.row(), desk.predictions(), desk.files()) == (row, list(OLD.ranked), before)
        assert desk.records.begun() == []
        assert desk.output.leaving == set()

    def test_move_that_may_be_half_way_is_not_called_refused(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        rename = Disk.rename_new

        def rename_then_fail(disk: Disk, *arguments: Any, **named: Any) -> None:
            rename(disk, *arguments, **named)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Disk, "rename_new", rename_then_fail)
        with pytest.raises(OSError, match="Input/output error"):
            desk.move()
        monkeypatch.undo()
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (ANEW, {"dog/s/x": CONTENT})

    def test_while_the_output_is_away_nothing_is_judged(self, desk: Desk) -> None:
        candidate = desk.file()
        away = Path(f"{desk.output.root}-away")
        os.rename(desk.output.root, away)
        with pytest.raises(OSError, match="is away"):
            desk.refiler().file([desk.refiling(candidate)])
        assert not Path(desk.output.root).exists(), "no folder is made where a mount should be"
        os.rename(away, desk.output.root)
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (ANEW, {"dog/s/x": CONTENT})

    def test_output_that_goes_away_during_a_move_is_not_taken_for_a_file_that_is_gone(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = Path(f"{desk.output.root}-away")

        def unmounted(disk: Disk, *_arguments: Any, **_named: Any) -> None:
            os.rename(desk.output.root, away)
            raise OSError(errno.ENOENT, "No such file or directory")

        monkeypatch.setattr(Disk, "rename_new", unmounted)
        with pytest.raises(OSError, match="is away"):
            desk.move()
        monkeypatch.undo()
        os.rename(away, desk.output.root)
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (ANEW, {"dog/s/x": CONTENT})

    def test_two_files_of_one_batch_that_want_one_name_get_two(self, desk: Desk) -> None:
        refiler, promised = desk.refiler(), set[str]()
        files = [desk.file("cat/s/x", 1), desk.file("cow/s/x", 2, b"B")]
        places = [refiler.place(file, "dog/s/x", promised) for file in files]
        assert places == ["dog/s/x", "dog/s/x-1"]
        refiler.file([desk.refiling(file, place) for file, place in zip(files, places, strict=True)])
        assert desk.files() == {"dog/s/x": CONTENT, "dog/s/x-1": b"B"}


class TestCandidates:
    def test_only_unreviewed_results_of_models_are_looked_at_again(self, desk: Desk) -> None:
        for number in range(1, 7):
            desk.file(f"cat/{number}", number)
        with desk.db.begin() as connection:
            values = {"image_id": 2, "label": "dog", "reviewed_at": datetime.now(UTC)}
            connection.execute(tables.reviews.insert().values(values))
            for number, changed in {
                3: {"outcome": "rejected", "reason": "empty", "label": None},
                4: {"status": "returned"},
                5: {"inbox": "another"},
            }.items():
                connection.execute(sa.update(tables.images).where(tables.images.c.id == number).values(changed))
        desk.ledger.begin_return(desk.ledger.filed(Selection(image=6)), hold=True)
        assert [one.arrival.id for one in desk.records.candidates(Choice("camera"), 0, 99, 9)[0]] == [1]

    def test_they_are_chosen_by_outcome_and_by_who_said_so(self, desk: Desk) -> None:
        for number in (1, 2, 3):
            desk.file(f"cat/{number}", number)
        with desk.db.begin() as connection:
            one = sa.update(tables.images).where(tables.images.c.id == 2)
            connection.execute(one.values(outcome="unsure", model_version=2))

        def chosen(**choice: Any) -> list[int]:
            return [one.arrival.id for one in desk.records.candidates(Choice("camera", **choice), 0, 99, 9)[0]]

        assert chosen(only=Placement.UNSURE) == [2]
        assert chosen(only=Placement.SORTED) == [1, 3]
        assert chosen(besides=("tiny", 2)) == [1, 3]
        assert chosen(besides=("other", 2)) == [1, 2, 3]

    def test_they_come_by_id_a_few_at_a_time_and_never_from_more_than_a_window_of_rows(self, desk: Desk) -> None:
        assert desk.records.last_id() == 0
        for number in (1, 2, 3, 9000):
            desk.file(f"cat/{number}", number)
        assert desk.records.last_id() == 9000

        def ask(after: int) -> tuple[list[int], int]:
            found, last = desk.records.candidates(Choice("camera"), after, 9000, 2)
            return [one.arrival.id for one in found], last

        assert ask(0) == ([1, 2], 2)
        assert ask(2) == ([3], 5002)
        assert ask(5002) == ([9000], 9000)


class TestResume:
    def test_file_that_never_left_is_moved(self, desk: Desk) -> None:
        desk.begun()
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (ANEW, {"dog/s/x": CONTENT})
        assert desk.predictions() == list(NEW.ranked)

    def test_file_that_has_arrived_is_made_durable_and_recorded(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.begun()
        make_tree(Path(desk.output.root), {"dog/s": {}})
        Path(desk.output.root, "cat/s/x").rename(Path(desk.output.root, "dog/s/x"))
        synced: list[str] = []
        sync = Disk.sync

        def syncing(disk: Disk, files: Any, folders: Any) -> None:
            assert desk.said()[0] == "planned"
            synced.extend(folders)
            sync(disk, files, folders)

        monkeypatch.setattr(Disk, "sync", syncing)
        desk.refiler().resume()
        assert desk.said() == ANEW
        wanted = {"cat/s", "dog/s", "dog", "."}
        assert {os.path.relpath(folder, desk.output.root) for folder in synced} == wanted

    def test_same_bytes_at_its_new_place_are_somebody_elses_while_it_is_at_its_old_one(self, desk: Desk) -> None:
        desk.begun()
        make_tree(Path(desk.output.root), {"dog/s/x": CONTENT})
        desk.refiler().resume()
        assert desk.files() == {"dog/s/x": CONTENT, "dog/s/x-1": CONTENT}
        assert desk.said()[-1] == "dog/s/x-1"

    def test_file_of_somebody_else_at_its_old_place_is_not_taken_for_it(self, desk: Desk) -> None:
        desk.begun()
        make_tree(Path(desk.output.root), {"dog/s": {}})
        Path(desk.output.root, "cat/s/x").rename(Path(desk.output.root, "dog/s/x"))
        make_tree(Path(desk.output.root), {"cat/s/x": b"new there"})
        desk.refiler().resume()
        assert desk.files() == {"cat/s/x": b"new there", "dog/s/x": CONTENT}
        assert desk.said() == ANEW

    def test_move_by_link_that_was_killed_half_way_is_finished(self, desk: Desk) -> None:
        """On file systems that know no other way a file has two names for a moment."""
        desk.begun()
        make_tree(Path(desk.output.root), {"dog/s": {}})
        os.link(Path(desk.output.root, "cat/s/x"), Path(desk.output.root, "dog/s/x"))
        desk.output.disk._renameat2 = None
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (ANEW, {"dog/s/x": CONTENT})

    def test_file_that_its_owner_took_away_meanwhile_is_as_before(self, desk: Desk) -> None:
        """It was filed, and whoever owns it may do so: no alarm, and the old row, which `fsck` will name."""
        desk.begun()
        Path(desk.output.root, "cat/s/x").unlink()
        desk.refiler().resume()
        assert (desk.said(), desk.predictions()) == (AS_IT_WAS, list(OLD.ranked))
        assert desk.records.begun() == []

    def test_file_that_cannot_be_moved_at_the_start_does_not_hold_it_up(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.begun()
        monkeypatch.setattr(os, "mkdir", _raising(errno.ENOSPC))
        desk.refiler().resume()
        assert (desk.said(), desk.files()) == (AS_IT_WAS, {"cat/s/x": CONTENT})

    def test_output_that_is_empty_and_new_is_not_where_the_files_were(self, desk: Desk) -> None:
        desk.begun()
        shutil.rmtree(os.path.join(desk.output.root, "cat"))
        desk.output.fresh = True
        with pytest.raises(Unavailable, match=r"1 files that were being moved should be in the output .* empty"):
            desk.refiler().resume()
        assert desk.said()[0] == "planned"

    def test_inbox_that_is_not_configured_is_left_alone_and_raises_no_alarm(self, desk: Desk) -> None:
        desk.begun()
        deliveries = desk.deliveries.copy()
        desk.deliveries.clear()
        desk.refiler().resume()
        finisher = Finisher({}, desk.ledger, NothingFiled(), Patience(), lambda _plans: None, lambda _items: None)
        assert recover(desk.ledger, finisher, {}, 0.0) == []
        assert desk.said()[0] == "planned"
        desk.deliveries.update(deliveries)
        desk.refiler().resume()
        assert desk.said() == ANEW

    def test_recovery_finds_nothing_to_do_afterwards(self, desk: Desk) -> None:
        desk.begun()
        desk.refiler().resume()
        assert desk.ledger.in_flight(0.0) == []


BESIDE = (("s/x.xmp", "cat/s/x.xmp"), ("s/x.json", "elsewhere/x.json"))
BOTH = {"dog/s/x.xmp": _about("cat/s/x.xmp"), "dog/s/x.json": _about("elsewhere/x.json")}
FILED_ANEW = {"dog/s/x": CONTENT} | BOTH
AS_FILED = {"cat/s/x": CONTENT} | {place: _about(place) for _name, place in BESIDE}


class TestSidecars:
    @pytest.fixture
    def refiling(self, desk: Desk) -> Refiling:
        return desk.refiling(desk.file(beside=BESIDE))

    def test_they_follow_their_picture_from_wherever_they_are(
        self, desk: Desk, refiling: Refiling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        rename, sync = Disk.rename_new, Disk.sync

        def rename_new(disk: Disk, old: str, new: str, **named: Any) -> None:
            names = {name for end in ("", ".xmp", ".json") for name in (f"cat/s/x{end}", f"dog/s/x{end}")}
            assert desk.output.leaving == names - {"cat/s/x.json"} | {"elsewhere/x.json"}
            steps.append(new)
            rename(disk, old, new, **named)

        def synced(disk: Disk, files: Any, folders: Any) -> None:
            steps.extend(sorted(os.path.relpath(folder, desk.output.root) for folder in folders))
            assert desk.beside() == [place for _name, place in BESIDE]
            sync(disk, files, folders)

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        monkeypatch.setattr(Disk, "sync", synced)
        desk.refiler().file([refiling])
        assert steps == ["x.xmp", "x.json", "x", ".", "cat/s", "dog", "dog/s", "elsewhere"]
        assert desk.files() == FILED_ANEW
        assert desk.beside() == list(BOTH)
        assert desk.output.leaving == set()
        assert desk.ledger.filed(Selection(image=1))[0].companions[1].destination == "dog/s/x.json"

    def test_name_must_be_free_for_all_of_them(self, desk: Desk, refiling: Refiling) -> None:
        make_tree(Path(desk.output.root), {"dog/s/x.json": b"somebody's"})
        promised: set[str] = set()
        assert desk.refiler().place(refiling.candidate, "dog/s/x", promised) == "dog/s/x-1"
        assert promised == {"dog/s/x-1", "dog/s/x-1.xmp", "dog/s/x-1.json"}

    @pytest.mark.parametrize("taken", ["x", "x.json"])
    def test_name_that_somebody_takes_is_gone_around_by_all_of_them(
        self, desk: Desk, refiling: Refiling, taken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those that went ahead come back for good, before another name is committed."""
        make_tree(Path(desk.output.root), {f"dog/s/{taken}": b"somebody's"})
        redirect, synced = Refilings.redirect, set[str]()
        sync = Disk.sync

        def syncing(disk: Disk, files: Any, folders: Any) -> None:
            synced.update(folders)
            sync(disk, files, folders)

        monkeypatch.setattr(Disk, "sync", syncing)

        def redirected(records: Refilings, other: Refiling) -> None:
            assert {name for name in desk.files() if name.startswith("dog")} == {f"dog/s/{taken}"}
            assert {os.path.join(desk.output.root, name) for name in ("cat/s", "dog/s")} <= synced
            redirect(records, other)

        monkeypatch.setattr(Refilings, "redirect", redirected)
        desk.refiler().file([refiling])
        files = desk.files()
        assert files.pop(f"dog/s/{taken}") == b"somebody's"
        assert sorted(files) == ["dog/s/x-1", "dog/s/x-1.json", "dog/s/x-1.xmp"]
        assert desk.beside() == ["dog/s/x-1.xmp", "dog/s/x-1.json"]

    def test_one_that_its_owner_took_away_or_linked_holds_nothing_up(self, desk: Desk, refiling: Refiling) -> None:
        root = Path(desk.output.root)
        (root / "cat/s/x.xmp").unlink()
        (root / "elsewhere").rename(root / "away")
        (root / "elsewhere").symlink_to("away")
        desk.refiler().file([refiling])
        assert (desk.said(), desk.beside()) == (ANEW, [place for _name, place in BESIDE])
        assert desk.files()["away/x.json"] == _about("elsewhere/x.json")

    def test_picture_that_cannot_be_moved_has_them_with_it(
        self, desk: Desk, refiling: Refiling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Disk.rename_new

        def rename_new(disk: Disk, old: str, new: str, **named: Any) -> None:
            if new == "x" and old == "x":
                raise OSError(errno.EIO, "Input/output error")
            rename(disk, old, new, **named)

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        _done, ((_candidate, why),) = desk.refiler().file([refiling])
        assert (why, desk.said(), desk.files()) == ("it cannot be moved: Input/output error", AS_IT_WAS, AS_FILED)
        assert desk.beside() == [place for _name, place in BESIDE]

    def test_one_that_may_have_moved_though_the_disk_says_no_comes_back(
        self, desk: Desk, refiling: Refiling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Disk.rename_new
        failing: list[bool] = []

        def rename_new(disk: Disk, old: str, new: str, **named: Any) -> None:
            moves = failing.pop() if new == "x.json" and failing else None
            if moves is not False:
                rename(disk, old, new, **named)
            if moves is not None:
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        for moves in (True, False):
            failing.append(moves)
            desk.refiler().file([refiling])
            assert failing == []
            assert (desk.said(), desk.files()) == (AS_IT_WAS, AS_FILED)

    def test_disk_that_does_not_answer_leaves_the_plan(
        self, desk: Desk, refiling: Refiling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk.records.begin([refiling])
        make_tree(Path(desk.output.root), {"dog/s": {}})
        Path(desk.output.root, "cat/s/x.xmp").rename(Path(desk.output.root, "dog/s/x.xmp"))
        monkeypatch.setattr("pigeonholed.following.beneath.folder", _raising(errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            desk.refiler().resume()
        monkeypatch.undo()
        desk.refiler().resume()
        assert (desk.said(), desk.files(), desk.beside()) == (ANEW, FILED_ANEW, list(BOTH))

    def test_one_whose_way_back_is_taken_is_recorded_where_it_is(
        self, desk: Desk, refiling: Refiling, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = Disk.rename_new

        def rename_new(disk: Disk, old: str, new: str, **named: Any) -> None:
            if old == new == "x":
                make_tree(Path(desk.output.root), {"cat/s/x.xmp": b"quick", "dog/s/x": b"quick"})
            rename(disk, old, new, **named)

        monkeypatch.setattr(Disk, "rename_new", rename_new)
        desk.refiler().file([refiling])
        files = desk.files()
        assert files.pop("cat/s/x.xmp") == files.pop("dog/s/x") == b"quick"
        assert files == {name.replace("/x", "/x-1"): content for name, content in FILED_ANEW.items()}
        assert desk.beside() == ["dog/s/x-1.xmp", "dog/s/x-1.json"]

    def test_power_cut_that_undid_only_their_moves_is_made_up_for(self, desk: Desk, refiling: Refiling) -> None:
        desk.records.begin([refiling])
        make_tree(Path(desk.output.root), {"dog/s/x.json": b"somebody's"})
        Path(desk.output.root, "cat/s/x").rename(Path(desk.output.root, "dog/s/x"))
        desk.refiler().resume()
        assert (desk.said(), desk.beside()) == (ANEW, ["dog/s/x.xmp", "elsewhere/x.json"])
        assert desk.files()["elsewhere/x.json"] == _about("elsewhere/x.json")

    def test_where_the_picture_is_gone_they_are_taken_back(self, desk: Desk, refiling: Refiling) -> None:
        desk.records.begin([refiling])
        root = Path(desk.output.root)
        make_tree(root, {"dog/s": {}})
        (root / "cat/s/x.xmp").rename(root / "dog/s/x.xmp")
        (root / "cat/s/x").unlink()
        desk.refiler().resume()
        assert (desk.said(), desk.beside()) == (AS_IT_WAS, [place for _name, place in BESIDE])
        assert desk.files() == {place: _about(place) for _name, place in BESIDE}


# -- killed at each step ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Killer:
    """Kills before or after the n-th step that changes the disk or the database."""

    left: int = -1

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name in ((os, "mkdir"), (Disk, "rename_new"), (Disk, "sync"), (Writer, "write")):
            monkeypatch.setattr(owner, name, self._stepping(getattr(owner, name)))

    def _stepping(self, original: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            self._instant()
            result = original(*arguments, **named)
            self._instant()
            return result

        return step

    def _instant(self) -> None:
        if self.left == 0:
            self.left = -1
            raise Killed
        self.left -= 1


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    killer = Killer()
    killer.install(monkeypatch)
    yield killer
    killer.left = -1


def _lives(place: Path, migrated_file: Path, killer: Killer, kills: list[int]) -> tuple[bool, Desk, Writer]:
    """Three files that are to be filed anew, by one process after another; whether the first was killed."""
    place.mkdir()
    put_database(place, migrated_file)
    killed = False
    for life, instant in enumerate([*kills, -1]):
        db = database.connect(address_in(place))
        writer = Writer(db)
        writer.start()
        output = Output.open(place / "sorted", None)
        desk = Desk(place / "inbox", output, db, Ledger(db, writer), Refilings(db, writer))
        if life == 0:
            names = (("cat/s/x", b"A"), ("cat/s/y", b"B"), ("cow/s/x", b"A"))
            for number, (name, content) in enumerate(names, 1):
                desk.file(name, number, content, [(f"s/x{end}", f"{name}{end}") for end in (".xmp", ".json")])
            make_tree(place / "sorted", {"dog/s/x": b"somebody else's"})
        killer.left = instant
        try:
            refiler = desk.refiler()
            refiler.resume()
            candidates, _ = desk.records.candidates(Choice("camera", besides=("tiny", 2)), 0, 9, 9)
            promised: set[str] = set()
            wanted = {1: "dog/s/x", 2: "cat/s/y", 3: "dog/s/x"}
            refiler.file(
                [
                    desk.refiling(one, wanted[one.arrival.id])
                    if one.arrival.id == 2
                    else desk.refiling(one, refiler.place(one, wanted[one.arrival.id], promised))
                    for one in candidates
                ]
            )
        except Killed:
            killed = True
        killer.left = -1
        if life < len(kills):
            _end(desk, writer)
    return killed, desk, writer


def _end(desk: Desk, writer: Writer) -> None:
    """What the kernel does for a dead process."""
    desk.output.disk.close()
    os.close(desk.output._lock.fd)
    writer.stop()
    desk.db.dispose()


def _judge(desk: Desk) -> None:
    files = desk.files()
    assert files.pop("dog/s/x") == b"somebody else's"
    rows = [desk.row(number) for number in (1, 2, 3)]
    assert {row["status"] for row in rows} == {Status.FILED.value}
    assert {row["destination"]: hashlib.sha256(files[row["destination"]]).hexdigest() for row in rows} == {
        row["destination"]: row["sha256"] for row in rows
    }
    beside = [place for number in (1, 2, 3) for place in desk.beside(number)]
    assert beside == [row["destination"] + end for row in rows for end in (".xmp", ".json")]
    olds = [_about(f"{name}{end}") for name in ("cat/s/x", "cat/s/y", "cow/s/x") for end in (".xmp", ".json")]
    assert [files.pop(place) for place in beside] == olds
    assert sorted(files) == ["cat/s/y", "dog/s/x-1", "dog/s/x-2"]
    assert {(row["model_version"], row["label"]) for row in rows} == {(2, "dog")}
    assert desk.predictions() == [pair for pair in NEW.ranked for _ in range(3)]
    assert desk.records.begun() == []


def test_killed_before_or_after_any_step_each_file_is_where_its_row_says(
    tmp_path: Path, migrated_file: Path, killer: Killer
) -> None:
    instant = 0
    while True:
        killed, desk, writer = _lives(tmp_path / str(instant), migrated_file, killer, [instant])
        _judge(desk)
        _end(desk, writer)
        take_database(tmp_path / str(instant))
        if not killed:
            break
        instant += 1
    assert instant > 10


def test_killed_again_while_it_takes_up_what_was_left(tmp_path: Path, migrated_file: Path, killer: Killer) -> None:
    for first in (3, 5, 7, 9):
        for second in range(8):
            _killed, desk, writer = _lives(tmp_path / f"{first}-{second}", migrated_file, killer, [first, second])
            _judge(desk)
            _end(desk, writer)
            take_database(tmp_path / f"{first}-{second}")


def _raising(code: int) -> Any:
    def call(*_arguments: Any, **_more: Any) -> None:
        raise OSError(code, os.strerror(code))

    return call

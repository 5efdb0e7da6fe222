"""The end of the line, on real folders: plan, make durable, move, confirm, in this order and no other."""

from __future__ import annotations

import errno
import json
import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers import (
    FakeLedger,
    NothingFiled,
    files_of,
    make_classified,
    make_rejected,
    make_tree,
    place_in_work,
    read_tree,
)
from mounts import small_disk
from pigeonholed import explanations
from pigeonholed.beneath import path_of
from pigeonholed.custody import Custody, Renaming
from pigeonholed.delivery import Delivery
from pigeonholed.disk import Disk
from pigeonholed.entries import Plan
from pigeonholed.explanations import explains
from pigeonholed.finishing import Finisher
from pigeonholed.images import Arrival, Handled, Placement, Reason, Status, Withdrawn
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.placing import Placer


@dataclass
class Desk:
    """A finisher with a ledger that remembers, and a disk whose syncs and renames stand in the same list."""

    inbox: Path
    output: Output
    patience: Patience
    ledger: FakeLedger = field(default_factory=FakeLedger)
    filed: list[int] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    def deliver_by(self, custody: Custody) -> None:
        self.finisher = Finisher(
            {"camera": Delivery(str(self.inbox), self.output, Placer(), custody)},
            self.ledger,  # type: ignore[arg-type]
            NothingFiled(),
            self.patience,
            lambda plans: self.filed.extend(plan.arrival.id for plan in plans),
            lambda items: self.withdrawn.extend(item.arrival.id for item in items),
            lambda plan: self.taken.append(plan.destination),
        )

    def __post_init__(self) -> None:
        self.deliver_by(Renaming(str(self.inbox), self.output))
        disk = self.output.disk
        sync, rename = disk.sync, disk.rename_new

        def recorded_sync(files: Iterable[str], folders: Iterable[str]) -> None:
            files, folders = list(files), list(folders)
            sync(files, folders)
            self.ledger.steps.append(
                ("sync", {os.path.relpath(path, self.inbox.parent) for path in [*files, *folders]})
            )

        def recorded_rename(source: str, target: str, *, target_dir: int | None = None) -> None:
            rename(source, target, target_dir=target_dir)
            if target_dir is not None:
                target = os.path.join(os.readlink(path_of(target_dir)), target)
            self.ledger.steps.append(("rename", os.path.relpath(target, self.inbox.parent)))

        disk.sync = recorded_sync  # type: ignore[method-assign]
        disk.rename_new = recorded_rename  # type: ignore[method-assign]
        make_tree(self.inbox, {})

    def arrive(self, content: bytes, path: str = "x.png", number: int = 1, **more: Any) -> Arrival:
        os.makedirs(os.path.dirname(self.inbox / path), exist_ok=True)  # the sub-folder stays in the inbox
        return place_in_work(self.output, content, path, number, **more)

    def turn(self, *handled: Handled) -> None:
        self.finisher.turn(handled)

    def finish(self, *handled: Handled) -> dict[str, bytes]:
        """A turn and the confirmation; what is then in the output."""
        self.finisher.turn(handled)
        self.finisher.settle()
        return self.files()

    def files(self) -> dict[str, bytes]:
        return files_of(self.output.root)

    def names(self) -> list[str]:
        return [name for name, _ in self.ledger.steps]


@pytest.fixture
def desk(tmp_path: Path, output: Output, patience: Patience) -> Desk:
    return Desk(tmp_path / "inbox", output, patience)


class TestOrder:
    def test_contents_and_claim_are_durable_before_the_plan_and_the_move_before_its_confirmation(
        self, desk: Desk
    ) -> None:
        arrival = desk.arrive(b"A", "s/x.png", token="t1")
        desk.finish(make_classified(arrival))
        assert desk.names() == ["sync", "plan", "rename", "sync", "filed"]
        (claimed, moved) = desk.ledger.named("sync")
        assert claimed >= {
            f"sorted/.pigeonholed/t1/{arrival.key}",
            "sorted/.pigeonholed/t1",
            "sorted/.pigeonholed",
            "inbox/s",
        }
        # The new name, the new folders that lead to it, and the old name's absence.
        assert moved >= {"sorted", "sorted/cat", "sorted/cat/s", "sorted/.pigeonholed/t1"}

    def test_one_sync_and_one_commit_serve_a_batch_and_the_one_before(self, desk: Desk) -> None:
        desk.turn(make_classified(desk.arrive(b"A", "a.png", 1, token="t1")))
        assert desk.filed == []
        desk.turn(make_classified(desk.arrive(b"B", "b.png", 2, token="t2")))
        assert desk.names() == ["sync", "plan", "rename", "sync", "filed", "plan", "rename"]
        assert {"sorted/cat", "sorted/.pigeonholed/t1", "sorted/.pigeonholed/t2"} <= desk.ledger.named("sync")[1]
        assert desk.filed == [1]
        desk.finisher.settle()
        assert desk.filed == [1, 2]

    def test_claim_of_a_copy_is_not_synced_again(self, desk: Desk) -> None:
        """It was before the copy was recorded; the inbox may be on a mount that is slow or away by now."""
        custody = Renaming(str(desk.inbox), desk.output)
        custody.copies = True
        desk.deliver_by(custody)
        desk.finish(make_classified(desk.arrive(b"A", token="t1")))
        assert "inbox" not in desk.ledger.named("sync")[0]
        assert "sorted/.pigeonholed/t1" in desk.ledger.named("sync")[0]

    def test_settling_twice_confirms_once(self, desk: Desk) -> None:
        desk.finish(make_classified(desk.arrive(b"A")))
        steps = list(desk.ledger.steps)
        desk.finisher.settle()
        assert desk.ledger.steps == steps
        assert desk.filed == [1]

    def test_empty_turn_does_nothing(self, desk: Desk) -> None:
        desk.turn()
        assert desk.ledger.steps == []

    def test_failing_sync_commits_and_moves_nothing(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        arrival = desk.arrive(b"A")

        def fail(_files: object, _folders: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(desk.output.disk, "sync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            desk.turn(make_classified(arrival))
        assert desk.ledger.steps == []
        assert os.path.exists(desk.output.work_path(arrival))

    def test_work_folder_is_removed_once_all_of_its_batch_is_filed(self, desk: Desk) -> None:
        first, second = desk.arrive(b"A", "a.png", 1, token="t1"), desk.arrive(b"B", "b.png", 2, token="t1")
        desk.finish(make_classified(first))
        assert desk.output.batch_folders() == ["t1"]
        desk.finish(make_classified(second))
        assert desk.output.batch_folders() == []


class TestPlaces:
    def test_each_outcome_goes_to_its_place_with_its_bytes(self, desk: Desk) -> None:
        files = desk.finish(
            make_classified(desk.arrive(b"A", "s/a.png", 1)),
            make_classified(desk.arrive(b"B", "s/b.png", 2), confidence=0.5),
            make_rejected(desk.arrive(b"C", "s/c.png", 3), Reason.TRUNCATED),
        )
        sidecar = json.loads(files.pop("_rejected/truncated/s/c.png.reason.json"))
        assert files == {
            "cat/s/a.png": b"A",
            "_unsure/cat/s/b.png": b"B",
            "_rejected/truncated/s/c.png": b"C",
        }
        assert sidecar["reason"] == "truncated"
        assert sidecar["path"] == "s/c.png"
        assert sidecar["inbox"] == "camera"
        assert sidecar["sha256"] == "0" * 64

    def test_plan_says_what_was_read_and_seen(self, desk: Desk) -> None:
        plans: list[Plan] = []
        desk.ledger.plan = lambda given, filed=(): plans.extend(given)  # type: ignore[method-assign, assignment]
        outcome = make_classified(desk.arrive(b"A"))
        desk.turn(outcome, make_rejected(desk.arrive(b"B", "b.png", 2)))
        assert (plans[0].prediction, plans[0].reason, plans[0].width) == (outcome.prediction, None, 640)
        assert (plans[1].prediction, plans[1].reason, plans[1].detail) == (None, Reason.UNREADABLE, "for a test")

    def test_same_name_twice_in_a_batch_gives_two_names(self, desk: Desk) -> None:
        arrivals = [desk.arrive(bytes([number]), "x.png", number) for number in range(12)]
        files = desk.finish(*map(make_classified, arrivals))
        expected = {"cat/x.png": b"\0"} | {f"cat/x-{number}.png": bytes([number]) for number in range(1, 10)}
        expected |= {f"cat/x-{arrivals[number].key[-12:]}.png": bytes([number]) for number in (10, 11)}
        assert files == expected

    def test_existing_file_is_never_overwritten(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"cat": {"x.png": b"yours"}})
        assert desk.finish(make_classified(desk.arrive(b"A"))) == {"cat/x.png": b"yours", "cat/x-1.png": b"A"}

    def test_names_that_differ_for_us_alone_are_both_kept(self, desk: Desk) -> None:
        """Composed and decomposed accents, and cases, are different names unless the file system says otherwise."""
        names = ("caf\u00e9.png", "cafe\u0301.png", "A.png", "a.png")
        handled = [make_classified(desk.arrive(name.encode(), name, number)) for number, name in enumerate(names, 1)]
        assert desk.finish(*handled) == {f"cat/{name}": name.encode() for name in names}

    def test_names_that_the_file_system_takes_for_one_become_two(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a file system for which neither case nor the composition of accents matters."""
        rename = desk.output.disk.rename_new

        def folded(name: str) -> str:
            return unicodedata.normalize("NFC", name).casefold()

        def rename_new(source: str, target: str, *, target_dir: int | None = None) -> None:
            if target_dir is not None and folded(target) in map(folded, os.listdir(path_of(target_dir))):
                raise FileExistsError(errno.EEXIST, "File exists", target)
            rename(source, target, target_dir=target_dir)

        monkeypatch.setattr(desk.output.disk, "rename_new", rename_new)
        names = ("caf\u00e9.png", "cafe\u0301.png", "A.png", "a.png")
        handled = [make_classified(desk.arrive(name.encode(), name, number)) for number, name in enumerate(names, 1)]
        rejected = [make_rejected(desk.arrive(name.encode(), name, number)) for number, name in enumerate(names, 11)]
        files = desk.finish(*handled, *rejected)
        kept = {path: content for path, content in files.items() if not path.endswith(".json")}
        assert sorted(kept.values()) == sorted(2 * [name.encode() for name in names])
        assert "cat/a-1.png" in kept
        assert all(f"{path}.reason.json" in files for path in kept if path.startswith("_rejected"))

    def test_no_folder_is_listed_to_find_a_free_name(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """A class folder may hold a million files."""
        make_tree(Path(desk.output.root), {"cat": {"x.png": b"", "x-1.png": b""}})
        handled = [
            make_classified(desk.arrive(b"A", number=1)),
            make_classified(desk.arrive(b"B", "s/x.png", 2)),
            make_rejected(desk.arrive(b"C", number=3)),
        ]
        with monkeypatch.context() as patch:
            for listing in ("listdir", "scandir", "walk"):
                patch.setattr(os, listing, lambda *_: pytest.fail("a folder was listed"))
            desk.turn(*handled)
            desk.finisher.settle()
        assert desk.files()["cat/x-2.png"] == b"A"

    def test_file_with_another_name_is_filed_and_its_row_says_so(self, desk: Desk) -> None:
        classified = make_classified(desk.arrive(b"A"))
        fingerprint = replace(classified.fingerprint, names=3)
        plans: list[Plan] = []
        original = desk.ledger.plan
        desk.ledger.plan = lambda some, filed=(): (plans.extend(some), original(some, filed))  # type: ignore[func-returns-value, method-assign, assignment]
        desk.turn(make_classified(desk.arrive(b"B", "y.png", 2)), replace(classified, fingerprint=fingerprint))
        assert [plan.detail for plan in plans] == [
            None,
            "the file has 3 names (hard links): through another it can still be changed",
        ]

    def test_dangling_link_at_the_name_is_left_alone(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"cat": {}})
        os.symlink("nowhere", os.path.join(desk.output.root, "cat/x.png"))
        desk.turn(make_classified(desk.arrive(b"A")))
        assert sorted(os.listdir(os.path.join(desk.output.root, "cat"))) == ["x-1.png", "x.png"]

    def test_name_that_an_outsider_takes_between_plan_and_move_is_planned_anew_before_the_move(
        self, desk: Desk
    ) -> None:
        original = desk.ledger.plan

        def plan(plans: Sequence[Plan], filed: Sequence[Arrival] = ()) -> None:
            original(plans, filed)
            make_tree(Path(desk.output.root), {plan.destination: b"yours" for plan in plans if not filed and first})
            first.clear()

        first = [True]
        desk.ledger.plan = plan  # type: ignore[method-assign]
        assert desk.finish(make_classified(desk.arrive(b"A"))) == {"cat/x.png": b"yours", "cat/x-1.png": b"A"}
        assert desk.ledger.named("plan") == [["cat/x.png"], ["cat/x-1.png"]]
        assert desk.names() == ["sync", "plan", "plan", "rename", "sync", "filed"]
        assert desk.filed == [1]
        assert desk.taken == ["cat/x.png"]

    @pytest.mark.parametrize("in_the_way", ["cat", "cat/s", "_unsure"])
    def test_file_in_the_way_of_a_folder_does_not_stop_the_daemon(self, desk: Desk, in_the_way: str) -> None:
        """Somebody drops a picture named `s`, and later a folder `s`; or two inboxes share an output."""
        make_tree(Path(desk.output.root), {in_the_way: b"yours"})
        files = desk.finish(
            make_classified(desk.arrive(b"A", "s/x.png", 1)),
            make_classified(desk.arrive(b"B", "s/x.png", 2), confidence=0.1),
        )
        assert files[in_the_way] == b"yours"
        assert sorted(files.values()) == [b"A", b"B", b"yours"]
        assert sorted(desk.filed) == [1, 2]

    def test_file_that_comes_into_the_way_after_the_plan_does_not_stop_the_daemon(self, desk: Desk) -> None:
        files = desk.finish(
            make_classified(desk.arrive(b"A", "t", 1)),
            make_classified(desk.arrive(b"B", "t/s/x.png", 2)),
            make_classified(desk.arrive(b"C", "t/y.png", 3)),
        )
        assert files == {"cat/t": b"A", "cat/t-1/s/x.png": b"B", "cat/t-1/y.png": b"C"}
        assert sorted(desk.filed) == [1, 2, 3]

    def test_rejected_file_in_the_way_of_the_folder_of_another_does_not_stop_the_daemon(self, desk: Desk) -> None:
        files = desk.finish(
            make_rejected(desk.arrive(b"A", "t", 1)),
            make_rejected(desk.arrive(b"B", "t/x.png", 2)),
            make_rejected(desk.arrive(b"C", "t/s/x.png", 3)),
        )
        place = "_rejected/unreadable"
        assert {path: content for path, content in files.items() if not path.endswith(".json")} == {
            f"{place}/t": b"A",
            f"{place}/t-1/x.png": b"B",
            f"{place}/t-1/s/x.png": b"C",
        }
        assert len(files) == 6
        assert sorted(desk.filed) == [1, 2, 3]
        assert desk.output.batch_folders() == []

    def test_rejected_file_whose_folder_is_a_file_is_filed_with_its_sidecar(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {"_rejected/unreadable/s": b"yours"})
        files = desk.finish(make_rejected(desk.arrive(b"A", "s/x.png")))
        assert set(files) == {
            "_rejected/unreadable/s",
            "_rejected/unreadable/s-1/x.png",
            "_rejected/unreadable/s-1/x.png.reason.json",
        }
        assert desk.output.batch_folders() == []

    def test_file_in_flight_is_filed_on_a_disk_that_is_full(self, tmp_path: Path, patience: Patience) -> None:
        with small_disk(tmp_path) as disk:
            output = Output.open(disk / "sorted", None)
            desk = Desk(tmp_path / "inbox", output, patience)
            make_tree(disk, {"sorted": {"cat": {}}})
            classified = make_classified(desk.arrive(b"A"))
            with pytest.raises(OSError, match="No space left"):
                (disk / "filling").write_bytes(bytes(1 << 21))
            assert desk.finish(classified) == {"cat/x.png": b"A"}
            output.close()

    def test_full_disk_is_waited_for(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        faults = [errno.ENOSPC] * 3
        original = os.mkdir

        def mkdir(path: str, *more: Any, **named: Any) -> None:
            if faults:
                raise OSError(faults.pop(), "No space left on device")
            original(path, *more, **named)

        arrivals = [desk.arrive(b"A", "a.png", 1), desk.arrive(b"B", "b.png", 2)]
        monkeypatch.setattr(os, "mkdir", mkdir)
        files = desk.finish(make_classified(arrivals[0]), make_rejected(arrivals[1]))
        assert {"cat/a.png", "_rejected/unreadable/b.png"} <= set(files)


class TestSidecars:
    _PLACE = "_rejected/unsupported"

    def test_sidecar_is_durable_before_it_has_its_name_and_its_name_before_its_row_says_filed(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A", token="t1")
        desk.finish(make_rejected(arrival, Reason.UNSUPPORTED))
        assert desk.names() == ["sync", "plan", "rename", "rename", "sync", "filed"]
        first, second = desk.ledger.named("sync")
        assert f"sorted/.pigeonholed/t1/{arrival.key}.json" in first
        assert f"sorted/{self._PLACE}" in second
        assert desk.output.batch_folders() == []

    def test_sidecar_that_could_not_be_written_in_time_is_durable_before_it_has_its_name(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arrival = desk.arrive(b"A", token="t1")
        faults, original = [errno.ENOSPC], explanations._write

        def half(draft: str, plan: Plan) -> None:
            original(draft, plan)
            if faults:
                os.truncate(draft, 5)
                raise OSError(faults.pop(), "No space left on device")

        monkeypatch.setattr(explanations, "_write", half)
        files = desk.finish(make_rejected(arrival, Reason.UNSUPPORTED))
        assert json.loads(files[f"{self._PLACE}/x.png.reason.json"])["arrival"] == arrival.key
        assert desk.names() == ["sync", "plan", "sync", "rename", "rename", "sync", "filed"]
        draft = f"sorted/.pigeonholed/t1/{arrival.key}.json"
        assert [draft in synced for synced in desk.ledger.named("sync")] == [False, True, False]

    def test_sidecars_of_files_that_are_resumed_are_durable_before_they_have_their_names(self, desk: Desk) -> None:
        arrivals = [desk.arrive(b"A", f"{number}.png", number, token="t1") for number in (1, 2)]
        print_ = make_rejected(arrivals[0]).fingerprint
        plans = [
            Plan(arrival, print_, Placement.REJECTED, f"{self._PLACE}/{arrival.id}.png", reason=Reason.UNSUPPORTED)
            for arrival in arrivals
        ]
        desk.finisher.resume(plans)
        assert desk.names() == ["sync", *["rename"] * 4]
        assert desk.ledger.named("sync")[0] == {f"sorted/.pigeonholed/t1/{arrival.key}.json" for arrival in arrivals}

    @pytest.mark.parametrize("users_first", [True, False])
    def test_users_own_file_of_that_name_and_the_sidecar_both_stay(self, desk: Desk, users_first: bool) -> None:
        outcomes = [
            make_rejected(desk.arrive(b"A", "x.txt", 1), Reason.UNSUPPORTED),
            make_rejected(desk.arrive(b'{"mine": 1}', "x.txt.reason.json", 2), Reason.UNSUPPORTED),
        ]
        files = desk.finish(*(reversed(outcomes) if users_first else outcomes))
        explained = [path.removesuffix(".reason.json") for path in files if path.endswith(".reason.json")]
        contents = {content: path for path, content in files.items()}
        assert contents[b"A"] in explained
        assert contents[b'{"mine": 1}'] in explained
        assert len(files) == 4
        assert json.loads(files[contents[b"A"] + ".reason.json"])["path"] == "x.txt"
        if not users_first:
            assert contents[b"A"] == f"{self._PLACE}/x.txt"
            assert contents[b'{"mine": 1}'] == f"{self._PLACE}/x.txt.reason-1.json"

    def test_file_beside_a_foreign_sidecar_gets_another_name(self, desk: Desk) -> None:
        make_tree(Path(desk.output.root), {self._PLACE: {"x.png.reason.json": b"yours"}})
        files = desk.finish(make_rejected(desk.arrive(b"A"), Reason.UNSUPPORTED))
        assert set(files) == {
            f"{self._PLACE}/x.png.reason.json",
            f"{self._PLACE}/x-1.png",
            f"{self._PLACE}/x-1.png.reason.json",
        }
        assert files[f"{self._PLACE}/x.png.reason.json"] == b"yours"

    def test_no_sidecar_is_left_at_a_name_that_was_lost_to_an_outsider(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A")
        original = desk.output.disk.rename_new

        def rename(source: str, target: str, **folders: Any) -> None:
            if target == "x.png":
                make_tree(Path(desk.output.root), {f"{self._PLACE}/x.png": b"yours"})
            original(source, target, **folders)

        desk.output.disk.rename_new = rename  # type: ignore[method-assign]
        files = desk.finish(make_rejected(arrival, Reason.UNSUPPORTED))
        assert set(files) == {
            f"{self._PLACE}/x.png",
            f"{self._PLACE}/x-1.png",
            f"{self._PLACE}/x-1.png.reason.json",
        }

    def test_sidecar_of_an_earlier_attempt_at_the_same_arrival_is_kept(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A")
        mine = json.dumps({"arrival": arrival.key}).encode()
        place = f"{self._PLACE}/x.png"
        plan = Plan(
            arrival,
            make_rejected(arrival).fingerprint,
            Placement.REJECTED,
            place,
            reason=Reason.UNSUPPORTED,
            detail="d",
        )
        make_tree(Path(desk.output.root), {f"{place}.reason.json": mine})
        desk.finisher.resume([plan])
        desk.finisher.settle()
        assert desk.files() == {place: b"A", f"{place}.reason.json": mine}
        assert desk.output.batch_folders() == []  # with what was to be written
        assert desk.filed == [1]


class TestWithdrawn:
    def test_file_that_changed_since_it_was_read_goes_back_and_is_not_planned(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A", "s/x.png")
        with open(desk.output.work_path(arrival), "ab") as file:
            file.write(b"more")
        desk.turn(make_classified(arrival))
        assert read_tree(desk.inbox) == {"s": {"x.png": b"Amore"}}
        assert desk.ledger.named("plan") == []
        assert desk.ledger.named("vanished") == [[1]]
        assert desk.withdrawn == [1]
        assert desk.output.batch_folders() == []

    def test_giving_back_is_durable_before_the_row_is_closed(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A", "s/x.png", token="t1")
        desk.turn(Withdrawn(arrival, Status.VANISHED, "it was still being written to"))
        assert desk.names() == ["rename", "sync", "vanished"]
        assert desk.ledger.named("sync") == [{"inbox/s", "sorted/.pigeonholed/t1"}]

    def test_file_goes_back_beside_one_that_has_come_meanwhile(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A")
        make_tree(desk.inbox, {"x.png": b"new"})
        desk.turn(Withdrawn(arrival, Status.VANISHED, "it was still being written to"))
        assert read_tree(desk.inbox) == {"x.png": b"new", "x-1.png": b"A"}

    def test_file_goes_back_into_a_folder_that_was_removed_meanwhile(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A", "s/x.png")
        os.rmdir(desk.inbox / "s")
        desk.turn(Withdrawn(arrival, Status.VANISHED, "it was still being written to"))
        assert read_tree(desk.inbox) == {"s": {"x.png": b"A"}}

    def test_folder_that_was_claimed_by_mistake_goes_back_whole(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A")
        os.unlink(desk.output.work_path(arrival))
        make_tree(Path(desk.output.work_path(arrival)), {"inner.png": b"I"})
        desk.turn(Withdrawn(arrival, Status.VANISHED, "it was still being written to"))
        assert read_tree(desk.inbox) == {"x.png": {"inner.png": b"I"}}

    def test_file_that_is_gone_from_the_work_folder_is_lost_and_told(self, desk: Desk) -> None:
        arrival = desk.arrive(b"A")
        os.unlink(desk.output.work_path(arrival))
        desk.turn(make_classified(arrival))
        assert desk.ledger.named("lost") == [[1]]
        assert desk.ledger.named("plan") == []
        assert desk.withdrawn == [1]

    def test_rest_of_a_batch_is_filed_all_the_same(self, desk: Desk) -> None:
        good, bad = desk.arrive(b"A", "a.png", 1), desk.arrive(b"B", "b.png", 2)
        os.unlink(desk.output.work_path(bad))
        files = desk.finish(make_classified(bad), make_classified(good))
        assert files == {"cat/a.png": b"A"}
        assert (desk.filed, desk.withdrawn) == ([1], [2])

    def test_file_for_which_no_name_is_free_keeps_its_row(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else it would stay in the work folder, where no row that lives looks for it."""
        arrival = desk.arrive(b"A")

        def taken(_disk: Disk, _source: str, target: str) -> None:
            raise FileExistsError(target)

        monkeypatch.undo()
        desk.output.disk.rename_new = partial(taken, desk.output.disk)  # type: ignore[method-assign]
        with pytest.raises(FileExistsError, match="no name is free"):
            desk.turn(Withdrawn(arrival, Status.VANISHED, "it was still being written to"))
        assert desk.ledger.steps == []
        assert Path(desk.output.work_path(arrival)).read_bytes() == b"A"


class TestAway:
    def test_what_was_synced_while_the_output_was_away_is_synced_again(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names that led nowhere were passed over; the plan must not be committed on that."""
        arrival = desk.arrive(b"A")
        away = [True, True]
        monkeypatch.setattr(Disk, "holds", lambda _disk, _root: not (away and away.pop()))
        assert desk.finish(make_classified(arrival)) == {"cat/x.png": b"A"}
        assert desk.names()[:3] == ["sync", "sync", "plan"]
        assert desk.ledger.named("sync")[0] == desk.ledger.named("sync")[1]

    def test_no_folder_is_made_where_a_mount_should_be(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        arrival = desk.arrive(b"A")
        root, elsewhere = desk.output.root, f"{desk.output.root}-away"
        plan, found = desk.ledger.plan, []

        def plan_and_lose_the_mount(plans: Sequence[Plan], filed: Sequence[Arrival] = ()) -> None:
            plan(plans, filed)
            os.rename(root, elsewhere)
            os.mkdir(root)

        def it_comes_back(_stage: str, _error: OSError) -> None:
            if os.path.exists(elsewhere):
                found.append(read_tree(root))
                os.rename(elsewhere, root)

        monkeypatch.setattr(desk.ledger, "plan", plan_and_lose_the_mount)
        desk.patience = replace(desk.patience, on_retry=it_comes_back)
        desk.deliver_by(Renaming(str(desk.inbox), desk.output))
        assert desk.finish(make_classified(arrival)) == {"cat/x.png": b"A"}
        assert found == [{}]

    def test_path_that_is_too_long_below_its_class_folder_is_planned_anew(self, desk: Desk) -> None:
        """Folder by folder we would come there; whoever has its path could not, the next start included."""
        room = 4095 - len(f"{desk.inbox}//x.png")  # in the inbox it just fits
        deep = "/".join(["d" * 200] * 20)[:room]
        files = desk.finish(make_classified(place_in_work(desk.output, b"A", f"{deep}/x.png")))
        assert files == {"cat/x.png": b"A"}

    def test_plan_whose_output_is_deeper_now_is_made_anew(self, desk: Desk) -> None:
        """Folder by folder its place could be reached, and by nobody who names it."""
        arrival = desk.arrive(b"A", "x.png")
        plan = Plan(arrival, make_classified(arrival).fingerprint, Placement.SORTED, "cat/" + "d" * 200 + "/x.png")
        desk.finisher.resume([replace(plan, destination="cat/" + "/".join(["d" * 200] * 25) + "/x.png")])
        assert desk.files() == {"cat/x.png": b"A"}

    def test_name_that_is_too_long_for_the_file_system_is_planned_anew(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename = desk.output.disk.rename_new
        faults = [errno.ENAMETOOLONG]

        def too_long_at_first(source: str, target: str, **more: Any) -> None:
            if faults:
                raise OSError(faults.pop(), "File name too long")
            rename(source, target, **more)

        monkeypatch.setattr(desk.output.disk, "rename_new", too_long_at_first)
        assert desk.finish(make_classified(desk.arrive(b"A"))) == {"cat/x-1.png": b"A"}


class TestExplanations:
    @pytest.mark.parametrize("kind", ["folder", "link", "pipe", "socket", "list", "deep", "text", "missing"])
    def test_what_is_no_explanation_of_ours_is_somebody_elses(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "x.reason.json"
        contents = {"list": b"[]", "deep": b"[" * 100_000, "text": b"a user's own"}
        if kind in contents:
            path.write_bytes(contents[kind])
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / "elsewhere")
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        before = os.listdir("/proc/self/fd")
        assert not explains(str(path), "k")
        assert os.listdir("/proc/self/fd") == before

    @pytest.mark.parametrize("ours", [True, False])
    def test_explanation_that_may_not_be_read_is_ours_if_its_owner_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
    ) -> None:
        """What may be ours is waited for; a file of somebody else gives no answer however long one waits."""
        (tmp_path / "x").write_bytes(b'{"arrival": "k"}')

        def refuse(*_arguments: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
        if ours:
            with pytest.raises(PermissionError):
                explains(str(tmp_path / "x"), "k")
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert not explains(str(tmp_path / "x"), "k")

    def test_disk_that_does_not_answer_is_no_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sidecar of ours would be taken for somebody else's, and its file get another name."""
        (tmp_path / "x").write_bytes(b'{"arrival": "k"}')
        assert explains(str(tmp_path / "x"), "k")

        def fail(_fd: int, _count: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "read", fail)
        with pytest.raises(OSError, match="Input/output error"):
            explains(str(tmp_path / "x"), "k")

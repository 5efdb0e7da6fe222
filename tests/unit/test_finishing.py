"""The end of the line, on real folders: plan, make durable, move, confirm, in this order and no other."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import (
    FakeLedger,
    files_of,
    make_classified,
    make_rejected,
    make_tree,
    place_in_work,
    read_tree,
)
from pigeonholed.beneath import path_of
from pigeonholed.finishing import Delivery, Finisher
from pigeonholed.images import Arrival, Handled, Placement, Reason, Status, Withdrawn
from pigeonholed.ledger import Plan
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

    def __post_init__(self) -> None:
        self.finisher = Finisher(
            {"camera": Delivery(str(self.inbox), self.output, Placer())},
            self.ledger,  # type: ignore[arg-type]
            self.patience,
            lambda plans: self.filed.extend(plan.arrival.id for plan in plans),
            lambda items: self.withdrawn.extend(item.arrival.id for item in items),
            lambda plan: self.taken.append(plan.destination),
        )
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

    def test_sidecar_is_durable_before_its_row_says_filed(self, desk: Desk) -> None:
        desk.finish(make_rejected(desk.arrive(b"A"), Reason.UNSUPPORTED))
        assert f"sorted/{self._PLACE}/x.png.reason.json" in desk.ledger.named("sync")[1]
        assert desk.output.batch_folders() == []

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

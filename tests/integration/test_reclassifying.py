"""Another look at what is filed: which pictures, by which model, what follows, and what is left alone."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from helpers import FakeClassifier, FakeClock, files_of, make_arrival, make_served, make_tree, png
from pigeonholed import tables
from pigeonholed.bundle import Bundle
from pigeonholed.decoding import Demand
from pigeonholed.delivery import Delivery
from pigeonholed.entries import Plan
from pigeonholed.errors import Unavailable
from pigeonholed.images import Fingerprint, Placement, Prediction
from pigeonholed.ledger import Ledger
from pigeonholed.lone_thread import LoneThread
from pigeonholed.output import Output
from pigeonholed.placing import Placer
from pigeonholed.reclassifying import Manner, Models, Reclassifier, UnknownInbox, Wanted
from pigeonholed.refiling import Refiler
from pigeonholed.refilings import Refilings
from pigeonholed.serving import Policy, Served
from pigeonholed.writer import Writer
from running import until

MTIME_NS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9


@dataclass
class Store:
    """Knows only which version is current."""

    version: int | None = 2

    def current(self, name: str) -> int | None:
        return self.version


@dataclass
class Desk:
    """Filed pictures, and a model that calls cats dogs."""

    inbox: Path
    output: Output
    db: Engine
    ledger: Ledger
    writer: Writer
    template: str = "{label}/{subdir}/{name}"
    min_confidence: float | None = None
    classifier: FakeClassifier = field(default_factory=lambda: FakeClassifier(labels=("dog", "cat")))
    store: Store = field(default_factory=Store)
    clock: FakeClock = field(default_factory=FakeClock)
    loaded: list[tuple[str, int | None]] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    counted: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    batch: int = 8
    max_bytes: int = 10_000
    _made: list[Reclassifier] = field(default_factory=list)

    def file(
        self,
        path: str = "x.png",
        number: int = 1,
        *,
        colour: str = "red",
        label: str = "cat",
        destination: str | None = "",
        placement: Placement = Placement.SORTED,
        stays: bool = False,
    ) -> Path:
        """A picture that version 1 filed; returns where it is."""
        content = png(colour, mark=number)
        arrival = make_arrival(path, number, size=len(content), mtime_ns=MTIME_NS)
        fingerprint = Fingerprint(hashlib.sha256(content).hexdigest(), len(content), MTIME_NS)
        place = destination or f"{label}/{path}"
        self.ledger.claim([arrival])
        prediction = Prediction("tiny", 1, ((label, 0.9),))
        self.ledger.plan([Plan(arrival, fingerprint, placement, place, prediction, width=8, height=8)])
        self.ledger.confirm([arrival])
        root = self.inbox if stays else Path(self.output.root)
        if stays:
            with self.db.begin() as connection:
                connection.execute(sa.update(tables.images).values(destination=None))
        make_tree(root, {path if stays else place: content})
        return root / (path if stays else place)

    def reclassifier(self) -> Reclassifier:
        refilings = Refilings(self.db, self.writer)
        deliveries = {"camera": Delivery(str(self.inbox), self.output, Placer(self.template))}
        made = Reclassifier(
            refilings,
            Refiler(refilings, deliveries),
            deliveries,
            {"camera": Manner("tiny", self._demand, Policy(self.min_confidence, 2))},
            Models(self.store, self._load, self._record),  # type: ignore[arg-type]
            self.batch,
            clock=self.clock,
        )
        made.on_results = lambda inbox, counts: self.counted.append((inbox, {k.value: v for k, v in counts.items()}))
        self._made.append(made)
        return made

    def _demand(self, served: Served) -> Demand:
        wants_date = "{date" in self.template
        return Demand(served.bundle.manifest.pixel_spec, 10_000, self.max_bytes, wants_date=wants_date)

    def _load(self, name: str, version: int | None) -> Served:
        self.threads.add(threading.get_ident())
        self.loaded.append((name, version))
        return make_served(self.classifier, name=name, version=version or 0)

    def _record(self, bundle: Bundle) -> None:
        self.recorded.append(bundle.version)

    def look(self, **wanted: Any) -> list[dict[str, Any]]:
        """All pages; an entry for each file."""
        reclassifier, files = self.reclassifier(), []
        page: dict[str, Any] = {"after": 0, "through": None}
        while page["after"] != page["through"]:
            page = reclassifier.page(Wanted("camera", after=page["after"], through=page["through"], **wanted))
            files += page["files"]
        return files

    def results(self, **wanted: Any) -> list[tuple[str, str | None]]:
        return [(file["result"], file["reason"]) for file in self.look(**wanted)]

    def rows(self) -> list[dict[str, Any]]:
        with self.db.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(tables.images)).mappings()]

    def files(self) -> set[str]:
        return set(files_of(self.output.root))

    def close(self) -> None:
        for made in self._made:
            made.close()


@pytest.fixture
def desk(tmp_path: Path, output: Output, ledger: Ledger, db: Engine, writer: Writer) -> Iterator[Desk]:
    desk = Desk(make_tree(tmp_path / "inbox", {}), output, db, ledger, writer)
    yield desk
    desk.close()


class TestResults:
    def test_picture_of_another_class_moves_there_and_its_row_says_all_that_is_new(self, desk: Desk) -> None:
        desk.file("a/x.png")
        (entry,) = desk.look()
        assert {key: entry[key] for key in ("image", "inbox", "path", "result", "reason", "destination")} == {
            "image": 1,
            "inbox": "camera",
            "path": "a/x.png",
            "result": "moved",
            "reason": None,
            "destination": "dog/a/x.png",
        }
        (row,) = desk.rows()
        assert (row["model"], row["model_version"], row["label"], row["status"]) == ("tiny", 2, "dog", "filed")
        assert desk.files() == {"dog/a/x.png"}
        assert desk.recorded == [2], "no row names a model that was never recorded"
        assert desk.counted == [("camera", {"moved": 1})]

    def test_picture_that_is_what_it_was_stays_under_the_very_name_that_it_has(self, desk: Desk) -> None:
        """It may have a number, because a name was taken that is free by now."""
        desk.file(label="dog", destination="dog/x-3.png")
        assert desk.results() == [("unchanged", None)]
        assert desk.files() == {"dog/x-3.png"}
        assert desk.rows()[0]["model_version"] == 2

    def test_picture_whose_folder_had_to_be_gone_around_is_not_moved_again(self, desk: Desk) -> None:
        desk.file(label="dog", destination="dog-1/x.png")
        make_tree(Path(desk.output.root), {"dog": b"somebody else's"})
        assert desk.results() == [("unchanged", None)]

    def test_template_without_the_label_renews_in_place(self, desk: Desk) -> None:
        desk.template = "{date:%Y}/{name}"
        desk.file(destination="2026/x.png")
        (entry,) = desk.look()
        assert (entry["result"], entry["label"], entry["destination"]) == ("renewed", "dog", "2026/x.png")
        assert desk.rows()[0]["label"] == "dog"

    def test_template_with_the_version_moves_what_has_the_same_label(self, desk: Desk) -> None:
        desk.template = "{label}/v{version}/{name}"
        desk.file(label="dog", destination="dog/v1/x.png")
        assert desk.results() == [("moved", None)]
        assert desk.files() == {"dog/v2/x.png"}

    def test_date_is_that_of_the_row_however_often_the_file_was_touched(self, desk: Desk) -> None:
        desk.template = "{label}/{date:%Y-%m-%d}/{name}"
        desk.file(destination="cat/2026-03-01/x.png")
        desk.look()
        assert desk.files() == {"dog/2026-03-01/x.png"}

    @pytest.mark.parametrize(
        ("least", "before", "after"),
        [(1.0, "cat/x.png", "_unsure/dog/x.png"), (0.1, "_unsure/dog/x.png", "dog/x.png")],
    )
    def test_threshold_of_the_inbox_decides_where_it_goes(
        self, desk: Desk, least: float, before: str, after: str
    ) -> None:
        desk.min_confidence = least
        unsure = before.startswith("_")
        placement = Placement.UNSURE if unsure else Placement.SORTED
        desk.file(label="dog" if unsure else "cat", destination=before, placement=placement)
        (entry,) = desk.look()
        assert (desk.files(), entry["destination"]) == ({after}, after)
        assert desk.rows()[0]["outcome"] == ("sorted" if unsure else "unsure")

    def test_picture_that_was_never_moved_is_read_in_its_inbox_and_only_its_row_changes(self, desk: Desk) -> None:
        """As for `action = "none"`."""
        picture = desk.file(stays=True)
        (entry,) = desk.look()
        assert (entry["result"], entry["destination"]) == ("renewed", None)
        assert (desk.rows()[0]["label"], desk.rows()[0]["destination"]) == ("dog", None)
        assert picture.exists()

    def test_dry_run_says_the_same_and_changes_nothing(self, desk: Desk) -> None:
        desk.file("x.png", 1)
        desk.file("y.png", 2, label="dog")
        desk.file("z.png", 3).unlink()
        before = desk.rows()
        said = desk.look(dry_run=True)
        assert (desk.rows(), desk.files()) == (before, {"cat/x.png", "dog/y.png"})
        assert (desk.recorded, desk.counted) == ([], [])
        assert said == desk.look()


class TestLeft:
    @pytest.mark.parametrize(
        ("what", "why"),
        [
            ("gone", "it is not where it was filed"),
            ("edited", "its content has changed since it was filed"),
            ("damaged", "its content has changed since it was filed"),
            ("large", "its content has changed since it was filed"),
            ("limited", "it cannot be looked at (too-large): "),
            ("link", "it was replaced by a link"),
            ("folder is a link", "a link or a file is on the way to where it was filed"),
            ("folder", "it was still being written to"),
            ("no answer", "it cannot be looked at (model-error): the model gave no finite answer"),
        ],
    )
    def test_what_cannot_be_judged_is_left_as_it_is_and_named(self, desk: Desk, what: str, why: str) -> None:
        picture = desk.file()
        before = desk.rows()
        match what:
            case "gone":
                picture.unlink()
            case "edited":
                picture.write_bytes(png("blue"))
            case "damaged":
                picture.write_bytes(b"no picture at all")
            case "large":
                picture.write_bytes(b"x" * 20_000)
            case "limited":
                desk.max_bytes = 10
            case "link":
                picture.rename(desk.inbox / "x.png")
                picture.symlink_to(desk.inbox / "x.png")
            case "folder is a link":
                picture.parent.rename(desk.inbox / "cats")
                picture.parent.symlink_to(desk.inbox / "cats")
            case "folder":
                picture.unlink()
                picture.mkdir()
            case "no answer":
                desk.classifier.answer = lambda pixels: np.full((len(pixels), 2), np.nan, np.float32)
        ((result, reason),) = desk.results()
        assert result == "left"
        assert str(reason).startswith(why)
        assert desk.rows() == before
        assert "dog/x.png" not in desk.files()

    def test_changed_bytes_are_not_even_decoded(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that were filed did no harm; of these nobody knows."""
        desk.file().write_bytes(png("blue"))
        monkeypatch.setattr("pigeonholed.reexamining.decode_here", lambda *_arguments: pytest.fail("decoded"))
        assert desk.results() == [("left", "its content has changed since it was filed")]

    def test_picture_that_changes_while_the_model_looks_is_left(self, desk: Desk) -> None:
        picture = desk.file()
        answer = desk.classifier.answer

        def edit(pixels: Any) -> Any:
            picture.write_bytes(b"edited")
            return answer(pixels)

        desk.classifier.answer = edit
        assert desk.results() == [("left", "its content has changed since it was filed")]

    def test_picture_that_goes_while_the_model_looks_is_left(self, desk: Desk) -> None:
        picture = desk.file()
        answer = desk.classifier.answer

        def remove(pixels: Any) -> Any:
            picture.unlink()
            picture.parent.rmdir()
            return answer(pixels)

        desk.classifier.answer = remove
        assert desk.results() == [("left", "its content has changed since it was filed")]

    def test_picture_that_the_disk_does_not_give_is_left(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        desk.file()

        def fail(*_arguments: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr("pigeonholed.reexamining.examine", fail)
        assert desk.results() == [("left", "it cannot be read: Too many open files")]

    def test_what_a_person_has_reviewed_is_not_even_looked_at(self, desk: Desk) -> None:
        desk.file()
        with desk.db.begin() as connection:
            values = {"image_id": 1, "label": "cat", "reviewed_at": datetime.now(UTC)}
            connection.execute(tables.reviews.insert().values(values))
        before = desk.rows()
        assert (desk.look(everything=True), desk.rows()) == ([], before)

    def test_files_of_an_output_that_is_away_are_not_said_to_be_gone(self, desk: Desk) -> None:
        desk.file()
        os.rename(desk.output.root, f"{desk.output.root}-away")
        with pytest.raises(Unavailable, match=r"is away.* Nothing was changed"):
            desk.look()
        os.rename(f"{desk.output.root}-away", desk.output.root)
        assert desk.results() == [("moved", None)]


class TestPages:
    def test_second_run_finds_nothing_left_to_do_unless_all_is_asked_for(self, desk: Desk) -> None:
        desk.file()
        assert desk.results() == [("moved", None)]
        assert desk.results() == []
        assert desk.results(everything=True) == [("unchanged", None)]

    def test_broken_off_after_a_page_the_next_run_goes_on_with_the_rest(self, desk: Desk) -> None:
        for number in range(1, 6):
            desk.file(f"{number}.png", number)
        desk.batch = 2
        desk.classifier.answer = _slow(desk, desk.classifier.answer)
        page = desk.reclassifier().page(Wanted("camera"))
        assert (len(page["files"]), page["after"], page["through"]) == (2, 2, 5)
        assert len(desk.results()) == 3
        assert desk.files() == {f"dog/{number}.png" for number in range(1, 6)}

    def test_turn_ends_amid_a_batch_of_pictures_that_take_long_but_not_without_one(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in (1, 2, 3):
            desk.file(f"{number}.png", number)
        from pigeonholed import reexamining

        decode = reexamining.decode_here
        monkeypatch.setattr(reexamining, "decode_here", lambda *given: (desk.clock.advance(60), decode(*given))[1])
        page = desk.reclassifier().page(Wanted("camera"))
        assert ([file["image"] for file in page["files"]], page["after"]) == ([1], 1)

    def test_what_is_filed_during_a_run_is_not_in_it(self, desk: Desk) -> None:
        desk.file("x.png", 1)
        desk.batch = 1
        desk.classifier.answer = _slow(desk, desk.classifier.answer)
        reclassifier = desk.reclassifier()
        first = reclassifier.page(Wanted("camera"))
        desk.file("y.png", 2)
        assert first["after"] == first["through"] == 1

    def test_unknown_inbox_is_wrong_usage(self, desk: Desk) -> None:
        with pytest.raises(UnknownInbox, match="there is no inbox 'x'; there are camera"):
            desk.reclassifier().prepare(Wanted("x"))


class TestModel:
    def test_one_thread_loads_and_asks_it_once_for_all_pages(self, desk: Desk) -> None:
        for number in (1, 2, 3):
            desk.file(f"{number}.png", number)
        desk.batch = 1
        answer = desk.classifier.answer

        def noted(pixels: Any) -> Any:
            desk.threads.add(threading.get_ident())
            return _slow(desk, answer)(pixels)

        desk.classifier.answer = noted
        reclassifier = desk.reclassifier()
        reclassifier.prepare(Wanted("camera"))
        for after in (0, 1, 2):
            asking = threading.Thread(target=reclassifier.page, args=(Wanted("camera", version=2, after=after),))
            asking.start()
            asking.join()
        assert desk.loaded == [("tiny", 2)]
        assert desk.recorded == [2]
        assert len(desk.threads) == 1
        assert threading.get_ident() not in desk.threads
        assert len(desk.files()) == 3

    def test_another_version_or_another_model_is_loaded_in_its_place(self, desk: Desk) -> None:
        desk.file()
        reclassifier = desk.reclassifier()
        for wanted in ({}, {"version": 3}, {"model": "other"}):
            reclassifier.page(Wanted("camera", **wanted))
        assert desk.loaded == [("tiny", 2), ("tiny", 3), ("other", 2)]
        assert (desk.rows()[0]["model"], desk.rows()[0]["model_version"]) == ("other", 2)

    def test_closed_it_takes_no_more_pages_and_changes_nothing_more(self, desk: Desk) -> None:
        desk.file()
        before = desk.rows()
        reclassifier = desk.reclassifier()
        asked, go_on = threading.Event(), threading.Event()
        answer = desk.classifier.answer
        refused: list[str] = []

        def held_up(pixels: Any) -> Any:
            asked.set()
            go_on.wait(30)
            return answer(pixels)

        def ask() -> None:
            try:
                reclassifier.page(Wanted("camera"))
            except Unavailable as error:
                refused.append(str(error))

        desk.classifier.answer = held_up
        asking = threading.Thread(target=ask)
        asking.start()
        assert asked.wait(30)
        closing = threading.Thread(target=reclassifier.close)
        closing.start()
        until(reclassifier._thread.closing.is_set, "the closing")
        go_on.set()
        closing.join()
        asking.join()
        assert refused == ["the service is ending; ask again, and it goes on with what is left"]
        assert desk.rows() == before
        with pytest.raises(Unavailable, match="the service is ending"):
            reclassifier.page(Wanted("camera"))


class TestLoneThread:
    def test_it_ends_when_it_has_nothing_to_do_and_another_begins_with_the_next_work(self) -> None:
        ended: list[int] = []
        lone = LoneThread("lone", lambda: ended.append(threading.get_ident()), idle_s=0.01)
        first = lone.do(threading.get_ident)
        until(lambda: ended == [first], "the end")
        assert lone.do(lambda: "again") == "again"
        until(lambda: len(ended) == 2, "the second end")
        lone.close(30)

    def test_what_work_raises_is_raised_where_it_was_handed_over_and_the_thread_goes_on(self) -> None:
        lone = LoneThread("lone", lambda: None, idle_s=30)

        def fail() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            lone.do(fail)
        assert lone.do(lambda: 1) == 1
        lone.close(30)
        lone.close(30)


def _slow(desk: Desk, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A model for which a minute passes with each batch."""

    def slow(pixels: Any) -> Any:
        desk.clock.advance(60)
        return answer(pixels)

    return slow

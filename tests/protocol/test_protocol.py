"""The delivery protocol, model-checked: nothing that can happen breaks the promise, and each step is needed for it."""

from __future__ import annotations

import os

import pytest

from protocol.check import FULL, SMALL, Report, fault_at_any_time, fault_at_rest, search
from protocol.model import RENAMING, VARIANTS, Protocol
from protocol.mutants import MUTANTS, SPARE, Mutant
from protocol.state import File, Folder, Image, Row, World
from protocol.world import begin, power_cut

SOAK = os.environ.get("PIGEONHOLED_TEST_SOAK") == "1"
WORLDS = [
    pytest.param(protocol, world, id=f"{protocol.name}-{number}")
    for protocol in VARIANTS
    for number, world in enumerate(SMALL[protocol.name])
]


@pytest.mark.parametrize(("protocol", "world"), WORLDS)
def test_no_kill_power_cut_dropper_or_outsider_breaks_the_promise(protocol: Protocol, world: World) -> None:
    report = search(protocol, world)
    assert report.fault is None, str(report)
    assert report.complete
    assert report.states > 1000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_change_of_the_protocol_is_caught(mutant: Mutant) -> None:
    report = search(mutant.protocol, mutant.world, most_states=20_000)
    assert report.fault is not None
    assert report.states > 1, "caught before anything happened: the change is nonsense"
    assert "never comes to rest" not in report.fault, "caught for a reason of its own: the change is nonsense"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda protocol: protocol.name)
def test_the_very_worlds_that_catch_changes_are_harmless_to_the_protocol_itself(variant: Protocol) -> None:
    worlds = {mutant.world for mutant in MUTANTS if mutant.name.startswith(variant.name)}
    assert len(worlds) > 2
    for world in worlds:
        report = search(variant, world)
        assert report.fault is None, str(report)


@pytest.mark.parametrize("spare", SPARE, ids=lambda mutant: mutant.name)
def test_what_is_said_to_be_spare_is(spare: Mutant) -> None:
    report = search(spare.protocol, spare.world)
    assert report.fault is None, str(report)


@pytest.mark.skipif(not SOAK, reason="minutes: `make soak`, or python tests/protocol/check.py --full")
@pytest.mark.timeout(3600)
def test_a_million_states_of_all_variants_hold_no_violation() -> None:
    reports: list[Report] = []
    for protocol in VARIANTS:
        for world in FULL[protocol.name]:
            reports.append(search(protocol, world))
            print(reports[-1])
            assert reports[-1].fault is None, str(reports[-1])
    assert all(report.complete for report in reports)
    assert sum(report.states for report in reports) >= 10**6


# -- the model's own parts --------------------------------------------------------------------------------------------


def image(*files: File, rows: tuple[Row, ...] = (), folders: tuple[Folder, ...] = (), promised: str = "A") -> Image:
    return Image(files, folders, rows, frozenset(promised))


FILED = Row(1, "filed", "A", "A", "cat/x")


class TestPowerCut:
    def test_unsynced_rename_is_undone_or_not(self) -> None:
        after = power_cut(image(File("A", ("inbox/x", "work/1/file"), synced=True), folders=(Folder("work/1", True),)))
        assert {one.files[0].place for one in after} == {"inbox/x", "work/1/file"}
        assert all(one.promised == {"A"} for one in after)

    def test_two_files_never_have_one_name(self) -> None:
        first = File("A", ("inbox/x", "work/1/file"), synced=True)
        second = File("B", ("", "inbox/x"), synced=True)
        after = power_cut(image(first, second, folders=(Folder("work/1", True),), promised="AB"))
        assert {tuple(sorted(file.place for file in one.files)) for one in after} == {
            ("inbox/x",), ("work/1/file",), ("inbox/x", "work/1/file"),
        }  # fmt: skip

    def test_unsynced_content_is_torn_or_not_which_is_its_droppers_loss_alone(self) -> None:
        after = power_cut(image(File("A", ("inbox/x",), synced=False)))
        assert {(one.files[0].content, one.promised) for one in after} == {
            ("A", frozenset("A")), ("torn A", frozenset()),
        }  # fmt: skip

    def test_torn_copy_of_ours_is_no_excuse(self) -> None:
        after = power_cut(image(File("A", ("work/1/file",), synced=False, ours=True)))
        assert {one.promised for one in after} == {frozenset("A")}

    def test_folder_whose_name_was_not_synced_goes_with_what_was_synced_in_it(self) -> None:
        after = power_cut(image(File("A", ("cat/x",), synced=True), folders=(Folder("cat", False),)))
        assert {tuple(file.place for file in one.files) for one in after} == {("cat/x",), ()}
        assert all(one.promised == {"A"} for one in after)

    def test_what_is_synced_stays_as_it_is(self) -> None:
        before = image(File("A", ("cat/x",), synced=True), rows=(FILED,), folders=(Folder("cat", True),))
        assert power_cut(before) == (before,)


class TestJudge:
    good = image(File("A", ("cat/x",), synced=True), rows=(FILED,), folders=(Folder("cat", True),))

    def test_filed_file_with_its_row_is_all_that_was_promised(self) -> None:
        assert fault_at_any_time(self.good) is None
        assert fault_at_rest(self.good) is None

    @pytest.mark.parametrize(
        "bad",
        [
            good._replace(files=()),
            good._replace(files=(File("torn A", ("cat/x",), True),)),
            good._replace(rows=(FILED, FILED._replace(id=2))),
            good._replace(rows=(FILED, Row(2, "lost", "B"))),
            good._replace(promised=frozenset("AB")),
        ],
    )
    def test_loss_and_lie_are_seen_at_once(self, bad: Image) -> None:
        assert fault_at_any_time(bad)

    @pytest.mark.parametrize(
        "bad",
        [
            good._replace(rows=()),
            good._replace(rows=(FILED, Row(2, "claimed", "B"))),
            good._replace(rows=(FILED._replace(hold="returning"),)),
            good._replace(files=(*good.files, File("B", ("inbox/x",), True))),
            good._replace(files=(*good.files, File("A", ("cat/x-1",), True))),
            good._replace(folders=(Folder("cat", True), Folder("work/1", True))),
        ],
    )
    def test_what_is_left_over_is_seen_at_rest(self, bad: Image) -> None:
        assert fault_at_any_time(bad) is None
        assert fault_at_rest(bad)


def test_violation_is_told_with_a_shortest_way_to_it() -> None:
    mutant = next(mutant for mutant in MUTANTS if "a move overwrites" in mutant.name)
    report = search(mutant.protocol, mutant.world)
    assert report.way[-1] == "an outsider takes cat/x"
    assert " 1. make_batch_folder" in str(report)


def test_search_that_is_cut_short_says_so() -> None:
    report = search(RENAMING, begin(kills=1, drops=1), most_states=10)
    assert not report.complete
    assert "not all was seen" in str(report)

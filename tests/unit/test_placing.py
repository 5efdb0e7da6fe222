"""Where a file goes, and another name where one is taken."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import make_arrival, make_classified, make_rejected
from pigeonholed.images import Arrival, Classified, Fingerprint, Placement, Reason
from pigeonholed.paths import from_text
from pigeonholed.placing import Placer, alternatives, placement_of, sidecar_of

_KEY = "0123456789abcdef0123456789abcdef"

# Names as a file system may hold them: any bytes but two, never "." or "..".
file_names = (
    st.binary(min_size=1, max_size=255)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in {b".", b".."})
    .map(os.fsdecode)
)
long_names = st.builds(
    lambda letter, length, end: (letter * 255).encode()[: length - len(end)].decode(errors="ignore") + end,
    st.sampled_from("aé漢𝄞"),
    st.integers(200, 255),
    st.sampled_from(["", ".jpg", ".tar.gz", ".jpeg2000" + "x" * 40]),
)
paths = st.lists(file_names | long_names, min_size=1, max_size=4).map("/".join)


def _at(path: str, **more: Any) -> Classified:
    return make_classified(make_arrival(path), **more)


@pytest.mark.parametrize(
    ("confidence", "threshold", "placement"),
    [(0.9, 0.7, "sorted"), (0.7, 0.7, "sorted"), (0.69, 0.7, "unsure"), (0.0, 0.0, "sorted")],
)
def test_threshold_itself_is_enough(confidence: float, threshold: float, placement: str) -> None:
    assert placement_of(_at("x", confidence=confidence, threshold=threshold)).value == placement


def test_refused_file_is_rejected_whatever_it_is() -> None:
    assert placement_of(make_rejected()) is Placement.REJECTED


@pytest.mark.parametrize(
    ("path", "destination"),
    [
        ("x.jpg", "cat/x.jpg"),
        ("a/b/x.jpg", "cat/a/b/x.jpg"),
        ("_odd/_x.jpg", "cat/-_odd/-_x.jpg"),
        ("a\\b", "cat/a\\b"),
        ("{x}.jpg", "cat/{x}.jpg"),
    ],
)
def test_sorted_file_keeps_its_sub_folder_and_name(path: str, destination: str) -> None:
    assert Placer().destination(_at(path)) == destination


def test_unsure_file_goes_below_unsure_under_its_label() -> None:
    assert Placer().destination(_at("a/x.jpg", confidence=0.5)) == "_unsure/cat/a/x.jpg"


def test_rejected_file_keeps_sub_folder_and_name_below_its_reason() -> None:
    rejected = make_rejected(make_arrival("_a/.x"), Reason.TOO_LARGE)
    assert Placer("{model}/{name}").destination(rejected) == "_rejected/too-large/_a/.x"


def test_name_of_a_rejected_file_leaves_room_for_its_sidecar() -> None:
    for name in ("n" * 251 + ".jpg", "漢" * 85, "n" * 243):
        path = Placer().destination(make_rejected(make_arrival(name)))
        assert len(os.fsencode(sidecar_of(path).rpartition("/")[2])) <= 255
    assert Placer().destination(make_rejected(make_arrival("n" * 243))).endswith("/" + "n" * 243)


@pytest.mark.parametrize(
    ("template", "destination"),
    [
        ("{label}/{subdir}/{name}", "cat/a/b/x.y.JPG"),
        ("{label}/{stem}.{ext}", "cat/x.y.JPG"),
        ("{inbox}/{model}-{version}/{name}", "camera/tiny-1/x.y.JPG"),
        ("{label}/{confidence:.2f}-{name}", "cat/0.90-x.y.JPG"),
        ("{date:%Y-%m-%d}/{name}", "2024-05-06/x.y.JPG"),
        ("_{label}/.{name}", "-_cat/-.x.y.JPG"),
    ],
)
def test_template_is_filled_in(template: str, destination: str) -> None:
    classified = _at("a/b/x.y.JPG", taken_at=datetime(2024, 5, 6, tzinfo=UTC))
    assert Placer(template).destination(classified) == destination


def test_file_in_the_top_folder_leaves_no_empty_component() -> None:
    assert Placer("{subdir}/{label}/{name}").destination(_at("x.jpg")) == "cat/x.jpg"


@pytest.mark.parametrize(("name", "filled"), [("x", "x-"), ("a.b.c", "a.b-c"), ("..jpg", "-.-jpg")])
def test_stem_and_extension_together_are_the_name(name: str, filled: str) -> None:
    assert Placer("{stem}-{ext}").destination(_at(name)) == filled


def test_without_a_date_in_the_picture_the_time_of_the_file_is_taken() -> None:
    moment = datetime(2001, 2, 3, 4, 5).astimezone()
    classified = _at("x.jpg")
    dated = Classified(
        classified.arrival,
        Fingerprint(None, 0, int(moment.timestamp()) * 10**9),
        1, 1, classified.prediction, 0.5,
    )  # fmt: skip
    assert Placer("{date:%Y-%m-%d %H.%M}/{name}").destination(dated) == "2001-02-03 04.05/x.jpg"


@pytest.mark.parametrize("mtime_ns", [10**21, -(10**21), -1, 2**63 - 1])
def test_absurd_time_of_a_file_does_not_end_the_daemon(mtime_ns: int) -> None:
    classified = _at("x.jpg")
    dated = Classified(classified.arrival, Fingerprint(None, 0, mtime_ns), 1, 1, classified.prediction, 0.5)
    year, name = Placer("{date:%Y}/{name}").destination(dated).split("/")
    assert year.isdigit()
    assert name == "x.jpg"


@given(paths, st.sampled_from(["{label}/{subdir}/{name}", "{stem}.{ext}", "{subdir}/{date:%Y}/{inbox}{stem}"]))
def test_destination_never_leaves_the_output_and_never_hides(path: str, template: str) -> None:
    destination = Placer(template).destination(_at(path))
    for component in destination.split("/"):
        assert component
        assert component[0] not in "._"
        assert len(os.fsencode(component)) <= 255


@given(paths, st.sampled_from(Reason))
def test_destination_of_a_rejected_file_is_below_its_reason(path: str, reason: Reason) -> None:
    destination = Placer().destination(make_rejected(make_arrival(path), reason))
    top, below, *rest = destination.split("/")
    assert (top, below) == ("_rejected", reason.value)
    assert rest[:-1] == path.split("/")[:-1]
    assert len(os.fsencode(sidecar_of(rest[-1]))) <= 255


def test_taken_name_is_numbered_to_nine_and_then_named_by_the_arrival() -> None:
    names = list(alternatives("cat/x.jpg", _KEY, lambda _path: False))
    assert names == [
        "cat/x.jpg",
        *(f"cat/x-{number}.jpg" for number in range(1, 10)),
        f"cat/x-{_KEY[-12:]}.jpg",
    ]


def test_known_taken_names_are_passed_over() -> None:
    taken = {"cat/x.jpg", "cat/x-1.jpg", "cat/x-3.jpg"}
    assert list(islice(alternatives("cat/x.jpg", _KEY, taken.__contains__), 2)) == ["cat/x-2.jpg", "cat/x-4.jpg"]


def test_last_resort_is_given_even_where_all_is_taken() -> None:
    assert list(alternatives("x", _KEY, lambda _path: True)) == [f"x-{_KEY[-12:]}"]


@pytest.mark.parametrize(
    ("name", "first"),
    [("x", "x-1"), ("x.tar.gz", "x.tar-1.gz"), (".x", ".x-1"), ("v1." + "e" * 40, "v1." + "e" * 40 + "-1")],
)
def test_number_stands_before_the_extension(name: str, first: str) -> None:
    assert list(alternatives(name, _KEY, lambda _path: False))[1] == first


@given(paths, st.sampled_from(["", "_rejected/empty/"]))
def test_alternatives_are_distinct_short_enough_and_in_the_same_folder(path: str, top: str) -> None:
    if top:
        path = Placer().destination(make_rejected(make_arrival(path), Reason.EMPTY))
    names = list(alternatives(path, _KEY, lambda _path: False))
    assert len(set(names)) == len(names) == 11
    for name in names:
        folder, _, last = name.rpartition("/")
        assert folder == path.rpartition("/")[0]
        assert last not in {"", ".", ".."}
        assert len(os.fsencode(sidecar_of(last) if top else last)) <= 255
        assert os.path.normpath(name).startswith(top or "")


@given(long_names, st.integers(0, 32))
def test_name_is_cut_between_characters(name: str, number: int) -> None:
    for other in alternatives(name, f"{number:032x}", lambda _path: False):
        other.encode("utf-8")  # no half character


def test_names_that_are_no_utf8_are_cut_and_numbered_too() -> None:
    name = from_text("\\xe9" * 255)
    for other in alternatives(name, _KEY, lambda _path: False):
        assert len(os.fsencode(other)) <= 255
    assert isinstance(make_arrival(name), Arrival)

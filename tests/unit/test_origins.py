"""What a place in an output says of the file in it."""

from __future__ import annotations

import pytest

from pigeonholed.images import Placement, Reason
from pigeonholed.origins import Origin, Source, Unclear, origin_of

PETS = {"camera": Source(frozenset({"cat", "dog"}), leads_with_label=True)}
DATED = {"camera": Source(frozenset({"cat", "dog"}), leads_with_label=False)}
TWO = PETS | {"scanner": Source(frozenset({"oak", "dog"}), leads_with_label=True)}


@pytest.mark.parametrize(
    ("path", "sources", "origin"),
    [
        ("cat/a/b/x.jpg", PETS, Origin("camera", "a/b/x.jpg", Placement.SORTED, "cat")),
        ("_unsure/dog/x.jpg", PETS, Origin("camera", "x.jpg", Placement.UNSURE, "dog")),
        ("_rejected/empty/a/x.jpg", PETS, Origin("camera", "a/x.jpg", Placement.REJECTED, reason=Reason.EMPTY)),
        ("_duplicates/a/x.jpg", PETS, Origin("camera", "a/x.jpg", Placement.DUPLICATE)),
        ("2026/cat/x.jpg", DATED, Origin("camera", "2026/cat/x.jpg", Placement.SORTED, "cat")),
        ("oak/x.jpg", TWO, Origin("scanner", "x.jpg", Placement.SORTED, "oak")),
        ("cat/x.jpg", TWO, Origin("camera", "x.jpg", Placement.SORTED, "cat")),
    ],
)
def test_folders_tell_what_became_of_a_file(path: str, sources: dict[str, Source], origin: Origin) -> None:
    assert origin_of(path, sources) == origin


@pytest.mark.parametrize(
    ("path", "sources"),
    [
        ("x.jpg", PETS),
        ("horse/x.jpg", PETS),
        ("a/cat/x.jpg", PETS),  # the template begins with the label
        ("_unsure/x.jpg", PETS),
        ("_rejected/dull/x.jpg", PETS),
        ("_rejected/empty", PETS),
        ("cat/dog/x.jpg", DATED),
        ("cat/.DS_Store", PETS),
        ("cat/Thumbs.db", PETS),
        ("cat/x.jpg.part", PETS),
        ("dog/x.jpg", TWO),  # both could have filed it
        ("_rejected/empty/x.jpg", TWO),
    ],
)
def test_a_place_that_does_not_say_enough_is_left(path: str, sources: dict[str, Source]) -> None:
    with pytest.raises(Unclear):
        origin_of(path, sources)


def test_a_sidecar_says_which_inbox_it_was() -> None:
    assert origin_of("_rejected/empty/x.jpg", TWO, "scanner").inbox == "scanner"
    assert origin_of("dog/x.jpg", TWO, "camera").inbox == "camera"
    with pytest.raises(Unclear):
        origin_of("_rejected/empty/x.jpg", TWO, "somebody's invention")

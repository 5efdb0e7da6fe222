"""Which results are meant: the same words mean the same rows on every database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pigeonholed import database
from pigeonholed.images import Placement, Reason
from pigeonholed.results import Selection, WrongSelection, pattern_of
from pigeonholed.tables import images, metadata

_ROWS = [
    ("a/cat.JPG", "sorted", "cat", None, 1),
    ("a/b/cat.jpg", "unsure", "cat", None, 2),
    ("[x].jpg", "sorted", "dog", None, 3),
    ("50%_of.png", "rejected", None, "truncated", 4),
    (r"back\\slash.png", "rejected", None, "empty", 5),
]


def _insert(connection: sa.Connection) -> None:
    for number, (path, outcome, label, reason, day) in enumerate(_ROWS, 1):
        moment = datetime(2026, 11, day, tzinfo=UTC)
        connection.execute(
            images.insert().values(
                id=number, inbox="camera", source_path=path, outcome=outcome, label=label, reason=reason,
                status="filed",
                arrived_at=moment, filed_at=moment, arrival="a", token="t", model="tiny" if label else None,
            )
        )  # fmt: skip
    connection.execute(
        images.insert().values(
            id=9, inbox="camera", source_path="gone.jpg", status="returned", outcome="sorted", label="cat",
            arrived_at=moment, filed_at=moment, arrival="a", token="t",
        )
    )  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def connection(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    """On rows of each kind of database."""
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("postgres").make()
    engine = database.connect(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        _insert(connection)
        yield connection
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"label": "cat"}, [1, 2]),
        ({"label": "cat", "outcome": "unsure"}, [2]),
        ({"reason": "empty"}, [5]),
        ({"model": "tiny"}, [1, 2, 3]),
        ({"image": 3}, [3]),
        ({"inbox": "other"}, []),
        ({"since": "2026-11-02T00:00+00:00", "until": "2026-11-04T00:00+00:00"}, [2, 3]),
        ({"path": "*.jpg"}, [2, 3]),
        ({"path": "a/*"}, [1, 2]),
        ({"path": "a/???.JPG"}, [1]),
        ({"path": "[x]*"}, [3]),
        ({"path": "50%_*"}, [4]),
        ({"path": "50*of.png"}, [4]),
        ({"path": "!*"}, []),
        ({"path": pattern_of("back\\slash*")}, [5]),
    ],
)
def test_conditions_choose_rows(connection: sa.Connection, arguments: dict[str, Any], ids: list[int]) -> None:
    selection = Selection.from_arguments(json.loads(json.dumps(arguments)))
    query = sa.select(images.c.id).where(*selection.conditions()).order_by(images.c.id)
    assert list(connection.scalars(query)) == ids
    assert Selection.from_arguments(selection.as_arguments()) == selection


def test_a_pattern_is_postgres_own_operator_there_with_its_signs_escaped() -> None:
    conditions = Selection(path="50%_!?*").conditions()
    compiled = sa.select(images.c.id).where(*conditions).compile(dialect=postgresql.dialect())
    assert "LIKE" in str(compiled)
    assert "ESCAPE '!'" in str(compiled)
    assert "50!%!_!!_%" in compiled.params.values()


def test_rows_that_are_no_results_are_chosen_only_where_that_is_asked_for(connection: sa.Connection) -> None:
    query = sa.select(images.c.id).where(*Selection(label="cat", filed_only=False).conditions())
    assert set(connection.scalars(query)) == {1, 2, 9}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"outcome": "eaten"}, "there is no outcome 'eaten'; there are sorted, unsure, rejected, duplicate"),
        ({"reason": "dull"}, "there is no reason 'dull'"),
        ({"image": True}, "image must be a whole number"),
        ({"image": 1 << 63}, "image must be a whole number"),
        ({"since": "yesterday"}, "since must be a time such as"),
        ({"label": "a\nb"}, "label must be a name"),
        ({"path": "x" * 1001}, "path must be a pattern"),
        ({"path": "\udcff*"}, "path must be a pattern"),
        ({"path": "\0"}, "path must be a pattern"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongSelection) as fault:
        Selection.from_arguments(arguments)
    assert str(fault.value).startswith(said)
    assert str(fault.value).isprintable()


def test_words_become_what_they_stand_for() -> None:
    selection = Selection.from_arguments({"outcome": "rejected", "reason": "poison"})
    assert (selection.outcome, selection.reason) == (Placement.REJECTED, Reason.POISON)

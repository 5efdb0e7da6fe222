"""The results as a table: every column, every format, the same whatever the names hold."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from pigeonholed import database
from pigeonholed.cli import cli
from pigeonholed.spreadsheets import bare
from pigeonholed.tables import images, predictions, reviews
from running import environment

COLUMNS = [
    "id",
    "inbox",
    "source_path",
    "sha256",
    "size_bytes",
    "mtime_ns",
    "width",
    "height",
    "status",
    "outcome",
    "reason",
    "detail",
    "model",
    "model_version",
    "label",
    "confidence",
    "destination",
    "arrived_at",
    "classified_at",
    "filed_at",
]
FIRST = datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC)
NAMES = [
    "plain.png",
    "=cmd|' /C calc'!A0.png",
    'quote".png',
    "new\nline.png",
    "caf\u00e9.png",
    "a,b.png",
    "\x1b[31m.png",
]
ROWS = 1207  # more than two pages


def _row(number: int) -> dict[str, Any]:
    rejected = number % 10 == 0
    name = NAMES[number % len(NAMES)]
    moment = FIRST + timedelta(minutes=number)
    return {
        "id": number, "inbox": "camera", "source_path": f"{number}/{name}" if number > 7 else name,
        "sha256": f"{number:064x}", "size_bytes": number, "mtime_ns": -number, "width": None if rejected else 640,
        "height": None if rejected else 480, "status": "returned" if number == 3 else "filed",
        "outcome": "rejected" if rejected else "sorted", "reason": "empty" if rejected else None,
        "detail": "the file has no bytes" if rejected else None, "model": None if rejected else "tiny",
        "model_version": None if rejected else 1, "label": None if rejected else "cat",
        "confidence": None if rejected else 0.1 + 0.2, "destination": f"cat/{number}/{name}",
        "arrived_at": moment, "classified_at": None if rejected else moment, "filed_at": moment,
        "arrival": f"{number:032x}", "token": "t",
    }  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose database holds results, once for each kind that is served."""
    root = tmp_path_factory.mktemp("export")
    url = f"sqlite:///{root}/pigeonholed.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").make()
    (root / "inbox").mkdir()
    file = root / "pigeonholed.toml"
    file.write_text(
        f'[[inbox]]\nname = "camera"\npath = "inbox"\noutput = "sorted"\nmodel = "tiny"\n[database]\nurl = "{url}"\n'
    )
    engine = database.connect(url)
    database.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(images.insert(), [_row(number) for number in range(1, ROWS + 1)])
        ranks = [("cat", 0.3), ("dog", 0.2), ("cow", 0.1)]
        rows = [(1200, rank, *one) for rank, one in enumerate(ranks, 1)] + [(2, 1, "cat", 0.3)]
        names = ("image_id", "rank", "label", "confidence")
        connection.execute(predictions.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        for label in ("dog", "cow"):
            connection.execute(
                reviews.insert().values(
                    image_id=1200, label=label, previous_label="cat", reviewed_at=FIRST, reviewer="Ann"
                )
            )
    engine.dispose()
    return file


def export(config: Path, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["export", *arguments, "--config", str(config)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def as_csv(config: Path, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(export(config, *arguments).stdout_bytes.decode("utf-8"), newline="")))


def as_json(config: Path, *arguments: str) -> list[dict[str, Any]]:
    text = export(config, "--format", "jsonl", *arguments).stdout_bytes
    return [json.loads(line) for line in text.decode("ascii").splitlines()]


def test_csv_has_every_column_of_the_contract_in_order_and_brings_every_name_back(config: Path) -> None:
    rows = as_csv(config)
    assert list(rows[0]) == COLUMNS
    assert len(rows) == ROWS - 1, "one was put back"
    for row in rows:
        wanted = _row(int(row["id"]))
        assert bare(row["source_path"]) == wanted["source_path"]
        assert row["mtime_ns"] == str(wanted["mtime_ns"]), "a number is no formula"
        assert float(row["confidence"] or 0.3) == (wanted["confidence"] or 0.3), "not a digit is lost"
        assert datetime.fromisoformat(row["filed_at"]) == wanted["filed_at"]
        assert (row["reason"] == "") == (wanted["reason"] is None)
    assert all(row["source_path"][0] not in "=+-@" for row in rows)


def test_csv_is_what_rfc_4180_asks_for(config: Path) -> None:
    data = export(config).stdout_bytes
    assert data.count(b"\r\n") == ROWS, "a line a row and the header; a line break within a name is its own"
    assert b'"quote"".png"' in data
    assert b'"new\nline.png"' not in data or b"\n" in data
    assert "caf\u00e9".encode() in data


def test_json_lines_are_ascii_with_nulls_and_utc(config: Path) -> None:
    rows = as_json(config, "--reason", "empty")
    assert {row["id"] for row in rows} == set(range(10, ROWS + 1, 10))
    assert list(rows[0]) == COLUMNS
    assert (rows[0]["label"], rows[0]["classified_at"]) == (None, None)
    assert rows[0]["filed_at"] == "2026-11-21T08:10:00.123456Z"


def test_parquet_is_typed_and_says_the_same(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.parquet"
    export(config, "-o", str(file), "--top", "2", "--review")
    table = pq.read_table(file)
    assert table.column_names[:20] == COLUMNS
    types = {field.name: str(field.type) for field in table.schema}
    assert types["filed_at"] == "timestamp[us, tz=UTC]"
    assert types["size_bytes"] == types["mtime_ns"] == "int64"
    assert types["confidence"] == "double"
    assert types["label"].startswith("dictionary<values=string")
    rows = table.to_pylist()
    told = as_json(config, "--top", "2", "--review")
    assert [row["source_path"] for row in rows] == [row["source_path"] for row in told]
    assert all(
        row["filed_at"] == datetime.fromisoformat(other["filed_at"]) for row, other in zip(rows, told, strict=True)
    )


def test_runners_up_and_the_latest_review_stand_beside_each(config: Path) -> None:
    (row,) = as_json(config, "--top", "4", "--review", "--path", "1200/*")
    assert [row[f"top_{rank}_label"] for rank in range(1, 5)] == ["cat", "dog", "cow", None]
    assert (row["top_3_confidence"], row["top_4_confidence"]) == (0.1, None)
    assert (row["review_label"], row["review_previous_label"], row["reviewer"]) == ("cow", "cat", "Ann")
    rows = as_csv(config, "--top", "1", "--review", "--outcome", "rejected")
    assert {(one["top_1_label"], one["review_label"]) for one in rows} == {("", ""), ("cat", "cow")}


def test_filters_and_status(config: Path) -> None:
    assert len(as_json(config, "--status", "all")) == ROWS
    since, until = "2026-11-21T08:05:00+00:00", "2026-11-21T08:08:00+00:00"
    assert [row["id"] for row in as_json(config, "--since", since, "--until", until)] == [5, 6, 7]
    assert (
        as_json(config, "--label", "dog") == as_json(config, "--inbox", "none") == as_json(config, "--model", "x") == []
    )
    assert len(as_csv(config, "--label", "dog")) == 0
    assert "there is no outcome 'eaten'" in export(config, "--outcome", "eaten", code=2).stderr


def test_a_file_is_whole_or_not_there_and_nothing_is_replaced_unasked(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.csv"
    export(config, "--output", str(file))
    whole = file.read_bytes()
    assert whole == export(config).stdout_bytes
    assert "there is a file of that name" in export(config, "--output", str(file), "--label", "dog", code=2).stderr
    assert file.read_bytes() == whole
    monkeypatch.setattr("pigeonholed.exporting.Export.rows", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    assert "No space" in export(config, "--output", str(file), "--force", code=1).stderr
    assert file.read_bytes() == whole
    monkeypatch.undo()
    export(config, "--output", str(file), "--force", "--label", "dog")
    assert file.read_bytes().count(b"\r\n") == 1
    assert os.listdir(tmp_path) == ["results.csv"], "no draft is left"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_reader_who_has_gone_is_no_fault(config: Path, form: str) -> None:
    command = [sys.executable, "-m", "pigeonholed", "export", "--format", form, "--config", str(config)]
    line = f"{shlex.join(command)} | head -c 10 > /dev/null"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")


def test_parquet_without_pyarrow_names_the_extra(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = export(config, "--format", "parquet", code=69)
    assert "pip install pigeonholed[parquet]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    file = tmp_path / "pigeonholed.toml"
    file.write_text('[[inbox]]\npath = "inbox"\noutput = "sorted"\nmodel = "tiny"\n')
    assert "there is no database" in export(file, code=69).stderr
    assert not (tmp_path / "pigeonholed.db").exists()


def test_rows_are_of_one_moment_though_others_write_meanwhile(config: Path) -> None:
    from pigeonholed.config import load_settings
    from pigeonholed.exporting import Export
    from pigeonholed.results import Selection
    from pigeonholed.snapshot import snapshot

    engine = database.connect(load_settings(config).database.url)
    last = ROWS

    def relabel(label: str) -> None:
        with engine.begin() as connection:
            connection.execute(sa.update(images).where(images.c.id == last).values(detail=label))

    try:
        with snapshot(load_settings(config)) as connection:
            pages = Export(Selection()).rows(connection)
            next(pages)
            relabel("later")
            rows = [row for page in pages for row in page]
            assert rows[-1][0] == last
            assert rows[-1][COLUMNS.index("detail")] is None
    finally:
        with engine.begin() as connection:
            connection.execute(sa.update(images).where(images.c.id == last).values(detail=None))
        engine.dispose()

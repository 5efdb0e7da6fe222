"""Names that try to be formulas, orders to a terminal or lines of their own, in what training writes."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundles import make_bundle
from pigeonholed.paths import from_text
from pigeonholed.spreadsheets import bare, shielded
from pigeonholed_training.__main__ import main
from pigeonholed_training.data import lists
from pigeonholed_training.evaluation import record
from pigeonholed_training.evaluation.record import Prediction, Record
from soaking import examples
from tiny_photos import write_photo

FORMULAS = ["=1+1", "+1", "-1", "@sum", "=cmd()", "'=1", "''=1", "\uff1d1", "\t=1", "plain", "'plain", "=\u00e9"]
NAMES = [
    b"=cmd()|calc.png",
    b"@sum(1).png",
    b"-rf.png",
    b"line\nbreak.png",
    b"paint\x1b[2J\x9b1m.png",
    b"<script>alert(1)<.png",
    "right\u202egnp.exe.png".encode(),
    b"\xff\xfe.png",
    b"back\\x41.png",
]


def begins_a_formula(cell: str) -> bool:
    return cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


@given(st.text(max_size=10) | st.text("'=+-@a \t", max_size=6))
@examples(300, 50_000)
def test_no_cell_begins_a_formula_and_each_reads_back(text: str) -> None:
    cell = shielded(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert bare(cell) == text


def test_predictions_hold_no_formula_and_read_back(tmp_path: Path) -> None:
    predictions = tuple(
        Prediction(f"{number:064x}", "test", label, label, 0.5, "unsure", 0.5, f"{label}/x.png")
        for number, label in enumerate(FORMULAS)
    )
    record.save(tmp_path, Record(predictions, None))
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as stream:
        cells = [row[column] for row in csv.DictReader(stream) for column in ("path", "label", "said")]
    assert len(cells) == 3 * len(FORMULAS)
    assert not any(map(begins_a_formula, cells))
    assert record.read(tmp_path).predictions == predictions


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["pigeonholed-train", *map(str, arguments)])
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_a_list_of_a_split_holds_no_formula_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        for label in ("=1+1", "@dog"):
            write_photo(tmp_path / label / f"{number}.png", number + 100 * (label == "@dog"))
    monkeypatch.chdir(tmp_path.parent)
    assert call(monkeypatch, "dataset", "split", tmp_path, tmp_path / "list.csv") == 0
    with open(tmp_path / "list.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert not any(begins_a_formula(row[column]) for row in rows for column in ("path", "label"))
    found = lists.read(tmp_path / "list.csv")
    assert {line.label for line in found} == {"=1+1", "@dog"}
    assert all((tmp_path / line.path).is_file() for line in found)
    assert len(found) == len(rows) > 20


@pytest.mark.parametrize("as_json", [False, True])
def test_predict_shows_every_name_in_one_printable_line_that_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    make_bundle(tmp_path / "staging", publish_into=tmp_path / "models")
    (tmp_path / "new").mkdir()
    for number, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(tmp_path), b"new", name), "wb") as file:
            file.write(b"text %d" % number)
    options = ["--models", tmp_path / "models", "--model", "tiny", *(["--json"] if as_json else [])]
    assert call(monkeypatch, "predict", tmp_path / "new", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    assert all(line.isprintable() for line in lines)
    if as_json:
        told = {os.path.basename(os.fsencode(from_text(json.loads(line)["path"]))) for line in lines}
        assert told == set(NAMES)


def test_an_error_about_a_name_is_one_printable_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "predict", "gone\x1b[2J\udcff\u202e.png", "--model", "m") == 2
    told = capsys.readouterr().err.removesuffix("\n")
    assert told.isprintable()
    assert "gone" in told

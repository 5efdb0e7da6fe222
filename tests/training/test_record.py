"""The evidence of a judgement is two plain files, and reading them trusts nobody."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pigeonholed.bundle import Threshold
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured
from pigeonholed_training.evaluation import record
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.record import Prediction, Record

ONE = Prediction("a" * 64, "test", "cat", "dog", 0.75, "unsure", 0.25, "cat/1.jpg")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    two = dataclasses.replace(ONE, sha256="b" * 64, path='cat/a "b",\n\r=c\\xff.jpg', label="Ärger, groß", said="cat")
    kept = Record((ONE, two), frozenset({"0" * 16, "f" * 16}))
    record.save(tmp_path, kept)
    assert record.read(tmp_path) == kept


def test_a_spreadsheet_finds_a_line_a_picture(tmp_path: Path) -> None:
    record.save(tmp_path, Record((ONE,), frozenset({"0" * 16})))
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["path"], row["label"], row["said"], row["confidence"], row["outcome"]) == (
        *("cat/1.jpg", "cat", "dog", "0.750000", "unsure"),
    )
    assert (tmp_path / "learnt.txt").read_text() == "0" * 16 + "\n"


def test_a_bundle_keeps_no_paths(tmp_path: Path) -> None:
    record.save(tmp_path, Record((ONE,), frozenset()), paths=False)
    assert b"1.jpg" not in (tmp_path / "predictions.csv").read_bytes()
    assert record.read(tmp_path).predictions == (dataclasses.replace(ONE, path=""),)


def test_an_older_model_has_no_record(tmp_path: Path) -> None:
    assert record.read(tmp_path) == Record(None, None)
    assert not Record().has_learnt("a" * 64)


def test_calibration_pictures_that_judged_do_not_count_as_learnt() -> None:
    kept = Record((dataclasses.replace(ONE, part="calibration"),), frozenset({"a" * 16, "c" * 16}))
    assert not kept.has_learnt("a" * 64)
    assert kept.has_learnt("c" * 64)
    assert not kept.has_learnt("d" * 64)


def test_a_test_picture_that_was_learnt_all_the_same_counts_as_learnt() -> None:
    assert Record((ONE,), frozenset({"a" * 16})).has_learnt("a" * 64)


def test_a_training_writes_its_judged_pictures_and_all_that_it_learnt_from(tmp_path: Path) -> None:
    digests = [f"{number:x}" * 64 for number in range(6)]
    pictures = tuple(SimpleNamespace(path=f"{index}\udcff.png", sha256=sha256) for index, sha256 in enumerate(digests))
    dataset = SimpleNamespace(pictures=pictures)
    parts = np.array([Part.TRAIN, Part.TRAIN, Part.VALIDATION, Part.CALIBRATION, Part.TEST, Part.NONE])
    # The subject has a sample of what was trained on; the record names all that it is told.
    subject = SimpleNamespace(
        dataset=dataset, judged=Part.TEST, parts={Part.TEST: np.array([4]), Part.TRAIN: np.array([0])}
    )
    thresholds = tuple(Threshold(label=label, value=0.8, method="best-f1", n=0) for label in ("cat", "dog"))
    answers = {
        Part.TEST: Judged(("cat", "dog"), np.array([0], np.int32), np.array([[0.3, 0.7]], np.float32), thresholds)
    }
    kept = record.of(subject, answers, (digests[index] for index in np.flatnonzero((parts >= 0) & (parts < Part.TEST))))
    record.save(tmp_path, kept)
    found = record.read(tmp_path)
    assert found.predictions == (Prediction("4" * 64, "test", "cat", "dog", 0.7, "unsure", 0.3, "4\\xff.png"),)
    assert found.learnt == {digest[:16] for digest in digests[:4]}


HEAD = "sha256,part,label,said,confidence,outcome\n"
GOOD = f"{'a' * 64},test,cat,dog,0.5,sorted\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not name the column sha256"),
        (HEAD.replace("said", "sad"), "does not name the column said"),
        (HEAD + GOOD + GOOD.replace("a" * 64, "A" * 64), "line 3 is not one"),
        (HEAD + GOOD.replace("0.5", "nan"), "line 2 is not one"),
        (HEAD + GOOD.replace("0.5", "1.5"), "line 2 is not one"),
        (HEAD + GOOD.replace("sorted", "rejected"), "line 2 is not one"),
        (HEAD + GOOD.replace("test", "none"), "line 2 is not one"),
        (HEAD + GOOD.replace("sorted", "sorted,more"), "line 2 is not one"),
        (HEAD + "a" * 64 + ",test\n", "line 2 is not one"),
        (HEAD + "x" * 200_000, "field larger"),
        (HEAD + '"unclosed', "unexpected end of data"),
    ],
)
def test_damaged_predictions_are_told_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(Misconfigured, match=rf"Cannot read .*predictions\.csv: .*{said}"):
        record.read(tmp_path)


def test_columns_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("more," + HEAD + "1," + GOOD)
    assert record.read(tmp_path).judged["a" * 64].said == "dog"


@pytest.mark.parametrize("line", ["0" * 15, "0" * 17, "G" * 16, "0" * 15 + "\u0660"])
def test_a_damaged_list_of_what_was_learnt_is_told_in_a_sentence(tmp_path: Path, line: str) -> None:
    (tmp_path / "learnt.txt").write_text("0" * 16 + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(Misconfigured, match="line 2 is not 16 hex digits"):
        record.read(tmp_path)


def test_neither_size_nor_kind_of_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "learnt.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match="no text in UTF-8"):
        record.read(tmp_path)
    monkeypatch.setattr(record, "MAX_BYTES", 16)
    path.write_bytes(b"0" * 17)
    with pytest.raises(Misconfigured, match="larger than"):
        record.read(tmp_path)
    path.unlink()
    os.mkfifo(path)  # opening it must not wait for a writer
    with pytest.raises(Misconfigured, match="no regular file"):
        record.read(tmp_path)
    path.unlink()
    (tmp_path / "elsewhere").write_text("0" * 16 + "\n")
    path.symlink_to("elsewhere")
    with pytest.raises(Misconfigured, match="Cannot read"):
        record.read(tmp_path)

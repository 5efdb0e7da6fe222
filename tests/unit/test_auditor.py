"""The auditor finds every fault that is planted, and nothing in a tree without one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import auditor

LABELS = ["cat", "dog"]
SCHEMA = """
CREATE TABLE images (id INTEGER PRIMARY KEY, inbox TEXT, source_path TEXT, sha256 TEXT, size_bytes INTEGER,
  mtime_ns INTEGER, width INTEGER, height INTEGER, status TEXT, outcome TEXT, reason TEXT, detail TEXT, model TEXT,
  model_version INTEGER, label TEXT, confidence REAL, destination TEXT, arrived_at TEXT, classified_at TEXT,
  filed_at TEXT);
CREATE TABLE predictions (image_id INTEGER, rank INTEGER, label TEXT, confidence REAL);
CREATE TABLE models (id INTEGER, name TEXT, version INTEGER, digest TEXT, labels TEXT, loaded_at TEXT);
CREATE TABLE reviews (id INTEGER, image_id INTEGER, label TEXT, previous_label TEXT, reviewed_at TEXT, reviewer TEXT);
"""
ODD = b"sub/na\xefve \\ \xc3\xa9.jpg"  # a byte that is no UTF-8, a backslash, and a letter that is both


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Site:
    """A small correct inbox, output and database, made by hand; tests break one thing each."""

    def __init__(self, root: Path) -> None:
        self.inbox, self.output, self.database = root / "inbox", root / "sorted", root / "pigeonholed.db"
        self.dropped: list[auditor.Dropped] = []
        self.inbox.mkdir()
        (self.output / ".pigeonholed").mkdir(parents=True)
        (self.output / ".pigeonholed" / "owner").write_text("id")
        (self.output / ".pigeonholed" / "lock").touch()
        with self.connect() as connection:
            connection.executescript(SCHEMA)
            connection.execute("INSERT INTO models VALUES (1, 'pets', 2, 'd', ?, '2026-01-01')", [json.dumps(LABELS)])
        connection.close()
        self.file(b"a.jpg", b"cat one", "sorted", "cat", truth="cat")
        self.file(b"sub/b.jpg", b"dog one", "sorted", "dog", truth="cat")
        self.file(b"sub/b.jpg", b"dog two", "sorted", "dog", at=b"dog/sub/b-1.jpg", truth="dog")
        self.file(b"c.jpg", b"cat one", "unsure", "cat", truth="cat")
        self.file(ODD, b"odd", "sorted", "cat", truth="cat")
        self.file(b"_x/.h.jpg", b"hidden", "sorted", "cat", at=b"cat/-_x/-.h.jpg", truth="cat")
        self.file(b"sub/empty.png", b"", "rejected", reason="empty", truth="broken")
        self.file(b"text.png", b"hello", "rejected", reason="unsupported", truth="broken")
        self.file(b"again.jpg", b"cat one", "duplicate")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database)

    def execute(self, statement: str, *values: Any) -> None:
        with self.connect() as connection:
            assert connection.execute(statement, values).rowcount > 0, "the planted fault changed nothing"
        connection.close()

    def path(self, destination: bytes) -> Path:
        return Path(os.fsdecode(os.path.join(os.fsencode(self.output), destination)))

    def file(
        self,
        source: bytes,
        data: bytes,
        outcome: str,
        label: str | None = None,
        *,
        reason: str | None = None,
        at: bytes | None = None,
        truth: str | None = None,
    ) -> None:
        """Drop a file and file it: on disk, in the database and in the manifest."""
        top = {"sorted": label, "unsure": f"_unsure/{label}", "rejected": f"_rejected/{reason}"}
        destination = at or top.get(outcome, "_duplicates").encode() + b"/" + source  # type: ignore[union-attr]
        inbox_folder = os.path.dirname(os.path.join(os.fsencode(self.inbox), source))
        os.makedirs(inbox_folder, exist_ok=True)
        target = self.path(destination)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if outcome == "rejected":
            target.with_name(target.name + ".reason.json").write_text(json.dumps({"reason": reason}))
        self.dropped.append(auditor.Dropped(source, hash_of(data), truth))
        self.insert(source, data, outcome, label, reason, destination)

    def insert(
        self, source: bytes, data: bytes, outcome: str, label: str | None, reason: str | None, destination: bytes
    ) -> None:
        best = 0.9 if label else None
        row = [
            *(
                "camera",
                text(source),
                hash_of(data),
                len(data),
                1,
                label and 28,
                label and 28,
                "filed",
                outcome,
                reason,
            ),
            *(None, "pets", 2, label, best, text(destination)),
            *("2026-01-01 10:00:00.000000", "2026-01-01 10:00:01.000000", "2026-01-01 10:00:02.000000"),
        ]
        with self.connect() as connection:
            holes = ", ".join("?" * len(row))
            image_id = connection.execute(f"INSERT INTO images VALUES (NULL, {holes})", row).lastrowid
            if label:
                other = next(word for word in LABELS if word != label)
                ranked = [(image_id, 1, label, 0.9), (image_id, 2, other, 0.1)]
                connection.executemany("INSERT INTO predictions VALUES (?, ?, ?, ?)", ranked)
        connection.close()

    def findings(self, **options: Any) -> list[str]:
        return auditor.audit(self.dropped, [self.inbox], self.output, self.database, **options)


def text(path: bytes) -> str:
    """The contract's escaping, written down a second time."""
    return path.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_correct_tree_has_no_findings(site: Site) -> None:
    assert site.findings() == []


def test_a_returned_row_needs_no_file(site: Site) -> None:
    site.insert(b"old.jpg", b"old", "rejected", None, "truncated", b"_rejected/truncated/old.jpg")
    site.execute("UPDATE images SET status = 'returned' WHERE source_path = 'old.jpg'")
    assert site.findings() == []


def test_a_users_own_reason_file_is_a_file_like_any_other(site: Site) -> None:
    site.file(b"mine.png.reason.json", b"{}", "rejected", reason="unsupported")
    assert site.findings() == []


def sql(statement: str, *values: Any) -> Callable[[Site], None]:
    return lambda site: site.execute(statement, *values)


def lose_everything(site: Site) -> None:
    site.path(b"cat/a.jpg").unlink()
    site.execute("DELETE FROM images WHERE source_path = 'a.jpg'")
    site.execute("DELETE FROM predictions WHERE image_id = 1")


def duplicate_on_disk(site: Site) -> None:
    site.path(b"cat/a-1.jpg").write_bytes(b"cat one")


def duplicate_with_row(site: Site) -> None:
    duplicate_on_disk(site)
    site.insert(b"a.jpg", b"cat one", "sorted", "cat", None, b"cat/a-1.jpg")


def swap_contents(site: Site) -> None:
    """Both files are there, under each other's name."""
    site.path(b"cat/a.jpg").write_bytes(b"dog one")
    site.path(b"dog/sub/b.jpg").write_bytes(b"cat one")


def move_to_wrong_folder(site: Site) -> None:
    site.path(b"cat/a.jpg").rename(site.path(b"dog/a.jpg"))
    site.execute("UPDATE images SET destination = 'dog/a.jpg' WHERE source_path = 'a.jpg'")


def rename_within_folder(site: Site) -> None:
    site.path(b"cat/a.jpg").rename(site.path(b"cat/z.jpg"))
    site.execute("UPDATE images SET destination = 'cat/z.jpg' WHERE source_path = 'a.jpg'")


def replace_by_link(site: Site) -> None:
    site.path(b"cat/a.jpg").rename(site.output.parent / "elsewhere.jpg")
    site.path(b"cat/a.jpg").symlink_to(site.output.parent / "elsewhere.jpg")


def leave_in_work_folder(site: Site) -> None:
    token = site.output / ".pigeonholed" / "0123"
    token.mkdir()
    (token / "abc").write_bytes(b"dog one")


def write(name: str, data: bytes) -> Callable[[Site], None]:
    def plant(site: Site) -> None:
        assert site.path(name.encode()).parent.is_dir()
        site.path(name.encode()).write_bytes(data)

    return plant


def remove(name: str) -> Callable[[Site], None]:
    return lambda site: site.path(name.encode()).unlink()


def empty_folder_gone(site: Site) -> None:
    (site.inbox / "sub").rmdir()


def left_in_inbox(site: Site) -> None:
    (site.inbox / "sub" / "b.jpg").write_bytes(b"dog one")


def empty_yet_sorted(site: Site) -> None:
    site.file(b"void.jpg", b"", "sorted", "cat")


def poisoned(site: Site) -> None:
    site.file(b"p.jpg", b"deadly", "rejected", reason="poison")


def overwrite_database(site: Site) -> None:
    site.database.write_bytes(b"no database" * 100)


def drop_column(site: Site) -> None:
    with site.connect() as connection:
        connection.execute("ALTER TABLE images DROP COLUMN reason")
    connection.close()


FAULTS: list[tuple[str, Callable[[Site], None], str]] = [
    ("loss of file and row", lose_everything, "lost: no filed row for a.jpg"),
    ("loss of a file", remove("cat/a.jpg"), "where there is nothing"),
    ("loss of a row", sql("DELETE FROM images WHERE id = 1"), "lost: no filed row for a.jpg"),
    ("loss that another copy hides", remove("_unsure/cat/c.jpg"), "lost: sha256"),
    ("duplicate on disk", duplicate_on_disk, "no row explains cat/a-1.jpg"),
    ("duplicate content on disk", duplicate_on_disk, "on disk 1 times more"),
    ("duplicate with a row", duplicate_with_row, "one filed row too many"),
    ("two rows for one file", sql("UPDATE images SET destination = 'cat/a.jpg' WHERE id = 4"), "2 rows claim"),
    ("changed byte", write("cat/a.jpg", b"cat onE"), "bytes of cat/a.jpg are not those"),
    ("0-byte file", write("cat/a.jpg", b""), "says 7 bytes, cat/a.jpg has 0"),
    ("swapped contents", swap_contents, "bytes of dog/sub/b.jpg are not those"),
    ("link instead of a file", replace_by_link, "which is a link"),
    ("leftover in flight", leave_in_work_folder, "left over in flight: .pigeonholed/0123"),
    ("lock missing", remove(".pigeonholed/lock"), "the work folder lacks lock"),
    ("unexplained file", write("dog/x.jpg", b"x"), "no row explains dog/x.jpg"),
    ("unexplained sidecar", write("_rejected/empty/x.reason.json", b"{}"), "no row explains _rejected/empty/x.reason"),
    ("missing sidecar", remove("_rejected/empty/sub/empty.png.reason.json"), "no _rejected/empty/sub/empty.png.reason"),
    ("empty sidecar", write("_rejected/empty/sub/empty.png.reason.json", b""), "cannot be read"),
    ("wrong sidecar", write("_rejected/empty/sub/empty.png.reason.json", b'{"reason": "truncated"}'), "not give the"),
    ("file in the inbox", left_in_inbox, "still in the inbox: sub/b.jpg"),
    ("sub-folder of the inbox", empty_folder_gone, "sub-folder of the inbox is gone: sub"),
    ("wrong folder", move_to_wrong_folder, "sorted cat, but filed at dog/a.jpg"),
    ("wrong name", rename_within_folder, "under another name"),
    ("poison", poisoned, "is called poison"),
    ("wrong label", sql("UPDATE images SET label = 'dog' WHERE id = 1"), "sorted dog, but filed at cat/a.jpg"),
    ("wrong outcome", sql("UPDATE images SET outcome = 'unsure' WHERE id = 1"), "unsure cat, but filed at cat/a.jpg"),
    ("no outcome", sql("UPDATE images SET outcome = NULL WHERE id = 1"), "outcome None is no outcome"),
    ("wrong reason", sql("UPDATE images SET reason = 'truncated' WHERE id = 7"), "but filed at _rejected/empty/"),
    ("unknown reason", sql("UPDATE images SET reason = 'odd' WHERE id = 7"), "reason 'odd' is no reason"),
    ("reason of a sorted file", sql("UPDATE images SET reason = 'empty' WHERE id = 1"), "but has the reason"),
    ("label of a rejected file", sql("UPDATE images SET label = 'cat' WHERE id = 8"), "rejected but has the label"),
    ("label of a duplicate", sql("UPDATE images SET label = 'cat' WHERE id = 9"), "duplicate but has the label"),
    ("wrong size", sql("UPDATE images SET size_bytes = 8 WHERE id = 1"), "says 8 bytes"),
    ("no size", sql("UPDATE images SET size_bytes = NULL WHERE id = 8"), "size_bytes is NULL"),
    ("wrong hash", sql("UPDATE images SET sha256 = ? WHERE id = 1", "0" * 64), "bytes of cat/a.jpg are not those"),
    ("upper-case hash", sql("UPDATE images SET sha256 = upper(sha256) WHERE id = 1"), "no lower-case hash"),
    ("no hash", sql("UPDATE images SET sha256 = NULL WHERE id = 8"), "sha256 is NULL"),
    ("size without bytes", sql("UPDATE images SET size_bytes = 0 WHERE id = 1"), "0 bytes do not go with"),
    ("wrong source", sql("UPDATE images SET source_path = 'b.jpg' WHERE id = 1"), "lost: no filed row for a.jpg"),
    ("destination with dots", sql("UPDATE images SET destination = 'cat/../cat/a.jpg' WHERE id = 1"), "no clean path"),
    ("absolute destination", sql("UPDATE images SET destination = '/cat/a.jpg' WHERE id = 1"), "no clean path"),
    ("in the work folder", sql("UPDATE images SET destination = '.pigeonholed/x' WHERE id = 1"), "no clean path"),
    ("no destination", sql("UPDATE images SET destination = NULL WHERE id = 1"), "destination is NULL"),
    ("bad escape", sql(r"UPDATE images SET source_path = 'a\q' WHERE id = 1"), "escapes nothing"),
    ("needless escape", sql(r"UPDATE images SET source_path = '\x61.jpg' WHERE id = 1"), "not escaped in the one"),
    ("claimed", sql("UPDATE images SET status = 'claimed' WHERE id = 1"), "still in flight: status 'claimed'"),
    ("planned", sql("UPDATE images SET status = 'planned' WHERE id = 1"), "still in flight: status 'planned'"),
    ("lost", sql("UPDATE images SET status = 'lost' WHERE id = 1"), "is marked lost"),
    ("no work folder", lambda site: shutil.rmtree(site.output / ".pigeonholed"), "has no work folder"),
    ("empty yet sorted", empty_yet_sorted, "has no bytes, yet is sorted"),
    ("sorted without a width", sql("UPDATE images SET width = NULL WHERE id = 1"), "sorted but width is NULL"),
    ("sorted without a model", sql("UPDATE images SET model = NULL WHERE id = 1"), "sorted but model is NULL"),
    ("no time", sql("UPDATE images SET filed_at = 'noon' WHERE id = 1"), "Invalid isoformat"),
    ("no filing time", sql("UPDATE images SET filed_at = NULL WHERE id = 1"), "filed_at is NULL"),
    ("times out of order", sql("UPDATE images SET filed_at = '2025-01-01' WHERE id = 1"), "out of order"),
    ("no predictions", sql("DELETE FROM predictions WHERE image_id = 1"), "no predictions"),
    ("rank from 0", sql("UPDATE predictions SET rank = rank - 1 WHERE image_id = 1"), "ranks are [0, 1]"),
    ("rank twice", sql("UPDATE predictions SET rank = 1 WHERE image_id = 1"), "ranks are [1, 1]"),
    ("rising", sql("UPDATE predictions SET confidence = 0.95 WHERE image_id = 1 AND rank = 2"), "do not fall"),
    ("over 1", sql("UPDATE predictions SET confidence = 1.5 WHERE image_id = 1 AND rank = 1"), "no probabilities"),
    ("not a number", sql("UPDATE predictions SET confidence = NULL WHERE image_id = 1 AND rank = 2"), "no probabilit"),
    ("sum", sql("UPDATE predictions SET confidence = 0.8 WHERE image_id = 1 AND rank = 2"), "add up to 1.7"),
    ("label twice", sql("UPDATE predictions SET label = 'cat' WHERE image_id = 1"), "predicted twice"),
    ("other best", sql("UPDATE predictions SET label = 'fox' WHERE image_id = 1 AND rank = 1"), "best prediction fox"),
    ("other confidence", sql("UPDATE images SET confidence = 0.8 WHERE id = 1"), "says cat (0.8)"),
    ("confidence", sql("UPDATE images SET confidence = 2 WHERE id = 1"), "confidence 2.0 is no probability"),
    ("rejected yet predicted", sql("INSERT INTO predictions VALUES (8, 1, 'cat', 0.9)"), "rejected but has predict"),
    ("orphan prediction", sql("INSERT INTO predictions VALUES (99, 1, 'cat', 0.9)"), "image 99, which has no row"),
    ("unknown model", sql("UPDATE images SET model_version = 7 WHERE id = 1"), "the model pets 7 has no row"),
    ("label unknown to its model", sql("""UPDATE models SET labels = '["cat"]'"""), "knows no label 'dog'"),
    ("labels are no list", sql("UPDATE models SET labels = 'x'"), "are no JSON list"),
    ("column missing", drop_column, "lacks reason"),
    ("no database", lambda site: site.database.unlink(), "there is no file"),
    ("no database at all", overwrite_database, "database: "),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "finding"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_is_found(site: Site, plant: Callable[[Site], None], finding: str) -> None:
    plant(site)
    assert any(finding in found for found in site.findings()), site.findings()


def test_poison_that_is_expected_is_no_finding(site: Site) -> None:
    poisoned(site)
    assert site.findings(poison=[b"p.jpg"]) == []


def test_more_predictions_than_wanted_are_found(site: Site) -> None:
    assert site.findings(top_k=2) == []
    assert any("2 predictions, 1 are wanted" in found for found in site.findings(top_k=1))


def test_a_reviewed_label_may_differ_from_the_best_prediction(site: Site) -> None:
    move_to_wrong_folder(site)
    site.execute("UPDATE images SET label = 'dog' WHERE id = 1")
    assert site.findings() != []
    site.execute("INSERT INTO reviews VALUES (1, 1, 'dog', 'cat', '2026-01-02', 'me')")
    assert site.findings() == []


def test_a_file_that_is_to_stay_is_no_finding(site: Site) -> None:
    (site.inbox / "note.part").write_bytes(b"x")
    assert site.findings(stays=[b"note.part"]) == []
    assert site.findings() == ["still in the inbox: note.part (file, 1 bytes)"]


def test_an_inbox_that_keeps_its_files_must_hold_them_all_unchanged(site: Site) -> None:
    site.dropped = [item for item in site.dropped if item.path == b"a.jpg"]
    (site.inbox / "a.jpg").write_bytes(b"cat one")
    assert not any("inbox:" in found or "changed there" in found for found in site.findings(inbox_keeps=True))
    (site.inbox / "a.jpg").write_bytes(b"changed")
    found = site.findings(inbox_keeps=True)
    assert "no longer in the inbox, or changed there: a.jpg" in found
    assert "still in the inbox: a.jpg (file, 7 bytes)" in found


def test_io_error_needs_no_hash(site: Site) -> None:
    site.file(b"bad.png", b"unread", "rejected", reason="io-error")
    site.execute("UPDATE images SET sha256 = NULL WHERE source_path = 'bad.png'")
    assert site.findings() == []


def test_rows_of_an_inbox_with_another_output_do_not_count(site: Site) -> None:
    site.insert(b"other.jpg", b"other", "sorted", "cat", None, b"cat/other.jpg")
    site.execute("UPDATE images SET inbox = 'phone' WHERE source_path = 'other.jpg'")
    assert site.findings(names=["camera"]) == []
    assert site.findings() != []


def test_an_inbox_with_its_own_template_may_place_sorted_files_anywhere_but_in_our_folders(site: Site) -> None:
    site.file(b"t.jpg", b"free", "sorted", "cat", at=b"2026/anything.jpg")
    assert site.findings(default_template=False) == []
    assert site.findings() != []
    site.file(b"u.jpg", b"not free", "sorted", "cat", at=b"_unsure/u.jpg")
    assert any("sorted, but filed below _unsure" in found for found in site.findings(default_template=False))


def test_the_manifest_may_say_which_inbox(site: Site) -> None:
    site.dropped = [auditor.Dropped(item.path, item.sha256, inbox="camera") for item in site.dropped]
    assert site.findings() == []
    site.dropped[0] = auditor.Dropped(site.dropped[0].path, site.dropped[0].sha256, inbox="phone")
    assert any("lost: no filed row for a.jpg" in found for found in site.findings())


@pytest.mark.parametrize("taken", ["x-1.jpg", "x-9.jpg", "x-0123456789ab.jpg", "x.jpg"])
def test_names_that_a_taken_one_becomes_are_known(taken: str) -> None:
    assert auditor._is_variant(taken.encode(), b"x.jpg")


@pytest.mark.parametrize("wrong", ["x-10.jpg", "x-0.jpg", "x-0123456789AB.jpg", "y.jpg", "x-1.png", "x-.jpg", "-1.jpg"])
def test_other_names_are_not(wrong: str) -> None:
    assert not auditor._is_variant(wrong.encode(), b"x.jpg")


def test_a_stem_is_cut_only_for_length() -> None:
    name = b"n" * 251 + b".jpg"
    assert auditor._is_variant(b"n" * 249 + b"-1.jpg", name)
    assert not auditor._is_variant(b"n" * 100 + b"-1.jpg", name)


@pytest.mark.parametrize("path", [b"a/b.jpg", ODD, b"\\x41", bytes(range(1, 256)), "é\u2028".encode()])
def test_paths_read_back_losslessly(path: bytes) -> None:
    assert auditor.unescape(text(path)) == path
    assert auditor.escape(path) == text(path)


def write_manifest(site: Site, file: Path) -> Path:
    lines = ["path,sha256,truth"]
    lines += [f'"{text(item.path)}",{item.sha256},{item.truth or ""}' for item in site.dropped]
    file.write_text("\n".join(lines) + "\n")
    return file


def run(site: Site, manifest: Path, *more: str) -> int:
    folders = ["--inbox", str(site.inbox), "--output", str(site.output), "--database", str(site.database)]
    return auditor.main(["--manifest", str(manifest), *folders, *more])


def test_the_command_says_in_its_exit_code_whether_all_is_well(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(site, tmp_path / "dropped.csv")
    assert run(site, manifest) == 0
    assert capsys.readouterr().out == "9 files dropped, 0 findings\n"
    site.path(b"cat/a.jpg").unlink()
    assert run(site, manifest) == 1
    assert "FOUND  row 1 (camera: a.jpg) says cat/a.jpg, where there is nothing" in capsys.readouterr().out


def test_a_manifest_without_hashes_is_refused(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "dropped.csv"
    manifest.write_text("path\na.jpg\n")
    assert run(site, manifest) == 2
    assert "lacks a column" in capsys.readouterr().err


def test_accuracy_counts_right_sorted_right_unsure_and_broken(site: Site) -> None:
    measured = auditor.accuracy(site.dropped, site.database)
    assert measured == auditor.Accuracy(
        readable=6, right_sorted=4, right_unsure=1, unsure=1, broken=2, broken_rejected=2
    )  # sub/b.jpg is truly a cat, and filed under dog; the duplicate has no truth
    assert measured.right_share == pytest.approx(5 / 6)
    assert measured.unsure_share == pytest.approx(1 / 6)


def test_accuracy_below_what_is_wanted_is_a_finding(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(site, tmp_path / "dropped.csv")
    assert run(site, manifest, "--accuracy", "--min-right", "0.8", "--max-unsure", "0.2") == 0
    assert "right: 5 of 6 (83.33%; 4 sorted, 1 unsure)" in capsys.readouterr().out
    assert run(site, manifest, "--accuracy", "--min-right", "0.9") == 1
    assert run(site, manifest, "--accuracy", "--max-unsure", "0.1") == 1


def test_a_broken_file_that_got_a_label_is_a_finding(site: Site, tmp_path: Path) -> None:
    site.file(b"half.jpg", b"half", "sorted", "cat", truth="broken")
    manifest = write_manifest(site, tmp_path / "dropped.csv")
    assert run(site, manifest) == 0
    assert run(site, manifest, "--accuracy") == 1


def test_the_auditor_shares_no_code_with_the_program() -> None:
    source = Path(auditor.__file__).read_text()
    assert "import pigeonholed" not in source
    assert "from pigeonholed" not in source


def test_a_row_that_was_made_of_a_file_lacks_a_model_and_only_where_that_is_expected(site: Site) -> None:
    site.file(b"made.jpg", b"made", "sorted", "cat")
    nothing = ", ".join(
        f"{name} = NULL" for name in ["confidence", "model", "model_version", "width", "height", "classified_at"]
    )
    site.execute(f"UPDATE images SET {nothing} WHERE source_path = 'made.jpg'")
    site.execute("DELETE FROM predictions WHERE image_id = (SELECT max(id) FROM images)")
    assert site.findings(remade=True) == []
    assert len(site.findings()) == 7
    site.execute("UPDATE images SET label = NULL WHERE source_path = 'made.jpg'")
    assert any("label is NULL" in finding for finding in site.findings(remade=True))


# -- action = none ----------------------------------------------------------------------------------------------------


def let_stay(site: Site, number: int) -> None:
    """Let the file of a row be in its inbox, and nowhere else."""
    with site.connect() as connection:
        query = "SELECT source_path, destination FROM images WHERE id = ?"
        source, destination = map(auditor.unescape, connection.execute(query, [number]).fetchone())
    connection.close()
    site.path(destination).rename(os.path.join(os.fsencode(site.inbox), source).decode(errors="surrogateescape"))
    site.path(destination + b".reason.json").unlink(missing_ok=True)
    site.execute("UPDATE images SET destination = NULL WHERE id = ?", number)


@pytest.fixture
def still(site: Site) -> Site:
    """The same where files stay: each path once, and no output."""
    site.execute("DELETE FROM images WHERE id IN (3, 9)")
    site.execute("DELETE FROM predictions WHERE image_id = 3")
    site.dropped = [item for number, item in enumerate(site.dropped, 1) if number not in {3, 9}]
    for number in (1, 2, 4, 5, 6, 7, 8):
        let_stay(site, number)
    shutil.rmtree(site.output)
    return site


def spill(site: Site) -> None:
    site.output.mkdir()
    (site.output / "x").write_bytes(b"x")


STILL_FAULTS: list[tuple[str, Callable[[Site], object], str]] = [
    ("destination", sql("UPDATE images SET destination = 'cat/a.jpg' WHERE id = 1"), "has the destination cat/a.jpg"),
    ("taken", lambda site: (site.inbox / "a.jpg").unlink(), "no longer in the inbox, or changed there: a.jpg"),
    ("changed", lambda site: (site.inbox / "a.jpg").write_bytes(b"x"), "no longer in the inbox, or changed there"),
    ("sidecar", lambda site: (site.inbox / "text.png.reason.json").touch(), "still in the inbox: text.png.reason.json"),
    ("no row", sql("DELETE FROM images WHERE id = 1"), "lost: no filed row for a.jpg"),
    ("two rows", lambda site: site.insert(b"a.jpg", b"cat one", "sorted", "cat", None, b"x"), "one filed row too many"),
    ("in flight", sql("UPDATE images SET status = 'claimed' WHERE id = 1"), "still in flight"),
    ("something filed", spill, "no row explains x"),
    ("work folder", lambda site: (site.output / ".pigeonholed/token").mkdir(parents=True), "left over in flight"),
]


def test_files_that_stay_are_no_finding(still: Site) -> None:
    assert still.findings(rows_only=True) == []
    still.output.mkdir()
    assert still.findings(rows_only=True) == []
    assert any("destination is NULL" in finding for finding in still.findings(inbox_keeps=True))


@pytest.mark.parametrize(("plant", "finding"), [fault[1:] for fault in STILL_FAULTS], ids=[f[0] for f in STILL_FAULTS])
def test_a_planted_fault_is_found_where_files_stay(still: Site, plant: Callable[[Site], object], finding: str) -> None:
    plant(still)
    assert any(finding in found for found in still.findings(rows_only=True)), still.findings(rows_only=True)


def test_sidecars_stay_with_their_pictures(still: Site) -> None:
    (still.inbox / "a.jpg.xmp").write_bytes(b"one")
    sidecars = [auditor.Dropped(b"a.jpg.xmp", hash_of(b"one"))]
    assert still.findings(rows_only=True, sidecars=sidecars) == []
    (still.inbox / "a.jpg.xmp").unlink()
    assert still.findings(rows_only=True, sidecars=sidecars) == ["no longer in the inbox, or changed there: a.jpg.xmp"]


def test_some_files_may_stay_where_others_were_filed(site: Site) -> None:
    let_stay(site, 4)
    let_stay(site, 8)
    assert site.findings(looked_at=[b"c.jpg", b"text.png"]) == []
    assert any("still in the inbox: c.jpg" in finding for finding in site.findings())
    (site.inbox / "c.jpg").unlink()
    assert any("changed there: c.jpg" in finding for finding in site.findings(looked_at=[b"c.jpg", b"text.png"]))


SET_ASIDE: list[tuple[str, Callable[[Site], None], str]] = [
    ("both sorted", lambda site: site.file(b"twin.jpg", b"cat one", "sorted", "cat"), "and neither is set aside"),
    ("no detail", sql("UPDATE images SET detail = NULL WHERE id = 9"), "does not name the image that it equals"),
    ("wrong image", sql("UPDATE images SET detail = 'image 2, cat/a.jpg' WHERE id = 9"), "does not name the image"),
    ("wrong place", sql("UPDATE images SET detail = 'image 1, dog/a.jpg' WHERE id = 9"), "does not say where image 1"),
    ("set aside for another duplicate", sql("UPDATE images SET outcome = 'duplicate' WHERE id = 1"), "set aside for"),
    ("set aside for a lost one", sql("UPDATE images SET status = 'lost' WHERE id = 1"), "set aside for row 1"),
]


class TestDuplicates:
    @pytest.fixture
    def site(self, site: Site) -> Site:
        """One in which they are set aside: `c.jpg`, which equals `a.jpg`, was undone."""
        site.execute("UPDATE images SET detail = 'the same as image 1, cat/a.jpg' WHERE id = 9")
        site.execute("UPDATE images SET status = 'returned' WHERE source_path = 'c.jpg'")
        site.path(b"_unsure/cat/c.jpg").unlink()
        site.dropped = [item for item in site.dropped if item.path != b"c.jpg"]
        return site

    def test_one_of_equal_ones_is_sorted_and_the_others_name_it(self, site: Site) -> None:
        assert site.findings(sets_aside=True) == []

    def test_of_one_that_stays_it_need_not_be_said_where_it_is(self, site: Site) -> None:
        let_stay(site, 1)
        site.execute("UPDATE images SET detail = 'the same as image 1' WHERE id = 9")
        assert site.findings(sets_aside=True, looked_at=[b"a.jpg"]) == []

    @pytest.mark.parametrize(("plant", "finding"), [row[1:] for row in SET_ASIDE], ids=[row[0] for row in SET_ASIDE])
    def test_fault_is_found(self, site: Site, plant: Callable[[Site], None], finding: str) -> None:
        plant(site)
        assert finding in "\n".join(site.findings(sets_aside=True))


class TestSidecars:
    @pytest.fixture
    def sidecars(self, site: Site) -> list[auditor.Dropped]:
        site.path(b"cat/a.jpg.xmp").write_bytes(b"one")
        site.path(b"dog/sub/b-1.xmp").write_bytes(b"two")
        return [auditor.Dropped(b"a.jpg.xmp", hash_of(b"one")), auditor.Dropped(b"sub/b.xmp", hash_of(b"two"))]

    def test_they_are_beside_their_pictures_under_the_names_of_those(
        self, site: Site, sidecars: list[auditor.Dropped]
    ) -> None:
        assert site.findings(sidecars=sidecars) == []
        assert "no row explains cat/a.jpg.xmp" in "\n".join(site.findings())

    @pytest.mark.parametrize("where", ["cat/a-1.jpg.xmp", "dog/a.jpg.xmp"])
    def test_elsewhere_they_are_lost(self, site: Site, sidecars: list[auditor.Dropped], where: str) -> None:
        os.rename(site.path(b"cat/a.jpg.xmp"), site.path(where.encode()))
        assert "lost: the sidecar a.jpg.xmp" in "\n".join(site.findings(sidecars=sidecars))

    def test_other_bytes_are_no_sidecar(self, site: Site, sidecars: list[auditor.Dropped]) -> None:
        site.path(b"cat/a.jpg.xmp").write_bytes(b"onE")
        assert "lost: the sidecar a.jpg.xmp" in "\n".join(site.findings(sidecars=sidecars))

    def test_one_that_is_still_in_the_inbox_is_found(self, site: Site, sidecars: list[auditor.Dropped]) -> None:
        (site.inbox / "a.jpg.xmp").write_bytes(b"one")
        assert "still in the inbox: a.jpg.xmp" in "\n".join(site.findings(sidecars=sidecars))

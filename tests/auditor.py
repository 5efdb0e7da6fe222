#!/usr/bin/env python3
"""An independent auditor: is the disk what the database says, and is all there that was dropped?

It shares no code with the program on purpose, and reads only the outside that the contract names (sections 3, 4
and 7): the files that were dropped, the inbox and output folders, and the database. Run it at rest: nothing may be in
flight.

    python tests/auditor.py --manifest dropped.csv --inbox inbox --output sorted --database pigeonholed.db

The manifest is a CSV file with a header and the columns `path` (relative to its inbox, escaped as in the database) and
`sha256`; optional are `truth` (a label, or `broken`) and `inbox` (the name of the inbox, as in the database).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

COLUMNS = {
    "images": "id inbox source_path sha256 size_bytes mtime_ns width height status outcome reason detail model "
    "model_version label confidence destination arrived_at classified_at filed_at",
    "predictions": "image_id rank label confidence",
    "models": "id name version digest labels loaded_at",
    "reviews": "id image_id label previous_label reviewed_at reviewer",
}
AT_REST = {"filed", "returned", "vanished"}
OUTCOMES = {"sorted", "unsure", "rejected", "duplicate"}
REASONS = {"unreadable", "truncated", "unsupported", "too-large", "empty", "io-error", "model-error", "poison"}
WORK_FOLDER = b".pigeonholed"
WORK_FILES = {b"owner", b"lock"}
SIDECAR = b".reason.json"
EMPTY_SHA256 = hashlib.sha256().hexdigest()
Row = dict[str, Any]


@dataclass(frozen=True)
class Dropped:
    """One file that was dropped; one that was dropped twice under the same name stands here twice."""

    path: bytes
    sha256: str
    truth: str | None = None
    inbox: str | None = None


@dataclass(frozen=True)
class OnDisk:
    """One entry below a folder: a regular file with its hash, or another thing with its kind."""

    size: int
    sha256: str
    kind: str = "file"


def audit(
    dropped: Sequence[Dropped],
    inboxes: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    database: str | os.PathLike[str],
    *,
    names: Collection[str] | None = None,
    inbox_keeps: bool = False,
    stays: Collection[bytes] = (),
    default_template: bool = True,
    poison: Collection[bytes] = (),
    top_k: int | None = None,
    rows_only: bool = False,
    looked_at: Collection[bytes] = (),
    sets_aside: bool = False,
    sidecars: Sequence[Dropped] = (),
    remade: bool = False,
) -> list[str]:
    """Check everything; each finding is a sentence, and none means that all is well.

    Args:
        dropped: every file that was dropped and had to be filed.
        inboxes: the folders of the inboxes that share the output.
        output: the output folder.
        database: the SQLite file, or `postgresql://…`.
        names: only rows of these inboxes count, where others have another output; None for all.
        inbox_keeps: `action = copy`: the dropped files are also still in the inbox, unchanged.
        stays: paths (relative to their inbox) that are to be left in an inbox: excluded, no regular file, unreadable.
        default_template: destinations of sorted and unsure files follow `{label}/{subdir}/{name}`.
        poison: paths of files that may be called `poison`.
        top_k: how many predictions a row has at most; None for any.
        rows_only: `action = none`: the files are in the inbox, unchanged, and no file of theirs is in the output.
        looked_at: paths of which the same is true, where others were filed: the inbox had several actions.
        sidecars: files that travel with pictures, each dropped before its own; they stay where those do.
        sets_aside: `duplicates = set-aside` from the first file on: equal pictures of an inbox are filed once.
        remade: rows that `fsck --repair` has made of files may lack what only a model could tell.
    """
    try:
        tables = _read_database(os.fspath(database))
    except (sqlite3.Error, ValueError) as error:
        return [f"database: {error}"]
    rows = [row for row in tables["images"] if names is None or row["inbox"] in names]
    filed = [row for row in rows if row["status"] == "filed"]
    disk = _walk(os.fsencode(output))
    stay = {id(row) for row in filed if rows_only or _path(row, "source_path") in looked_at}
    findings: list[str] = []
    findings += _check_statuses(rows)
    if not rows_only or os.path.lexists(os.path.join(os.fsencode(output), WORK_FOLDER)):
        findings += _check_work_folder(os.fsencode(output))
    kept = dropped if inbox_keeps or rows_only else [item for item in dropped if item.path in looked_at]
    if inbox_keeps or rows_only:
        kept = [*kept, *sidecars]
    everything = [*dropped, *sidecars]
    findings += _check_inboxes([os.fsencode(inbox) for inbox in inboxes], everything, kept, set(stays))
    findings += _take_sidecars([] if rows_only else sidecars, filed, disk)
    for row in filed:
        findings += _check_row(row, set(poison), stays=id(row) in stay, remade=remade)
        findings += _check_place(row, default_template)
        findings += _check_bytes(row, disk)
        findings += _check_sidecar(os.fsencode(output), row)
    findings += _check_explained(filed, disk)
    findings += _check_arrivals(dropped, filed)
    moved = [] if rows_only else [item for item in dropped if item.path not in looked_at]
    findings += _check_contents(moved, disk, filed)
    told = [row for row in rows if not (remade and _is_remade(row))]
    findings += _check_predictions(tables, told, top_k)
    findings += _check_models(tables["models"], filed)
    if sets_aside:
        findings += _check_duplicates(rows, filed)
    return findings


# -- reading ----------------------------------------------------------------------------------------------------------


def read_manifest(file: str | os.PathLike[str]) -> list[Dropped]:
    """Read a CSV manifest; `ValueError` when it is none."""
    with open(file, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"path", "sha256"} <= set(reader.fieldnames or ()):
            raise ValueError(f"the manifest {os.fspath(file)!r} lacks a column: it needs path and sha256")
        return [
            Dropped(unescape(row["path"]), row["sha256"], row.get("truth") or None, row.get("inbox") or None)
            for row in reader
        ]


def unescape(text: str) -> bytes:
    r"""Read a path of the database: `\xNN` is a byte, `\\` a backslash; anything else behind one is a fault."""

    def byte(match: re.Match[bytes]) -> bytes:
        found = match.group()
        if found == b"\\\\":
            return b"\\"
        if len(found) == 4:
            return bytes.fromhex(found[2:].decode())
        raise ValueError(f"{text!r} has a backslash that escapes nothing")

    return re.sub(rb"\\\\|\\x[0-9a-f]{2}|\\", byte, text.encode())


def escape(path: bytes) -> str:
    """The one right way to write a path; the inverse of `unescape`."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _read_database(file: str) -> dict[str, list[Row]]:
    if file.startswith("postgresql://"):
        return _read_server(file)
    if not os.path.isfile(file):
        raise ValueError(f"there is no file {file!r}")
    path = os.path.abspath(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        if (verdict := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise ValueError(f"SQLite finds it damaged: {verdict}")
        return {table: _read_table(connection, table, columns.split()) for table, columns in COLUMNS.items()}
    finally:
        connection.close()


def _read_server(url: str) -> dict[str, list[Row]]:
    """The same of Postgres, as SQLite would say it: times as text in UTC, JSON as text."""
    import psycopg  # for files of SQLite, nobody needs it

    def said(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
        return json.dumps(value) if isinstance(value, list) else value

    try:
        with psycopg.connect(url) as connection:
            tables = {}
            for table, columns in COLUMNS.items():
                names = columns.split()
                rows = connection.execute(f"SELECT {', '.join(names)} FROM {table}")  # type: ignore[call-overload]
                tables[table] = [dict(zip(names, map(said, row), strict=True)) for row in rows]
            return tables
    except psycopg.Error as error:
        raise ValueError(" ".join(str(error).split())) from error


def _read_table(connection: sqlite3.Connection, table: str, columns: list[str]) -> list[Row]:
    present = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
    if absent := [column for column in columns if column not in present]:
        raise ValueError(f"the table {table} lacks {', '.join(absent)}")
    return [dict(row) for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}")]


def _walk(root: bytes) -> dict[bytes, OnDisk]:
    """Everything below a folder that is no folder, by relative path; the work folder at its top is left out."""
    found = {}
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        if relative == b".":
            folders[:] = [name for name in folders if name != WORK_FOLDER]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in files + links:
            found[os.path.normpath(os.path.join(relative, name))] = _look(os.path.join(folder, name))
    return found


def _look(path: bytes) -> OnDisk:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return OnDisk(0, "", "link" if stat.S_ISLNK(status.st_mode) else "special file")
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return OnDisk(status.st_size, digest.hexdigest())


# -- checking ---------------------------------------------------------------------------------------------------------


def _name(row: Row) -> str:
    return f"row {row['id']} ({row['inbox']}: {row['source_path']})"


def _path(row: Row, column: str) -> bytes | None:
    """A path column as bytes; None where it is absent or badly escaped, which `_check_row` reports."""
    try:
        return None if row[column] is None else unescape(row[column])
    except ValueError:
        return None


def _check_statuses(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        if row["status"] == "lost":
            yield f"{_name(row)} is marked lost"
        elif row["status"] not in AT_REST:
            yield f"{_name(row)} is still in flight: status {row['status']!r}"


def _check_work_folder(output: bytes) -> Iterator[str]:
    work = os.path.join(output, WORK_FOLDER)
    if not os.path.isdir(work):
        yield f"the output has no work folder {WORK_FOLDER.decode()}"
        return
    present = set(os.listdir(work))
    for name in sorted(present - WORK_FILES):
        yield f"left over in flight: {WORK_FOLDER.decode()}/{escape(name)}"
    for name in sorted(WORK_FILES - present):
        yield f"the work folder lacks {name.decode()}"


def _check_inboxes(
    inboxes: Sequence[bytes], dropped: Sequence[Dropped], kept: Sequence[Dropped], stays: set[bytes]
) -> Iterator[str]:
    expected = Counter((item.path, item.sha256) for item in kept)
    for inbox in inboxes:
        for path, entry in _walk(inbox).items():
            if path in stays:
                continue
            if expected[path, entry.sha256] > 0:
                expected[path, entry.sha256] -= 1
            else:
                yield f"still in the inbox: {escape(path)} ({entry.kind}, {entry.size} bytes)"
    for path, _ in +expected:
        yield f"no longer in the inbox, or changed there: {escape(path)}"
    folders = {os.path.dirname(item.path) for item in dropped}
    for folder in sorted(folders):
        if not any(os.path.isdir(os.path.join(inbox, folder)) for inbox in inboxes):
            yield f"a sub-folder of the inbox is gone: {escape(folder)}"


def _check_row(row: Row, poison: set[bytes], *, stays: bool, remade: bool) -> Iterator[str]:
    """What a filed row must hold, whatever the disk says."""
    who, outcome, reason = _name(row), row["outcome"], row["reason"]
    for column in ("source_path", "destination"):
        text = row[column]
        try:
            if text is not None and escape(unescape(text)) != text:
                yield f"{who}: {column} {text!r} is not escaped in the one right way"
        except ValueError as error:
            yield f"{who}: {column}: {error}"
    for column in ("size_bytes", "arrived_at", "filed_at"):
        if row[column] is None:
            yield f"{who}: {column} is NULL"
    if stays and row["destination"] is not None:
        yield f"{who} stays in its inbox, and has the destination {row['destination']}"
    elif not stays and row["destination"] is None:
        yield f"{who}: destination is NULL"
    if outcome not in OUTCOMES:
        yield f"{who}: outcome {outcome!r} is no outcome"
    if row["sha256"] is None:
        if reason != "io-error":
            yield f"{who}: sha256 is NULL"
    elif not re.fullmatch("[0-9a-f]{64}", row["sha256"]):
        yield f"{who}: sha256 {row['sha256']!r} is no lower-case hash"
    if outcome == "rejected" and reason not in REASONS:
        yield f"{who}: reason {reason!r} is no reason"
    if outcome != "rejected" and reason is not None:
        yield f"{who}: {outcome} but has the reason {reason!r}"
    if reason == "poison" and _path(row, "source_path") not in poison:
        yield f"{who} is called poison, and should not be"
    if (row["size_bytes"] == 0) != (row["sha256"] == EMPTY_SHA256):
        yield f"{who}: {row['size_bytes']} bytes do not go with sha256 {row['sha256']}"
    if row["size_bytes"] == 0 and outcome in {"sorted", "unsure"}:
        yield f"{who} has no bytes, yet is {outcome}"
    yield from _check_classification(row, remade)
    yield from _check_times(row)


_OF_MODELS = ("confidence", "model", "model_version", "width", "height", "classified_at")


def _is_remade(row: Row) -> bool:
    """Whether no model has anything to do with a row, as with one that was made of a file."""
    return all(row[column] is None for column in _OF_MODELS)


def _check_classification(row: Row, remade: bool) -> Iterator[str]:
    who = _name(row)
    if row["outcome"] in {"sorted", "unsure"}:
        for column in ("label", *(() if remade and _is_remade(row) else _OF_MODELS)):
            if row[column] is None:
                yield f"{who}: {row['outcome']} but {column} is NULL"
    elif row["label"] is not None:
        yield f"{who}: {row['outcome']} but has the label {row['label']!r}"
    if row["confidence"] is not None and not 0.0 <= row["confidence"] <= 1.0:
        yield f"{who}: confidence {row['confidence']} is no probability"


def _check_times(row: Row) -> Iterator[str]:
    stated = [(column, row[column]) for column in ("arrived_at", "classified_at", "filed_at") if row[column]]
    try:
        times = [datetime.fromisoformat(text) for _, text in stated]
    except ValueError as error:
        yield f"{_name(row)}: {error}"
        return
    if times != sorted(times):
        yield f"{_name(row)}: its times are out of order: {stated}"


def _check_place(row: Row, default_template: bool) -> Iterator[str]:
    """Whether the destination is the place of section 3 for this outcome, label and reason."""
    destination, source = _path(row, "destination"), _path(row, "source_path")
    if destination is None or source is None:
        return
    parts = destination.split(b"/")
    if destination.startswith(b"/") or {b"", b".", b".."} & set(parts) or parts[0] == WORK_FOLDER:
        yield f"{_name(row)}: the destination {row['destination']!r} is no clean path within the output"
        return
    label = (row["label"] or "").encode()
    top, templated = {
        "sorted": ([label], True),
        "unsure": ([b"_unsure", label], True),
        "rejected": ([b"_rejected", (row["reason"] or "").encode()], False),
        "duplicate": ([b"_duplicates"], False),
    }.get(row["outcome"], ([], False))
    if templated and not default_template:
        top = top[:-1]
        if not top and parts[0].startswith(b"_"):
            yield f"{_name(row)}: sorted, but filed below {escape(parts[0])}"
    if parts[: len(top)] != top:
        yield f"{_name(row)}: {row['outcome']} {label.decode() or row['reason']}, but filed at {row['destination']}"
    elif not templated or default_template:
        wanted = [_defused(part) for part in source.split(b"/")] if templated else source.split(b"/")
        found = parts[len(top) :]
        if found[:-1] != wanted[:-1] or not _is_variant(found[-1], wanted[-1]):
            yield f"{_name(row)}: filed under another name or sub-folder: {row['destination']}"


def _defused(component: bytes) -> bytes:
    return b"-" + component if component[:1] in {b"_", b"."} else component


def _is_variant(found: bytes, wanted: bytes) -> bool:
    """Whether a name is the wanted one, or what a taken or too long one becomes."""
    if found == wanted:
        return True
    stem, dot, extension = wanted.rpartition(b".")
    if not dot or not stem or len(extension) > 31:  # a name with a dot early in it has no extension
        stem, dot, extension = wanted, b"", b""
    if not found.endswith(dot + extension):
        return False
    kept = found[: len(found) - len(dot + extension)]
    for pattern in (rb"-[1-9]$", rb"-[0-9a-f]{12}$", rb"$"):
        cut = re.sub(pattern, b"", kept, count=1)
        # A stem is only cut for length: 255 bytes less room for `.reason.json` and a cut character.
        if (cut != kept or pattern == rb"$") and (cut == stem or (stem.startswith(cut) and len(found) >= 236)):
            return True
    return False


def _check_bytes(row: Row, disk: dict[bytes, OnDisk]) -> Iterator[str]:
    destination = _path(row, "destination")
    if destination is None:
        return
    entry = disk.get(destination)
    if entry is None:
        yield f"{_name(row)} says {row['destination']}, where there is nothing"
    elif entry.kind != "file":
        yield f"{_name(row)} says {row['destination']}, which is a {entry.kind}"
    elif entry.size != row["size_bytes"]:
        yield f"{_name(row)} says {row['size_bytes']} bytes, {row['destination']} has {entry.size}"
    elif row["sha256"] is not None and entry.sha256 != row["sha256"]:
        yield f"{_name(row)}: the bytes of {row['destination']} are not those of the row"


def _check_sidecar(output: bytes, row: Row) -> Iterator[str]:
    destination = _path(row, "destination")
    if row["outcome"] != "rejected" or destination is None:
        return
    sidecar = os.path.join(output, destination + SIDECAR)
    if not os.path.isfile(sidecar) or os.path.islink(sidecar):
        yield f"{_name(row)}: no {escape(destination + SIDECAR)} beside the rejected file"
        return
    try:
        with open(sidecar, encoding="utf-8") as stream:
            said = json.load(stream)
    except ValueError as error:
        yield f"{_name(row)}: its {SIDECAR.decode()} cannot be read: {error}"
        return
    if not isinstance(said, dict) or said.get("reason") != row["reason"]:
        yield f"{_name(row)}: its {SIDECAR.decode()} does not give the reason {row['reason']!r}"


def _check_explained(filed: Sequence[Row], disk: dict[bytes, OnDisk]) -> Iterator[str]:
    """Every file on disk is the destination of exactly one row, or the sidecar of one."""
    explained: Counter[bytes] = Counter()
    for row in filed:
        if (destination := _path(row, "destination")) is not None:
            explained[destination] += 1
            if row["outcome"] == "rejected":
                explained[destination + SIDECAR] += 1
    for path in sorted(disk):
        if not explained[path]:
            yield f"no row explains {escape(path)} ({disk[path].kind}, {disk[path].size} bytes)"
    for path, count in sorted(explained.items()):
        if count > 1:
            yield f"{count} rows claim {escape(path)}"


def _check_arrivals(dropped: Sequence[Dropped], filed: Sequence[Row]) -> Iterator[str]:
    """Exactly one filed row for each dropped file, by name and content."""
    by_content: dict[tuple[bytes | None, str], list[Row]] = {}
    by_name: dict[bytes | None, list[Row]] = {}  # io-error: without a hash
    for row in filed:
        source = _path(row, "source_path")
        if row["sha256"] is None:
            by_name.setdefault(source, []).append(row)
        else:
            by_content.setdefault((source, row["sha256"]), []).append(row)
    for item in dropped:
        candidates = by_content.get((item.path, item.sha256)) or by_name.get(item.path) or []
        match = next((row for row in candidates if item.inbox in {None, row["inbox"]}), None)
        if match is None:
            yield f"lost: no filed row for {escape(item.path)} with sha256 {item.sha256[:12]}"
        else:
            candidates.remove(match)
    for rows in (*by_content.values(), *by_name.values()):
        for row in rows:
            yield f"{_name(row)} is one filed row too many: no such file was dropped, or it was filed twice"


def _check_contents(dropped: Sequence[Dropped], disk: dict[bytes, OnDisk], filed: Sequence[Row]) -> Iterator[str]:
    """What was dropped and what is on disk, as multisets of contents: this asks no row but to tell sidecars apart."""
    destinations = {_path(row, "destination") for row in filed}
    wanted = Counter(item.sha256 for item in dropped)
    found: Counter[str] = Counter()
    for path, entry in disk.items():
        rejected = path.startswith(b"_rejected/") and path.endswith(SIDECAR)
        if entry.kind == "file" and (not rejected or path in destinations):
            found[entry.sha256] += 1
    for sha256, count in (wanted - found).items():
        yield f"lost: sha256 {sha256[:12]} was dropped {wanted[sha256]} times, {count} of them are not on disk"
    for sha256, count in (found - wanted).items():
        yield f"sha256 {sha256[:12]} was dropped {wanted[sha256]} times, and is on disk {count} times more"


def _check_predictions(tables: dict[str, list[Row]], rows: Sequence[Row], top_k: int | None) -> Iterator[str]:
    of_image: dict[int, list[Row]] = {}
    for prediction in tables["predictions"]:
        of_image.setdefault(prediction["image_id"], []).append(prediction)
    reviewed = {review["image_id"] for review in tables["reviews"]}
    known = {row["id"] for row in tables["images"]}
    for image_id in sorted(of_image.keys() - known):
        yield f"predictions belong to the image {image_id}, which has no row"
    for row in rows:
        if row["status"] == "filed":
            ranked = sorted(of_image.get(row["id"], []), key=lambda prediction: prediction["rank"])
            for fault in _prediction_faults(row, ranked, row["id"] in reviewed, top_k):
                yield f"{_name(row)}: {fault}"


def _prediction_faults(row: Row, ranked: Sequence[Row], reviewed: bool, top_k: int | None) -> Iterator[str]:
    if row["outcome"] not in {"sorted", "unsure"}:
        if ranked:
            yield f"{row['outcome']} but has predictions"
        return
    if not ranked:
        yield "no predictions"
        return
    confidences = [prediction["confidence"] for prediction in ranked]
    if [prediction["rank"] for prediction in ranked] != list(range(1, len(ranked) + 1)):
        yield f"its ranks are {[prediction['rank'] for prediction in ranked]}"
    if len({prediction["label"] for prediction in ranked}) != len(ranked):
        yield "a label is predicted twice"
    if top_k is not None and len(ranked) > top_k:
        yield f"{len(ranked)} predictions, {top_k} are wanted"
    if any(confidence is None or not 0.0 <= confidence <= 1.0 for confidence in confidences):
        yield f"its confidences are no probabilities: {confidences}"
        return
    if confidences != sorted(confidences, reverse=True):
        yield f"its confidences do not fall: {confidences}"
    if sum(confidences) > 1.001:
        yield f"its confidences add up to {sum(confidences):.4f}"
    if not reviewed and (ranked[0]["label"], confidences[0]) != (row["label"], row["confidence"]):
        yield f"says {row['label']} ({row['confidence']}), its best prediction {ranked[0]['label']} ({confidences[0]})"


def _check_models(models: Sequence[Row], filed: Sequence[Row]) -> Iterator[str]:
    labels: dict[tuple[str, int], set[str]] = {}
    for model in models:
        try:
            labels.setdefault((model["name"], model["version"]), set()).update(json.loads(model["labels"]))
        except (TypeError, ValueError):
            yield f"the labels of the model {model['name']} {model['version']} are no JSON list: {model['labels']!r}"
    for row in filed:
        if row["model"] is None or row["outcome"] not in {"sorted", "unsure"}:
            continue
        known = labels.get((row["model"], row["model_version"]))
        if known is None:
            yield f"{_name(row)}: the model {row['model']} {row['model_version']} has no row"
        elif row["label"] not in known:
            yield f"{_name(row)}: the model {row['model']} {row['model_version']} knows no label {row['label']!r}"


def _take_sidecars(sidecars: Sequence[Dropped], filed: Sequence[Row], disk: dict[bytes, OnDisk]) -> Iterator[str]:
    """Each is beside a picture that it may belong to, under the name that this got; then it is taken out of `disk`."""
    by_folder: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for row in filed:
        source, destination = _path(row, "source_path"), _path(row, "destination")
        if source is not None and destination is not None:
            by_folder.setdefault(os.path.dirname(source), []).append((source, destination))
    for item in sidecars:
        for source, destination in by_folder.get(os.path.dirname(item.path), ()):
            place = _place_of_sidecar(item.path, source, destination)
            if place in disk and disk[place].sha256 == item.sha256:
                del disk[place]
                break
        else:
            yield f"lost: the sidecar {escape(item.path)} is beside none of its pictures"


def _place_of_sidecar(sidecar: bytes, source: bytes, destination: bytes) -> bytes | None:
    """Where it should be, if it belongs to the picture that came from `source`."""
    if sidecar.startswith(source + b"."):
        return destination + sidecar[len(source) :]
    stem, new_stem = os.path.splitext(source)[0], os.path.splitext(destination)[0]
    return new_stem + sidecar[len(stem) :] if sidecar.startswith(stem + b".") else None


def _check_duplicates(rows: Sequence[Row], filed: Sequence[Row]) -> Iterator[str]:
    """Of equal pictures one is filed by what it shows, and each other names one that is, or was until it was undone."""
    known = {row["id"]: row for row in rows}
    standing: dict[tuple[str, str], Row] = {}
    for row in filed:
        if row["outcome"] in {"sorted", "unsure"}:
            if (first := standing.setdefault((row["inbox"], row["sha256"]), row)) is not row:
                yield f"{_name(row)} has the same bytes as row {first['id']}, and neither is set aside"
        elif row["outcome"] == "duplicate":
            named = re.search(r"image (\d+)\b", row["detail"] or "")
            original = known.get(int(named[1])) if named else None
            if original is None or (original["inbox"], original["sha256"]) != (row["inbox"], row["sha256"]):
                yield f"{_name(row)} does not name the image that it equals: {row['detail']!r}"
            elif original["status"] not in {"filed", "returned"} or original["outcome"] not in {"sorted", "unsure"}:
                yield f"{_name(row)} is set aside for row {original['id']}, which is not filed by what it shows"
            elif (
                original["status"] == "filed"
                and original["destination"] is not None  # it stays where it came from
                and str(original["classified_at"]) <= str(row["filed_at"])  # else it was `reclassify` that moved it
                and original["destination"] not in row["detail"]
            ):
                yield f"{_name(row)} does not say where image {original['id']} is: {row['detail']!r}"


# -- accuracy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accuracy:
    """How the results compare with the truth of the manifest; every number is a count of dropped files."""

    readable: int
    right_sorted: int
    right_unsure: int
    unsure: int
    broken: int
    broken_rejected: int

    @property
    def right_share(self) -> float:
        """Of the readable: in the right folder, or unsure under the right label."""
        return (self.right_sorted + self.right_unsure) / max(1, self.readable)

    @property
    def unsure_share(self) -> float:
        """Of the readable: unsure."""
        return self.unsure / max(1, self.readable)

    def __str__(self) -> str:
        return (
            f"right: {self.right_sorted + self.right_unsure} of {self.readable} ({self.right_share:.2%}; "
            f"{self.right_sorted} sorted, {self.right_unsure} unsure)\n"
            f"unsure: {self.unsure} of {self.readable} ({self.unsure_share:.2%})\n"
            f"broken: {self.broken_rejected} of {self.broken} rejected"
        )


def accuracy(dropped: Sequence[Dropped], database: str | os.PathLike[str]) -> Accuracy:
    """Compare the filed rows with the truth; entries without a truth do not count."""
    waiting: dict[tuple[bytes | None, str | None], list[Row]] = {}
    for row in _read_database(os.fspath(database))["images"]:
        if row["status"] == "filed":
            waiting.setdefault((_path(row, "source_path"), row["sha256"]), []).append(row)
    count: Counter[str] = Counter()
    for item in dropped:
        if item.truth is None:
            continue
        rows = waiting.get((item.path, item.sha256))
        row = rows.pop() if rows else {"outcome": None, "label": None}
        kind = "broken" if item.truth == "broken" else "readable"
        count[kind] += 1
        count[f"{kind} {row['outcome']}"] += 1
        count[f"right {row['outcome']}"] += kind == "readable" and row["label"] == item.truth
    return Accuracy(
        readable=count["readable"],
        right_sorted=count["right sorted"],
        right_unsure=count["right unsure"],
        unsure=count["readable unsure"],
        broken=count["broken"],
        broken_rejected=count["broken rejected"],
    )


# -- command ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a short report; 0 when all is well, 1 when there are findings, 2 when it cannot be judged."""
    options = _parser().parse_args(arguments)
    try:
        dropped = read_manifest(options.manifest)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    findings = audit(
        dropped,
        options.inbox,
        options.output,
        options.database,
        names=options.name,
        inbox_keeps=options.inbox_keeps,
        stays=[unescape(path) for path in options.stays],
        default_template=not options.any_template,
        poison=[unescape(path) for path in options.poison],
        top_k=options.top_k,
        rows_only=options.rows_only,
        sets_aside=options.set_aside,
        remade=options.remade,
    )
    if options.accuracy and not any(finding.startswith("database:") for finding in findings):
        measured = accuracy(dropped, options.database)
        print(measured)
        findings += _accuracy_findings(measured, options.min_right, options.max_unsure)
    for finding in findings[:100]:
        print(f"FOUND  {finding}")
    print(f"{len(dropped)} files dropped, {len(findings)} findings" + (" (100 shown)" if len(findings) > 100 else ""))
    return 1 if findings else 0


def _accuracy_findings(measured: Accuracy, min_right: float, max_unsure: float) -> Iterator[str]:
    if measured.right_share < min_right:
        yield f"only {measured.right_share:.2%} are right, {min_right:.2%} are wanted"
    if measured.unsure_share > max_unsure:
        yield f"{measured.unsure_share:.2%} are unsure, at most {max_unsure:.2%} may be"
    if measured.broken_rejected < measured.broken:
        yield f"{measured.broken - measured.broken_rejected} broken files are not rejected"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Judges whether disk, database and dropped files agree.")
    parser.add_argument("--manifest", required=True, help="CSV with path, sha256 and optionally truth, inbox")
    parser.add_argument("--inbox", required=True, action="append", help="inbox folder; may be repeated")
    parser.add_argument("--output", required=True, help="output folder")
    parser.add_argument("--database", required=True, help="SQLite file, or postgresql://...")
    parser.add_argument("--name", action="append", help="only rows of this inbox count; may be repeated")
    parser.add_argument("--inbox-keeps", action="store_true", help="action = copy: the files are also in the inbox")
    parser.add_argument("--rows-only", action="store_true", help="action = none: the files are only in the inbox")
    parser.add_argument("--stays", action="append", default=[], help="path that is to be left in the inbox")
    parser.add_argument("--any-template", action="store_true", help="the inbox has a template of its own")
    parser.add_argument("--poison", action="append", default=[], help="path of a file that may be called poison")
    parser.add_argument("--top-k", type=int, help="how many predictions a row has at most")
    parser.add_argument("--set-aside", action="store_true", help="the inbox has always set duplicates aside")
    parser.add_argument("--remade", action="store_true", help="rows that fsck --repair has made may lack a model")
    parser.add_argument("--accuracy", action="store_true", help="also compare with the truth of the manifest")
    parser.add_argument("--min-right", type=float, default=0.0, help="with --accuracy: share that must be right")
    parser.add_argument("--max-unsure", type=float, default=1.0, help="with --accuracy: share that may be unsure")
    return parser


if __name__ == "__main__":
    sys.exit(main())

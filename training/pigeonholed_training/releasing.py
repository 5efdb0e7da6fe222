"""From a finished run to a published version: gates, then proof, then the store; or nothing at all."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pigeonholed import bundle as bundles
from pigeonholed import imaging
from pigeonholed.bundle import BundleError
from pigeonholed.paths import from_text
from pigeonholed.store import ModelStore
from pigeonholed_training import entrants, gates, publishing
from pigeonholed_training.backend import require_train_extra
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable
from pigeonholed_training.evaluation.comparison import pair
from pigeonholed_training.evaluation.verdict import verdict
from pigeonholed_training.gates import Gate, Wanted
from pigeonholed_training.reporting import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pigeonholed.bundle import Bundle
    from pigeonholed_training.entrants import Entrant
    from pigeonholed_training.evaluation.record import Prediction

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TRIES = 3  # for as long as others publish the same model while we judge ours


@dataclass(frozen=True, slots=True)
class Release:
    """A published version and the gates it went through."""

    bundle: Bundle
    gates: tuple[Gate, ...]


def release(
    run: Path,
    name: str,
    models: Path,
    wanted: Wanted,
) -> Release:
    """Publishes a finished run as the next version of a model, if it passes its gates.

    What is published carries them: as `gates` of its `metrics.json`, and in its report.

    Args:
        run: the run folder; it is left as it is.
        name: of the model.
        models: the store.
        wanted: what it must show.

    Raises:
        TrainingError: a gate is shut; the run is not finished or does not load; the store cannot be written. Then
            the store is as it was.
    """
    require_train_extra()
    imaging.configure()
    new, store = entrants.of_run(run), ModelStore(models)
    for _ in range(_TRIES):
        live = _live_version(store, name)
        passed = tuple(_judged(new, store, name, live, wanted))
        with _staged(new, name, passed) as staging:
            _prove(staging)
            if _live_version(store, name) == live:  # else it was judged against a version that is live no more
                return Release(publish(staging, name, models), passed)
    raise Unavailable(f"Cannot publish {run} as {name}: others keep publishing that model; try again in a while.")


def publish(staging: Path, name: str, models: Path) -> Bundle:
    """Puts a complete bundle into the store at `models`, whatever it is worth, and makes it current.

    Raises:
        Misconfigured: it is not complete, or the store cannot be written; the store is as it was.
        Unavailable: the disk is full; the same.
    """
    try:
        return ModelStore(models).publish(name, staging)
    except BundleError as fault:
        cause = fault.__cause__
        if isinstance(cause, OSError) and _is_full(cause):
            raise _unwritten(name, models, cause) from fault
        raise Misconfigured(str(fault)) from fault


def _prove(staging: Path) -> None:
    """Makes sure that a bundle loads as the daemon would load it, and gives the answers of its self-test.

    Raises:
        TrainingError: it does not.
        OSError: that could not be tried, for want of room.
    """
    try:
        with publishing.serving(staging):
            pass
    except TrainingError as fault:
        cause = fault.__cause__ and fault.__cause__.__cause__
        if isinstance(cause, OSError):
            raise cause from None
        raise


def _unwritten(what: str, where: Path | str, fault: OSError) -> TrainingError:
    """What to say where a folder could not be written."""
    if _is_full(fault):
        return Unavailable(
            f"Cannot publish {what}: the disk of {where} is full; make room and publish again. The store is as it was."
        )
    return Misconfigured(f"Cannot publish {what}: {where} cannot be written ({fault.strerror or fault}).")


def _is_full(fault: OSError) -> bool:
    if isinstance(fault, shutil.Error):  # holds (source, target, reason in words) of many faults
        return any(str(reason).startswith(tuple(f"[Errno {code}]" for code in _FULL)) for *_, reason in fault.args[0])
    return fault.errno in _FULL


def _judged(new: Entrant, store: ModelStore, name: str, live: int | str | None, wanted: Wanted) -> list[Gate]:
    """The gates, all of them open.

    Raises:
        TrainingError: one is shut.
    """
    found = gates.minimums(new.metrics.get("held_out") or {}, wanted)
    if live is not None:
        found.append(_beside_live(new, store, name, live, force=wanted.force))
    if said := gates.refusal(found):
        raise TrainingError(f"{new.title} is not published. {said}")
    return found


def _live_version(store: ModelStore, name: str) -> int | str | None:
    """The current version; None where there is none; a string, the fault, where the store does not say clearly."""
    try:
        return store.current(name)
    except BundleError as fault:
        return str(fault)


def _beside_live(new: Entrant, store: ModelStore, name: str, version: int | str, *, force: bool) -> Gate:
    if isinstance(version, str):
        return gates.not_compared(f"the model {name}", f"it cannot be opened ({version.rstrip('.')})")
    title = f"{name}/{version}"
    try:
        live = entrants.published(store, name, version)
        return _against(new, live, force=force)
    except TrainingError as fault:
        return gates.not_compared(title, f"it cannot be opened ({str(fault).rstrip('.')})")


def _against(new: Entrant, live: Entrant, *, force: bool) -> Gate:
    """Both on the pictures that judged the new one, as far as the live one has not learnt from them.

    Raises:
        TrainingError: the live version does not load.
    """
    gone = [label for label in live.labels if label not in new.labels]
    if gone:
        return gates.not_compared(live.title, f"the new model has no class {gone[0]!a}, and so does another job")
    if new.record.predictions is None:
        return gates.not_compared(live.title, f"{new.title} does not say what it was judged on; train it again")
    judged = [one for sha256, one in new.record.judged.items() if one.label in live.labels]
    fresh = [one for one in judged if not live.record.has_learnt(one.sha256)]
    if not fresh:
        return gates.not_compared(live.title, f"it has learnt from all {len(judged)} pictures that judged the new one")
    answers = _answers_of(live, fresh, new)
    asked = [one for one in fresh if one.sha256 in answers]
    if not asked:
        return gates.not_compared(live.title, "the pictures that judged the new one are not where they were")
    beside = pair(live.title, new.title, [answers[one.sha256] for one in asked], asked)
    return gates.not_worse(beside, force=force, caveat=_caveat(live, len(judged), len(fresh), len(asked)))


def _caveat(live: Entrant, judged: int, fresh: int, asked: int) -> str:
    said = []
    if live.record.learnt is None:
        said.append(f"{live.title} does not say what it learnt from and may know these pictures.")
    if fresh < judged:
        said.append(f"Left out: {judged - fresh} that it has learnt from.")
    if asked < fresh:
        said.append(f"Not where they were: {fresh - asked}.")
    return " ".join(said)


def _answers_of(live: Entrant, pictures: list[Prediction], new: Entrant) -> dict[str, Prediction]:
    """What the live version said of pictures when it was judged, and what it says now of the others."""
    known = {
        one.sha256: live.record.judged[one.sha256]
        for one in pictures
        if one.sha256 in live.record.judged and live.record.judged[one.sha256].label == one.label
    }
    unknown = [one for one in pictures if one.sha256 not in known]
    if new.data is None or not unknown:
        return known
    files = [(from_text(one.path), one.label) for one in unknown]
    root = new.data if new.data.is_dir() else new.data.parent  # a list names pictures beside it
    return known | live.ask(root, files)  # by content, so that a file that has changed is another picture


@contextmanager
def _staged(new: Entrant, name: str, passed: tuple[Gate, ...]) -> Iterator[Path]:
    """A copy of the run's bundle that carries its gates: what is proven is what is published.

    Raises:
        TrainingError: it cannot be written; so too where the body needs room for temporary files and finds none.
    """
    metrics = new.metrics | {"gates": [gate.as_dict() for gate in passed]}
    metrics["verdict"] = verdict(metrics)
    try:
        with tempfile.TemporaryDirectory(prefix="pigeonholed-", ignore_cleanup_errors=True) as scratch:
            staging = Path(scratch) / "bundle"
            shutil.copytree(new.folder, staging, copy_function=shutil.copyfile, symlinks=True)
            content = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
            (staging / bundles.METRICS).write_text(content, encoding="utf-8")
            report = staging / bundles.REPORT
            report.write_text(page.refreshed(report.read_text("utf-8"), metrics), encoding="utf-8")
            yield staging
    except OSError as fault:
        raise _unwritten(f"{new.title} as {name}", "the folder for temporary files", fault) from fault

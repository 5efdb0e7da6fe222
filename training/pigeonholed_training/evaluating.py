"""Judging a model again: a run by the pictures that it held back, or any model by other pictures."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed import imaging
from pigeonholed.imaging import ImagingError
from pigeonholed_training import concluding, metrics, predicting, runs
from pigeonholed_training import origin as origins
from pigeonholed_training.backend import quiet_libraries, require_train_extra
from pigeonholed_training.data import reading
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable
from pigeonholed_training.evaluation import leaks as leaking
from pigeonholed_training.evaluation import record, subject
from pigeonholed_training.evaluation.assessing import assess
from pigeonholed_training.evaluation.leaks import Seen, leaks
from pigeonholed_training.evaluation.reference import reference
from pigeonholed_training.evaluation.speed import speed
from pigeonholed_training.recipes.recipe import Recipe
from pigeonholed_training.runs import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from pigeonholed_training.data.dataset import Dataset
    from pigeonholed_training.data.splitting import Shares
    from pigeonholed_training.entrants import Entrant
    from pigeonholed_training.evaluation.assessing import Assessment
    from pigeonholed_training.evaluation.subject import Subject
    from pigeonholed_training.progress import Narrator

STRANGERS = 256  # pictures of no class that are looked at


def again(entrant: Entrant, narrator: Narrator, *, strange: Path | None = None) -> dict[str, Any]:
    """Judges a run by the pictures that it held back, and writes its metrics and report anew, in bundle and folder.

    Args:
        entrant: a finished run.
        narrator: told how it goes.
        strange: a folder of pictures of no class.

    Returns:
        The content of `metrics.json`.

    Raises:
        Misconfigured: its pictures are not where they were, or are others now.
        TrainingError: it does not load; the disk is full; another command uses the run.
    """
    _prepare()
    run = RunFolder(entrant.folder.parent)
    pictures, shares, seed = _pictures_of(entrant, narrator)
    with run.claim():
        by = subject.held_back(pictures, pictures.parts(shares, seed), seed)
        found = _assessed(entrant, by, seed, strange, narrator)
        content = entrant.metrics | found.metrics | {"gates": []}
        aside = run.path / f".{runs.BUNDLE}-{secrets.token_hex(4)}"
        try:
            shutil.copytree(entrant.folder, aside, copy_function=shutil.copyfile)
            manifest = entrant.manifest.model_copy(update={"reference": reference(found.answers, by.judged)})
            content = concluding.of_bundle(aside, manifest, content, found.examples)
            concluding.bring_out(aside, run)
            shutil.rmtree(entrant.folder)
            aside.rename(entrant.folder)
        except OSError as fault:
            raise Unavailable(f"Cannot write into {run.path}: {fault.strerror or fault}.") from fault
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return content


def elsewhere(
    entrant: Entrant, data: Path, out: Path, narrator: Narrator, *, strange: Path | None = None
) -> dict[str, Any]:
    """Judges any model by the pictures in `data`; metrics, report and predictions go into the folder `out`.

    Args:
        entrant: the model.
        data: class folders, folders by part (then those for tests) or a list, with the model's labels.
        out: a folder; made if missing.
        narrator: told how it goes.
        strange: a folder of pictures of no class.

    Returns:
        The content of `metrics.json`.

    Raises:
        Misconfigured: there are no such pictures, or they have a class that the model does not know.
        TrainingError: the model does not load; `out` cannot be written.
    """
    _prepare()
    with tempfile.TemporaryDirectory(prefix="pigeonholed-", ignore_cleanup_errors=True) as cache:
        pictures = reading.read(data, entrant.manifest.pixel_spec, cache=Path(cache), shares=None, narrator=narrator)
        by = subject.of_pictures(pictures, entrant.labels)
        found = _assessed(entrant, by, entrant.manifest.seed, strange, narrator)
        content = _described(entrant, by, found.metrics) | {
            "leaks": _leaks(entrant, by, narrator),
            "judged_by": str(data),
        }
        run = RunFolder(out)
        with run.claim():
            content = concluding.of_folder(run, content, found.examples)
            record.save(out, record.of(by, found.answers))
    return content


def _described(entrant: Entrant, by: Subject, sections: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the model, without what is true only of the pictures that it was trained on."""
    manifest, kept = entrant.manifest, ("recipe", "settings", "seed", "created_at", "labels", "versions", "imported")
    stated = manifest.model_dump(mode="json")
    return {
        "name": manifest.name,
        **{key: entrant.metrics.get(key, stated.get(key)) for key in kept},
        "data_fingerprint": by.dataset.fingerprint,
        "counts": metrics.counts(entrant.labels, by.targets, by.parts),
        "warnings": [],
        "bad": [asdict(bad) for bad in by.dataset.bad],
        "history": entrant.metrics.get("history") or [],
        "calibration": stated["calibration"],
        "precision_target": manifest.precision_target,
        "agreement": entrant.metrics.get("agreement") or {},
        "gates": [],
        **sections,
    }


def _prepare() -> None:
    require_train_extra()
    quiet_libraries()
    imaging.configure()


def _assessed(entrant: Entrant, by: Subject, seed: int, strange: Path | None, narrator: Narrator) -> Assessment:
    """Everything there is to find out, through the runtime that serves."""
    shown = {strange.name or "strangers": _strangers(strange, entrant)} if strange else None
    narrator.say(f"Judging {entrant.title} by {len(by.parts[by.judged])} pictures.")
    with entrant.serving() as classifier:
        found = assess(classifier, entrant.manifest, by, seed=seed, strange=shown)
    times = speed(entrant.folder, entrant.manifest, seconds=concluding.SPEED_S)
    return replace(found, metrics=found.metrics | {"speed": times})


def _strangers(folder: Path, entrant: Entrant) -> npt.NDArray[np.uint8]:
    """Pixels of the first pictures in a folder, uint8 [N, H, W, 3], at least one.

    Raises:
        Misconfigured: it has none that can be read.
    """
    pixels = []
    for path in predicting.pictures_of([folder]):
        with contextlib.suppress(ImagingError, OSError):
            pixels.append(imaging.decode(Path(path).read_bytes(), entrant.manifest.pixel_spec).pixels)
        if len(pixels) == STRANGERS:
            break
    if not pixels:
        raise Misconfigured(f"Cannot judge by strangers: {folder} holds no picture that can be read.")
    return np.stack(pixels)


def _pictures_of(entrant: Entrant, narrator: Narrator) -> tuple[Dataset, Shares, int]:
    """What a run was trained on, its shares and its seed.

    Raises:
        Misconfigured: it does not say, or the pictures are others now.
    """
    run = RunFolder(entrant.folder.parent)
    origin, settings = origins.read(run), run.read_json(runs.SETTINGS) or {}
    recipe = Recipe.model_validate(settings["recipe"])
    pictures = reading.read(origin.data, recipe.pixel_spec, cache=origin.cache, shares=None, narrator=narrator)
    if pictures.fingerprint != entrant.manifest.data_fingerprint:
        raise Misconfigured(
            f"Cannot judge {entrant.title} by what it held back: the pictures in {origin.data} are not those that it "
            "was trained on. Give pictures to judge by as DATA."
        )
    return pictures, recipe.shares, entrant.manifest.seed


def _leaks(entrant: Entrant, by: Subject, narrator: Narrator) -> dict[str, Any] | None:
    """Which of the judging pictures the model has learnt from, as far as that can be known."""
    chosen = by.parts[by.judged]
    pictures = by.dataset
    judged = Seen(
        [pictures.pictures[index].path for index in chosen],
        [pictures.pictures[index].sha256 for index in chosen],
        pictures.thumbnails[chosen],
    )
    try:
        if entrant.bundle is None:
            trained, shares, seed = _pictures_of(entrant, narrator)
            parts = trained.parts(shares, seed)
            known = np.flatnonzero((parts != Part.TEST) & (parts != Part.NONE))
            return leaks(
                judged,
                Seen(
                    [trained.pictures[index].path for index in known],
                    [trained.pictures[index].sha256 for index in known],
                    trained.thumbnails[known],
                ),
            )
    except TrainingError as fault:
        narrator.say(f"Only copies of learnt pictures can be told, not what is nearly the same: {fault}")
    if entrant.record.learnt is None:
        return None
    # A published version knows the beginnings of what it learnt from.
    seen = [index for index, digest in enumerate(judged.digests) if entrant.record.has_learnt(digest)]
    return {
        "checked": len(judged.digests),
        "seen": len(seen),
        "alike": None,
        "examples": [[judged.paths[index], "a learnt picture"] for index in seen[: leaking.SHOWN]],
    }

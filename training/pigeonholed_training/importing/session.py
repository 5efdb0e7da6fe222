"""One `import` command, from a user's model to a published version; or nothing at all."""

from __future__ import annotations

import datetime
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pigeonholed import imaging
from pigeonholed.bundle import Input, Manifest, Threshold
from pigeonholed_training import publishing
from pigeonholed_training.backend import quiet_libraries, require_train_extra
from pigeonholed_training.errors import Misconfigured, Unavailable
from pigeonholed_training.evaluation.asking import balanced
from pigeonholed_training.importing import making, original, outputs, rules, samples, trying
from pigeonholed_training.importing.finishing import finish

if TYPE_CHECKING:
    import numpy.typing as npt

    from pigeonholed.bundle import Bundle
    from pigeonholed_training.importing.original import Original
    from pigeonholed_training.importing.outputs import Meaning
    from pigeonholed_training.importing.rules import Rule
    from pigeonholed_training.importing.samples import Samples
    from pigeonholed_training.importing.trying import Trials
    from pigeonholed_training.progress import Narrator

TRIED = 256  # samples that each rule is tried on: enough to tell chance from knowledge
UNCALIBRATED = 0.9
"""The threshold of every class where nothing could be fitted: it promises nothing, and what is uncertain waits."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Attributes:
        model: `.keras` file, `.h5` file or SavedModel folder.
        name: of the model in the store.
        labels: of its outputs, in their order.
        models: the store.
        pixels: `auto` or the name of a rule.
        size: (height, width) for a model that takes any; None where it says its own.
        fit: what happens to a picture of another shape.
        output: `auto`, `softmax`, `sigmoid` or `logits`.
        samples: folder of class folders; None without.
        precision: that thresholds shall promise.
    """

    model: Path
    name: str
    labels: tuple[str, ...]
    models: Path
    pixels: str = "auto"
    size: tuple[int, int] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    output: str = "auto"
    samples: Path | None = None
    precision: float = 0.98


@dataclass(frozen=True)
class Understood:
    """The user's model, and how it is to be used.

    Attributes:
        order: what was asked.
        model: loaded.
        wanted: the pixels of its bundle.
        meaning: of its numbers.
        rule: how pixels are scaled for it.
        trials: of every rule on the samples; None without.
        warnings: in plain words.
    """

    order: Order
    model: Original
    wanted: Input
    meaning: Meaning
    rule: Rule
    trials: Trials | None
    warnings: tuple[str, ...]

    def draft(self) -> Manifest:
        """Without calibration."""
        order = self.order
        thresholds = [Threshold(label=label, value=UNCALIBRATED, method="best-f1", n=0) for label in order.labels]
        return Manifest(
            name=order.name,
            labels=order.labels,
            network=self.model.network,
            input=self.wanted,
            output=self.meaning.of_bundle,
            thresholds=tuple(thresholds),
            precision_target=order.precision,
            recipe="import",
            versions=publishing.versions(),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def carry_out(order: Order, narrator: Narrator) -> Bundle:
    """Imports and publishes a model; what fails leaves the store as it was.

    Raises:
        TrainingError: what the user can mend.
    """
    quiet_libraries()
    imaging.configure()
    original.kind_of(order.model)
    _require_store(order.models)
    if order.samples is not None:
        require_train_extra()
        samples.check_folders(order.samples, order.labels)
    narrator.say(
        f"Importing loads {order.model} and runs that model's code on this computer; import only models whose "
        "maker you trust."
    )
    model = original.load(order.model)
    outputs.check_count(order.model, model, order.labels)
    wanted = _input(order, model)
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory(prefix="pigeonholed-", ignore_cleanup_errors=True) as scratch,
        ):
            warnings.simplefilter("ignore")  # of how the model was built, which it is too late to change
            pictures = _samples(order, wanted, Path(scratch) / "cache", narrator)
            understood = _understood(order, model, wanted, pictures, narrator)
            made = making.make(Path(scratch) / "bundle", understood, pictures)
            for warning in understood.warnings:
                narrator.say(f"Warning: {warning}")
            narrator.say(made.remark)
            return finish(Path(scratch) / "bundle", understood, made, pictures)
    except OSError as fault:
        raise Unavailable(f"Cannot import {order.model}: {fault.strerror or fault}.") from fault


def _require_store(models: Path) -> None:
    """Finds out before anything slow whether the store could be written."""
    place = models.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "it is no folder" if not place.is_dir() else "you may not write there"
        raise Misconfigured(f"Cannot publish into {models}: {why} ({place}); give another store with --models.")


def _input(order: Order, model: Original) -> Input:
    """The pixels of the bundle."""
    own = (model.height, model.width)
    if order.size is None and (own[0] is None or own[1] is None):
        raise Misconfigured(
            f"Cannot import {order.model}: it takes pictures of any size; say with --size HxW which it was trained on, "
            "as in --size 224x224."
        )
    height, width = order.size or (own[0] or 0, own[1] or 0)
    if any(have is not None and have != want for have, want in zip(own, (height, width), strict=True)):
        raise Misconfigured(
            f"Cannot import {order.model} with --size {height}x{width}: it takes pictures of {own[0]}x{own[1]} only; "
            "leave --size out."
        )
    return Input(height=height, width=width, fit=order.fit)


def _samples(order: Order, wanted: Input, cache: Path, narrator: Narrator) -> Samples | None:
    if order.samples is None:
        return None
    spec = imaging.PixelSpec(wanted.height, wanted.width, wanted.fit)
    with narrator.steps(f"reading {order.samples.name}", 1) as step:
        found = samples.load(order.samples, order.labels, spec, cache, lambda done, total: step.at(done, total=total))
    narrator.say(
        f"{len(found.targets)} samples of {len(found.dataset.labels)} classes"
        + (f"; {len(found.dataset.bad)} files could not be used." if found.dataset.bad else ".")
    )
    return found


def _understood(
    order: Order, model: Original, wanted: Input, pictures: Samples | None, narrator: Narrator
) -> Understood:
    """Settles what the numbers mean and how pixels are scaled."""
    if pictures is None:
        rule = rules.named(_declared(order, model) if order.pixels == "auto" else order.pixels)
        given = model.answer(rule.apply(samples.made(wanted.height, wanted.width)))
        meaning = outputs.settle(order.output, order.model, model, given)
        return Understood(order, model, wanted, meaning, rule, None, ())
    narrator.say("Trying every scaling of pixels on the samples.")
    chosen = pictures.tried[balanced(pictures.targets[pictures.tried], TRIED, seed=0)]
    answers = trying.ask(model, pictures.dataset.read(chosen))
    meaning = outputs.settle(order.output, order.model, model, _all(answers))
    trials = trying.judge(answers, meaning, pictures.targets[chosen], len(order.labels))
    name = trials.best.rule if order.pixels == "auto" else order.pixels
    for line in trials.table(name):
        narrator.say(line)
    said = trying.warnings_about(trials, name, order.labels, model.scales_itself)
    if order.pixels == "auto" and said:
        why = said[0][0].lower() + said[0][1:]
        raise Misconfigured(f"Cannot import {order.model}: {why} To import it nevertheless, name its --pixels.")
    return Understood(order, model, wanted, meaning, rules.named(name), trials, tuple(said))


def _declared(order: Order, model: Original) -> str:
    """The rule, where the model itself scales what it is given."""
    if model.scales_itself:
        return "0..255"
    raise Misconfigured(
        f"Cannot import {order.model}: it does not say how its pixels were scaled in training; name that with --pixels "
        f"({', '.join(rules.NAMES)}), or give pictures of each class with --samples, and it is found out."
    )


def _all(answers: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(list(answers.values()))

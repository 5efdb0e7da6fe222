"""Everything that is found out about a model through the runtime that serves it, in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pigeonholed_training.data.splitting import Part
from pigeonholed_training.evaluation import asking
from pigeonholed_training.evaluation.asking import ask_about
from pigeonholed_training.evaluation.blends import blends
from pigeonholed_training.evaluation.examples import telling
from pigeonholed_training.evaluation.figures import figures, share
from pigeonholed_training.evaluation.judged import Judged
from pigeonholed_training.evaluation.reliability import confidence
from pigeonholed_training.evaluation.robustness import robustness
from pigeonholed_training.evaluation.selective import selective
from pigeonholed_training.evaluation.strangers import strangers
from pigeonholed_training.evaluation.suspects import suspects
from pigeonholed_training.evaluation.thresholds import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from pigeonholed.bundle import Manifest
    from pigeonholed.classifying import Classifier
    from pigeonholed_training.evaluation.judged import Example
    from pigeonholed_training.evaluation.subject import Subject


@dataclass(frozen=True)
class Assessment:
    """What was found.

    Attributes:
        metrics: sections of `metrics.json`.
        examples: pictures to show, by kind.
        answers: what was said of each part, in the order of the subject's indices.
    """

    metrics: dict[str, Any]
    examples: Mapping[str, tuple[Example, ...]]
    answers: Mapping[Part, Judged]


def assess(
    classifier: Classifier,
    manifest: Manifest,
    subject: Subject,
    *,
    seed: int,
    strange: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> Assessment:
    """Asks the model about every picture of the subject, and about pictures made from a few of them.

    Args:
        classifier: as the daemon would load it.
        manifest: of its bundle.
        subject: the pictures.
        seed: of what is drawn at random.
        strange: pictures of no class under a name, uint8 RGB [N, H, W, 3].
    """
    answers = {part: _answers(classifier, manifest, subject, part) for part in subject.parts}
    judged, indices = answers[subject.judged], subject.parts[subject.judged]

    def read(chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        return subject.dataset.read(indices[chosen])

    sections: dict[str, Any] = {
        "held_out": figures(judged) | {"part": subject.judged.name.lower(), "note": subject.note},
        "other_parts": {
            part.name.lower(): share(int(said.right.sum()), len(said))
            for part, said in answers.items()
            if part in (Part.TRAIN, Part.VALIDATION)
        },
        "confidence": confidence(judged),
        "selective": selective(judged),
        "thresholds": described(
            judged, manifest.thresholds, target=manifest.precision_target, calibrated=manifest.calibration.n
        ),
    }
    behaviour, tried = _behaviour(classifier, judged, read, seed, strange)
    suspected, suspicious = _suspects(subject, answers)
    shown = telling(judged, read, _paths(subject, indices), seed) | tried | {"suspects": suspicious}
    return Assessment(
        sections | {"behaviour": behaviour, "suspects": suspected},
        {kind: examples for kind, examples in shown.items() if examples},
        answers,
    )


def _answers(classifier: Classifier, manifest: Manifest, subject: Subject, part: Part) -> Judged:
    indices = subject.parts[part]
    return Judged(
        labels=manifest.labels,
        targets=subject.targets[indices],
        probabilities=ask_about(classifier, subject.dataset, indices),
        thresholds=manifest.thresholds,
        temperature=manifest.calibration.temperature,
    )


def _behaviour(
    classifier: Classifier,
    judged: Judged,
    read: Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint8]],
    seed: int,
    strange: Mapping[str, npt.NDArray[np.uint8]] | None,
) -> tuple[dict[str, Any], dict[str, tuple[Example, ...]]]:
    """What the model makes of blended, strange and spoilt pictures: no more of them than take a few seconds."""
    chosen = asking.balanced(judged.targets, asking.MOST, seed)
    pixels = read(chosen)
    few = asking.balanced(judged.targets[chosen], asking.affordable(classifier, pixels), seed)
    pixels, targets = pixels[few], judged.targets[chosen[few]]
    blended, blended_examples = blends(classifier, judged, pixels, targets, seed=seed)
    met, met_examples = strangers(classifier, judged, pixels, given=strange, seed=seed)
    spoilt, spoilt_examples = robustness(classifier, judged, pixels, targets, seed=seed)
    return (
        {"blends": blended, "strangers": met, "robustness": spoilt},
        {"blends": blended_examples, "strangers": met_examples, "robustness": spoilt_examples},
    )


def _suspects(subject: Subject, answers: Mapping[Part, Judged]) -> tuple[list[dict[str, Any]], tuple[Example, ...]]:
    """Doubtful labels among all pictures that the model did not learn from."""
    unlearnt = [part for part in subject.parts if part is not Part.TRAIN]
    indices = np.concatenate([subject.parts[part] for part in unlearnt])
    first = answers[unlearnt[0]]
    said = Judged(
        labels=first.labels,
        targets=subject.targets[indices],
        probabilities=np.concatenate([answers[part].probabilities for part in unlearnt]),
        thresholds=first.thresholds,
        temperature=first.temperature,
    )
    names = [part.name.lower() for part in unlearnt for _ in subject.parts[part]]
    return suspects(said, _paths(subject, indices), names, lambda chosen: subject.dataset.read(indices[chosen]))


def _paths(subject: Subject, indices: npt.NDArray[np.intp]) -> list[str]:
    return [subject.dataset.pictures[index].path for index in indices]

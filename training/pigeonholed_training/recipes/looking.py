"""`--recipe auto`: a look at data and machine that decodes nothing, and the recipe that comes of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ValidationError

from pigeonholed import formats
from pigeonholed.classifying.gpu import find_gpu
from pigeonholed_training import runs
from pigeonholed_training.data import sources
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured
from pigeonholed_training.networks.weights import PUBLISHED, resolve
from pigeonholed_training.recipes import catalogue
from pigeonholed_training.recipes.choosing import Look, choose
from pigeonholed_training.recipes.recipe import Recipe
from pigeonholed_training.recipes.settings import override
from pigeonholed_training.runs import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pigeonholed_training.data.sources import Entry, Listing

AUTO: Final = "auto"
"""What `--recipe` takes to choose by itself."""

_SAMPLE: Final = 500  # files whose headers are read
_HEADS: Final = (64 << 10, 1 << 20)  # bytes; the second try is for a header behind a large preview or profile
_SIDE: Final = 224  # of the networks that start from weights
_GREY: Final = 0.9
_BY_WORTH: Final = ("mobilenet-v2", "efficientnetv2-b0", "mobilenetv3-small", "resnet50", "vgg16", "mobilenet-v1-025")
_SIGN: Final = re.compile(r"[^\W\d_]|[0-9]{1,2}")


def decide(
    data: Path,
    run: Path,
    weights: str | None,
    *,
    fresh: bool = False,
    say: Callable[[str], object] = lambda _said: None,
) -> Recipe:
    """The recipe for a data set, before the user's own settings.

    Where `run` holds a training that is to be gone on with, its recipe stays, whatever the data look like by now.

    Args:
        data: folder or list (`sources.find`).
        run: folder of the run.
        weights: what the user said: `none`, `imagenet`, a file, or nothing.
        fresh: an earlier run is going to be forgotten.
        say: told what was chosen, and why.

    Raises:
        WrongUsage, Misconfigured: the data set, the weights or the run cannot be used.
    """
    kept = None if fresh else _kept(run)
    if kept is not None:
        say(f"Recipe {kept.name}, as the run in {run} began; --fresh would choose anew.")
        return kept
    choice = choose(look(sources.find(data), weights))
    changed = "".join(f" with --set {assignment}" for assignment in choice.assignments)
    say(f"Recipe {choice.recipe}{changed}: {choice.why}")
    return override(catalogue.find(choice.recipe), choice.assignments)


def look(listing: Listing, weights: str | None) -> Look:
    """Looks at a data set, at the weights at hand, and at the machine; no picture is decoded.

    Raises:
        Misconfigured: `weights` names a file that is none of a network that we know.
    """
    learnt = [entry for entry in listing.entries if entry.part in {None, Part.TRAIN}]
    counts = Counter(entry.target for entry in learnt)
    side, is_grey = _sizes(listing.root, learnt)
    return Look(
        pictures=len(learnt),
        classes=len(listing.labels),
        smallest=min(counts[target] for target in range(len(listing.labels))),
        side=side,
        is_grey=is_grey,
        has_sign_labels=all(_SIGN.fullmatch(label) for label in listing.labels),
        backbone=_backbone(weights),
        asked=weights not in {None, "none"},
        cores=len(os.sched_getaffinity(0)),
        has_gpu=find_gpu() is not None,
    )


def _kept(run: Path) -> Recipe | None:
    """The recipe of the run that is there, with all that was changed of it; None where there is none."""
    settings = RunFolder(run).read_json(runs.SETTINGS)
    if settings is None:
        return None
    try:
        recipe = Recipe.model_validate(settings.get("recipe"))
    except ValidationError as fault:
        raise Misconfigured(f"Cannot go on in {run}: its recipe cannot be read. Start over with --fresh.") from fault
    if recipe.name not in catalogue.NAMES:
        return recipe
    # What a run says of itself leaves out the words, which mean nothing to the training.
    words = catalogue.find(recipe.name)
    return recipe.model_copy(update={"purpose": words.purpose, "twin": words.twin})


def _sizes(root: Path, entries: Sequence[Entry]) -> tuple[int, bool]:
    """Median of the shorter side in pixels, 0 where no header can be read, and whether nearly all are grey."""
    # Always the same sample: the choice must not depend on the day, nor on the seed of the training.
    chosen = np.random.default_rng(0).permutation(len(entries))[:_SAMPLE]
    seen = [found for index in sorted(chosen.tolist()) if (found := _header(root, entries[index].path)) is not None]
    if not seen:
        return 0, False
    sides, greys = zip(*seen, strict=True)
    return int(np.median(sides)), sum(greys) >= _GREY * len(greys)


def _header(root: Path, path: str) -> tuple[int, bool] | None:
    """Shorter side and greyness of one file; None where its beginning does not tell."""
    try:
        with open(os.path.join(root, path), "rb", opener=_without_waiting) as stream:
            head = b""
            for length in _HEADS:
                head += stream.read(length - len(head))
                size = formats.dimensions(head)
                if size is not None:
                    return min(size), _says_grey(head, size)
                if len(head) < length:
                    break
    except OSError:
        pass
    return None


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that somebody put among the pictures has no beginning to wait for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _says_grey(head: bytes, size: tuple[int, int]) -> bool:
    """Whether a PNG or JPEG declares a single channel; pictures that are grey in three do not count."""
    if formats.sniff(head[:64]) is formats.Format.PNG:
        return head[25] in (0, 4)  # colour types of ISO 15948, 11.2.2
    width, height = size
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big")  # ITU T.81, B.2.2, then the components
    at = head.find(frame) if max(size) < 1 << 16 and head.startswith(b"\xff\xd8") else -1
    return at >= 0 and head[at + 5 : at + 6] == b"\x01"


def _backbone(weights: str | None) -> str:
    """Whose weights are at hand: in the file that was named, from ImageNet if asked for, else in Keras' cache."""
    if weights == "none":
        return ""
    if weights == "imagenet":
        return "mobilenet-v2"
    if weights is None:
        return next((name for name in _BY_WORTH if _is_cached(name)), "")
    faults = []
    for name in _BY_WORTH:
        try:
            resolve(weights, name, _SIDE, _SIDE)
        except Misconfigured as fault:
            faults.append(fault)
        else:
            return name
    raise faults[0]


def _is_cached(name: str) -> bool:
    """Whether Keras has fetched these weights before, whole; training would then find them without a network."""
    published = PUBLISHED[name]
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    file = Path(home, "models", published.file.format(side=_SIDE))
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        resolve(str(file), name, _SIDE, _SIDE)
    except (OSError, Misconfigured):
        return False
    return published.md5 in ("", digest)

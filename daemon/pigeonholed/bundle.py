"""A bundle: one published version of a model, and the contract between training and serving.

It is a sealed folder of data. Opening one checks it and runs nothing from it.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pigeonholed import labels as words
from pigeonholed import sealing
from pigeonholed.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
KERAS_MODEL = "model.keras"
LABELS = "labels.txt"
METRICS = "metrics.json"
REPORT = "report.html"
SELFTEST = "selftest"
EXPECTED = "selftest/expected.json"
OPENVINO_FOLDER = "export/openvino"
OPENVINO_MODEL = "export/openvino/model.xml"
OPENVINO_WEIGHTS = "export/openvino/model.bin"
REQUIRED = (MANIFEST, LABELS, METRICS, REPORT, EXPECTED, OPENVINO_MODEL, OPENVINO_WEIGHTS)
"""What every version holds beside its seal, and `KERAS_MODEL` unless its manifest says that it has no layers; further
listed files are tolerated, so that later versions may add some."""

Output = Literal["softmax", "sigmoid", "logits"]
Form = Literal["keras", "openvino"]
"""`keras`: layers in `model.keras`, and their OpenVINO export. `openvino`: that alone, of a graph without layers."""


class BundleError(Exception):
    """A model cannot be used or published; the message is one sentence that names the path and the fault."""


class _Frozen(BaseModel):
    """Immutable; keys that this version does not know are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Input(_Frozen):
    """The pixels a network takes: uint8 RGB [N, height, width, 3], made by `imaging` and by nothing else.

    `fit` says how a picture of another shape is brought to this one; `rule` is the same in words, for the reader.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    rule: str = "orientation by EXIF, alpha on white, RGB of 8 bits, area resize; scaling is inside the model"


class Threshold(_Frozen):
    """From which calibrated probability on a picture is filed under `label`, and how that was chosen.

    `certified` and `pooled` promise `precision` with 95 % confidence, from `n` held-back pictures above `value`;
    for `best-f1` the precision is what was seen, or None.
    """

    label: str
    value: float = Field(ge=0.0, le=1.0)
    method: Literal["certified", "pooled", "best-f1"]
    precision: float | None = None
    n: int = Field(ge=0)


class Calibration(_Frozen):
    """How raw scores become probabilities, fitted on `n` pictures through the runtime and precision named."""

    method: Literal["temperature", "none"] = "none"
    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)
    n: int = Field(default=0, ge=0)
    runtime: str = "openvino"
    precision: str = "f32"


class Manifest(_Frozen):
    """The content of `bundle.json`."""

    schema_version: int = SCHEMA_VERSION
    name: str
    labels: tuple[str, ...]
    network: Form = "keras"
    input: Input
    output: Output
    calibration: Calibration = Calibration()
    thresholds: tuple[Threshold, ...]
    precision_target: float = Field(default=0.98, gt=0.0, lt=1.0)
    metrics: dict[str, Any] = Field(default_factory=dict)
    reference: Reference | None = None  # of versions from before it was kept, and of models that no pictures judged
    data_fingerprint: str = ""
    recipe: str = ""
    seed: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: str = ""

    @model_validator(mode="before")
    @classmethod
    def _known_schema(cls, data: object) -> object:
        # Before all else: the other keys of a newer schema may mean something else.
        newest = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else SCHEMA_VERSION
        if isinstance(newest, int) and not 1 <= newest <= SCHEMA_VERSION:
            raise ValueError(f"it has schema version {newest} and this program knows 1 to {SCHEMA_VERSION}")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        fault = words.fault_among(self.labels)
        if fault is None and tuple(threshold.label for threshold in self.thresholds) != self.labels:
            fault = "the thresholds are not one for each label, in the same order"
        if fault is None and self.output == "sigmoid" and len(self.labels) != 2:
            fault = "a sigmoid output needs exactly two labels"
        if fault is None and self.reference is not None and len(self.reference.labels) != len(self.labels):
            fault = "the reference does not count each label"
        if fault is not None:
            raise ValueError(fault)
        return self

    @property
    def pixel_spec(self) -> PixelSpec:
        """The pixels that `imaging.decode` shall make for this model."""
        # Here, because listing the store should not load OpenCV.
        from pigeonholed.imaging import PixelSpec

        return PixelSpec(height=self.input.height, width=self.input.width, fit=self.input.fit)

    def to_json(self) -> bytes:
        """The bytes of `bundle.json`: UTF-8, indented, keys in the order of this class."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode("utf-8")


@dataclass(frozen=True)
class Bundle:
    """A version that was verified when it was opened.

    Attributes:
        path: its folder.
        name: name of the model in the store; of an unpublished bundle the name in its manifest.
        version: its integer in the store; 0 for an unpublished bundle.
        digest: SHA-256 of its `SHA256SUMS`, lower-case hex; it stands for every byte of the bundle.
        manifest: what it says of itself.
        files: relative path -> SHA-256 of every file.
    """

    path: Path
    name: str
    version: int
    digest: str
    manifest: Manifest
    files: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return self.manifest.labels

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Verifies every checksum and reads the manifest; runs no code from the bundle and loads no network.

        Raises:
            BundleError: no such folder, or a link; a file missing, unlisted, changed, over-large or no regular
                file; a manifest that is malformed or of a newer schema; unsafe labels.
        """
        try:
            return inspect(path)
        except sealing.SealError as fault:
            raise BundleError(f"Cannot open the model at {path}: {fault}.") from fault

    def read(self, name: str, *, limit: int = sealing.MAX_FILE_BYTES) -> bytes:
        """The bytes of one file, verified again, so that a change since `open` cannot be used.

        Raises:
            BundleError: it is not in the bundle, has changed, or is larger than `limit` bytes.
        """
        try:
            return sealing.read(self.path, name, expected=self.files.get(name, "not in the bundle"), limit=limit)
        except sealing.SealError as fault:
            raise BundleError(f"Cannot read the model at {self.path}: {fault}.") from fault


def inspect(path: Path) -> Bundle:
    """`Bundle.open`, for callers that say themselves what was attempted.

    Raises:
        SealError: the fault, as a phrase without the folder.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise sealing.SealError("it is no folder")
    except OSError as fault:
        raise sealing.SealError(str(fault.strerror)) from fault
    files = sealing.verify(path)
    for name in REQUIRED:
        if name not in files:
            raise sealing.SealError(f"{name} is missing")
    manifest = _parse(sealing.read(path, MANIFEST, expected=files[MANIFEST], limit=sealing.MAX_TEXT_BYTES))
    if manifest.network == "keras" and KERAS_MODEL not in files:
        raise sealing.SealError(f"{KERAS_MODEL} is missing")
    listed = sealing.read(path, LABELS, expected=files[LABELS], limit=sealing.MAX_TEXT_BYTES)
    if listed != labels_text(manifest.labels):
        raise sealing.SealError(f"{LABELS} and {MANIFEST} name different labels")
    version = version_of(path.name)
    return Bundle(
        path=path,
        name=path.parent.name if version else manifest.name,
        version=version or 0,
        digest=sealing.digest_of(path),
        manifest=manifest,
        files=files,
    )


def version_of(folder_name: str) -> int | None:
    """The version that a folder's name stands for: a plain decimal from 1 on; None for any other name."""
    if folder_name.isascii() and folder_name.isdecimal() and folder_name[0] != "0" and len(folder_name) < 10:
        return int(folder_name)
    return None


def labels_text(labels: Sequence[str]) -> bytes:
    """The bytes of `labels.txt`: one label a line, UTF-8."""
    return "".join(f"{label}\n" for label in labels).encode("utf-8")


def check_labels(labels: Sequence[str]) -> None:
    """Refuses labels that cannot be folders beside each other (rules: `labels.fault_of`, `labels.fault_among`).

    Raises:
        BundleError: names the first faulty label.
    """
    if fault := words.fault_among(labels):
        raise BundleError(f"These labels cannot be used: {fault}.")


def calibrate(scores: npt.NDArray[np.float32], output: str, temperature: float) -> npt.NDArray[np.float32]:
    """Turns a network's scores into calibrated probabilities by temperature scaling (Guo et al. 2017).

    Logits are divided by `temperature` before the softmax. Probabilities are taken back to logits first: the
    logarithm for softmax, log(p / (1 - p)) for sigmoid.

    Args:
        scores: float [N, K]; [N, 1] for a sigmoid or a single logit, which then speaks for the second label.
        output: `softmax`, `sigmoid` or `logits`.
        temperature: over 0; 1 changes nothing.

    Returns:
        float32 [N, K] (K = 2 for one column), each row summing to 1. A row with a score that is not finite is NaN
        throughout; a caller tells it by that.

    Raises:
        ValueError: wrong number of dimensions or columns, unknown output, temperature not over 0.
    """
    if scores.ndim != 2 or scores.shape[1] < 1 or (output == "sigmoid" and scores.shape[1] != 1):
        raise ValueError(f"scores of shape {scores.shape} do not fit the output kind {output}")
    if output not in ("softmax", "sigmoid", "logits") or not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"cannot calibrate the output kind {output} with temperature {temperature}")
    wide = scores.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    wide[~finite] = 0.5
    tiny = np.finfo(np.float64).tiny
    if output == "softmax":
        wide = np.log(np.clip(wide, tiny, None))
    elif output == "sigmoid":
        wide = np.log(np.clip(wide, tiny, None)) - np.log(np.clip(1.0 - wide, tiny, None))
    if wide.shape[1] == 1:
        wide = np.concatenate([np.zeros_like(wide), wide], axis=1)
    wide = wide / temperature
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    probabilities[~finite] = np.nan
    return probabilities


def _parse(data: bytes) -> Manifest:
    """`bundle.json` as a manifest; one fault of it as a `SealError`."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise sealing.SealError(f"{MANIFEST} is not valid ({where + ': ' if where else ''}{said})") from fault

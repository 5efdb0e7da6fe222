"""The labels of an imported model, in the order of its outputs, as people write them down."""

from __future__ import annotations

import json
import os
from typing import Any

from pigeonholed.bundle import BundleError, check_labels
from pigeonholed_training.errors import Misconfigured, WrongUsage


def labels_of(text: str) -> tuple[str, ...]:
    """Labels from `a,b,c`, or from a file: one a line, a JSON list, or the `class_indices` of a Keras generator.

    Raises:
        WrongUsage: it looks like a file that is not there.
        Misconfigured: the file cannot be read or has another form, or a label cannot be a folder.
    """
    given = _from_file(text) if os.path.exists(text) else _from_words(text)
    try:
        check_labels(given)
    except BundleError as fault:
        raise Misconfigured(f"Cannot use --labels {text}: {str(fault).partition(': ')[2]}") from fault
    return given


def _from_words(text: str) -> tuple[str, ...]:
    if "," not in text:
        raise WrongUsage(
            f"Cannot use --labels {text}: there is no such file; give the labels in the order of the model's outputs, "
            "as in --labels cat,dog, or a file with one a line."
        )
    return tuple(word.strip() for word in text.split(","))


def _from_file(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            content = stream.read()
    except (OSError, UnicodeDecodeError) as fault:
        said = getattr(fault, "strerror", None) or "it is no text"
        raise Misconfigured(f"Cannot read the labels in {path}: {said}.") from fault
    if content.lstrip()[:1] not in ("[", "{"):
        return _without_numbers([line.strip() for line in content.splitlines() if line.strip()])
    try:
        return _from_json(json.loads(content))
    except ValueError as fault:
        raise Misconfigured(
            f"Cannot read the labels in {path}: it must hold one label a line, a JSON list of labels, or a JSON object "
            "that gives each label its number from 0 on, as class_indices of Keras does."
        ) from fault


def _without_numbers(lines: list[str]) -> tuple[str, ...]:
    """Teachable Machine numbers its lines: `0 cat`, `1 dog`."""
    if lines and all(line.startswith(f"{number} ") for number, line in enumerate(lines)):
        return tuple(line.partition(" ")[2].strip() for line in lines)
    return tuple(lines)


def _from_json(value: Any) -> tuple[str, ...]:
    """A list, {"cat": 0, "dog": 1}, or {"0": "cat", "1": "dog"}."""
    if isinstance(value, dict):
        numbered = (
            value if all(isinstance(one, int) for one in value.values()) else {v: int(k) for k, v in value.items()}
        )
        if sorted(numbered.values()) != list(range(len(numbered))):
            raise ValueError("not numbered from 0 on")
        value = sorted(numbered, key=numbered.__getitem__)
    if not all(isinstance(one, str) for one in value):
        raise ValueError("not all labels are words")
    return tuple(value)

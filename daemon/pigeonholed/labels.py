"""Words that become folders: labels and model names."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_WORD_BYTES = 200  # leaves room for a suffix within the 255 bytes of a file name
MAX_LABELS = 10_000

# Outputs may lie on a Windows share, where these are no file names.
_FORBIDDEN = frozenset('/\\<>:"|?*')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)


def fault_of(word: str) -> str | None:
    r"""Why `word` cannot be the name of a folder, as the end of a sentence; None where it can.

    Refused: empty; over 200 bytes of UTF-8; `/`, `\` and what Windows forbids; control, formatting, surrogate and
    unassigned characters; white space other than inner blanks; a leading dot or underscore (both are ours); a
    trailing dot; the device names of Windows.
    """
    if not word:
        return "is empty"
    # First, because surrogates cannot be encoded below.
    if any(unicodedata.category(character)[0] in "CZ" for character in word if character != " "):
        return "holds a control, invisible or unassigned character"
    faults = {
        f"is longer than {MAX_WORD_BYTES} bytes": len(word.encode("utf-8")) > MAX_WORD_BYTES,
        "holds one of " + " ".join(sorted(_FORBIDDEN)): not _FORBIDDEN.isdisjoint(word),
        f"begins with {word[0]}": word[0] in "._",
        "begins or ends with a blank, or ends with a dot": word != word.strip(" ") or word.endswith("."),
        "is a device name on Windows": _DEVICE.fullmatch(word) is not None,
    }
    return next((fault for fault, present in faults.items() if present), None)


def fault_among(labels: Sequence[str]) -> str | None:
    """Why `labels` cannot be the classes of one model, as a phrase that names the label; None where they can.

    Besides `fault_of` each: there are 2 to 10 000, and no two are equal once case and composition of characters are
    disregarded, because they would be one folder on many file systems.
    """
    if not 2 <= len(labels) <= MAX_LABELS:
        return f"there are {len(labels)} labels instead of 2 to {MAX_LABELS}"
    seen: dict[str, str] = {}
    for label in labels:
        if fault := fault_of(label):
            return f"the label {label[:80]!a} {fault}"
        key = folded(label)
        if key in seen:
            return f"the labels {seen[key]!a} and {label!a} would be the same folder on some disks"
        seen[key] = label
    return None


def folded(label: str) -> str:
    """What two labels share when a file system that ignores case or composition takes them for the same."""
    # By the Unicode standard, definition D145; with NFC inside, some Greek words with a iota below would escape it.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", label).casefold())

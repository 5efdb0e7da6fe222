"""Whose an output is: the database that wrote its name into the work folder."""

from __future__ import annotations

import os


def owner_of(private: str) -> str | None:
    """The identity of the database whose files are in the output of this work folder; None where nobody owns it."""
    try:
        with open(os.path.join(private, "owner"), encoding="ascii", errors="replace") as file:
            return file.read(100).strip() or None
    except FileNotFoundError:
        return None

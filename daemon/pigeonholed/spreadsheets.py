"""Words of others in a CSV file: no spreadsheet may take one for a formula, and reading brings each of them back."""

from __future__ import annotations

import re
from typing import Final

_FORMULA: Final = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a cell must not begin; the last four signs are those of East Asian keyboards."""


def shielded(text: str) -> str:
    """The text as a cell: where it would begin a formula, an apostrophe stands in front. `bare` is the inverse."""
    return f"'{text}" if _FORMULA.match(text) else text


def bare(cell: str) -> str:
    """The text of a cell that `shielded` made; any other cell is left as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

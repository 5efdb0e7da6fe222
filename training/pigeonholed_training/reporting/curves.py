"""The picture of loss and accuracy over the epochs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pigeonholed_training.fitting.plan import Epoch


def draw(history: Sequence[Epoch], path: Path) -> None:
    """Writes a PNG with two panels, loss and accuracy, for training and validation pictures.

    Raises:
        OSError: `path` cannot be written.
    """
    figure = _figure()
    epochs = [epoch.epoch for epoch in history]
    panels = (("loss", "cross-entropy [nats]"), ("accuracy", "share right"))
    for index, (what, unit) in enumerate(panels):
        axes = figure.add_subplot(1, 2, index + 1)
        axes.plot(epochs, [getattr(epoch, what) for epoch in history], "o-", ms=3, label="training (augmented)")
        axes.plot(epochs, [getattr(epoch, f"validation_{what}") for epoch in history], "s-", ms=3, label="validation")
        axes.set(xlabel="epoch", ylabel=unit, title=what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, format="png", dpi=110)


def _figure() -> Any:
    """A figure without a window system; not through pyplot, which would keep it in a global list."""
    with warnings.catch_warnings():
        # A first run may be told that the font cache is being made; nothing that a user can act on.
        warnings.simplefilter("ignore")
        from matplotlib.figure import Figure

    return Figure(figsize=(9.5, 3.6), layout="constrained")

"""Reading a data set while telling how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pigeonholed_training.data import dataset

if TYPE_CHECKING:
    from pathlib import Path

    from pigeonholed.imaging import PixelSpec
    from pigeonholed_training.data.dataset import Dataset
    from pigeonholed_training.data.splitting import Shares
    from pigeonholed_training.progress import Narrator


def read(data: Path, spec: PixelSpec, *, cache: Path, shares: Shares | None, narrator: Narrator) -> Dataset:
    """As `dataset.load`, with a bar on a terminal."""
    with narrator.steps(f"reading {data.name}", 1) as step:
        return dataset.load(
            data,
            spec,
            cache=cache,
            shares=shares,
            on_picture=lambda done, total: step.at(done, total=total),
            say=narrator.say,
        )

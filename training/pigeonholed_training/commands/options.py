"""What several commands take: kinds of values, the model store, the name of a model."""

from __future__ import annotations

from pathlib import Path

import click

from pigeonholed_training import durations
from pigeonholed_training.errors import Misconfigured, WrongUsage

FOLDER = click.Path(path_type=Path)
MODELS_HELP = "The model store. [default: that of the configuration, else models/]"


class Duration(click.ParamType[float]):
    """Seconds from `90s`, `10m`, `1.5h`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses, or ends the command with a usage error."""
        if isinstance(value, float):
            return value
        try:
            return durations.seconds(str(value))
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


def store(models: Path | None) -> Path:
    """The store that was named, else that of the configuration, else `models/`.

    Raises:
        Misconfigured: there is a configuration and it is at fault.
    """
    from pigeonholed import config

    if models is not None:
        return models
    try:
        config.find_config()
    except config.ConfigError:
        return Path("models")
    try:
        return config.load_settings().models.dir
    except config.ConfigError as fault:
        raise Misconfigured(str(fault)) from fault


def check_name(name: str) -> None:
    """A model's name is a folder's name, as labels are.

    Raises:
        WrongUsage: it cannot be one.
    """
    from pigeonholed.bundle import BundleError, check_labels

    try:
        check_labels([name, "another" if name.casefold() != "another" else "other"])
    except BundleError as fault:
        said = str(fault).partition(": ")[2].replace("the label", "the name")
        raise WrongUsage(f"--name cannot be used: {said}") from fault

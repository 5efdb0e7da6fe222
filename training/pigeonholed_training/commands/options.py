"""What several commands take: kinds of values, the model store, the name of a model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pigeonholed_training import durations
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable

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


class ShareType(click.ParamType[float]):
    """A share from 0 to 1; 90 is not guessed to be 90 %, nor 1 to be 1 %."""

    name = "share"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses, or ends the command with a usage error."""
        try:
            share = float(str(value))
        except ValueError:
            self.fail(f"{value!a} is no number from 0 to 1", param, ctx)
        if 1 < share <= 100:
            self.fail(f"{value} is over 1; for {share:g} % write {share / 100:g}", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{value} is not from 0 to 1", param, ctx)
        return share


def gate_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of the publish gates, and its function all of them as `wanted`."""

    @functools.wraps(command)
    def run(*args: Any, min_accuracy: float | None, min_macro_f1: float | None, force: bool, **options: Any) -> None:
        from pigeonholed_training.gates import Wanted

        command(*args, wanted=Wanted(min_accuracy, min_macro_f1, force), **options)

    for option in (
        click.option("--force", is_flag=True, help="Publish also what is worse than the live version."),
        click.option("--min-macro-f1", type=ShareType(), metavar="Y", help="Publish only from this macro F1 on."),
        click.option("--min-accuracy", type=ShareType(), metavar="X", help="Publish only from this accuracy on."),
    ):
        run = option(run)
    return run


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

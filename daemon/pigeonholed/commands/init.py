"""`pigeonholed init`: a working folder to start from."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pigeonholed.errors import Misconfigured


@click.command(name="init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def command(folder: Path) -> None:
    """Make a working folder: a commented pigeonholed.toml, inbox/, sorted/ and models/.

    What is there already is left as it is; a pigeonholed.toml that is there is never overwritten.
    """
    from pigeonholed.resources import shipped_folder

    config = folder / "pigeonholed.toml"
    if os.path.lexists(config):
        raise Misconfigured(f"{config} is there already and is left as it is; choose another folder")
    try:
        example = (shipped_folder("config") / "pigeonholed.toml").read_bytes()
    except FileNotFoundError as error:
        raise Misconfigured(str(error)) from None
    try:
        for name in ("inbox", "sorted", "models"):
            # Who can write to the store, or here, decides what the models answer: nobody but the owner.
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            (folder / name).mkdir(mode=0o755 if name == "models" else 0o777, exist_ok=True)
        with config.open("xb") as file:
            file.write(example)
    except OSError as error:
        raise Misconfigured(
            f"cannot make a working folder at {folder}: {error.strerror}: {error.filename}; choose another folder"
        ) from None
    click.echo(f"""Made {folder}/ with pigeonholed.toml, inbox/, sorted/ and models/.

Next:
  1. pigeonholed-train train PICTURES --recipe digits --name mymodel --models {folder / "models"} --publish
     (PICTURES holds one folder of examples for each class)
  2. write the name of your model into {config}
  3. pigeonholed check --config {config}
  4. pigeonholed run --config {config}, and drop pictures into {folder / "inbox"}""")

"""The end of each command's help: what its exit codes mean, and how it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

_DONE = (0, "done")
_UNDONE = (1, "something was left undone; it is named")
_USAGE = (2, "wrong usage")
_AWAY = (69, "something needed is not available now: database, daemon, GPU, port")
_CONFIGURATION = (78, "the configuration: the file, a folder, a model")
_READS = (_DONE, _USAGE, _AWAY, _CONFIGURATION)
_CHANGES = (_DONE, _UNDONE, _USAGE, _AWAY, _CONFIGURATION)


@dataclass(frozen=True, slots=True)
class Page:
    """What is told of a command beside its description and its options."""

    exits: tuple[tuple[int, str], ...]
    examples: tuple[str, ...]

    def text(self) -> str:
        """The lines, as click leaves them alone."""
        codes = "\n".join(f"  {code:<3} {meaning}" for code, meaning in self.exits)
        lines = "\n".join(f"  {line}" for line in self.examples)
        return f"\b\nExit codes:\n{codes}\n\n\b\nExamples:\n{lines}"


PAGES = {
    "init": Page((_DONE, _USAGE, _CONFIGURATION), ("pigeonholed init pictures",)),
    "demo": Page(
        (_DONE, (1, "a picture did not end where it should"), _USAGE, _AWAY, _CONFIGURATION),
        ("pigeonholed demo", "pigeonholed demo /tmp/look"),
    ),
    "run": Page(
        (
            (0, "told to end, and did; with --once: all was filed, rejected pictures too"),
            (1, "with --once: a file still changed and was left"),
            _USAGE,
            (69, "database, port, GPU, or another daemon serves the state folder"),
            (78, "a bad file, a missing inbox, an output that cannot be written, no usable model"),
        ),
        (
            "pigeonholed run",
            "pigeonholed run --once --config photos/pigeonholed.toml",
            "pigeonholed run --dry-run --json | jq .destination",
        ),
    ),
    "status": Page(_READS, ("pigeonholed status --watch", "pigeonholed status --json | jq .queue")),
    "classify": Page(
        (_DONE, (1, "something could not be looked at; a rejected picture is a result"), *_READS[1:]),
        ("pigeonholed classify holiday/*.jpg --top 3", "pigeonholed classify new/ --models models/ --json"),
    ),
    "completion": Page(
        (_DONE, _USAGE),
        ("pigeonholed completion bash > ~/.local/share/bash-completion/completions/pigeonholed",),
    ),
    "rejected list": Page(_READS, ("pigeonholed rejected list --reason truncated", "pigeonholed rejected list --json")),
    "rejected retry": Page(_CHANGES, ("pigeonholed rejected retry --reason model-error",)),
    "undo": Page(
        _CHANGES, ("pigeonholed undo --last 10", "pigeonholed undo --image 4711", "pigeonholed undo --release")
    ),
    "reclassify": Page(
        _CHANGES,
        (
            "pigeonholed reclassify --dry-run          # what the current version would change",
            "pigeonholed reclassify --only unsure      # a second look at what the old version was unsure of",
            "pigeonholed reclassify --model digits --version 3",
        ),
    ),
    "models list": Page(_READS, ("pigeonholed models list --json",)),
    "models verify": Page((_DONE, (1, "a version is damaged"), *_READS[1:]), ("pigeonholed models verify animals",)),
    "models use": Page(_READS, ("pigeonholed models use animals 3",)),
    "models rollback": Page(_READS, ("pigeonholed models rollback animals",)),
    "db upgrade": Page(_READS, ("pigeonholed db upgrade",)),
    "db current": Page(_READS, ("pigeonholed db current --json",)),
    "db backup": Page(_READS, ("pigeonholed db backup /backup/pigeonholed-$(date +%F).db",)),
}
"""By the words of the command; one that tells all of this itself has none."""


def complete(command: click.Command, words: str) -> click.Command:
    """The command, with its page at the end of its help."""
    if command.epilog is None and (page := PAGES.get(words)) is not None:
        command.epilog = page.text()
    return command

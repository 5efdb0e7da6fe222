"""The options that say which results are meant, the same for every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pigeonholed.completion import inbox_names, model_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pigeonholed.results import Selection
    from pigeonholed.settings import Settings


def _options() -> dict[str, Any]:
    return {
        "image": click.option("--image", type=click.IntRange(min=1), metavar="ID", help="Only this one, by its id."),
        "inbox": click.option(
            "--inbox", metavar="NAME", shell_complete=inbox_names, help="Only what came from this inbox."
        ),
        "outcome": click.option(
            "--outcome",
            metavar="OUTCOME",
            help="Only what became sorted, unsure, rejected or duplicate.",
        ),
        "label": click.option("--label", metavar="LABEL", help="Only what was taken for this."),
        "model": click.option(
            "--model", metavar="NAME", shell_complete=model_names, help="Only what this model was asked about."
        ),
        "reason": click.option(
            "--reason", metavar="REASON", help="Only what was refused for this reason, such as truncated."
        ),
        "since": click.option(
            "--since", metavar="TIME", help="Only what was filed then or later, such as 2026-11-21T08:00 (local time)."
        ),
        "until": click.option("--until", metavar="TIME", help="Only what was filed before then."),
        "limit": click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N, the newest first."),
        "path": click.option(
            "--path",
            metavar="GLOB",
            help="Only what came from such a path in its inbox: '2026/*.jpg'; * stands for anything, a slash too.",
        ),
    }


def selecting(*names: str) -> Callable[[Any], Any]:
    """Give a command some of these options; each is an argument of its name, None where it is not used."""

    def decorate(function: Any) -> Any:
        options = _options()
        for name in reversed(names):
            function = options[name](function)
        return function

    return decorate


def selection_of(given: Mapping[str, Any]) -> Selection:
    """The results that the options mean.

    Raises:
        click.UsageError: a value cannot be.
    """
    from pigeonholed.config_errors import one_line
    from pigeonholed.results import Selection, WrongSelection, pattern_of

    path = given.get("path")
    try:
        return Selection.from_arguments({**given, "path": None if path is None else pattern_of(path)})
    except WrongSelection as error:
        raise click.UsageError(one_line(str(error))) from None


def listed(settings: Settings, selection: Selection, most: int | None) -> Iterator[dict[str, Any]]:
    """The results, the newest first, as JSON can hold them; few of them are in memory at a time.

    Raises:
        DatabaseUnavailable: there is no database, or it cannot be read.
    """
    import sqlalchemy as sa

    from pigeonholed.exporting import iso_of
    from pigeonholed.snapshot import pages, snapshot
    from pigeonholed.tables import images

    columns = images.c
    query = sa.select(
        columns.id.label("id"),
        columns.inbox,
        columns.source_path,
        columns.destination,
        columns.outcome,
        columns.reason,
        columns.label,
        columns.detail,
        columns.size_bytes,
        columns.filed_at,
    ).where(*selection.conditions())
    with snapshot(settings) as connection:
        for page in pages(connection, query, newest_first=True, most=most):
            for row in page:
                yield {
                    "image": row.id,
                    "inbox": row.inbox,
                    "path": row.source_path,
                    "destination": row.destination,
                    "outcome": row.outcome,
                    "reason": row.reason,
                    "label": row.label,
                    "detail": row.detail,
                    "size_bytes": row.size_bytes,
                    "filed_at": None if row.filed_at is None else iso_of(row.filed_at),
                }

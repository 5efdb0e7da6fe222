"""The sidecar that says why a file was rejected: its text, how it comes there, whether one there is ours."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pigeonholed import beneath
from pigeonholed.disk import require_gone
from pigeonholed.images import Placement
from pigeonholed.log_lines import escaped
from pigeonholed.paths import to_text
from pigeonholed.placing import sidecar_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pigeonholed.entries import Plan
    from pigeonholed.output import Output

_LONGEST = 1 << 20


class Drafts:
    """Explanations in work folders, on their way to their places. Owned by the finishing thread.

    Not only written beside the file: a power cut could keep such a name and lose what it leads to.
    """

    def __init__(self) -> None:
        self._written: set[str] = set()  # durable with the next sync, or already

    def write(self, output: Output, plan: Plan) -> None:
        """Write that of a rejected file where it becomes durable with its plan; nothing for any other."""
        if plan.placement is Placement.REJECTED:
            draft = output.draft_path(plan.arrival)
            with suppress(OSError):  # a full disk is waited for when the file is moved
                _write(draft, plan)
                self._written.add(draft)

    def of(self, output: Output, plans: Iterable[Plan]) -> list[str]:
        """The paths of those that were written for files of an output."""
        return [draft for plan in plans if (draft := output.draft_path(plan.arrival)) in self._written]

    def place(self, output: Output, plan: Plan, folder: int, name: str) -> bool:
        """Put one beside where a rejected file will be; False when somebody else's file has that name.

        Args:
            output: of the file.
            plan: of the file.
            folder: a descriptor of where the file goes.
            name: of the file there.

        Raises:
            OSError: it cannot be written, or moved; safe to repeat.
        """
        sidecar, draft = sidecar_of(name), output.draft_path(plan.arrival)
        if draft not in self._written:
            _write(draft, plan)
            output.disk.sync([draft], [])
        self._written.discard(draft)  # a rename that fails may have been done
        try:
            output.disk.rename_new(draft, sidecar, target_dir=folder)
        except FileExistsError:
            if not explains(os.path.join(beneath.path_of(folder), sidecar), plan.arrival.key):
                self._written.add(draft)  # for the name that is tried next
                return False
            os.unlink(draft)
        return True


def _write(draft: str, plan: Plan) -> None:
    with open(draft, "w", encoding="utf-8") as file:
        file.write(explanation(plan))


def explanation(plan: Plan, rejected_at: datetime | None = None) -> str:
    """The content of the sidecar of a rejected file."""
    rejected_at = rejected_at or datetime.now(UTC)
    content = {
        "path": to_text(plan.arrival.file.path),
        "inbox": plan.arrival.file.inbox,
        "reason": plan.reason,
        "detail": plan.detail,
        "sha256": plan.fingerprint.sha256,
        "size_bytes": plan.fingerprint.size,
        "rejected_at": rejected_at.isoformat(timespec="seconds"),
        "arrival": plan.arrival.key,
    }
    # For people, without a character that a terminal would obey: the name in it is its dropper's.
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else escaped(c) for c in text) + "\n"


def explains(sidecar: str, key: str) -> bool:
    """Whether a sidecar is ours: it was written for this very arrival.

    Raises:
        OSError: the disk fails to answer.
    """
    content = explanation_in(sidecar)
    return content is not None and content.get("arrival") == key


def explanation_in(sidecar: str) -> dict[str, Any] | None:
    """What a sidecar says, if it is one: anybody may have written it.

    Raises:
        OSError: the disk fails to answer.
    """
    try:
        # Somebody else's, if it is a link, a pipe that would be waited for, or too long or too deep to be read.
        fd = os.open(sidecar, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = json.loads(os.read(fd, _LONGEST))
        finally:
            os.close(fd)
    except FileNotFoundError:
        require_gone(sidecar)
        return None
    except (IsADirectoryError, ValueError, RecursionError):
        return None
    except PermissionError:
        if os.lstat(sidecar).st_uid == os.geteuid():
            raise  # it may be ours
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EAGAIN}:
            return None
        raise
    return content if isinstance(content, dict) and "arrival" in content else None

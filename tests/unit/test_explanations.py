"""What a sidecar says of a rejected file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from helpers import fingerprint_of, make_arrival
from pigeonholed.entries import Plan
from pigeonholed.explanations import explanation
from pigeonholed.images import Placement, Reason


def _plan(path: str) -> Plan:
    arrival = make_arrival(path, 7, size=5)
    return Plan(arrival, fingerprint_of(arrival), Placement.REJECTED, f"_rejected/empty/{path}", reason=Reason.EMPTY)


def test_it_says_whose_and_why() -> None:
    said = json.loads(explanation(_plan("s/x.png"), datetime(2026, 1, 2, 3, 4, 5, 6, UTC)))
    assert said == {
        "path": "s/x.png",
        "inbox": "camera",
        "reason": "empty",
        "detail": None,
        "sha256": "0" * 64,
        "size_bytes": 5,
        "rejected_at": "2026-01-02T03:04:05+00:00",
        "arrival": f"{7:032x}",
    }


def test_without_a_time_it_was_rejected_now() -> None:
    rejected_at = datetime.fromisoformat(json.loads(explanation(_plan("x.png")))["rejected_at"])
    assert abs(datetime.now(UTC) - rejected_at) < timedelta(minutes=5)


def test_people_can_read_names_in_their_language_and_no_character_commands_their_terminal() -> None:
    text = explanation(_plan("Bär 熊\u202e\x9b.png"))
    assert "Bär 熊" in text
    assert all(character.isprintable() or character == "\n" for character in text)
    assert json.loads(text)["path"] == "Bär 熊\u202e\x9b.png"

"""Sees when files are filed, from a process of its own: names come in on stdin, times go out as JSON at its end.

Run as `latency_watch.py DATABASE FOLDER`. Looks once a millisecond while a file is under way, and else sleeps. A file
is filed when it is at its destination and its row says so; `CLOCK_MONOTONIC` is the same for all processes.
"""

from __future__ import annotations

import json
import os
import select
import sqlite3
import sys
import time

_LOOK_EVERY_S = 0.001


def main(database: str, folder: str) -> None:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
    under_way: set[str] = set()
    moved: dict[str, float] = {}
    filed: dict[str, float] = {}
    rest = b""
    last_id = 0
    ended = False
    while not ended or under_way:
        readable, _, _ = select.select([] if ended else [0], [], [], _LOOK_EVERY_S if under_way else None)
        if readable:
            data = os.read(0, 65536)
            ended = not data
            *lines, rest = (rest + data).split(b"\n")
            under_way.update(line.decode() for line in lines)
        for name in under_way - moved.keys():
            if os.path.exists(os.path.join(folder, name)):
                moved[name] = time.monotonic()
        if under_way & moved.keys():
            query = "SELECT id, source_path FROM images WHERE status = 'filed' AND id > ?"
            rows = connection.execute(query, (last_id,)).fetchall()
            now_s = time.monotonic()
            for _number, name in rows:
                if name in under_way and name in moved:
                    filed[name] = now_s
                    under_way.discard(name)
            if rows and not under_way:
                last_id = max(number for number, _name in rows)
    json.dump({name: {"moved_s": moved[name], "filed_s": filed[name]} for name in filed}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

"""Starts daemons quickly: everything is imported once, and each daemon is a fork that then runs the real command.

It reads lines from stdin: `start CONFIG LOG` forks a daemon and prints its pid; `reap PID` waits for its end and prints
how it ended.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    import alembic.command
    import openvino
    import sqlalchemy.dialects.sqlite

    import pigeonholed.commands.run
    import pigeonholed.pipeline

    assert all((alembic.command, openvino, sqlalchemy.dialects.sqlite, pigeonholed.pipeline))
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "start":
            print(_start(*arguments), flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(int(arguments[0]), 0)[1]), flush=True)


def _start(config: str, log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        from pigeonholed.cli import cli

        cli(["run", "--config", config], standalone_mode=True)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(70)


if __name__ == "__main__":
    main()

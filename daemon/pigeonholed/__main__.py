"""The command `pigeonholed`; also `python -m pigeonholed`."""

import io
import sys


def main() -> None:
    """Run the command line; on a Python that is not served, say so and nothing else."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(str(part) for part in sys.version_info[:2])
        sys.exit("pigeonholed needs Python 3.11, 3.12 or 3.13; this is Python " + version)
    from pigeonholed.cli import cli

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no error
    cli(prog_name="pigeonholed")


if __name__ == "__main__":
    main()

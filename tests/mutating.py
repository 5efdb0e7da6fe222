"""How many changes of the protocol's code its tests see: each of a number of mutants, chosen at random, is tried.

`make mutants` (COUNT=200 SEED=1). A mutant is one change of one place in one of the modules that pyproject.toml names:
a comparison, a condition, a small number, a call that is left out, an answer that is none. It is caught if one of the
tests of `make coverage` that run this place fails on it, or does not end. What is written to the log is left as it is.
Those that get away are shown; some of them change nothing that anybody could see.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from coverage import CoverageData

T = TypeVar("T")
U = TypeVar("U")

ROOT = Path(__file__).resolve().parent.parent
LONGEST_S = 300.0
"""The tests take a thirtieth of that; who takes longer waits for ever."""

_COUNTS = 3
"""Numbers up to that count something; larger ones are sizes and limits, of which one more or less is as good."""

_OTHERS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: of the module, below the root.
        line: where it is changed.
        change: what was there and what is there now.
        lines: of the statement, as far as the change.
        place: which node of the module it is, in the order of `ast.walk`.
        way: which of the changes that this node allows.
    """

    path: str
    line: int
    change: str
    lines: range
    place: int
    way: int

    def text(self) -> str:
        """The whole module with its change."""
        tree = ast.parse((ROOT / self.path).read_text())
        node = list(ast.walk(tree))[self.place]
        _replace(tree, node, _changed(node)[self.way])
        return ast.unparse(tree)


def mutants(path: str) -> list[Mutant]:
    """All of a module."""
    tree = ast.parse((ROOT / path).read_text())
    beside = {inner for part in _beside(tree) for inner in ast.walk(part)}
    starts = _starts(tree, 0)
    return [
        Mutant(path, node.lineno, f"{_first_line(node)}  ->  {_first_line(instead)}", lines, place, way)
        for place, node in enumerate(ast.walk(tree))
        if isinstance(node, (ast.expr, ast.stmt)) and node not in beside
        for lines in [range(starts[node], _last_line(node) + 1)]
        for way, instead in enumerate(_changed(node))
    ]


def _starts(node: ast.AST, start: int) -> dict[ast.AST, int]:
    """Where the statements begin that these nodes are in."""
    start = node.lineno if isinstance(node, ast.stmt) else start
    found = {node: start}
    for inner in ast.iter_child_nodes(node):
        found |= _starts(inner, start)
    return found


def _last_line(node: ast.expr | ast.stmt) -> int:
    """Where it ends, without what it is the condition of."""
    return (node.test if isinstance(node, ast.If) else node).end_lineno or node.lineno


def _first_line(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]


def _changed(node: ast.AST) -> list[ast.AST]:
    """What can be put in the place of a node."""
    match node:
        case ast.Compare(left, [operator], right) if type(operator) in _OTHERS:
            return [ast.Compare(left, [_OTHERS[type(operator)]()], right)]
        case ast.BoolOp(operator, values):
            return [ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)]
        case ast.UnaryOp(ast.Not(), operand):
            return [operand]
        case ast.Constant(bool() as value):
            return [ast.Constant(not value)]
        case ast.Constant(int() as value) if value <= _COUNTS:
            return [ast.Constant(value + 1)]
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            return [ast.BinOp(left, ast.Sub() if isinstance(operator, ast.Add) else ast.Add(), right)]
        case ast.If(_, body, orelse):
            return [ast.If(ast.Constant(value), body, orelse) for value in (True, False)]
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Break() | ast.Continue():
            return [ast.Pass()]
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and not value.value):
            return [ast.Return(ast.Constant(None))]
    return []


def _beside(tree: ast.AST) -> Iterator[ast.AST]:
    """What is not run for its effect: annotations, how values are made, what is only for the log or type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield node.returns
        elif isinstance(node, ast.ClassDef):
            yield from node.decorator_list
        elif isinstance(node, (ast.Expr, ast.If)) and ast.unparse(node).startswith(("log.", "if TYPE_CHECKING")):
            yield node


def _replace(tree: ast.AST, place: ast.AST, instead: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is place:
                setattr(parent, name, instead)
            elif isinstance(value, list) and any(item is place for item in value):
                setattr(parent, name, [instead if item is place else item for item in value])


def _checkout(folder: Path) -> Path:
    """A copy of what git knows, to be changed at will."""
    names = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, cwd=ROOT).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def _pytest(checkout: Path, tests: Sequence[str], *before: str) -> subprocess.CompletedProcess[bytes]:
    """Run files of tests on a copy until one fails; `before` goes between `python -m` and `pytest`.

    Raises:
        subprocess.TimeoutExpired: they do not end.
    """
    options = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", "--basetemp", str(checkout.parent / "tmp")]
    return subprocess.run(
        [sys.executable, "-m", *before, "pytest", *options, *tests],
        check=False, capture_output=True, cwd=checkout, timeout=LONGEST_S,
        env=os.environ | {"PYTHONPATH": str(checkout / "daemon"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What a file of tests runs, and how long that takes.

    Attributes:
        tests: the file.
        seconds: it took.
        lines: by the path of a module, those that it ran.
    """

    tests: str
    seconds: float
    lines: dict[str, set[int]]

    @classmethod
    def of(cls, tests: str, checkout: Path) -> Ran:
        """Run it without any change."""
        data = checkout.parent / "covered"
        started_s = time.monotonic()
        done = _pytest(checkout, [tests], "coverage", "run", f"--data-file={data}", "-m")
        assert done.returncode == 0, f"{tests} fails without any change: {done.stdout.decode()[-2000:]}"
        seconds = time.monotonic() - started_s
        covered = CoverageData(str(data))
        covered.read()
        files = {str(Path(file).relative_to(checkout)): file for file in covered.measured_files()}
        return cls(tests, seconds, {path: set(covered.lines(file) or ()) for path, file in files.items()})


def caught(mutant: Mutant, checkout: Path, suite: Sequence[Ran]) -> bool:
    """Whether one of the tests that run what it changes fails on it; they are tried in the order of `suite`."""
    tests = [ran.tests for ran in suite if not ran.lines.get(mutant.path, set()).isdisjoint(mutant.lines)]
    if not tests:
        return False
    target = checkout / mutant.path
    whole = target.read_text()
    target.write_text(mutant.text())
    try:
        return _pytest(checkout, tests).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(whole)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="how many mutants are tried")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("tests", nargs="+", help="files of tests")
    chosen = parser.parse_args()
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["report"]["include"]
    known = [mutant for path in modules for mutant in mutants(path)]
    some = random.Random(chosen.seed).sample(known, min(chosen.count, len(known)))
    print(f"{len(some)} of {len(known)} mutants, seed {chosen.seed}", flush=True)
    checkouts: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def on_a_copy(work: Callable[[T, Path], U], what: T) -> U:
        checkout = checkouts.get()
        try:
            return work(what, checkout)
        finally:
            checkouts.put(checkout)

    away = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(chosen.jobs) as pool:
        for job in range(chosen.jobs):
            checkouts.put(_checkout(Path(folder) / str(job) / "checkout"))
        suite = sorted(pool.map(partial(on_a_copy, Ran.of), chosen.tests), key=lambda ran: ran.seconds)
        print(f"the tests took {sum(ran.seconds for ran in suite):.0f} s without any change", flush=True)
        verdicts = pool.map(partial(on_a_copy, lambda mutant, checkout: caught(mutant, checkout, suite)), some)
        for number, (mutant, seen) in enumerate(zip(some, verdicts, strict=True), 1):
            if not seen:
                away += 1
                print(f"{mutant.path}:{mutant.line}: {mutant.change}", flush=True)
            if number % 10 == 0:
                print(f"{number - away} of {number} caught", flush=True)
    print(f"{len(some) - away} of {len(some)} caught")
    return 0


if __name__ == "__main__":
    sys.exit(main())

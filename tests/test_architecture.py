"""The inside stays as ARCHITECTURE says: who may import what, and when anything happens."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_DAEMON = _ROOT / "daemon/pigeonholed"
_TRAINING = _ROOT / "training/pigeonholed_training"

# Where to look for a second noun: these have been looked at, and have one.
_LONG = {
    "pigeonholed.metrics",  # one line for each metric of the contract
    "pigeonholed.finishing",  # the delivery protocol, best read in one piece
    "pigeonholed.imaging",  # one way to see a picture
    "pigeonholed.pipeline",  # all wiring
}
_LINES = 310

# Heavy libraries: each in the one module of the daemon that is about it, and only inside functions.
_HEAVY_IN_DAEMON = {
    "tensorflow": {"pigeonholed.classifying.keras"},
    "keras": {"pigeonholed.classifying.keras"},
    "openvino": {"pigeonholed.classifying.openvino"},
    "matplotlib": set(),
    "seaborn": set(),
    "ray": {"pigeonholed.engines.ray"},
    "PIL": {"pigeonholed.imaging"},
    "pyarrow": {"pigeonholed.parquet"},
}
_HEAVY = {*_HEAVY_IN_DAEMON, "sklearn", "h5py", "pandas"}

# What training, evaluation and the page share must not drag the daemon in.
_SHARED = {
    "pigeonholed.imaging": {"pigeonholed.formats", "pigeonholed.images"},
    "pigeonholed.bundle": {"pigeonholed.labels", "pigeonholed.sealing", "pigeonholed.imaging", "pigeonholed.reference"},
    "pigeonholed.reference": set(),
    "pigeonholed.images": {"pigeonholed.imaging"},
    "pigeonholed.labels": set(),
}

# Calls that make a constant, a logger or a type, and do no work.
_MAY_BE_CALLED_AT_IMPORT = {
    "Annotated", "AfterValidator", "BeforeValidator", "CDLL", "Column", "ConfigDict", "Field", "Float", "ForeignKey",
    "Fraction", "Index", "InstanceOf", "Integer", "MetaData", "NewType", "ParamSpec", "Path", "Struct", "Table", "Text",
    "TypeVar", "argument", "command", "compile", "contextmanager", "dataclass", "dict", "field", "field_validator",
    "frozenset", "get_logger", "group", "join", "model_validator", "object", "option", "pass_context", "range", "set",
    "sorted", "text", "timedelta", "tuple", "version_option", "with_variant", "_words", "_path", "encode",
    "datetime", "JSON", "BigInteger", "String", "DateTime", "dict.fromkeys", "fromkeys", "float", "int", "Choice",
    "enum_option", "cache", "lru_cache", "items", "split", "TypeAdapter", "bytes", "wraps", "Address", "strip",
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    name: str
    at_import: bool
    for_types: bool


def _read(folder: Path) -> Iterator[Module]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield Module(name, path, ast.parse(path.read_text(encoding="utf-8")))


_MODULES = [*_read(_DAEMON), *_read(_TRAINING)]
_NAMES = {module.name for module in _MODULES}
# Our own frozen values: making one is a constant.
_CLASSES = {node.name for module in _MODULES for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}


def _imports(module: Module) -> Iterator[Import]:
    def walk(node: ast.AST, at_import: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = at_import and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), at_import, True)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, inside, for_types)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module.name} imports relatively"
                source = child.module or ""
                for alias in child.names:
                    whole = f"{source}.{alias.name}"
                    yield Import(whole if whole in _NAMES else source, inside, for_types)
            elif isinstance(child, ast.Call) and _called(child) in {"import_module", "__import__"}:
                for argument in child.args[:1]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield Import(argument.value, inside, for_types)
            yield from walk(child, inside, for_types)

    yield from walk(module.tree, True, False)


def _called(call: ast.Call) -> str:
    """The last word of what is called."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _of(name: str) -> Module:
    return next(module for module in _MODULES if module.name == name)


def _top(name: str) -> str:
    return name.partition(".")[0]


@pytest.fixture(params=_MODULES, ids=lambda module: module.name)
def module(request: pytest.FixtureRequest) -> Module:
    chosen: Module = request.param
    return chosen


def test_there_is_something_to_look_at() -> None:
    assert {"pigeonholed.pipeline", "pigeonholed.engines.local", "pigeonholed_training.fitting.loop"} <= _NAMES


def test_daemon_never_imports_the_training_package(module: Module) -> None:
    if module.package == "pigeonholed":
        assert not [found.name for found in _imports(module) if _top(found.name) == "pigeonholed_training"]


def test_training_imports_only_the_contract_between_the_halves(module: Module) -> None:
    if module.package != "pigeonholed_training":
        return
    shared = {
        "pigeonholed",
        "pigeonholed.bundle",
        "pigeonholed.classifying",
        "pigeonholed.durable",
        "pigeonholed.formats",
        "pigeonholed.images",
        "pigeonholed.imaging",
        "pigeonholed.labels",
        "pigeonholed.reference",
        "pigeonholed.store",
    }
    foreign = {
        found.name
        for found in _imports(module)
        if _top(found.name) == "pigeonholed"
        and found.name not in shared
        and not found.name.startswith("pigeonholed.classifying.")
    }
    small = {f"pigeonholed.{name}" for name in ("completion", "errors", "logs", "paths", "digits", "spreadsheets")}
    if module.name == "pigeonholed_training.commands.options":
        small.add("pigeonholed.config")  # it says where the store is
    if module.name == "pigeonholed_training.data.reviews":  # reads the service's records, and nothing else does
        small |= {"pigeonholed.config", "pigeonholed.database", "pigeonholed.tables"}
    assert not foreign - small


def test_heavy_libraries_are_imported_inside_functions_only(module: Module) -> None:
    assert not [
        found.name
        for found in _imports(module)
        if _top(found.name) in _HEAVY and found.at_import and not found.for_types
    ]


@pytest.mark.parametrize("library", sorted(_HEAVY_IN_DAEMON))
def test_each_heavy_library_has_one_home_in_the_daemon(library: str) -> None:
    homes = {
        module.name
        for module in _MODULES
        if module.package == "pigeonholed"
        for found in _imports(module)
        if _top(found.name) == library and not found.for_types
    }
    assert homes <= _HEAVY_IN_DAEMON[library]


@pytest.mark.parametrize("name", sorted(_SHARED))
def test_what_both_halves_share_stands_nearly_alone(name: str) -> None:
    used = {found.name for found in _imports(_of(name)) if _top(found.name) == "pigeonholed"}
    assert used <= _SHARED[name] | {"pigeonholed"}


def test_nothing_happens_at_import(module: Module) -> None:
    """At the top of a module stand definitions and constants: no loops, no context managers, no calls that work."""
    for statement in module.tree.body:
        assert not isinstance(statement, ast.For | ast.While | ast.With | ast.Try | ast.Global), ast.unparse(statement)
        if isinstance(statement, ast.Expr):
            docstring = isinstance(statement.value, ast.Constant)
            assert docstring or _calls(statement) <= _MAY_BE_CALLED_AT_IMPORT, ast.unparse(statement)
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            odd = _calls(statement) - _MAY_BE_CALLED_AT_IMPORT - _CLASSES - _own_functions(module)
            assert not odd, ast.unparse(statement)


def _calls(statement: ast.AST) -> set[str]:
    """What is called when the statement is run; bodies of lambdas are not."""
    found: set[str] = set()
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            found.add(_called(node))
        stack.extend(ast.iter_child_nodes(node))
    return found


def _own_functions(module: Module) -> set[str]:
    """Functions of the module itself, which compute its tables."""
    return {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef)}


def test_no_function_changes_a_global(module: Module) -> None:
    assert not [node.names for node in ast.walk(module.tree) if isinstance(node, ast.Global)]


def test_module_is_about_one_noun(module: Module) -> None:
    length = len(module.path.read_text(encoding="utf-8").splitlines())
    assert length <= _LINES or module.name in _LONG


def test_every_module_says_what_it_is_for(module: Module) -> None:
    assert module.path.stat().st_size == 0 or ast.get_docstring(module.tree)


def test_daemons_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        module.name: {
            found.name for found in _imports(module) if found.at_import and not found.for_types and found.name in _NAMES
        }
        - {module.name}
        for module in _MODULES
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_importing_the_pipeline_loads_no_network_library() -> None:
    program = (
        "import sys, pigeonholed.pipeline\n"
        "print(sorted({'tensorflow', 'keras', 'openvino', 'alembic', 'matplotlib', 'sklearn', 'pigeonholed_training'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")

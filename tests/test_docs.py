"""What the documents tell people to write and to type works."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from pigeonholed.cli import cli as service_cli
from pigeonholed.config import load_settings
from pigeonholed.settings import InboxSettings, Tables
from pigeonholed_training.cli import cli as training_cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIS: dict[str, click.Command] = {"pigeonholed": service_cli, "pigeonholed-train": training_cli}


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README: of the shell examples, and those within a sentence."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced("sh") for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [line for line in lines if re.match(r"(pigeonholed|pigeonholed-train|make) [a-z-]", line)]


def resolved(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line names, and the words that are left for it."""
    program, *words = shlex.split(line, comments=True)
    command = CLIS[program]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{line!r}: there is no command {name!r}"
        command = found
    return command, words


@pytest.mark.parametrize("example", fenced("toml"))
def test_every_configuration_in_the_readme_loads(tmp_path: Path, example: str) -> None:
    file = tmp_path / "pigeonholed.toml"
    file.write_text(example, encoding="utf-8")
    settings = load_settings(file, environ={})
    wanted = tomllib.loads(example)
    assert [inbox.model for inbox in settings.inbox] == [inbox["model"] for inbox in wanted["inbox"]]


def test_the_readme_has_a_minimal_configuration() -> None:
    minimal = tomllib.loads(fenced("toml")[0])
    assert [set(inbox) for inbox in minimal["inbox"]] == [{"path", "output", "model"}]
    assert set(minimal) == {"inbox"}


@pytest.mark.parametrize("line", [line for line in commands() if not line.startswith("make ")])
def test_every_command_in_the_readme_exists_with_its_options(line: str) -> None:
    command, words = resolved(line)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in words if word.startswith("-")} - {"--help", "--version"}
    assert options <= known, f"{line!r}: {command.name} has no {options - known}"


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_every_make_target_in_the_readme_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_names_both_set_up_commands_and_the_main_ones() -> None:
    told = commands()
    for wanted in ("make demo", "make test", "pigeonholed run", "pigeonholed init", "pigeonholed-train train"):
        assert any(line.startswith(wanted) for line in told), wanted


def faults() -> list[list[str]]:
    """The lines of the table of faults: number, fault, what is done about it, tests."""
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if "::" in line or line.endswith("| none |")
    ]


def test_every_fault_is_in_the_table_of_faults_with_a_test_or_the_reason_why_there_is_none() -> None:
    assert [line[0] for line in faults()] == [str(number) for number in range(1, 102)]
    for number, _fault, done, tests in faults():
        assert "::" in tests or "no test" in done, f"{number} has neither a test nor a reason"


def test_every_test_in_the_table_of_faults_exists() -> None:
    told = {name for *_, tests in faults() for name in re.findall(r"`([^`]+)`", tests)}
    files = {name.partition("::")[0] for name in told}
    assert files
    there = {
        f"{file}::{found}"
        for file in files
        for found in re.findall(r"^ *def (test_\w+)", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert told <= there, sorted(told - there)


DOCUMENTS = ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target


def test_every_configuration_that_ships_loads() -> None:
    examples = sorted((ROOT / "config").glob("*.toml"))
    assert "pigeonholed.toml" in [example.name for example in examples]
    for example in examples:
        load_settings(example, environ={})


def told_keys() -> dict[str, dict[str, str]]:
    """Of each table of the page about configuration: key to the default that is told."""
    text = (ROOT / "docs/configure.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## `\[+(\w+)\]+`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)) for name, table in sections}


def test_the_page_about_configuration_tells_every_key_with_its_default() -> None:
    told = told_keys()
    sections = dict(Tables.model_fields)
    assert told.keys() == sections.keys()
    for name, field in sections.items():
        keys = (InboxSettings if name == "inbox" else type(field.default)).model_fields
        assert told[name].keys() == keys.keys(), name
        for key, default in told[name].items():
            if default == "required" or (name, key) == ("inbox", "name"):
                assert keys[key].is_required(), f"{name}.{key}"
                continue
            needed = {"name": "x", "path": "x", "model": "x"} if name == "inbox" else {}
            said = tomllib.loads(f"{key} = {default.strip('`')}")
            model = InboxSettings if name == "inbox" else type(field.default)
            assert getattr(model(**needed, **said), key) == getattr(model(**needed), key), f"{name}.{key}: {default}"


def test_the_lock_pins_every_dependency_exactly_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(name for extra in extras for name in extras[extra])]
    pins = {}
    for lock in ("requirements.lock", "requirements-ray.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            if line and not line.startswith("#"):
                match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.+!]*)( *;.*)?", line)
                assert match, f"{lock}: {line!r} is no exact pin"
                pins[normal(match[1])] = match[2]
    assert {normal(re.split(r"[\[<>=!~; ]", name)[0]) for name in needed} <= pins.keys()
    assert {"hatchling", "editables"} <= pins.keys()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

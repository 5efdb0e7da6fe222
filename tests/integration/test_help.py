"""Help that answers what a manual page answers, and shells that complete."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pigeonholed import manual
from pigeonholed.cli import cli
from pigeonholed_training.cli import cli as training_cli

PROGRAMS: dict[str, click.Group] = {"pigeonholed": cli, "pigeonholed-train": training_cli}


def every_command(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name)


ALL = [path for program, group in PROGRAMS.items() for path in every_command(group, (program,))]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_says_what_for_which_exit_codes_and_shows_an_example(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(PROGRAMS[path[0]], [*path[1:], "--help"], prog_name=path[0])
    assert done.exit_code == 0
    text = done.stdout.partition("\n\n")[2]
    assert re.search("[Ee]xit", text)
    assert re.search(rf"{' '.join(path)}\b", text) or path[0] == "pigeonholed-train", "there is no example"
    assert "\\b" not in text, "a mark for click is shown"
    assert all(len(line) <= 100 for line in done.stdout.splitlines()), "too wide"


def test_every_page_is_of_a_command_and_its_examples_are_commands() -> None:
    known = {" ".join(path[1:]) for path in ALL if path[0] == "pigeonholed"}
    assert manual.PAGES.keys() <= known
    for words, page in manual.PAGES.items():
        assert page.examples
        assert all(f"pigeonholed {words}" in example for example in page.examples), words
        assert [code for code, _ in page.exits] == sorted({code for code, _ in page.exits})


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_for_a_shell_says_how_to_install_it(program: str, shell: str) -> None:
    done = CliRunner().invoke(PROGRAMS[program], ["completion", shell], prog_name=program)
    assert done.exit_code == 0
    assert f"_{program.replace('-', '_').upper()}_COMPLETE={shell}_complete" in done.stdout
    head = done.stdout.splitlines()[:2]
    assert any(line.startswith(f"# To install it: {program} completion {shell} > ") for line in head)
    if shell == "zsh":
        assert head[0] == f"#compdef {program}", "zsh wants that to be the first line"
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def completed(words: str, program: str = "pigeonholed") -> set[str]:
    """What bash is offered for the last word."""
    listed = f"{program} {words}".split(" ")
    environ = {"COMP_WORDS": " ".join(listed), "COMP_CWORD": str(len(listed) - 1)}
    environ[f"_{program.replace('-', '_').upper()}_COMPLETE"] = "bash_complete"
    done = CliRunner().invoke(PROGRAMS[program], [], prog_name=program, env=environ)
    return {line.partition(",")[2] for line in done.stdout.splitlines() if line}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models/animals/3").mkdir(parents=True)
    (tmp_path / "models/apples/1").mkdir(parents=True)
    inboxes = "".join(
        f'[[inbox]]\nname = "{n}"\npath = "{n}"\noutput = "o"\nmodel = "apples"\n' for n in ("cam", "desk")
    )
    (tmp_path / "pigeonholed.toml").write_text(inboxes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIGEONHOLED_CONFIG", raising=False)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_commands_options_and_names_are_completed() -> None:
    assert completed("cl") == {"classify"}
    assert completed("models ") == {"list", "verify", "use", "rollback"}
    assert "--once" in completed("run --on")
    assert completed("models use a") == {"animals", "apples"}
    assert completed("models verify an") == {"animals"}
    assert completed("classify --model ap") == {"apples"}
    assert completed("rejected list --inbox c") == {"cam"}
    assert completed("rejected list --inbox ") == {"cam", "desk"}
    assert completed("completion ") == {"bash", "zsh", "fish"}
    assert completed("tr", "pigeonholed-train") == {"train"}


def test_names_of_a_configuration_that_was_named_and_silence_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    monkeypatch.setenv("HOME", str(folder / "empty"))
    assert completed("models use ") == set()
    assert completed("rejected list --inbox ") == set()
    assert completed(f"--config {folder}/pigeonholed.toml rejected list --inbox d") == {"desk"}
    assert completed(f"rejected list --config {folder}/pigeonholed.toml --inbox d") == {"desk"}
    assert completed(f"classify --models {folder}/models --model an") == {"animals"}

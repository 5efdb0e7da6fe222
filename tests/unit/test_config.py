"""The configuration: where it is found, what goes before what, what paths mean, and how mistakes are told."""

from __future__ import annotations

import os
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import make_url

from pigeonholed.config import PACKAGED, Address, ConfigError, InboxSettings, Settings, find_config, load_settings
from pigeonholed.config_checks import is_within
from pigeonholed.config_errors import shown
from pigeonholed.errors import Misconfigured
from pigeonholed.settings import Tables

SHIPPED = Path(__file__).resolve().parents[2] / "config"
MINIMAL = '[[inbox]]\npath = "inbox"\noutput = "sorted"\nmodel = "digits"\n'


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pigeonholed.toml"
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, text: str, environ: dict[str, str] | None = None, **overrides: object) -> Settings:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_settings(write(folder, text), environ=environ or {}, overrides=dotted)


def refusal(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    return str(caught.value)


def inbox_with(line: str) -> str:
    return f"{MINIMAL}{line}\n"


# The files that we ship


def test_every_key_of_the_contract_is_in_the_shipped_example() -> None:
    example = tomllib.loads((SHIPPED / "pigeonholed.toml").read_text(encoding="utf-8"))
    assert set(example) == set(Tables.model_fields)
    assert set(example["inbox"][0]) == set(InboxSettings.model_fields)
    for name, section in example.items():
        if name != "inbox":
            assert set(section) == set(Tables.model_fields[name].annotation.model_fields), name  # type: ignore[union-attr]


def test_the_shipped_example_holds_exactly_the_defaults(tmp_path: Path) -> None:
    example = load(tmp_path, (SHIPPED / "pigeonholed.toml").read_text(encoding="utf-8"))
    minimal = load(tmp_path, (SHIPPED / "minimal.toml").read_text(encoding="utf-8"), inbox__0__name="camera")
    assert example == minimal


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    inbox = settings.inbox[0]
    assert inbox == InboxSettings(
        name="inbox", path=tmp_path / "inbox", create=False, output=tmp_path / "sorted", model="digits",
        version="current", action="move", hostile=False, recursive=True, settle_s=5.0, incomplete_s=60.0, watch="auto",
        rescan_s=30.0, template="{label}/{subdir}/{name}", duplicates="sort", min_confidence="model", top_k=5,
        truncated="reject", max_pixels=100_000_000, max_bytes=500_000_000, include=("*",), exclude=(),
    )  # fmt: skip
    assert (settings.batching.max_batch_size, settings.batching.max_wait_s, settings.batching.decode_workers) == (
        64,
        0.5,
        0,
    )
    assert settings.batching.max_decode_s == 60.0
    assert (settings.runtime.kind, settings.runtime.device, settings.runtime.precision) == ("auto", "auto", "auto")
    assert (settings.engine.kind, settings.engine.address) == ("local", "auto")
    assert settings.metrics.listen == Address("127.0.0.1", 9109)
    assert (settings.web.listen, settings.web.token_file) == (Address("127.0.0.1", 8109), None)
    assert (settings.log.format, settings.log.level) == ("auto", "info")


def test_every_line_of_the_example_has_a_comment_above_it() -> None:
    lines = (SHIPPED / "pigeonholed.toml").read_text(encoding="utf-8").splitlines()
    bare = {"version", "max_bytes", "exclude"}  # told together with the key above
    for above, line in pairwise(lines):
        if "=" in line and not line.startswith("#") and line.split()[0] not in bare:
            assert above.startswith("#"), line


# Finding the file


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {
        "flag": write(tmp_path / "flag", MINIMAL),
        "variable": write(tmp_path / "variable", MINIMAL),
        "here": write(tmp_path / "here", MINIMAL),
        "xdg": write(tmp_path / "xdg" / "pigeonholed", MINIMAL),
        "home": write(tmp_path / "home" / ".config" / "pigeonholed", MINIMAL),
    }


def test_the_file_is_searched_in_the_order_of_the_contract(tmp_path: Path, places: dict[str, Path]) -> None:
    environ = {
        "PIGEONHOLED_CONFIG": str(places["variable"]),
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "HOME": str(tmp_path / "home"),
    }
    here = tmp_path / "here"
    assert find_config(places["flag"], environ, here) == places["flag"]
    assert find_config(None, environ, here) == places["variable"]
    del environ["PIGEONHOLED_CONFIG"]
    assert find_config(None, environ, here) == places["here"]
    assert find_config(None, environ, tmp_path) == places["xdg"]
    del environ["XDG_CONFIG_HOME"]
    assert find_config(None, environ, tmp_path) == places["home"]


def test_a_relative_xdg_folder_is_ignored(tmp_path: Path, places: dict[str, Path]) -> None:
    environ = {"XDG_CONFIG_HOME": "xdg", "HOME": str(tmp_path / "home")}
    assert find_config(None, environ, tmp_path) == places["home"]


def test_an_empty_variable_names_no_file(tmp_path: Path, places: dict[str, Path]) -> None:
    assert find_config(None, {"PIGEONHOLED_CONFIG": "", "HOME": "/nowhere"}, tmp_path / "here") == places["here"]


def test_a_named_file_that_is_missing_is_never_replaced_by_another(tmp_path: Path, places: dict[str, Path]) -> None:
    environ = {"PIGEONHOLED_CONFIG": str(tmp_path / "gone.toml")}
    with pytest.raises(ConfigError, match=r"gone\.toml: there is no such file.*pigeonholed init DIR"):
        load_settings(environ=environ, cwd=tmp_path / "here")


def test_no_file_at_all_names_every_place_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path("/etc/pigeonholed") == PACKAGED
    monkeypatch.setattr("pigeonholed.config.PACKAGED", tmp_path / "etc")  # this machine may have one
    with pytest.raises(ConfigError) as caught:
        find_config(None, {"HOME": str(tmp_path / "home")}, tmp_path)
    told = str(caught.value)
    for place in (tmp_path / "pigeonholed.toml", tmp_path / "home/.config/pigeonholed/pigeonholed.toml"):
        assert str(place) in told
    assert str(tmp_path / "etc/pigeonholed.toml") in told
    assert "pigeonholed init DIR" in told
    assert "\n" not in told


def test_a_folder_instead_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_settings(tmp_path, environ={})


def test_a_configuration_error_has_the_exit_code_of_the_contract() -> None:
    assert issubclass(ConfigError, Misconfigured)
    assert ConfigError([]).exit_code == 78


# Precedence


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    text = MINIMAL + '[log]\nlevel = "warning"\nformat = "json"\n'
    environ = {"PIGEONHOLED__LOG__LEVEL": "error", "PIGEONHOLED__BATCHING__MAX_BATCH_SIZE": "8"}
    settings = load(tmp_path, text, environ, log__level="debug", log__format=None, batching__max_batch_size=None)
    assert (settings.log.level, settings.log.format, settings.batching.max_batch_size) == ("debug", "json", 8)
    assert load(tmp_path, text, environ).log.level == "error"
    assert load(tmp_path, text).log.level == "warning"


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("NAME", "2024", "2024"),
        ("NAME", '"cam 1"', "cam 1"),
        ("NAME", "true", "true"),
        ("VERSION", "3", 3),
        ("VERSION", "current", "current"),
        ("MIN_CONFIDENCE", "0.9", 0.9),
        ("RECURSIVE", "false", False),
        ("SETTLE_S", "1", 1.0),
        ("INCLUDE", '["*.jpg"]', ("*.jpg",)),
        ("TEMPLATE", "{name}", "{name}"),
    ],
)
def test_a_variable_is_read_as_toml_and_else_as_text(tmp_path: Path, variable: str, text: str, read: object) -> None:
    settings = load(tmp_path, MINIMAL, {f"PIGEONHOLED__INBOX__0__{variable}": text})
    assert getattr(settings.inbox[0], variable.lower()) == read


def test_a_second_line_in_a_variable_is_no_second_key(tmp_path: Path) -> None:
    assert "inbox.0.version = " in refusal(tmp_path, MINIMAL, {"PIGEONHOLED__INBOX__0__VERSION": "3\nevil = 1"})


def test_a_variable_can_add_an_inbox(tmp_path: Path) -> None:
    new = {"PATH": "second", "OUTPUT": "sorted", "MODEL": "digits"}
    settings = load(tmp_path, MINIMAL, {f"PIGEONHOLED__INBOX__1__{key}": value for key, value in new.items()})
    assert [inbox.name for inbox in settings.inbox] == ["inbox", "second"]
    assert settings.inbox[1].path == tmp_path / "second"


@pytest.mark.parametrize("place", ["2__PATH", "X__PATH", "0__PATH__X"])
def test_a_variable_that_fits_nowhere_is_a_fault(tmp_path: Path, place: str) -> None:
    told = refusal(tmp_path, MINIMAL, {f"PIGEONHOLED__INBOX__{place}": "y"})
    assert told.startswith(f"environment PIGEONHOLED__INBOX__{place}: inbox.{place.lower().replace('__', '.')} = ")


def test_a_fault_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    told = refusal(tmp_path, MINIMAL, {"PIGEONHOLED__LOG__LEVEL": "loud"})
    assert told.startswith('environment PIGEONHOLED__LOG__LEVEL: log.level = "loud": must be "debug", "info"')


# Paths


def test_paths_are_relative_to_the_folder_that_the_contract_names(tmp_path: Path) -> None:
    text = MINIMAL + '[state]\ndir = "var"\n[web]\ntoken_file = "token"\n'
    settings = load(tmp_path, text)
    assert settings.inbox[0].path == tmp_path / "inbox"
    assert settings.inbox[0].output == tmp_path / "sorted"
    assert settings.state.dir == tmp_path / "var"
    assert settings.models.dir == tmp_path / "var/models"
    assert settings.control.socket == tmp_path / "var/pigeonholed.sock"
    assert settings.database.url == f"sqlite:///{tmp_path}/var/pigeonholed.db"
    assert settings.database.file == tmp_path / "var/pigeonholed.db"
    assert settings.web.token_file == tmp_path / "token"
    assert settings.source == tmp_path / "pigeonholed.toml"


def test_the_program_of_a_hook_is_a_path_only_if_it_looks_like_one(tmp_path: Path) -> None:
    def program(command: str) -> tuple[str, ...]:
        return load(tmp_path, MINIMAL + f"[hook]\ncommand = {command}\n").hook.command

    assert program('["bin/tell", "./as it is"]') == (f"{tmp_path}/bin/tell", "./as it is")
    assert program('["tell"]') == ("tell",)
    assert program('["/bin/tell"]') == ("/bin/tell",)
    assert program("[]") == ()


@pytest.mark.parametrize("command", ['"tell -q"', '[""]', "[1]", '["tell", "\\u0000"]', "[[]]"])
def test_a_hook_that_is_no_list_of_words_is_refused(tmp_path: Path, command: str) -> None:
    assert "hook.command" in refusal(tmp_path, MINIMAL + f"[hook]\ncommand = {command}\n")


def test_only_files_that_stay_need_no_output(tmp_path: Path) -> None:
    without = MINIMAL.replace('output = "sorted"\n', "")
    assert load(tmp_path, without + 'action = "none"\n').inbox[0].output is None
    assert load(tmp_path, MINIMAL + 'action = "none"\n').inbox[0].output == tmp_path / "sorted"
    for text in (without, MINIMAL.replace('"sorted"', '""'), without + 'action = "copy"\n'):
        assert 'only action = "none" needs no output' in refusal(tmp_path, text)


def test_a_relative_flag_for_the_file_gives_absolute_paths(tmp_path: Path) -> None:
    write(tmp_path / "etc", MINIMAL)
    settings = load_settings(Path("etc/pigeonholed.toml"), environ={}, cwd=tmp_path)
    assert settings.inbox[0].path == tmp_path / "etc/inbox"
    assert settings.source == tmp_path / "etc/pigeonholed.toml"


def test_absolute_paths_and_servers_stay_as_they_are(tmp_path: Path) -> None:
    text = '[[inbox]]\npath = "/in"\noutput = "/out"\nmodel = "digits"\n[models]\ndir = "/models"\n'
    settings = load(tmp_path, text + '[database]\nurl = "postgresql://u@h:5432/n"\n')
    assert (settings.inbox[0].path, settings.models.dir) == (Path("/in"), Path("/models"))
    assert settings.database.url == "postgresql+psycopg://u@h:5432/n"
    assert settings.database.file is None


def test_a_state_folder_with_signs_of_a_url_in_its_name_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "50%25 ? #ü"
    settings = load(folder, MINIMAL)
    assert make_url(settings.database.url).database == str(folder / "pigeonholed.db")
    assert settings.database.file == folder / "pigeonholed.db"


def test_a_tilde_is_the_home_folder(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL.replace('"inbox"', '"~/some inbox"'))
    assert settings.inbox[0].path == Path(os.path.expanduser("~/some inbox"))


def test_the_packaged_state_is_not_kept_beside_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pigeonholed.config.PACKAGED", tmp_path)
    assert load(tmp_path, MINIMAL).state.dir == Path("/var/lib/pigeonholed")
    assert load(tmp_path, MINIMAL + '[state]\ndir = "."\n').state.dir == tmp_path


def test_a_file_with_the_mark_of_windows_editors_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + MINIMAL).inbox[0].model == "digits"


# Faults


def test_every_fault_is_told_in_one_go_each_in_a_line_of_its_own(tmp_path: Path) -> None:
    text = inbox_with('action = "mvoe"\nsettle_s = -1') + '[batching]\nmax_batchsize = 3\n[log]\nlevel = "loud"\n'
    told = refusal(tmp_path, text, {"PIGEONHOLED__INBOX__0__OUTPUT": "inbox/sorted"})
    lines = told.splitlines()
    assert lines[0] == "5 faults in the configuration:"
    assert len(lines) == 6
    file = tmp_path / "pigeonholed.toml"
    assert f'  {file}:5: inbox.0.action = "mvoe": must be "move", "copy" or "none"; did you mean "move"?' in lines
    assert f"  {file}:6: inbox.0.settle_s = -1: must be a number of seconds, 0 or more (and at most 1e9)" in lines
    assert any(
        line.startswith(f"  {file}:8: batching.max_batchsize = 3: unknown key; allowed here are max_batch_size, ")
        and line.endswith('did you mean "max_batch_size"?')
        for line in lines
    )


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("version = 0", '"current", or a whole number from 1 on'),
        ('version = "latest"', '"current", or a whole number from 1 on'),
        ("version = true", '"current", or a whole number from 1 on'),
        ("min_confidence = 1.01", '"model", or a number from 0 to 1'),
        ("min_confidence = -0.1", '"model", or a number from 0 to 1'),
        ("min_confidence = nan", '"model", or a number from 0 to 1'),
        ("min_confidence = true", '"model", or a number from 0 to 1'),
        ("recursive = 1", "true or false"),
        ('hostile = "yes"', "true or false"),
        ("settle_s = inf", "a number of seconds, 0 or more"),
        ('settle_s = "5"', "a number of seconds, 0 or more"),
        ("incomplete_s = -1", "a number of seconds, 0 or more"),
        ("rescan_s = 0", "a number of seconds above 0"),
        ("top_k = 0", "a whole number, 1 or more"),
        ("top_k = 2.5", "a whole number, 1 or more"),
        ("max_pixels = -1", "a whole number, 1 or more"),
        ("max_bytes = 0", "a whole number, 1 or more"),
        ('watch = "event"', '"auto", "events" or "poll"'),
        ('truncated = "drop"', '"reject" or "classify"'),
        ('duplicates = "skip"', '"sort" or "set-aside"'),
        ('include = "*.jpg"', 'a list of patterns such as ["*.jpg"]'),
        ("include = []", 'a list of patterns such as ["*.jpg"]'),
        ('exclude = [""]', 'a list of patterns such as ["*.jpg"]'),
        ('exclude = ["../x"]', 'a list of patterns such as ["*.jpg"]'),
        ('sidecars = ".xmp"', 'a list of endings such as [".xmp"]'),
        ('sidecars = ["xmp"]', 'a list of endings such as [".xmp"]'),
        ('sidecars = ["./x"]', 'a list of endings such as [".xmp"]'),
        ('sidecars = [".Reason.json"]', 'a list of endings such as [".xmp"]'),
    ],
)
def test_a_bad_value_is_told_with_what_is_allowed(tmp_path: Path, line: str, allowed: str) -> None:
    told = refusal(tmp_path, inbox_with(line))
    assert told.startswith(f"{tmp_path}/pigeonholed.toml:5: inbox.0.{line.split(maxsplit=1)[0]} = ")
    assert f"must be {allowed}" in told
    assert "\n" not in told


@pytest.mark.parametrize(("line", "value"), [
    ("settle_s = 0", 0.0), ("min_confidence = 0", 0.0), ("min_confidence = 1.0", 1.0), ("version = 12", 12),
    ("incomplete_s = 0", 0.0), ("top_k = 1", 1), ("rescan_s = 0.1", 0.1),
])  # fmt: skip
def test_a_value_at_its_limit_is_allowed(tmp_path: Path, line: str, value: object) -> None:
    assert getattr(load(tmp_path, inbox_with(line)).inbox[0], line.split(maxsplit=1)[0]) == value


@pytest.mark.parametrize("key", ["path", "output", "model"])
def test_what_an_inbox_needs_is_told_when_it_is_missing(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key)) + '\nname = "a"\n'
    assert f"inbox.0.{key}: is missing: it must be " in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('[[inboxes]]\npath = "x"\n', 'did you mean "inbox"?'),
        (MINIMAL + "[metrics]\nlevel = 3\n", 'did you mean "level" in [log]?'),
        (MINIMAL + "[web]\nsettle_s = 3\n", 'did you mean "settle_s" in [[inbox]]?'),
        (MINIMAL + "settle-s = 3\n", 'did you mean "settle_s"?'),
        (MINIMAL.replace("[[inbox]]", "[inbox]"), "[[inbox]] in double brackets"),
        ("log = 3\n" + MINIMAL, "must be a table: [log] with keys below it"),
        ("inbox = [3]\n", "[[inbox]] in double brackets"),
        ('source = "x"\n' + MINIMAL, "source = \"x\": unknown key"),
        ("", "there is no inbox: add [[inbox]] with path, output and model"),
    ],
)  # fmt: skip
def test_a_misplaced_key_is_told_with_what_was_probably_meant(tmp_path: Path, text: str, hint: str) -> None:
    assert hint in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = \n", ":1:5: is not valid TOML: invalid value (line 1, column 5)"),
        (MINIMAL + "[log\n", ":5:5: is not valid TOML: "),
        (MINIMAL + 'model = "x"\n', ":5:"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_bad_toml_is_told_with_file_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    refused = refusal(tmp_path, text)
    assert refused.startswith(str(tmp_path / "pigeonholed.toml"))
    assert told in refused
    assert "\n" not in refused


def test_a_file_that_is_no_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "pigeonholed.toml"
    file.write_bytes(b"# one\n# \xe9\n")
    with pytest.raises(ConfigError, match=r":2: is no UTF-8 text"):
        load_settings(file, environ={})


@pytest.mark.parametrize(
    "url",
    ["mysql://joe:hunter2@h/n", "postgresql://joe:hun/ter2@h@h:x/n", "joe:hunter2@h", "mysql://h/n?password=hunter2"],
)
def test_a_password_in_a_url_is_never_told(tmp_path: Path, url: str) -> None:
    told = refusal(tmp_path, MINIMAL + f'[database]\nurl = "{url}"\nurll = "{url}"\n')
    assert "ter2" not in told
    assert told.count("***") == 2


def test_the_value_of_a_key_that_sounds_secret_is_never_told(tmp_path: Path) -> None:
    told = refusal(
        tmp_path, MINIMAL + '[web]\ntoken = "hunter2"\n[db]\npassword = "hunter2"\nx = {token = "hunter2"}\n'
    )
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "url", ["", "x.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?uri=true", "postgresql://",
            "postgresql://h:port/n", "postgresql+psycopg2://h/n"],
)  # fmt: skip
def test_a_database_that_we_do_not_serve_is_refused(tmp_path: Path, url: str) -> None:
    assert "database.url" in refusal(tmp_path, MINIMAL + f'[database]\nurl = "{url}"\n')


def test_a_value_with_control_characters_is_told_in_one_line(tmp_path: Path) -> None:
    told = refusal(tmp_path, inbox_with('action = "a\\nb\\u009b\\u2028"') + '["k\\n"]\n')
    assert all(line.isprintable() for line in told.split("\n"))
    assert len(told.split("\n")) == 3


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, inbox_with(f'action = "{"x" * 5000}"'))) < 500


def test_values_are_shown_as_toml() -> None:
    assert shown({"a": [1, True, "b"], "password": "x"}) == '{a = [1, true, "b"], password = "***"}'


# Names


def test_inboxes_of_one_name_are_refused(tmp_path: Path) -> None:
    text = MINIMAL + MINIMAL.replace('"inbox"', '"b/Inbox"')
    assert "is the name of inbox.0 too, and names must be unique" in refusal(tmp_path, text)


def test_more_inboxes_than_are_served_are_refused_by_one_sentence(tmp_path: Path) -> None:
    told = refusal(tmp_path, MINIMAL * 1001)
    assert "there are 1001 inboxes, and at most 1000 are served" in told
    assert told.count("\n") <= 1


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "_a", "a\\nb", "con", "x" * 201])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert "inbox.0.name = " in refusal(tmp_path, inbox_with(f'name = "{name}"'))
    assert "inbox.0.model = " in refusal(tmp_path, MINIMAL.replace('"digits"', f'"{name}"'))


def test_a_folder_whose_name_cannot_name_the_inbox_asks_for_a_name(tmp_path: Path) -> None:
    told = refusal(tmp_path, MINIMAL.replace('"inbox"', '".hidden"'))
    assert 'inbox.0.path = ".hidden": gives the inbox no usable name' in told
    assert "add name = " in told


# Folders that must not lie in each other


def refused_folders(folder: Path, path: str, output: str, more: str = "") -> str:
    return refusal(folder, f'[[inbox]]\nname = "a"\npath = "{path}"\noutput = "{output}"\nmodel = "digits"\n{more}')


@pytest.mark.parametrize(
    ("path", "output", "rule"),
    [
        ("in", "in", "is the same folder as"),
        ("in", "in/out", "an output must be outside every inbox"),
        ("in", "./x/../in/out", "an output must be outside every inbox"),
        ("out/in", "out", "an inbox must be outside every output"),
    ],
)
def test_an_output_and_an_inbox_in_each_other_are_refused(tmp_path: Path, path: str, output: str, rule: str) -> None:
    assert rule in refused_folders(tmp_path, path, output)


def test_a_symbolic_link_does_not_hide_an_overlap(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in" / "deep")
    assert "an output must be outside every inbox" in refused_folders(tmp_path, "in", "link/out")


def test_a_folder_under_two_names_is_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"/mnt/in": (1, 7), "/bind": (1, 7), "/mnt": (1, 2), "/": (1, 1)}
    monkeypatch.setattr("pigeonholed.config_checks._identity", same.get)
    assert is_within("/bind/out", "/mnt/in")
    assert not is_within("/mnt/out", "/mnt/in")
    assert not is_within("/mnt/out", "/not/there")


def test_overlapping_inboxes_are_refused(tmp_path: Path) -> None:
    second = '[[inbox]]\nname = "b"\npath = "in/b"\noutput = "out"\nmodel = "digits"\n'
    assert "inboxes must not overlap" in refused_folders(tmp_path, "in", "out", second)
    assert "inboxes must not overlap" in refused_folders(tmp_path, "in", "out", second.replace("in/b", "in"))


def test_a_name_that_begins_alike_is_no_overlap(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL.replace('"sorted"', '"inbox-sorted"')).inbox[0].output == tmp_path / "inbox-sorted"


def test_two_inboxes_may_share_an_output(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL + MINIMAL.replace('"inbox"', '"second"'))
    assert settings.inbox[0].output == settings.inbox[1].output


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ('[state]\ndir = "in/state"\n', "the state folder must be outside every inbox"),
        ('[models]\ndir = "in/models"\n', "the model store must be outside every inbox"),
        ('[database]\nurl = "sqlite:///in/p.db"\n', "the database must be outside every inbox"),
        ('[web]\ntoken_file = "in/token"\n', "the token file must be outside every inbox"),
    ],
)
def test_what_the_daemon_needs_must_not_lie_in_an_inbox(tmp_path: Path, more: str, what: str) -> None:
    told = refused_folders(tmp_path, "in", "out", more)
    assert what in told
    assert "\n" not in told  # what lies in a folder that is told needs no line of its own


def test_a_configuration_in_its_own_inbox_is_refused(tmp_path: Path) -> None:
    more = f'[state]\ndir = "{tmp_path.parent}/elsewhere"\n'
    told = refused_folders(tmp_path, ".", f"{tmp_path.parent}/out", more)
    assert "the configuration file must be outside every inbox" in told


# Addresses


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0), True),
        ("127.9.9.9:80", Address("127.9.9.9", 80), True),
        ("localhost:65535", Address("localhost", 65535), True),
        ("[::1]:9109", Address("::1", 9109), True),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1), False),
        ("0.0.0.0:9109", Address("0.0.0.0", 9109), False),
        ("[::]:9109", Address("::", 9109), False),
        ("my-host.example:1", Address("my-host.example", 1), False),
    ],
)
def test_an_address_reads_and_writes_the_same(text: str, address: Address, loopback: bool) -> None:
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    "text", ["9109", ":9109", "localhost", "localhost:", "a:65536", "a:-1", "a:1x", "::1:9109", "[::1]", "[a]:1",
             "999.1.1.1:1", "a b:1", "http://a:1", "[127.0.0.1]:1", "a:٣"],
)  # fmt: skip
def test_what_is_no_address_is_refused(tmp_path: Path, text: str) -> None:
    assert "metrics.listen" in refusal(tmp_path, MINIMAL + f'[metrics]\nlisten = "{text}"\n')


def test_an_empty_address_turns_the_metrics_off_and_not_the_page(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + '[metrics]\nlisten = ""\n').metrics.listen is None
    assert "web.listen" in refusal(tmp_path, MINIMAL + '[web]\nlisten = ""\n')


def test_a_page_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    open_page = MINIMAL + '[web]\nlisten = "0.0.0.0:8109"\n'
    assert "needs web.token_file" in refusal(tmp_path, open_page)
    assert load(tmp_path, open_page + 'token_file = "t"\n').web.token_file == tmp_path / "t"
    assert load(tmp_path, MINIMAL + '[web]\nlisten = "[::1]:1"\n').web.token_file is None


# Templates


@pytest.mark.parametrize(
    "template",
    ["{name}", "{label}/{stem}.{ext}", "{label}/{date:%Y/%m}/{name}", "{inbox}/{model}-{version:03d}/{name}",
     "{confidence:.2f}_{stem}", "{label} {{x}}/{subdir}/{name}", "a/{date}/{name}"],
)  # fmt: skip
def test_a_template_with_the_fields_of_the_contract_is_taken(tmp_path: Path, template: str) -> None:
    assert load(tmp_path, inbox_with(f'template = "{template}"')).inbox[0].template == template


@pytest.mark.parametrize(
    "template",
    ["", "x", "{label}", "{name}/", "{name}/x", "/{name}", "a//{name}", "../{name}", "{label}/../{name}", "./{name}",
     "{nam}", "{}/{name}", "{name", "{name}}", "{label.__class__}/{name}", "{name[0]}", "{name!r}", "{name:>10}",
     "{name:{label}}", "{confidence:q}/{name}", "{version:99999999999}{name}", "{version:999}{name}",
     "{date:%}/../{name}", "a\\n{name}"],
)  # fmt: skip
def test_a_template_that_cannot_be_a_path_is_refused(tmp_path: Path, template: str) -> None:
    told = refusal(tmp_path, inbox_with(f'template = "{template}"'))
    assert "inbox.0.template" in told
    assert "must be a " in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "line",
    ['name = "a\\u0000"', 'template = "{name}\\u0000"', 'include = ["\\u0000"]', 'exclude = ["*.j\\u0000"]',
     '[web]\ntoken_file = "a\\u0000"', '[control]\nsocket = "a\\u0000"', '[models]\ndir = "a\\u0000"',
     '[state]\ndir = "a\\u0000"', '[database]\nurl = "sqlite:///a\\u0000"', '[database]\nurl = "sqlite:///a%00"',
     '[metrics]\nlisten = "a\\u0000:1"'],
)  # fmt: skip
def test_text_with_a_nul_is_refused(tmp_path: Path, line: str) -> None:
    """No system call takes it, and no Postgres."""
    assert "\0" not in refusal(tmp_path, inbox_with(line))


def test_an_absolute_template_is_told_as_one(tmp_path: Path) -> None:
    assert "must be a relative path" in refusal(tmp_path, inbox_with('template = "/srv/{name}"'))

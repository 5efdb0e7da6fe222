"""Recipes as values: found, changed, inherited, written down and read again; and every fault told in one go."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pigeonholed_training.__main__ import main
from pigeonholed_training.errors import Misconfigured, TrainingError, WrongUsage
from pigeonholed_training.recipes import all_recipes, catalogue, find, override, settable, settings
from pigeonholed_training.recipes.recipe import Recipe, Transfer

TWINS = {"binary-256", "augmented-150", "shear-64"}


@pytest.fixture
def write(tmp_path: Path):
    """Writes an own recipe and returns what `find` takes."""

    def own(text: str, name: str = "mine.toml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return own


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What `pigeonholed-train recipes ...` prints."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pigeonholed-train", "recipes", *arguments])
        main()
        return capsys.readouterr().out

    return call


def message(error: type[TrainingError], name: str) -> str:
    with pytest.raises(error) as caught:
        find(name)
    return str(caught.value)


def changed(recipe: str, *assignments: str) -> str:
    with pytest.raises(WrongUsage) as caught:
        override(find(recipe), assignments)
    return str(caught.value)


def test_every_file_of_a_recipe_is_listed_under_its_name() -> None:
    folder = Path(catalogue.__file__).parent / "builtin"
    assert {path.stem for path in folder.iterdir()} == set(catalogue.NAMES)
    assert tuple(recipe.name for recipe in all_recipes()) == catalogue.NAMES


def test_every_recipe_says_what_it_is_for_and_where_it_comes_from() -> None:
    for recipe in all_recipes():
        assert 20 < len(recipe.purpose) < 90
        assert catalogue.comment(recipe.name).startswith("# ")


def test_recipes_for_two_classes_have_a_twin_that_differs_in_its_output_alone() -> None:
    assert {recipe.name for recipe in all_recipes() if recipe.output == "sigmoid"} == TWINS
    for name in TWINS:
        twin = find(find(name).twin)
        assert twin.output == "softmax"
        assert (find(name).units(2), twin.units(2), twin.units(5)) == (1, 2, 5)
        alike = twin.model_copy(update={key: getattr(find(name), key) for key in ("name", "purpose", "output", "twin")})
        assert alike == find(name)


def test_transfer_recipes_start_from_imagenet_and_the_others_from_nothing() -> None:
    for recipe in all_recipes():
        assert (recipe.weights == "imagenet") == isinstance(recipe.network, Transfer)


def test_a_backbone_is_named_as_the_recipe_that_uses_it() -> None:
    for recipe in all_recipes():
        if isinstance(recipe.network, Transfer) and recipe.name != "probe":
            probe = override(find("probe"), [f"backbone={recipe.name}"])
            assert probe.network.backbone == recipe.network.backbone == recipe.name


def test_binary_256_is_what_its_project_says() -> None:
    recipe = find("binary-256")
    assert (recipe.height, recipe.width, recipe.epochs, recipe.optimiser) == (256, 256, 30, "adam")
    assert recipe.network.layers == (
        *("conv 16", "max-pool", "conv 32", "max-pool", "conv 16", "max-pool"),
        *("flatten", "dense 256", "dense 256"),
    )
    assert recipe.augmentation == type(recipe.augmentation)()


def test_a_setting_is_changed_and_the_recipe_itself_is_not() -> None:
    new = override(find("digits"), ["epochs=3", "augmentation.flip=true", "shares.test=0.1", "optimiser=sgd"])
    assert (new.epochs, new.augmentation.flip, new.shares.test, new.optimiser) == (3, True, 0.1, "sgd")
    assert find("digits").augmentation.flip is False


def test_every_setting_can_be_set_to_what_it_is() -> None:
    for recipe in all_recipes():
        assert override(recipe, [f"{key}={value}" for key, value in settable(recipe).items()]) == recipe


def test_settings_are_judged_together_so_that_their_order_does_not_matter() -> None:
    for order in (1, -1):
        new = override(find("binary-256"), ["height=8", "width=8", "layers=conv 8, flatten"][::order])
        assert new.network.layers == ("conv 8", "flatten")
    assert "takes 2x2 pixels, and of the picture only 2x1" in changed("binary-256", "height=10", "width=8")


@pytest.mark.parametrize(
    "text", ['["conv 8", "flatten"]', "[conv 8, flatten]", "conv 8, flatten", "['conv 8','flatten']"]
)
def test_a_list_can_be_written_in_several_ways(text: str) -> None:
    assert override(find("digits"), [f"network.layers={text}"]).network.layers == ("conv 8", "flatten")


@pytest.mark.parametrize(("text", "read"), [("0.3", "0.3"), ("conv5", "conv5"), ('"conv5"', "conv5"), ("", "")])
def test_text_needs_no_quotes_and_may_look_like_a_number(text: str, read: str) -> None:
    assert override(find("resnet50"), [f"finetune.layers={text}"]).finetune.layers == read


def test_a_line_break_smuggles_in_no_other_setting() -> None:
    assert "epochs must be a whole number" in changed("digits", "epochs=3\nheight=4")


@pytest.mark.parametrize(("text", "units"), [("", ()), ("[]", ()), ("64", (64,)), ("64,32", (64, 32)), ("[64]", (64,))])
def test_a_list_of_numbers_may_be_empty_or_one_number(text: str, units: tuple[int, ...]) -> None:
    assert override(find("resnet50"), [f"dense={text}"]).network.dense == units


@pytest.mark.parametrize(
    ("recipe", "assignment", "words"),
    [
        ("digits", "epoch=3", "did you mean epochs?"),
        ("digits", "augmentation.flop=true", "did you mean augmentation.flip?"),
        ("digits", "flip=true", "did you mean augmentation.flip?"),
        ("digits", "epochs", "KEY=VALUE"),
        ("digits", "epochs=0", "epochs must be at least 1, not 0"),
        ("digits", "epochs=-5", "at least 1"),
        ("digits", "epochs=1e9", "a whole number"),
        ("digits", "epochs=1.5", "a whole number"),
        ("digits", "epochs=9999999999999999999999", "at most 100000"),
        ("digits", "batch_size=0", "at least 1"),
        ("digits", "batch_size=true", "a whole number"),
        ("digits", "learning_rate=fast", 'learning_rate must be a number, not "fast"'),
        ("digits", "learning_rate=nan", "a finite number"),
        ("digits", "learning_rate=inf", "a finite number"),
        ("digits", "learning_rate=0", "above 0"),
        ("digits", "ema=1", "below 1"),
        ("digits", "augmentation.flip=1", "true or false"),
        ("digits", "augmentation.zoom=nan", "augmentation.zoom must be"),
        ("digits", "optimiser=adam2", "one of adamw, adam, sgd"),
        ("digits", "shares.test=0.9", "shares"),
        ("digits", "shares.test=lots", "shares.test must be a number"),
        ("digits", "augmentation=3", "no setting"),
        ("digits", "epochs.x=3", "no setting"),
        ("digits", "name=evil", "no setting"),
        ("digits", "network.kind=groups", "no setting"),
        ("digits", "backbone=vgg16", "no setting 'backbone'"),
        ("digits", "finetune.epochs=3", "no setting"),
        ("digits", "layers=", "flatten or global-pool"),
        ("digits", "layers=\udcff", r"--set layers=\udcff: it holds bytes that are no text"),
        ("digits", "epochs=" + "9" * 5000, "epochs must be a whole number"),
        ("digits", "layers=3", "network.layers.0 must be text, not 3"),
        ("digits", "layers=[3]", "network.layers.0 must be text"),
        ("probe", "backbone=vgg61", "one of mobilenet-v2, vgg16"),
        ("resnet50", "dense=[0]", "network.dense.0 must be at least 1"),
        ("resnet50", "dropout=1", "below 1"),
    ],
)
def test_a_wrong_setting_is_explained(recipe: str, assignment: str, words: str) -> None:
    text = changed(recipe, assignment)
    assert words in text
    assert text.isprintable()
    assert len(text) < 500
    assert text[-1] in ".?"


def test_an_unknown_recipe_gets_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message(WrongUsage, "digit") == "There is no recipe 'digit'; did you mean digits?"
    assert message(WrongUsage, "zzz").endswith("and 3 more.")
    monkeypatch.chdir(tmp_path)
    Path("mine.conf").touch()
    assert message(WrongUsage, "mine.conf") == "There is no recipe 'mine.conf'; a file of your own must end in .toml."


def test_a_recipe_is_plain_json() -> None:
    for recipe in all_recipes():
        assert Recipe.model_validate_json(json.dumps(recipe.as_dict()), strict=True) == recipe


def test_what_is_printed_can_be_saved_and_is_the_same_recipe(write, said) -> None:
    for recipe in all_recipes():
        own = find(write(said(recipe.name), "mine.toml"))
        assert own.model_copy(update={"name": recipe.name, "twin": recipe.twin}) == recipe
        assert own.name == "mine"


def test_an_own_file_is_printed_too(write, said) -> None:
    assert "epochs = 7\n" in said(write('like = "digits"\nepochs = 7'))


def test_the_list_has_a_line_for_each_recipe_with_size_and_needs(said) -> None:
    lines = {line.split()[0]: line for line in said().splitlines()}
    assert set(lines) == set(catalogue.NAMES)
    assert lines["binary-256"].endswith("256x256  exactly 2 classes")
    assert lines["probe"].endswith("224x224  ImageNet weights")
    assert lines["cifar"].endswith("32x32")
    listed = json.loads(said("--json"))
    assert [one["name"] for one in listed] == list(catalogue.NAMES)
    assert json.loads(said("cifar", "--json")) == next(one for one in listed if one["name"] == "cifar")


def test_an_own_file_takes_what_it_leaves_out_from_another(write) -> None:
    write('like = "shear-64"\nepochs = 7\n[augmentation]\nzoom = 0.3\n', "first.toml")
    own = find(write('like = "first.toml"\nname = "second"\n[network]\nlayers = ["flatten"]\n'))
    like = find("shear-64")
    assert (own.name, own.epochs, own.output, own.twin) == ("second", 7, "sigmoid", "")
    assert own.augmentation == like.augmentation.model_copy(update={"zoom": 0.3})
    assert own.network.layers == ("flatten",)


def test_a_network_of_another_kind_replaces_the_whole(write) -> None:
    own = find(write('like = "cifar"\n[network]\nkind = "transfer"\nbackbone = "vgg16"\n'))
    assert own.network == Transfer(backbone="vgg16")


def test_every_fault_of_an_own_file_is_told_at_once(write) -> None:
    text = message(
        Misconfigured,
        write(
            'like = "cifar"\nepoch = 3\nlearning_rate = "fast"\nheight = 0\nfit = "squeeze"\nlayers = []\n'
            "[network]\nlayers = ['conv 16', 'cnov 16']\n[augmentation]\nflop = true\n[shares]\ntests = 0.1\n"
        ),
    )
    assert "mine.toml' cannot be used, 8 faults:\n" in text
    for clause in (
        "there is no setting 'epoch'; did you mean epochs?",
        'learning_rate must be a number, not "fast"',
        "height must be at least 1, not 0",
        'fit must be one of stretch, crop, pad, not "squeeze"',
        "there is no setting 'layers'; did you mean network.layers?",
        "network.layers: layer 2, 'cnov 16': there is no layer 'cnov'; did you mean conv?",
        "there is no setting 'augmentation.flop'; did you mean augmentation.flip?",
        "there is no setting 'shares.tests'; did you mean shares.test?",
    ):
        assert f"\n  {clause}" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epochs = ", "no valid TOML"),
        ("a = " + "[" * 5000, "no valid TOML"),
        ("epochs = " + "9" * 5000, "no valid TOML"),
        ("", "3 faults"),
        ("height = 8\nwidth = 8", "network is missing"),
        ("height = 8\nwidth = 8\n[network]\nlayers = ['flatten']", "network.kind is missing"),
        ("height = 8\nwidth = 8\n[network]\nkind = 'stakc'", 'one of stack, groups, transfer, not "stakc"'),
        ("height = 8\nwidth = 8\n[network]\nkind = 'stack'", "network.layers is missing"),
        ("network = 3\nheight = 8\nwidth = 8", "network must be a table"),
        ("like = 'cifra'", "did you mean cifar?"),
        ("like = 3", "like must be the name of a recipe"),
        ("like = 'mine.toml'", "in a circle, mine.toml -> mine.toml"),
        ("like = 'cifar'\naugmentation = 3", "augmentation must be a table"),
        ("like = 'cifar'\nshares = []", "shares must be a table"),
        ("like = 'cifar'\nshares.calibration = 0", "shares"),
        ("like = 'cifar'\nepochs = 2020-01-01", "a whole number"),
        ("like = 'cifar'\nepochs = '3'", "a whole number"),
        ("like = 'cifar'\nname = 'a/b'", "name must be text without"),
        ("like = 'cifar'\npurpose = \"a\\nb\"", "purpose must be text without"),
        ("like = 'cifar'\nlearning_rate = nan", "finite"),
        ("like = 'cifar'\nheight = 3", "layer 11, 'max-pool': it takes 2x2 pixels, and of the picture only 1x16"),
        ("like = 'cifar'\nfinetune.epochs = 3", "finetune.epochs is for networks of kind transfer"),
    ],
)
def test_a_faulty_file_is_explained_in_one_sentence(write, content: str, words: str) -> None:
    text = message(Misconfigured, write(content))
    assert text.startswith("The recipe '")
    assert "mine.toml' cannot be used" in text
    assert words in text
    assert "\n" not in text or "faults:" in text


def test_a_circle_of_files_is_named(write) -> None:
    write('like = "c.toml"', "b.toml")
    write('like = "a.toml"', "c.toml")
    text = message(Misconfigured, write('like = "b.toml"', "a.toml"))
    assert text.endswith("inherit from each other in a circle, a.toml -> b.toml -> c.toml -> a.toml.")


def test_files_that_are_not_there_or_not_text_are_named(write, tmp_path: Path) -> None:
    assert "no recipe file" in message(WrongUsage, str(tmp_path / "none.toml"))
    text = message(WrongUsage, write('like = "none.toml"'))
    assert "none.toml', which 'mine.toml' wants to be like." in text
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read" in message(Misconfigured, str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in message(Misconfigured, str(tmp_path / "binary.toml"))
    assert "cannot be used" in message(Misconfigured, "a\0b.toml")


def test_toml_is_written_so_that_it_can_be_read(write) -> None:
    odd = find("digits").model_copy(update={"purpose": 'say "ä" \\ and so on', "learning_rate": 1e-7})
    own = find(write(settings.as_toml(odd)))
    assert (own.purpose, own.learning_rate) == (odd.purpose, 1e-7)

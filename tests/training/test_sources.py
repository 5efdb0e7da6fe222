from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import make_tree
from pigeonholed_training.data.sources import Entry, Listing, find
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, TrainingError, WrongUsage
from running import unprivileged

TWO = {"cat": {"1.png": b"x"}, "dog": {"1.png": b"x"}}
SAME_PARTS = [("Train", Part.TRAIN), ("valid", Part.VALIDATION), ("cal", Part.CALIBRATION), ("test", Part.TEST)]


def _paths(listing: Listing) -> list[str]:
    return [entry.path for entry in listing.entries]


def _csv(folder: Path, text: str | bytes, pictures: str = "ab") -> Path:
    make_tree(folder, {f"{name}.png": b"x" for name in pictures})
    (folder / "list.csv").write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return folder / "list.csv"


# ---- folders


def test_class_folders_are_listed_by_class_and_path_without_what_is_hidden(tmp_path: Path) -> None:
    tree = {"dog": {"b.png": b"x", "a.png": b"x", ".c.png": b"x", "deep": {"er": {"d.png": b"x"}}}}
    found = find(make_tree(tmp_path, {**tree, "cat": {"1.png": b"x"}, ".cache": {"x": b""}, "README": b""}))
    assert (found.labels, found.kind, found.root) == (("cat", "dog"), "folders", tmp_path)
    assert _paths(found) == ["cat/1.png", "dog/a.png", "dog/b.png", "dog/deep/er/d.png"]
    assert found.entries[-1] == Entry("dog/deep/er/d.png", 1, None)


def test_split_folders_say_the_part_of_each_picture(tmp_path: Path) -> None:
    found = find(make_tree(tmp_path, {name: TWO for name, _ in SAME_PARTS}))
    assert (found.labels, found.kind) == (("cat", "dog"), "split-folders")
    wanted = [Entry(f"{name}/{label}/1.png", i, part) for name, part in SAME_PARTS for i, label in enumerate(TWO)]
    assert sorted(found.entries, key=str) == sorted(wanted, key=str)


def test_train_alone_leaves_the_split_open(tmp_path: Path) -> None:
    found = find(make_tree(tmp_path, {"train": TWO}))
    assert (found.labels, found.kind) == (("cat", "dog"), "split-folders")
    assert found.entries == (Entry("train/cat/1.png", 0, None), Entry("train/dog/1.png", 1, None))


def test_a_held_back_part_may_lack_a_class(tmp_path: Path) -> None:
    found = find(make_tree(tmp_path, {"train": TWO, "val": {"dog": {"9.png": b"x"}}}))
    assert found.entries[-1] == Entry("val/dog/9.png", 1, Part.VALIDATION)


@pytest.mark.parametrize(
    ("tree", "labels"),
    [
        ({"train": {"1.png": b"x"}, "bus": {"1.png": b"x"}}, ("bus", "train")),
        ({"train": {"ice": {"1.png": b"x"}}, "bus": {"1.png": b"x"}}, ("bus", "train")),
        ({"train": {"1.png": b"x"}, "test": {}, "bus": {"1.png": b"x"}}, ("bus", "test", "train")),
        ({"valid": {"1.png": b"x"}, "invalid": {"1.png": b"x"}}, ("invalid", "valid")),
    ],
)
def test_a_class_may_be_called_like_a_part_of_the_split(tmp_path: Path, tree, labels) -> None:
    found = find(make_tree(tmp_path, tree))
    assert (found.kind, found.labels) == ("folders", labels)


def test_links_are_followed_to_files_in_the_data_set_alone(tmp_path: Path) -> None:
    data = make_tree(tmp_path / "data", TWO)
    make_tree(tmp_path / "outside", {"deep": {"x.png": b"x"}})
    (data / "dog/inside.png").symlink_to("../cat/1.png")
    (data / "dog/gone.png").symlink_to("nothing.png")
    (data / "dog/out.png").symlink_to(tmp_path / "outside/deep/x.png")
    (data / "dog/up").symlink_to("..")
    found = find(data)
    assert _paths(found) == ["cat/1.png", "dog/1.png", "dog/gone.png", "dog/inside.png"]
    assert found.astray == ("dog/out.png", "dog/up")


def test_a_class_folder_may_be_a_link_to_elsewhere(tmp_path: Path) -> None:
    data = make_tree(tmp_path / "data", TWO)
    make_tree(tmp_path / "outside", {"1.png": b"x"})
    (tmp_path / "outside/2.png").symlink_to("1.png")
    (data / "emu").symlink_to(tmp_path / "outside")
    assert _paths(find(data))[2:] == ["emu/1.png", "emu/2.png"]


def test_names_that_are_no_unicode_survive(tmp_path: Path) -> None:
    make_tree(tmp_path, TWO)
    with open(os.path.join(os.fsencode(tmp_path), b"dog/\xff.png"), "wb"):
        pass
    assert os.fsencode(_paths(find(tmp_path))[-1]) == b"dog/\xff.png"


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "at least two folders of pictures, one for each class, and it holds none."),
        ({"1.png": b"x"}, "and it holds none. Sort its files into such folders."),
        ({"cat": {"1.png": b"x"}}, "and it holds only one, 'cat'."),
        ({"animals": TWO}, "only one, 'animals'. Did you mean {data}/animals?"),
        ({"cat": {}, "_dog": {}}, "'_dog' begins with _"),
        ({"cat": {}, "Cat": {}}, "would be the same folder"),
        ({"test": TWO, "val": TWO}, "it holds 'test' and 'val', but no folder 'train'"),
        ({"train": {"1.png": b"x"}, "test": {"1.png": b"x"}}, "its folder 'train' holds no class folders"),
        ({"train": {"1.png": b"x"}}, "its folder 'train' holds no class folders"),
        ({"train": TWO, "test": {"1.png": b"x"}}, "its folder 'test' holds pictures but no class folders"),
        ({"train": TWO, "test": TWO, "drafts": {}}, "beside 'test' and 'train' it holds 'drafts'"),
        ({"train": TWO, "val": TWO, "valid": TWO}, "'val' and 'valid' are the same part"),
        ({"train": {"cat": {}}, "test": TWO}, "{data}/train: it must hold at least two folders"),
        ({"train": TWO, "test": {"Cats": {}}}, "the class of test/Cats has no pictures in train; did you mean 'cat'?"),
        ({"train": TWO, "test": {"zebra": {}}}, "the class of test/zebra has no pictures in train."),
    ],
)
def test_a_folder_that_is_no_data_set_is_one_clear_message(tmp_path: Path, tree, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        find(make_tree(tmp_path, tree))
    assert str(caught.value).startswith(f"Cannot train on {tmp_path}")
    assert said.format(data=tmp_path) in str(caught.value)


def test_a_missing_folder_and_a_file_that_is_no_list_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(WrongUsage, match=r"x\.zip: it is a file, neither a folder"):
        find(tmp_path / "x.zip")
    for name in ("gone", "gone.csv"):
        with pytest.raises(WrongUsage, match="No such file or directory"):
            find(tmp_path / name)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    data = make_tree(tmp_path, TWO)
    (data / "dog").chmod(0)
    program = "import sys; from pathlib import Path; from pigeonholed_training.data.sources import find; "
    command = [*unprivileged(), sys.executable, "-c", program + "find(Path(sys.argv[1]))", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Misconfigured" in done.stderr
    assert "'dog' cannot be read: Permission denied" in done.stderr


# ---- lists


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["path,label", "filename,class", " File , Label ", "IMAGE,class"])
def test_a_list_is_read_however_a_spreadsheet_saved_it(
    tmp_path: Path, head: str, delimiter: str, encoding: str
) -> None:
    text = f"{head}\r\na.png,Katze\r\n\r\nb.png, Käfer \r\n".replace(",", delimiter)
    found = find(_csv(tmp_path, text.encode(encoding)))
    assert (found.kind, found.root, found.labels) == ("csv", tmp_path, ("Katze", "Käfer"))
    assert found.entries == (Entry("a.png", 0, None), Entry("b.png", 1, None))


def test_a_list_may_give_the_split_of_some(tmp_path: Path) -> None:
    text = "label,id,split,path\ncat,1,TRAIN,a.png\ndog,2,Validation,b.png\ndog,3,,c.png\ncat,4,test,d.png\n"
    parts = [entry.part for entry in find(_csv(tmp_path, text, "abcd")).entries]
    assert parts == [Part.TRAIN, Part.VALIDATION, None, Part.TEST]


def test_a_list_of_train_alone_leaves_the_split_open(tmp_path: Path) -> None:
    text = "path,label,split\na.png,cat,train\nb.png,dog,train\n"
    assert [entry.part for entry in find(_csv(tmp_path, text)).entries] == [None, None]


def test_a_path_of_a_list_is_told_apart_only_by_where_it_leads(tmp_path: Path) -> None:
    make_tree(tmp_path, {"out.png": b"x", "data": {"sub": {}}})
    lines = ["./sub/../a.png,cat", "a.png,cat", f"{tmp_path}/data/b.png,dog", "../out.png,dog", '"c,d.png",cat']
    found = find(_csv(tmp_path / "data", "path,label\n" + "\n".join(lines)))
    assert _paths(found) == ["a.png", "b.png", f"{tmp_path}/out.png", "c,d.png"]


def test_a_picture_that_a_list_names_in_vain_is_found_out_later(tmp_path: Path) -> None:
    assert _paths(find(_csv(tmp_path, "path,label\na.png,cat\nsub/gone.png,dog\n"))) == ["a.png", "sub/gone.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": the list is empty."),
        ("path,label\n", "0 labels instead of 2"),
        ("path,label\na.png,cat\n", "1 labels instead of 2"),
        ("path,label\na.png,cat\nb.png,_x\n", "'_x' begins with _. Rename that class."),
        ("a.png,cat\nb.png,dog\n", "line 1: there must be a column path or filename or file or image, and the first"),
        ("\npath;kind\na.png;cat\n", "line 2: there must be a column label or class, and the first line has 'path', "),
        ("path,label\na.png,cat\nb.png\n", "line 3: it has 1 field(s), and the first line has 2."),
        ("path,label\na.png,cat\nb,1.png,dog\n", "line 3: it has 3 field(s)"),
        ("path,label\na.png,cat\n,dog\n", "line 3: the path is empty."),
        ("path,label\na.png,cat\nb.png, \n", "line 3: the class is empty."),
        ("path,label\na.png,cat\nb\0.png,dog\n", "line 3: the path holds a NUL."),
        ("path,label,split\na.png,cat,dev\n", "line 2: the split is 'dev', which is none of train, training, val, "),
        ("path,label\na.png,cat\n\na.png,dog\n", "line 4: 'a.png' has another class than in line 2."),
        ("path,label,split\na.png,cat,\n./a.png,cat,test\n", "line 3: 'a.png' has another split than in line 2."),
        ('path,label\n"a.png,cat\nb.png,dog\n', "line 3: it cannot be read as CSV"),
        (b"path,label\na.png,K\xe4fer\n", "line 2: it is no UTF-8 text; save the list as UTF-8."),
        ("path,label\n../gone/a.png,cat\n", "line 2: there is no file {parent}/gone/a.png."),
        (
            "path,label,split\na.png,cat,\nb.png,dog,test\n",
            ": the class of line 3, 'dog', has no pictures in the training part.",
        ),
    ],
)
def test_a_faulty_list_is_one_clear_message_with_the_line(tmp_path: Path, text, said: str) -> None:
    file = _csv(tmp_path / "data", text)
    with pytest.raises(TrainingError) as caught:
        find(file)
    assert str(caught.value).startswith(f"Cannot train on {file}")
    assert said.format(parent=tmp_path) in str(caught.value)

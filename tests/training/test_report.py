from __future__ import annotations

import functools
import re
import time
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pigeonholed.bundle import Threshold
from pigeonholed_training.evaluation.figures import figures, share
from pigeonholed_training.evaluation.judged import Example, Judged
from pigeonholed_training.evaluation.reliability import confidence
from pigeonholed_training.evaluation.selective import selective
from pigeonholed_training.reporting import confusions, gallery, plots, words
from pigeonholed_training.reporting.markup import Html, html, name, table, tag
from pigeonholed_training.reporting.page import render

HOSTILE = '<script>alert("x")</script>\u202e$\\frac$&\n\x00\udcff' + "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 150
SECTIONS = [
    "worst", "confused", "least-certain", "sample", "suspects", "data", "parts", "classes", "confusions", "curves",
    "reliability", "selective", "thresholds", "blends", "strangers", "robustness", "speed", "provenance", "bad-files",
]  # fmt: skip
KINDS = ("worst", "confused", "least_certain", "sample", "suspects", "blends", "strangers", "robustness")


def judged(labels: tuple[str, ...], n: int) -> Judged:
    rng = np.random.default_rng(0)
    targets = (np.arange(n) % len(labels)).astype(np.int32)
    logits = rng.normal(size=(n, len(labels)))
    logits[np.arange(n), targets] += 3.0
    powers = np.exp(logits)
    thresholds = tuple(Threshold(label=label, value=0.5, method="pooled", precision=0.98, n=90) for label in labels)
    return Judged(labels, targets, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), thresholds)


@functools.cache
def measured(labels: tuple[str, ...], n: int) -> tuple[Judged, dict[str, Any], dict[str, Any], dict[str, Any]]:
    said = judged(labels, n)
    return said, figures(said), confidence(said), selective(said)


def metrics(labels: tuple[str, ...] = ("cat", "dog"), n: int = 400, word: str = "word") -> dict[str, Any]:
    """Every section, with `word` wherever a user may have a say."""
    said, held_out, confidences, coverage = measured(labels, n)
    first = {"first": labels[0], "second": word, "share": 0.6, "p_first": 0.7, "p_second": 0.2, "p_rest": 0.1, "n": 8}
    return {
        "name": word,
        "recipe": word,
        "settings": {"name": word},
        "seed": 0,
        "created_at": "2026-01-31T07:30:00+00:00",
        "data_fingerprint": "ab" * 32,
        "labels": list(labels),
        "counts": {label: {"train": 70, "test": 30} for label in labels},
        "warnings": [word],
        "bad": [{"path": word, "reason": "truncated", "detail": word}],
        "history": [
            {"epoch": e, "loss": 1 / e, "accuracy": 0.8, "validation_loss": 1 / e, "validation_accuracy": 0.7}
            for e in (1, 2, 3)
        ],
        "held_out": held_out | {"part": "test", "note": ""},
        "other_parts": {"train": share(390, 400), "validation": share(380, 400)},
        "calibration": {"temperature": 1.4, "n": 400, "runtime": "openvino", "precision": "f32"},
        "confidence": confidences,
        "selective": coverage,
        "precision_target": 0.98,
        "thresholds": [
            {**one.model_dump(), "share_unsure": 0.1, "needed": 40, "held": share(99, 100)} for one in said.thresholds
        ],
        "behaviour": {
            "blends": [first],
            "strangers": [{"what": word, "n": 8, "mean_confidence": 0.7, "sorted_share": 0.4, "auroc": 0.9}],
            "robustness": [
                {"what": what, "accuracy": share(90, 100), "unsure_share": 0.2, "mean_confidence": 0.7}
                for what in ("as it is", word)
            ],
        },
        "suspects": [
            {"path": word, "part": "test", "label": word, "said": word, "confidence": 0.99, "label_probability": 0.01}
        ],
        "speed": [{"runtime": "openvino", "precision": "f32", "batch": 64, "pictures_per_s": 100.0, "ms_alone": 9.0}],
        "agreement": {"largest_difference": 0.00001, "same_best": 1.0, "n": 400},
        "leaks": {"checked": 400, "seen": 1, "alike": None, "examples": [[word, word]]},
        "gates": [{"gate": word, "wanted": word, "got": word, "met": None, "says": word}],
        "versions": {"keras": word},
        "seconds": {"train": 1.5},
    }


def examples(word: str = "word", each: int = 30, side: int = 20) -> dict[str, tuple[Example, ...]]:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    labelled = Example(noise, word, ((word, 0.6), ("other", 0.3)), "sorted", word)
    wrong = Example(noise, word, (("other", 0.6), (word, 0.3)), "unsure", word)
    stranger = Example(noise, None, ((word, 0.6),), "sorted", word)
    return {kind: (labelled, wrong, stranger) * (each // 3) for kind in KINDS if kind != "confused"} | {
        "confused": (wrong,) * each
    }


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text; elements must be closed in order."""

    EMPTY = frozenset({"meta", "img", "path", "use", "image", "rect", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.elements if tag == "section"]


@pytest.fixture(scope="module")
def whole() -> str:
    return render(metrics(), examples())


def test_every_section_is_there_in_order_and_linked(whole: str) -> None:
    page = Page(whole)
    assert page.sections() == SECTIONS
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"#{one}" for one in SECTIONS]


def test_every_section_begins_with_a_sentence(whole: str) -> None:
    for section in whole.split("<section ")[1:]:
        lead = re.match(r'id="[^"]+"><h2>[^<]+</h2><p class="lead">(.*?)</p>', section)
        assert lead
        assert lead[1].endswith(".")


def test_the_page_needs_nothing_else_and_runs_nothing(whole: str) -> None:
    for tag_name, attributes in Page(whole).elements:
        assert tag_name not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in {"src", "href", "xlink:href"}:
                assert re.match(r"data:image/(jpeg|png);base64,|#", value or "")
    assert "@import" not in whole
    assert not re.search(r"url\((?!#)", whole)


@pytest.mark.parametrize("missing", [*metrics(), "everything"])
def test_what_is_not_known_is_left_out(missing: str) -> None:
    found = {} if missing == "everything" else {key: value for key, value in metrics().items() if key != missing}
    if missing not in {"history", "confidence", "selective"}:  # the plots take long, and are looked at above
        found = {key: value for key, value in found.items() if key not in {"history", "confidence", "selective"}}
    left_out = {
        "bad": "bad-files", "history": "curves", "confidence": "reliability", "selective": "selective",
        "counts": "data", "thresholds": "thresholds", "suspects": "suspects",
    }  # fmt: skip
    sections = Page(render(found)).sections()
    assert left_out.get(missing) not in sections
    assert sections if missing != "everything" else not sections


def test_what_users_call_things_is_only_ever_text() -> None:
    text = render(metrics((HOSTILE, "dog"), word=HOSTILE), examples(HOSTILE))
    page = Page(text)
    assert not [one for one in page.elements if one[0] == "script"]
    assert '<script>alert("x")</script>\\u202e' in "".join(page.text)
    assert not re.search("[\x00\u202e\ud800-\udfff]", text)
    assert text.encode("utf-8")


@pytest.mark.slow
def test_a_thousand_classes_with_long_names_and_noise_for_pictures_stay_below_three_megabytes() -> None:
    labels = tuple(f"{index}{HOSTILE}" for index in range(1000))
    found = metrics(labels, n=3000, word=HOSTILE)
    found["bad"] *= 5000
    found["suspects"] *= 50
    found["warnings"] *= 1000
    text = render(found, examples(HOSTILE, each=300, side=224))
    assert len(text.encode("utf-8")) < 3_000_000
    Page(text)


def test_ten_classes_take_less_than_three_seconds(whole: str) -> None:
    labels = tuple(f"class {index}" for index in range(10))
    found, shown = metrics(labels, n=2000), examples()
    start = time.process_time()
    text = render(found, shown)
    assert time.process_time() - start < 3.0
    assert text.count("<svg") == 7  # sign, heatmap, two curves, two of reliability, risk


@pytest.mark.parametrize(("right", "word"), [(990, "Good"), (860, "Use with care"), (500, "Do not use")])
def test_the_verdict_is_told_by_word_sign_and_colour(right: int, word: str) -> None:
    held = {"accuracy": share(right, 1000), "majority": 0.5, "sorted": share(right, 1000), "unsure_share": 0.0}
    text = render({"name": "m", "held_out": held})
    level = {"Good": "good", "Use with care": "care", "Do not use": "bad"}[word]
    box = text[text.index(f'<div class="verdict {level}">') :]
    assert box.index("<svg") < box.index(f'<div class="word">{word}</div>') < box.index("<ul")


def test_the_verdict_of_the_metrics_is_shown_as_it_is() -> None:
    found = {"level": "care", "sentence": "A sentence.", "reasons": [f"Reason {index}." for index in range(6)]}
    text = render({"verdict": found})
    assert "A sentence." in text
    assert text.index("Reason 2.") < text.index("3 more points") < text.index("Reason 5.")


def test_numbers_that_are_not_to_be_believed_are_struck_through() -> None:
    held = {"accuracy": share(390, 400), "majority": 0.5}
    for seen, doubted in ((100, True), (1, False)):
        text = render({"held_out": held, "leaks": {"checked": 400, "seen": seen, "alike": None}})
        assert ('class="tiles doubted"' in text) == doubted
        assert ("Not even the first line counts" in text) == doubted


def test_gates_say_whether_they_are_met() -> None:
    for met, says in ((True, "✓ met"), (False, "✗ failed"), (None, "? not judged")):
        gate = {"gate": "accuracy", "wanted": "0.9", "got": "0.8", "met": met, "says": "So it is."}
        assert f"<b>{says}</b><span>accuracy: wanted 0.9, got 0.8. So it is.</span>" in render({"gates": [gate]})


def test_curves_come_from_the_picture_where_there_is_no_history() -> None:
    assert Page(render({}, {}, b"png")).sections() == ["curves"]
    assert "data:image/png;base64,cG5n" in render({}, {}, b"png")


def test_a_confused_pair_is_counted_by_the_confusion_matrix() -> None:
    found = {"labels": ["cat", "dog"], "held_out": {"confusion": [[5, 7], [1, 9]]}}
    picture = np.zeros((8, 8, 3), np.uint8)
    shown = {"confused": (Example(picture, "cat", (("dog", 0.9),), "sorted"),)}
    assert "</span>: 7 of 12</h3>" in render(found, shown)


def test_plots_take_their_colours_from_the_page_and_keep_their_words(whole: str) -> None:
    drawn = re.findall(r'<svg [^>]*role="img".*?</svg>', whole, re.DOTALL)
    assert len(drawn) == 5
    for one in drawn:
        assert "var(--" in one
        assert not re.search(r"#0[1-5]0[1-5]0[1-5]", one)
        assert "<text" in one
        assert "#000000" not in one
        assert all("fill: var(--" in text for text in re.findall(r"<text[^>]*>", one))  # else they would be black
        assert "font:" not in one


def test_a_heatmap_shows_shares_of_the_true_class_and_hides_nothing_it_has_room_for() -> None:
    drawn = plots.heatmap(["$x$", *"bcdefg"], (np.eye(7, dtype=int) * 3 + np.eye(7, k=1, dtype=int)).tolist())
    assert drawn.count(">75<") == 6
    assert drawn.count(">25<") == 6
    assert ">$x$<" in drawn


def test_a_heatmap_is_drawn_where_it_can_be_read() -> None:
    for classes, drawn in ((6, False), (7, True), (120, True), (121, False)):
        found = {
            "labels": [str(index) for index in range(classes)],
            "held_out": {"confusion": np.eye(classes, dtype=int).tolist()},
        }
        assert ("<svg" in str(confusions.confusions(found))) == drawn


def test_the_same_metrics_give_the_same_page(whole: str) -> None:
    assert render(metrics(), examples()) == whole


@pytest.mark.parametrize(
    ("size", "expected"),
    [((224, 224), (96, 96)), ((64, 64), (96, 96)), ((28, 28), (84, 84)), ((32, 32), (96, 96)), ((100, 200), (48, 96)),
     ((1, 400), (1, 96)), ((2, 1), (96, 48))],
)  # fmt: skip
def test_thumbnails_keep_the_aspect_and_small_pictures_grow_by_whole_pixels(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert gallery.thumbnail_size(*size) == expected


def test_a_thumbnail_is_a_jpeg_in_the_right_colours() -> None:
    import cv2

    red = np.zeros((20, 10, 3), np.uint8)
    red[..., 0] = 250
    back = cv2.imdecode(np.frombuffer(gallery.thumbnail(red), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert back.shape == (80, 40, 3)
    assert back[40, 20, 2] > 240 > 10 > back[40, 20, 0]


def test_a_card_says_what_is_wrong_and_what_becomes_of_it() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    wrong = gallery.card(Example(pixels, "cat", (("dog", 0.9), ("cat", 0.1)), "unsure", "cat/1.jpg"))
    assert ["answer wrong" in wrong, "answer right" in wrong, "✗ is " in wrong, "set aside" in wrong] == [True] * 4
    right = gallery.card(Example(pixels, "cat", (("cat", 0.9), ("dog", 0.1), ("cow", 0.001)), "sorted"))
    assert ["answer right" in right, "answer open" in right, "✗ is " in right, "cow" in right] == [
        True,
        True,
        False,
        False,
    ]
    assert ">sorted<" in gallery.card(Example(pixels, None, (("cat", 0.9),), "sorted"))


def test_only_markup_is_not_escaped() -> None:
    assert html("<b>") == "&lt;b&gt;"
    assert tag("p", Html("<b></b>"), "<i>", class_='"x"') == '<p class="&quot;x&quot;"><b></b>&lt;i&gt;</p>'


def test_long_tables_fold_and_end() -> None:
    assert "<details>" not in table(["a"], [[1]] * 15)
    folded = table(["a"], [[index] for index in range(1000)])
    assert folded.index(">11<") < folded.index("188 more rows (800 more are in metrics.json)") < folded.index(">12<")
    assert folded.count("<tr>") == 202


def test_long_names_are_cut_in_their_middle_and_shown_whole_under_the_mouse() -> None:
    cut = name("a" * 50 + "z" * 50, 21)
    assert f">{'a' * 10}…{'z' * 10}<" in cut
    assert f'title="{"a" * 50}{"z" * 50}"' in cut
    assert "title" not in name("short")


def test_numbers_are_put_into_words() -> None:
    given = [None, 0.0, 0.0001, 0.5, 0.99996, 1.0]
    assert [words.percent(share).replace(words.NO_BREAK, " ") for share in given] == [
        "–", "0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %",
    ]  # fmt: skip
    assert words.counted(1, "class") == "1 class"
    assert words.counted(1234, "class") == f"1{words.THIN}234 classes"
    assert words.printable("a\tb\N{NO-BREAK SPACE}c\u2066") == "a\\tb\N{NO-BREAK SPACE}c\\u2066"

"""Whole pages: sealed, escaped, small enough, and saying what the results say."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from dspt.report import Gallery, Section, render_audit, render_comparison, render_run
from dspt.report.figures import gradient_by_probability
from dspt.report.wording import MINUS
from dspt.result import NoiseEstimate

VOID = {"meta", "img", "input", "br", "hr", "link"}


class Page(HTMLParser):
    """Checks nesting and remembers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if dict(attrs).get("id"):
            self.ids.append(dict(attrs)["id"])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack, tag
        assert self.stack[-1] == tag, (self.stack, tag)
        self.stack.pop()

    def handle_data(self, data):
        if self.stack and self.stack[-1] in ("style", "script"):
            self.raw[self.stack[-1]] = self.raw.get(self.stack[-1], "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def run_page(made):
    run = made.run_result(warnings=["Something is odd."])
    return render_run(run, made.suspects_of(run), made.thumbnail)


@pytest.fixture(scope="module")
def gallery(made):
    run = made.run_result()
    return Gallery(
        "What was refused",
        "At 50 % noise.",
        made.suspects_of(run),
        made.CIFAR,
        rivals={"CE": made.suspects_of(run, refuse=0.4)},
    )


@pytest.fixture(scope="module")
def comparison_page(made, grid, gallery):
    extra = Section("More", ["Text."], ["A", "B"], [["1", "2"]], gradient_by_probability(3))
    return render_comparison(
        "Title", "Intro.", grid, [gallery], made.thumbnail, "dspt demo", [extra]
    )


@pytest.fixture(params=["run_page", "comparison_page", "audit_page", "audit_page_of_many"])
def page(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def audit_page(made):
    return render_audit(made.audit_page(), made.thumbnail)


@pytest.fixture(scope="module")
def audit_page_of_many(made):
    names = [f"species {i}" for i in range(100)]
    return render_audit(made.audit_page(names, n=30, truth=False), made.thumbnail)


def check_sealed(text: str) -> Page:
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert "style" not in attributes, (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:image/", "#")), attributes[name][:80]
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1
    assert sum(tag == "style" for tag, _ in parsed.tags) == 1
    assert "@import" not in parsed.raw["style"]
    assert "url(" not in parsed.raw["style"]
    return parsed


def test_sealed(page):
    parsed = check_sealed(page)
    policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.raw[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_well_formed(page):
    parsed = Page(page)
    names = [tag for tag, _ in parsed.tags]
    assert page.startswith("<!DOCTYPE html>")
    assert names.count("h1") == names.count("main") == 1
    levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("alt") for t, a in parsed.tags if t == "img")
    for tag, attributes in parsed.tags:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in parsed.ids, tag
    assert ("html", {"lang": "en"}) in parsed.tags


def test_same_page_twice(made, run_page):
    run = made.run_result(warnings=["Something is odd."])
    assert render_run(run, made.suspects_of(run), made.thumbnail) == run_page


def test_run_says_what_it_is(run_page):
    text = Page(run_page).text
    assert "Tuned prompt 78.3 % on 2,465 test pictures; zero-shot 71.0 %" in text
    assert "Something is odd." in text
    assert "80 of 160 training labels are wrong" in text
    assert "truly mislabelled" in text
    assert "Logit scale 100" in re.sub(r"\s+", " ", text)
    assert "9f2c41d07ab355e8" in text
    assert text.index("Something is odd") < text.index("How training went")


def test_worst_class_first(run_page):
    table = run_page[run_page.index("data-sortable") :]
    values = [float(v) for v in re.findall(r'<th scope="row">.*?data-v="([\d.]+)"', table, re.S)]
    assert len(values) == 10
    assert values == sorted(values)


def test_run_says_what_the_worst_classes_are_taken_for(run_page):
    text = Page(run_page).text
    assert "Taken for: the classes it most often sees instead" in text
    row = run_page[run_page.index('<th scope="row"><bdi>ship') :]
    row = Page(row[: row.index("</tr>")]).text
    assert "truck 8 airplane 7 automobile 6" in row
    assert "right where" in run_page  # the reliability diagram's label


def test_run_of_before_mistakes_were_kept(made):
    run = made.run_result()
    old = {"per_class_mistakes": None, "calibration_bins": None}
    final, zero = (e.model_copy(update=old) for e in (run.final, run.zero_shot.test))
    zero_shot = run.zero_shot.model_copy(update={"test": zero})
    run = run.model_copy(update={"final": final, "zero_shot": zero_shot})
    text = render_run(run, [], made.thumbnail)
    assert "Taken for" not in text
    assert "right where" not in text


def test_run_without_truth_or_test(made):
    run = made.run_result(final=None, truth=False, noise="column:human label")
    text = Page(render_run(run, made.suspects_of(run), made.thumbnail)).text
    assert "No test pictures, so no accuracy to report" in text
    assert "Whether tuning helped is unknown." in text
    assert "The truth is unknown here" in text
    assert "Truly wrong" not in text
    assert "Accuracy by class" not in text
    assert "Calibration" not in text


def test_run_without_suspects_or_epochs(made):
    run = made.run_result(epochs=1).model_copy(update={"epochs": []})
    assert "No samples were handed" in Page(render_run(run, [], made.thumbnail)).text


@pytest.mark.parametrize("method", ["zero-shot", "zero-shot-ensemble", "linear-probe", "auto"])
def test_run_of_a_bound(made, method):
    run = made.run_result(method=method, epochs=0)
    parsed = check_sealed(render_run(run, made.suspects_of(run), made.thumbnail))
    assert "Prompt none is trained" in parsed.text
    assert "tuned" not in parsed.text.lower().replace('"', "")
    assert "Learning rate" not in parsed.text
    assert "How training went" not in parsed.text
    assert "Linear head" in parsed.text


def test_run_says_what_was_estimated_of_the_labels(made):
    run = made.run_result(method="auto", epochs=0)
    classes = len(run.data.class_names)
    wrong = 0.2 / (classes - 1)
    matrix = [[0.8 if i == j else wrong for j in range(classes)] for i in range(classes)]
    run.noise_estimate = NoiseEstimate(
        rate=0.2,
        interval=(0.15, 0.25),
        transition=matrix,
        weights={"zero-shot": 1.0},
        informed=True,
    )
    text = check_sealed(render_run(run, [], made.thumbnail)).text
    assert "20.0 % of the labels were estimated to be wrong" in text
    assert "Which labels stand for which classes" in text
    run.noise_estimate.informed = False
    text = check_sealed(render_run(run, [], made.thumbnail)).text
    assert "estimated to be wrong" not in text
    assert "Which labels stand for which classes" not in text


def test_run_with_an_option_in_words(made):
    run = made.run_result(method="nlprompt", method_options={"noisy": "dspt", "reg": 0.01})
    text = Page(render_run(run, [], made.thumbnail)).text
    assert "Method NLPrompt (noisy = dspt, reg = 0.01)" in text


def test_comparison_of_many_methods(made):
    runs = [
        made.run_result(method=name, noise=f"symmetric:{rate}", epochs=epochs, final=0.6)
        for name, epochs in (
            ("zero-shot", 0), ("linear-probe", 0), ("ce", 2), ("sce", 2), ("gce", 2), ("mae", 2),
            ("nlprompt", 2), ("joapr", 2), ("dspt", 2),
        )
        for rate in (0.25, 0.5)
    ]  # fmt: skip
    page = render_comparison("T", "I", runs, [], made.thumbnail, "c")
    parsed = check_sealed(page)
    assert "NLPrompt" in parsed.text
    assert "Zero-shot is level with zero-shot" not in parsed.text
    table = page[page.index('<table class="grid"') :]
    assert table[: table.index("</table>")].count("Zero-shot") == 1


def test_tuning_that_hurts_is_said(made):
    text = Page(render_run(made.run_result(final=0.6), [], made.thumbnail)).text
    assert "Tuning made the model worse, by 11.0 points." in text


def test_hostile_names(made):
    names = made.HOSTILE
    run = made.run_result(
        class_names=names,
        data=names[0],
        noise=f"column:{names[1]}",
        truth=False,
        warnings=names,
        template=f"{names[3]} {{}}".replace("{{ 7*7 }}", ""),
    )
    run = run.model_copy(
        update={
            "zero_shot": run.zero_shot.model_copy(update={"template": names[3]}),
            "backbone": run.backbone.model_copy(update={"name": names[0], "pretrained": names[1]}),
        }
    )
    suspects = made.suspects_of(run, ids='missing/"><script>alert(2)</script>{}.png')
    gallery = Gallery(
        names[0], names[3], suspects, names, method=names[1], rivals={names[0]: suspects}
    )
    pages = [
        render_run(run, suspects, made.thumbnail),
        render_comparison(
            names[0], names[3], [run], [gallery], made.thumbnail, names[0],
            [Section(names[0], names, names, [names])],
        ),
        render_audit(
            made.audit_page(
                names,
                title=names[0],
                notes=names,
                facts=[(name, name) for name in names],
                quality={name: {names[0]: 0.5} for name in names},
                keys='missing/"><script>alert(2)</script>{}.png',
            ),
            made.thumbnail,
        ),
    ]  # fmt: skip
    for text in pages:
        parsed = check_sealed(text)
        assert "alert(1)" in parsed.text  # shown, as text
        assert "{{ 7*7 }}" in parsed.text  # never evaluated
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text)
        assert not any(a.get("src") == "x" for _, a in parsed.tags)


def test_many_classes_and_size(made):
    run = made.run_result(class_names=[f"class number {i}" for i in range(1000)])
    heavy = made.picture(1) + bytes(60_000)
    text = render_run(run, made.suspects_of(run), lambda key: heavy)
    assert len(text.encode()) < 3_500_000
    parsed = Page(text)
    shown = sum(tag == "img" for tag, _ in parsed.tags)
    assert 0 < shown < 60
    assert "No picture" in parsed.text
    assert sum(a.get("class") == "sample" for _, a in parsed.tags) == 60


@pytest.mark.parametrize("bad", [None, b"", b"<svg onload=alert(1)>", b"<html>", b"RIFF1234AVI "])
def test_only_pictures_are_embedded(made, bad):
    run = made.run_result()
    parsed = check_sealed(render_run(run, made.suspects_of(run), lambda key: bad))
    assert not any(tag == "img" for tag, _ in parsed.tags)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_kinds_of_pictures(made, kind):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, kind)
    run = made.run_result()
    text = render_run(run, made.suspects_of(run), lambda key: buffer.getvalue())
    assert f"data:image/{kind.lower()};base64," in text


def test_comparison_says_who_wins(comparison_page):
    text = Page(comparison_page).text
    assert (
        "With 75 % wrong labels, DSPT ends at 48.3 %, 2.4 points below zero-shot (50.7 %)" in text
    )
    assert "cross-entropy at 0 %" in text
    assert "Near-ties between the two are expected" in text
    assert "dspt demo" in text
    assert "Mean ± standard deviation over 3 runs" in text
    assert f"{MINUS}9.9" in text
    assert "+6.8" in text


def test_comparison_counts_are_honest(made, gallery, comparison_page):
    wrong = [s for s in gallery.suspects if s.true != s.given]
    refused = [s for s in wrong if s.proposed != s.given]
    accused = [s for s in gallery.suspects if s.true == s.given and s.proposed != s.given]
    text = Page(comparison_page).text
    assert (
        f"Of {len(wrong)} mislabelled training pictures, DSPT refused {len(refused)} "
        f"and learned the wrong label of {len(wrong) - len(refused)}." in text
    )
    assert f"also contradicts {len(accused)} of {160 - len(wrong)} right labels" in text
    rival = [s for s in gallery.rivals["CE"] if s.true != s.given and s.proposed != s.given]
    assert f"CE refused {len(rival)} and learned {len(wrong) - len(rival)}." in text


def test_bold_marks_the_best_of_each_column(comparison_page):
    table = comparison_page[comparison_page.index('<table class="grid"') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'class="value best">([\d.]+)<', table) == ["50.7", "57.5", "54.6", "52.5"]


def test_comparison_without_tests_or_gradients(made):
    run = made.run_result(final=None, truth=False, noise="column:human")
    text = Page(render_comparison("T", "I", [run], [], made.thumbnail, "c")).text
    assert "no accuracy to compare" in text
    assert "Measured while training" not in text


def test_comparison_of_unknown_losses(made):
    runs = [made.run_result(method="my_loss", noise=f"symmetric:{r}") for r in (0.25, 0.5)]
    assert "my_loss" in Page(render_comparison("T", "I", runs, [], made.thumbnail, "c")).text


def test_comparison_needs_results(made):
    with pytest.raises(ValueError, match="at least one result"):
        render_comparison("T", "I", [], [], made.thumbnail, "c")


def test_import_is_light():
    code = (
        "import sys, dspt.report; print([m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

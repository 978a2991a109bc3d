from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dspt.noise import GRAMMAR, NoiseSpec
from dspt.noise.spec import KINDS, RATED


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("none", {}),
        ("symmetric:0.5", {"kind": "symmetric", "rate": 0.5}),
        ("asymmetric:0.25", {"kind": "asymmetric", "rate": 0.25}),
        ("symmetric:0", {"kind": "symmetric", "rate": 0.0}),
        ("symmetric:1", {"kind": "symmetric", "rate": 1.0}),
        ("asymmetric:1e-3", {"kind": "asymmetric", "rate": 0.001}),
        ("pair:0.4", {"kind": "pair", "rate": 0.4}),
        ("replace:0.5", {"kind": "replace", "rate": 0.5}),
        ("replace-pair:0.125", {"kind": "replace-pair", "rate": 0.125}),
        ("instance:0.3", {"kind": "instance", "rate": 0.3}),
        ("matrix:t.csv", {"kind": "matrix", "matrix": "t.csv"}),
        ("matrix:C:\\t a.json", {"kind": "matrix", "matrix": "C:\\t a.json"}),
        ("column:worse_label", {"kind": "column", "column": "worse_label"}),
        ("column:a:b c", {"kind": "column", "column": "a:b c"}),
    ],
)
def test_parse(text: str, fields: dict) -> None:
    assert NoiseSpec.parse(text) == NoiseSpec(**fields)


rated = st.builds(NoiseSpec, kind=st.sampled_from(RATED), rate=st.floats(0.0, 1.0))
human = st.builds(NoiseSpec, kind=st.just("column"), column=st.text(min_size=1))
matrix = st.builds(NoiseSpec, kind=st.just("matrix"), matrix=st.text(min_size=1))
pinned = st.builds(
    NoiseSpec,
    kind=st.just("matrix"),
    matrix=st.text(min_size=1),
    matrix_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)


@settings(deadline=None)
@given(st.one_of(st.just(NoiseSpec()), rated, human, matrix))
def test_text_round_trip(spec: NoiseSpec) -> None:
    assert NoiseSpec.parse(str(spec)) == spec


@settings(deadline=None)
@given(st.one_of(st.just(NoiseSpec()), rated, human, matrix, pinned))
def test_json_round_trip(spec: NoiseSpec) -> None:
    assert NoiseSpec.model_validate_json(spec.model_dump_json()) == spec


def test_specs_of_earlier_runs_can_still_be_read() -> None:
    old = '{"kind": "symmetric", "rate": 0.5, "column": null}'
    assert NoiseSpec.model_validate_json(old) == NoiseSpec.parse("symmetric:0.5")


def test_the_grammar_names_every_kind() -> None:
    for kind in KINDS:
        assert f'"{kind}' in GRAMMAR


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sym:0.5", "symmetric:0.5"),
        ("Symmetric:0.5", "symmetric:0.5"),
        ("symetric:0.25", "symmetric:0.25"),
        ("asym:0.4", "asymmetric:0.4"),
        ("pairflip:0.4", "pair:0.4"),
        ("pairs:0.4", "pair:0.4"),
        ("replace_pair:0.4", "replace-pair:0.4"),
        ("Replace:50%", "replace:0.5"),
        ("idn:0.3", "instance:0.3"),
        ("instance", "instance:0.5"),
        ("symmetric:50", "symmetric:0.5"),
        ("symmetric:12.5%", "symmetric:0.125"),
        ("symmetric", "symmetric:0.5"),
        ("symmetric:-1", "symmetric:0.5"),
        ("symmetric:nan", "symmetric:0.5"),
        ("symmetric:inf", "symmetric:0.5"),
        (" symmetric:0.5", "symmetric:0.5"),
        ("none:0.5", "none"),
        ("clean", "none"),
        ("col:worse_label", "column:worse_label"),
        ("column:", "column:NAME"),
        ("col:a\nb", "column:NAME"),
        ("transition:t.csv", "matrix:t.csv"),
        ("matrix", "matrix:FILE"),
    ],
)
def test_a_near_miss_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match="did you mean") as caught:
        NoiseSpec.parse(text)
    assert f'did you mean "{meant}"?' in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", ":", "0.5", "gaussian:0.5"])
def test_nonsense_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match='allowed: "none", "symmetric:RATE"') as caught:
        NoiseSpec.parse(text)
    assert "did you mean" not in str(caught.value)


@settings(deadline=None)
@given(st.one_of(st.text(), st.tuples(st.sampled_from(KINDS), st.text()).map(":".join)))
def test_any_text_is_a_spec_or_a_one_line_error(text: str) -> None:
    reason = None
    try:
        assert NoiseSpec.parse(str(NoiseSpec.parse(text))) == NoiseSpec.parse(text)
    except ValueError as error:
        reason = error
    if reason is not None:
        assert type(reason) is ValueError  # and not the many lines of pydantic
        assert len(str(reason).splitlines()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "none", "rate": 0.5},
        {"kind": "column", "column": "a", "rate": 0.5},
        {"kind": "column"},
        {"kind": "column", "column": ""},
        {"kind": "column", "column": "a", "matrix": "t.csv"},
        {"kind": "symmetric", "rate": 0.5, "column": "a"},
        {"kind": "symmetric", "rate": 0.5, "matrix": "t.csv"},
        {"kind": "symmetric", "rate": 0.5, "matrix_sha256": "0" * 64},
        {"kind": "symmetric", "rate": 1.01},
        {"kind": "symmetric", "rate": -0.01},
        {"kind": "symmetric", "rate": float("nan")},
        {"kind": "symmetric", "rate": float("inf")},
        {"kind": "matrix"},
        {"kind": "matrix", "matrix": ""},
        {"kind": "matrix", "matrix": "t.csv", "rate": 0.5},
        {"kind": "matrix", "matrix": "t.csv", "column": "a"},
        {"kind": "matrix", "matrix": "t.csv", "matrix_sha256": "abc"},
        {"kind": "gaussian"},
        {"kind": "none", "extra": 1},
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        NoiseSpec(**fields)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        NoiseSpec().rate = 0.5

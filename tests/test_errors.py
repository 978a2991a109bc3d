from __future__ import annotations

from dspt.errors import LONGEST, UserError


def test_a_message_stays_one_line_whatever_it_quotes() -> None:
    said = str(UserError("a\nb\r\x1b[31mc\u2028d\ud800e"))
    assert said == "a\\nb\\r\\x1b[31mc\\u2028d\\ud800e"
    assert (
        str(UserError("écru 👩‍🚀 78.3\u00a0%: 50\u2009km")) == "écru 👩‍🚀 78.3\u00a0%: 50\u2009km"
    )


def test_a_long_message_keeps_what_and_how_to_mend() -> None:
    said = str(UserError(f"file.yaml: {'x' * 100_000}; write fewer"))
    assert said.startswith("file.yaml: x")
    assert said.endswith("x; write fewer")
    assert len(said) < LONGEST + 10

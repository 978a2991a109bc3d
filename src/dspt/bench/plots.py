"""The field's figure from results: accuracy against the share of wrong labels."""

from __future__ import annotations

from pathlib import Path

from dspt.errors import UserError
from dspt.files import write_bytes, write_text
from dspt.report.collect import Collected
from dspt.report.figures import Drawing, accuracy_against_noise

SUFFIXES = (".png", ".svg")


def check_target(out: Path) -> None:
    """Refuse a file name that says no format we write.

    Raises:
        UserError: for any suffix but .png, .svg or none.
    """
    if out.suffix.lower() not in ("", *SUFFIXES):
        raise UserError(f"out: {out} ends in {out.suffix}; give .png, .svg, or no suffix for both")


def noise_figure(found: Collected) -> Drawing:
    """One panel for every data set, model, number of shots and kind of noise.

    Raises:
        UserError: when no result has test pictures.
    """
    try:
        return accuracy_against_noise(found.results)
    except ValueError as error:
        raise UserError(f"nothing to draw: {error}") from None


def write_figure(drawing: Drawing, out: Path, *, dark: bool = False) -> list[Path]:
    """Write PNG, SVG or both, as the suffix says; returns what was written.

    Raises:
        UserError: for another suffix, or when a file cannot be written.
    """
    check_target(out)
    chosen = [out] if out.suffix else [out.with_name(out.name + suffix) for suffix in SUFFIXES]
    for path in chosen:
        if path.suffix.lower() == ".png":
            write_bytes(path, drawing.png(dark=dark))
        else:
            write_text(path, drawing.standalone_svg(dark=dark))
    return chosen

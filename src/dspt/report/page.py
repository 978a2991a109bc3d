"""The frame of every page: templates, embedded style and script, and the policy that seals it."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Callable
from importlib import resources
from typing import Any

from dspt.report import wording
from dspt.report.figures import Drawing
from dspt.report.palette import DARK, LIGHT

Thumbnail = Callable[[str], "bytes | None"]


def _asset(name: str) -> str:
    text = (resources.files("dspt.report") / "templates" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _dark_figures() -> str:
    """Rules that repaint the figures' light colours in dark mode.

    Without an ancestor in the selector, because markers are drawn in the shadow tree of ``use``,
    where only selectors that stay inside it match.
    """
    rules = "".join(
        f'[{attribute}="{LIGHT[name]}"]{{{attribute}:{DARK[name]}}}'
        for name in LIGHT
        for attribute in ("fill", "stroke")
    )
    return f"@media screen and (prefers-color-scheme:dark){{{rules}}}\n"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def render_page(template: str, **values: Any) -> str:
    """Fill a template. Everything is escaped except our own figures, style and script.

    The content policy allows exactly this style sheet and this script by their hashes, and pictures
    that are part of the page; it forbids everything else, so even a hole in the escaping would
    execute nothing and load nothing.
    """
    import jinja2
    from markupsafe import Markup

    numbers = itertools.count(1)

    def figure(drawing: Drawing) -> dict[str, Any]:
        prefix = f"f{next(numbers)}"
        return {
            "wide": Markup(drawing.svg(prefix=prefix)),
            "narrow": Markup(drawing.svg(narrow=True, prefix=prefix)),
        }

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(_asset),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        share=wording.share,
        signed=wording.signed,
        count=wording.count,
        interval=wording.interval,
        seconds=wording.seconds,
        drawn=figure,
    )
    style = "\n" + _asset("style.css") + _dark_figures()
    script = "\n" + _asset("page.js")
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template(template).render(
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        **values,
    )
    return "".join(c for c in text if c >= " " or c in "\n\t")


_KINDS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
)


def data_uri(image: bytes) -> str | None:
    """A picture as a data URI; None for anything that is no JPEG, PNG, GIF or WebP."""
    kind = next((kind for magic, kind in _KINDS if image.startswith(magic)), None)
    if kind is None and image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        return None
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


class Pictures:
    """Thumbnails as data URIs, up to a limit on their bytes together."""

    def __init__(self, thumbnail: Thumbnail, budget: int = 1_900_000) -> None:
        self._thumbnail = thumbnail
        self._left = budget

    def __call__(self, key: str) -> str | None:
        image = self._thumbnail(key)
        if image is None or len(image) > self._left:
            return None
        uri = data_uri(image)
        if uri is not None:
            self._left -= len(image)
        return uri

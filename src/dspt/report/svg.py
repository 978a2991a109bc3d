"""Matplotlib's SVG made fit for inlining into a page with a strict content policy."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"#([\w.:-]+)")
# Control characters that neither XML nor HTML allows; a class name may hold them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_svg(raw: str, prefix: str, label: str) -> str:
    """Drop prolog, metadata, styles and unused ids; turn style attributes into plain ones.

    Plain attributes need no ``style-src``, and a page's style sheet can override them, which is how
    the figures follow dark mode. Ids that are referred to get ``prefix``, so that two figures on
    one page cannot meet.
    """
    root = ElementTree.fromstring(_CONTROL.sub("", raw))
    used: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith("href") or "url(#" in value:
                used.update(_REFERENCE.findall(value))
    _clean(root, prefix, used)
    for child in list(root):
        if child.tag in ("metadata", "style") or (
            child.tag == "defs" and all(part.tag == "style" for part in child)
        ):
            root.remove(child)
    box = root.attrib["viewBox"]
    width, height = box.split()[2:]
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": box,
            "width": width,
            "height": height,
            "role": "img",
            "aria-label": _CONTROL.sub("", label),
            "font-family": "system-ui, sans-serif",
        }
    )
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return re.sub(r">\s+<", "><", text)


def on_card(svg: str, colour: str, margin: int = 14) -> str:
    """A cleaned figure with a margin and an opaque background, to stand in a file of its own."""
    root = ElementTree.fromstring(svg)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    width, height = width + 2 * margin, height + 2 * margin
    root.set("viewBox", f"{-margin} {-margin} {width:g} {height:g}")
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    size = {"x": f"{-margin}", "y": f"{-margin}", "width": f"{width:g}", "height": f"{height:g}"}
    root.insert(0, ElementTree.Element(f"{_SVG}rect", {**size, "fill": colour}))
    ElementTree.register_namespace("", _SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    attributes = dict(element.attrib)
    element.attrib.clear()
    for name, value in attributes.items():
        name = name.removeprefix(_XLINK)
        if name == "id":
            if value in used:
                element.set("id", f"{prefix}-{value}")
        elif name == "style":
            for key, part in _declarations(value):
                element.set(key, _prefixed(part, prefix))
        else:
            element.set(name, _prefixed(value, prefix) if "#" in value else value)
    for child in element:
        _clean(child, prefix, used)


def _prefixed(value: str, prefix: str) -> str:
    if value.startswith("#") and not re.fullmatch(r"#[0-9a-fA-F]{3,8}", value):
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-")


def _declarations(style: str) -> list[tuple[str, str]]:
    pairs = []
    for declaration in style.split(";"):
        key, _, value = declaration.strip().partition(":")
        key, value = key.strip(), value.strip()
        if key == "font":
            size = re.search(r"([\d.]+)px", value)
            if size:
                pairs.append(("font-size", size[1]))
            if re.search(r"\b(bold|[6-9]00)\b", value):
                pairs.append(("font-weight", "bold"))
        elif key and value and key != "font-family":
            pairs.append((key, value))
    return pairs

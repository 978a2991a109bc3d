"""The documentation as a site: built without a warning, whole, and without the network."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import dspt

ROOT = Path(__file__).parent.parent


class _Page(HTMLParser):
    """Ids, and what is linked to and loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(v for k in ("id", "name") if (v := values.get(k)))
        if tag == "a" and (target := values.get("href")):
            self.links.append(target)
        source = values.get("href") if tag == "link" else values.get("src")
        if source and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(source)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, _Page]:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        # Whoever fetches something while building fails.
        env={**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {file: _Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, _Page]) -> None:
    checked = 0
    for file, page in pages.items():
        if file.name == "404.html":  # its links begin at the root of the server
            continue
        for link in page.links:
            path, _, fragment = unquote(link).partition("#")
            if ":" in path:
                continue
            target = (file.parent / path).resolve() if path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{file}: {link}"
            if fragment and target in pages:
                assert fragment in pages[target].ids or fragment == "__skip", f"{file}: {link}"
            checked += 1
    assert checked > 1000


def test_the_site_loads_nothing_from_elsewhere(pages: dict[Path, _Page]) -> None:
    for file, page in pages.items():
        for source in page.loaded:
            assert source.startswith("data:") or "//" not in source, f"{file}: {source}"


def test_the_reference_holds_every_public_name(pages: dict[Path, _Page]) -> None:
    ids = {i for file, page in pages.items() if "reference" in file.parts for i in page.ids}
    assert {f"dspt.{name}" for name in dspt.__all__ if name != "__version__"} <= ids


def test_the_reference_holds_every_command_and_option(pages: dict[Path, _Page]) -> None:
    from typer.main import get_command

    from dspt.cli import app

    (file,) = [file for file in pages if file.name == "command-line.html"]
    html = file.read_text(encoding="utf-8")

    def check(path: str, command: object) -> None:
        for name, member in getattr(command, "commands", {}).items():
            check(f"{path}-{name}", member)
        if hasattr(command, "commands"):
            return
        assert path in pages[file].ids
        section = html.split(f'id="{path}"')[1].split("<h2")[0]
        for parameter in command.params:  # type: ignore[attr-defined]
            if parameter.param_type_name == "option":
                assert f"<code>{parameter.opts[0]}" in section

    check("dspt", get_command(app))

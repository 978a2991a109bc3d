"""A real browser, and every kind of page written to a file.

The browser is the Chromium named by DSPT_CHROMIUM, or else the first that PATH has; nothing is
downloaded. Without one, or without Playwright, these tests skip and say so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report import made

from dspt.report import Gallery, Section, render_audit, render_comparison, render_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def _executable() -> str:
    named = os.environ.get("DSPT_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no browser: none of " + ", ".join(NAMES) + " on PATH; set DSPT_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="no browser tests without playwright")
    path = _executable()
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


class Tab:
    """A page in a browser, and everything it did that it should not."""

    def __init__(self, context: Any, address: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.console: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dialog)
        self.address = address
        self.page.goto(address)

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def foreign_requests(self) -> list[str]:
        return [u for u in self.requests if u != self.address and not u.startswith("data:image/")]

    def names(self) -> list[str]:
        """Keys of the cards that are to be seen, in their order."""
        return self.page.locator(".sample:visible").evaluate_all(
            "all => all.map(c => c.dataset.key)"
        )

    def status(self) -> str:
        return self.page.locator(".gallery [role=status]").inner_text()

    def tab_to(self, selector: str) -> Any:
        """Press Tab from the top of the page until the element has the focus, as a user would."""
        wanted = self.page.locator(selector).first
        self.page.evaluate("document.activeElement.blur()")
        for _ in range(60):
            self.page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                return wanted
        raise AssertionError(f"Tab never reaches {selector}")


@pytest.fixture
def show(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """Opens a file; the options are a browser context's."""
    contexts = []

    def opened(path: Path, **options: Any) -> Tab:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = chromium.new_context(**options)
        contexts.append(context)
        return Tab(context, path.as_uri())

    yield opened
    for context in contexts:
        context.close()


def _pages(names: list[str], keys: str, texts: list[str]) -> dict[str, str]:
    """One page of each kind, with these class names, keys and free texts."""
    run = made.run_result(class_names=names, warnings=texts, data=texts[0])
    suspects = made.suspects_of(run, ids=keys)
    gallery = Gallery(texts[1], texts[-1], suspects, names, rivals={texts[0]: suspects})
    runs = [run] if texts[0] in made.HOSTILE else made.sweep(seeds=2)
    section = Section(texts[0], texts, texts, [texts])
    audit = made.audit_page(
        names, keys=keys, title=texts[0], notes=texts, facts=[(t, t) for t in texts]
    )
    return {
        "run": render_run(run, suspects, made.thumbnail),
        "comparison": render_comparison(
            texts[0], texts[-1], runs, [gallery], made.thumbnail, texts[0], [section]
        ),
        "audit": render_audit(audit, made.thumbnail),
    }


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Path of a page of every kind."""
    texts = _pages(made.CIFAR, "photos/{}.png", ["Title", "Something is odd."])
    many = [f"species number {i}" for i in range(100)]
    texts["audit-100"] = render_audit(made.audit_page(many, n=40), made.thumbnail)
    return _written(texts, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same with names and keys that attack."""
    keys = 'missing"><script>alert(2)</script><img src=x onerror=alert(3)>{}.png'
    texts = _pages(made.HOSTILE, keys, made.HOSTILE)
    return _written(texts, tmp_path_factory.mktemp("hostile"))


def _written(texts: dict[str, str], folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    return paths

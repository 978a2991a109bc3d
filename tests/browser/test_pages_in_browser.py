"""What a reader does with a page, done in a real browser."""

from __future__ import annotations

import re

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
KINDS = ("run", "comparison", "audit", "audit-100")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def by_hand(tab, control, text):
    """Type into a search or number field with the keyboard only."""
    tab.tab_to(control)
    tab.page.keyboard.press("Control+A")
    tab.page.keyboard.type(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_accessible_quiet_and_fits(show, pages, kind, device):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    tab = show(pages[kind], **(PHONE if device == "phone" else {}))
    for scheme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=scheme)
        found = axe.run(tab.page, options=options)
        assert found.violations_count == 0, (scheme, found.generate_report())
    assert tab.console == []
    assert tab.foreign_requests() == []
    width = tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= tab.page.viewport_size["width"]


@pytest.mark.parametrize("kind", ["run", "comparison", "audit"])
@pytest.mark.parametrize("guarded", [True, False], ids=["policy", "escaping alone"])
def test_hostile_names_do_not_execute(show, hostile_pages, kind, guarded):
    """Neither with the page's content policy nor, that being off, by the escaping alone."""
    tab = show(hostile_pages[kind], bypass_csp=not guarded)
    for select in tab.page.locator(".gallery select").all():
        for option in select.locator("option").all()[:3]:
            select.select_option(index=option.evaluate("o => o.index"))
    for head in tab.page.locator("th button:visible").all()[:6]:
        head.click()
    for link in tab.page.locator("a").all():
        assert link.get_attribute("href").startswith("#")
    tab.page.wait_for_timeout(50)
    assert tab.dialogs == []
    assert tab.console == []
    assert tab.foreign_requests() == []
    assert tab.page.locator("script").count() == 1
    assert tab.page.locator("img[src=x]").count() == 0
    assert "<script>alert(1)</script>" in tab.page.locator("main").inner_text()


def test_filter_by_class(show, pages):
    tab = show(pages["audit"])
    assert tab.status() == "24 of 120 pictures shown"
    select = tab.tab_to("select[data-by=given]")
    tab.page.keyboard.type("cat")
    given = tab.page.locator(".sample:visible").evaluate_all("all => all.map(c => c.dataset.given)")
    assert select.input_value() == "cat"
    assert set(given) == {"cat"}
    assert tab.status() == f"{len(given)} of {len(given)} pictures shown, 120 in all"
    tab.tab_to("select[data-by=proposed]")
    tab.page.keyboard.type("bird")
    cards = tab.page.locator(".sample:visible")
    proposed = cards.evaluate_all("all => all.map(c => c.dataset.proposed)")
    assert set(proposed) <= {"bird"}
    assert len(proposed) < len(given)


def test_filter_by_text(show, pages):
    tab = show(pages["audit"])
    by_hand(tab, ".gallery [type=search]", "OTOS/11")  # whatever the case; part of a name
    assert tab.names() == [f"photos/{i}.png" for i in (11, *range(110, 120))]
    by_hand(tab, ".gallery [type=search]", "no such picture")
    assert tab.names() == []
    assert tab.status() == "0 of 0 pictures shown, 120 in all"
    tab.tab_to(".clear")
    tab.page.keyboard.press("Enter")
    assert len(tab.names()) == 24
    assert tab.status() == "24 of 120 pictures shown"
    assert not tab.page.locator(".clear").is_visible()


def test_filter_by_score(show, pages):
    tab = show(pages["audit"])
    by_hand(tab, "[data-by=score]", "95")  # scores are 1 - i / 120
    assert tab.names() == [f"photos/{i}.png" for i in range(7)]


def test_filter_by_verdict(show, pages):
    tab = show(pages["audit"])
    tab.tab_to("input[type=radio]")
    tab.page.keyboard.press("ArrowRight")
    verdicts = tab.page.locator(".sample:visible .verdict").all_inner_texts()
    assert verdicts
    assert all(text.startswith("Label is wrong") for text in verdicts)
    tab.page.keyboard.press("ArrowRight")
    verdicts = tab.page.locator(".sample:visible .verdict").all_inner_texts()
    assert verdicts
    assert all(text.startswith("Wrongly accused") for text in verdicts)


def test_order(show, pages):
    tab = show(pages["audit"])
    assert tab.names()[:3] == ["photos/0.png", "photos/1.png", "photos/2.png"]
    tab.tab_to("select[data-by=order]")
    tab.page.keyboard.type("Given")
    cards = tab.page.locator(".sample:visible")
    given = cards.evaluate_all("all => all.map(c => c.dataset.given)")
    assert given == sorted(given)
    numbers = [int(re.findall(r"\d+", name)[0]) for name in tab.names()[: given.count(given[0])]]
    assert numbers == sorted(numbers)  # within a class, the most suspicious first


def test_show_more_by_keyboard(show, pages):
    tab = show(pages["audit"])
    tab.tab_to(".more button")
    tab.page.keyboard.press("Enter")
    assert len(tab.names()) == 48
    focused = tab.page.evaluate("document.activeElement.dataset.key")
    assert focused == "photos/24.png"


def test_sort_a_table(show, pages):
    tab = show(pages["run"])
    table = tab.page.locator("#class-table")
    head = table.locator("thead th").first
    tab.tab_to("#class-table th button")
    tab.page.keyboard.press("Enter")
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    assert head.get_attribute("aria-sort") == "ascending"
    tab.page.keyboard.press("Enter")
    assert table.locator("tbody th").all_inner_texts() == names[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    assert table.locator("[aria-sort]").count() == 1
    table.locator("th button", has_text="Zero-shot").click()
    values = table.locator("tbody td:nth-child(4)").all_inner_texts()
    assert [float(v.split()[0]) for v in values] == sorted(float(v.split()[0]) for v in values)


def test_sort_a_table_with_a_grouped_head(show, pages):
    tab = show(pages["comparison"])
    table = tab.page.locator("table.grid").first
    table.locator("th button", has_text="50").click()
    values = table.locator("tbody td:nth-child(4) .value").all_inner_texts()
    assert [float(v) for v in values] == sorted(map(float, values))
    assert len(values) == 5


def test_find_in_a_table(show, pages):
    tab = show(pages["run"])
    by_hand(tab, "[data-find=class-table] input", "SHIP")
    assert tab.page.locator("#class-table tbody tr:visible th").all_inner_texts() == ["ship"]
    assert tab.page.locator("[data-find=class-table] [role=status]").inner_text() == (
        "1 of 10 rows shown"
    )


@pytest.mark.parametrize("kind", ["run", "audit"])
def test_every_control_shows_its_focus(show, pages, kind):
    tab = show(pages[kind])
    reached = []
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        name, outlined = tab.page.evaluate(
            """() => {
              const at = document.activeElement;
              const drawn = at.type === "radio" ? at.nextElementSibling : at;
              const style = getComputedStyle(drawn);
              const wide = parseFloat(style.outlineWidth) >= 2;
              return [at.tagName, style.outlineStyle !== "none" && wide];
            }"""
        )
        if name == "BODY":
            break
        assert outlined, name
        reached.append(name)
    assert {"A", "SELECT", "INPUT", "BUTTON"} <= set(reached)


@pytest.mark.parametrize("kind", ["run", "audit"])
def test_everything_is_there_without_scripts(show, pages, kind):
    tab = show(pages[kind], java_script_enabled=False)
    samples = tab.page.locator(".sample")
    assert samples.count() > 24
    assert tab.page.locator(".sample:visible").count() == samples.count()
    assert tab.page.locator(".controls:visible, .more:visible, button:visible").count() == 0
    assert tab.page.locator("tbody tr:visible").count() > 5


def test_print_shows_all_that_matches(show, pages):
    tab = show(pages["audit"])
    tab.page.emulate_media(media="print")
    assert tab.page.locator(".controls:visible, .more:visible").count() == 0
    tab.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(tab.names()) == 120
    tab.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(tab.names()) == 24
    assert tab.page.pdf(format="A4").startswith(b"%PDF")


def test_print_opens_what_is_folded(show, pages):
    tab = show(pages["run"])
    assert not tab.page.locator("details pre").is_visible()
    tab.page.emulate_media(media="print")
    folded = tab.page.locator("details pre")
    assert folded.evaluate("e => e.checkVisibility({contentVisibilityAuto: true})")
    assert folded.bounding_box()["height"] > 100


def test_heat_map_of_few_classes_is_a_table(show, pages):
    tab = show(pages["audit"])
    cells = tab.page.locator(".heat tbody tr").first.locator("td")
    assert cells.count() == 10
    assert cells.first.inner_text() == "40\u00a0%"
    assert tab.page.locator(".heat tbody th").first.inner_text() == "airplane"


def test_heat_map_of_many_classes_is_a_drawing_with_words(show, pages):
    tab = show(pages["audit-100"])
    drawing = tab.page.locator("svg.heat-map")
    assert "species number 0 labelled species number 1" in drawing.get_attribute("aria-label")
    assert drawing.locator("text").count() == 200
    assert drawing.bounding_box()["width"] > 1200  # scrolls, rather than shrinks

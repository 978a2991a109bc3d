"""Write the table of docs/data.md from the registry itself: ``python tools/dataset_table.py``.

A test checks that the page holds what this script writes.
"""

from __future__ import annotations

from pathlib import Path

from dspt.data.registry import CARDS, DatasetCard

BEGIN = "<!-- table of the registry: written by tools/dataset_table.py -->\n"
END = "<!-- end of the table -->\n"
PAGE = Path(__file__).parent.parent / "docs" / "data.md"


def row(card: DatasetCard) -> str:
    """One line of the table."""
    train, val, test = (f"{size:,}" if size else "-" for size in card.sizes)
    cells = (
        f"`{card.name}`",
        f"[{card.title}]({card.source})",
        str(card.num_classes),
        f"{train} / {val} / {test}",
        f"`{card.layout}`",
        f"`{card.template}`",
        card.licence,
        f"`{card.torchvision}`" if card.torchvision else "no",
    )
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    """The whole table with its heading."""
    head = (
        "| name | data set | classes | train / val / test | layout below ROOT | template | licence "
        "| torchvision class for `get` |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(row(card) for card in CARDS)


def page(text: str) -> str:
    """The page with the table in its place."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

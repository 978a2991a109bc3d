"""``dspt methods``: what can be trained."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dspt.cli import console, options


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Only this method.",
            show_default=False,
            autocompletion=options.offer(options.method_words),
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List every method: what it computes, its options with defaults, its source.

    \b
    [bold]Examples[/]
    dspt methods
    dspt methods nlprompt
    dspt methods --json
    """
    import json as json_module

    from dspt.methods import method_card, method_names

    cards = [method_card(each) for each in ([name] if name else method_names())]
    if json:
        rows: list[dict[str, Any]] = [
            {
                "name": card.name,
                "kind": card.kind,
                "summary": card.summary,
                "options": dict(card.options),
                "source": card.source,
            }
            for card in cards
        ]
        console.out.print(json_module.dumps(rows, indent=1), soft_wrap=True, markup=False)
        return
    kinds = {
        "bound": "To compare with",
        "head": "Self-adjusting, without a prompt",
        "loss": "Prompt tuning with a loss",
        "prompt": "Prompt tuning with more than a loss",
    }
    for kind, title in kinds.items():
        chosen = [card for card in cards if card.kind == kind]
        if not chosen:
            continue
        console.out.print(f"[bold]{title}[/]")
        for card in chosen:
            settings = ", ".join(f"{key}={value}" for key, value in card.options.items())
            title = f"\n[bold cyan]{card.name}[/]  {settings}".rstrip()
            console.out.print(title, soft_wrap=True, highlight=False)
            plain = card.summary.replace("``", "")
            console.out.print(f"  {plain}", markup=False, highlight=False)
            console.out.print(
                f"  Source: {card.source}", markup=False, highlight=False, style="dim"
            )
        console.out.print()

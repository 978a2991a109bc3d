"""How near is a training step to the matrix products that must be done?

    python -m benchmarks.floor

The floor is the time of exactly those products, forward and backward, at the speed that this
machine reaches on the same shapes. Everything else (norms, activations, attention, the optimizer)
is what keeps the step from the floor.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import common, steps
from dspt.backbones import TextTower, load_backbone
from dspt.prompts import build_layout

QUESTION = "floor"

Product = tuple[int, int, int]
"""[rows, inner] times [inner, columns]."""


def required_products(
    tower: TextTower, own_tokens: int, context_tokens: int, classes: int
) -> Counter[Product]:
    """The matrix products of one step with frozen weights, and how often each is done.

    Every product x W of the forward pass has one of the gradient by x in the backward pass, none by
    W. In the first layer only context vectors need queries, keys and values (the rest is constant).

    Args:
        tower: gives width, hidden width, layers and output dimension.
        own_tokens: of all classes together.
        context_tokens: context vectors; with [SOS] before them they are computed once.
        classes: number of them; in the last layer only one token each goes on.
    """
    width, hidden = tower.width, tower.blocks[0].fc_weight.shape[0]
    layers, rows = len(tower.blocks), own_tokens + 1 + context_tokens
    products: Counter[Product] = Counter()

    def add(rows: int, inner: int, columns: int, times: int = 1) -> None:
        products[rows, inner, columns] += times
        products[rows, columns, inner] += times  # gradient by the input

    add(context_tokens, width, 3 * width)
    add(rows, width, 3 * width, layers - 2)
    add(rows, width, width, layers - 1)
    add(rows, width, hidden, layers - 1)
    add(rows, hidden, width, layers - 1)
    add(rows, width, 2 * width)  # last layer: keys and values
    add(classes, width, width, 2)  # last layer: query and output
    add(classes, width, hidden)
    add(classes, hidden, width)
    if tower.projection is not None:
        add(classes, *tower.projection.shape)
    return +products


def flops(products: Counter[Product]) -> int:
    """Multiplications and additions."""
    return sum(2 * a * b * c * times for (a, b, c), times in products.items())


def product(shape: Product) -> Callable[[], Tensor]:
    """One product of this shape as the engine does it, x times a transposed weight."""
    rows, inner, columns = shape
    x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    return lambda: torch.nn.functional.linear(x, weight)


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--classes", type=int, default=100)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.backbone, "none")
    assert backbone.text_tower is not None
    names = common.two_word_names(arguments.classes)
    layout = build_layout(backbone.tokenizer, names, steps.N_CTX)
    lengths = backbone.text_tower.read_positions(layout.ids) + 1
    own = int((lengths - 1 - steps.N_CTX).sum())
    needed = required_products(backbone.text_tower, own, steps.N_CTX, len(names))
    # Each turn times the whole step and every product once, so drift meets both alike.
    candidates: dict[str, Callable[[], object]] = {"step": steps.fast_step(backbone, names)}
    candidates |= {str(shape): product(shape) for shape in needed}
    times = common.in_turns(candidates, arguments.rounds, warm_up=2)
    floors = [
        sum(times[str(shape)][turn] * count for shape, count in needed.items())
        for turn in range(arguments.rounds)
    ]
    fraction = statistics.median(
        floor / step for floor, step in zip(floors, times["step"], strict=True)
    )
    work = flops(needed)
    common.print_table(
        ["", "median s", "GFLOP/s"],
        [
            ["floor", statistics.median(floors), work / statistics.median(floors) / 1e9],
            ["step", (step_s := statistics.median(times["step"])), work / step_s / 1e9],
        ],
    )
    print(f"{work / 1e9:.1f} GFLOP; the step reaches {fraction:.0%} of the floor's speed")
    numbers = {"gflop": work / 1e9, "floor_s": floors, "step_s": times["step"]}
    common.keep(arguments.out, QUESTION, {**numbers, "fraction": fraction}, arguments)


if __name__ == "__main__":
    main()

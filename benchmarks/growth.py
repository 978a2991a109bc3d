"""How does a step grow with classes, context vectors, and prompts trained side by side?

python -m benchmarks.growth
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks import common, steps
from dspt.backbones import load_backbone

QUESTION = "growth"
CLASSES = (10, 30, 100, 300, 1000)
CONTEXT = (4, 16, 32)
RUNS = (1, 2, 4, 8)


def main() -> None:
    """Measure, print, keep."""
    arguments = common.parser(__doc__ or "").parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.backbone, "none")
    names = common.two_word_names(100)

    def grown(
        what: str,
        sizes: Sequence[int],
        step: Callable[[int], Callable[[], object]],
        base: int,
        many: bool = False,
    ) -> dict[str, list[float]]:
        times = common.in_turns({str(size): step(size) for size in sizes}, arguments.rounds)
        rows = []
        for size, seconds in times.items():
            ratio = common.ratio(seconds, times[str(base)]) / (int(size) if many else 1)
            rows.append([size, statistics.median(seconds), ratio])
        against = "times as many single steps" if many else f"times {base} {what}"
        common.print_table([what, "median s", against], rows)
        print()
        return times

    numbers = {
        "by_classes": grown(
            "classes",
            CLASSES,
            lambda c: steps.fast_step(backbone, common.two_word_names(c)),
            base=100,
        ),
        "by_context": grown(
            "context vectors",
            CONTEXT,
            lambda n: steps.fast_step(backbone, names, n_ctx=n),
            base=16,
        ),
        "by_runs": grown(
            "prompts at once",
            RUNS,
            lambda k: steps.fast_step(backbone, names, k),
            base=1,
            many=True,
        ),
    }
    common.keep(arguments.out, QUESTION, numbers, arguments)


if __name__ == "__main__":
    main()

"""How does a step grow with the classes, and with prompts trained side by side?

python -m benchmarks.growth
"""

from __future__ import annotations

import statistics

import torch

from benchmarks import common, steps
from dspt.backbones import load_backbone

QUESTION = "growth"
CLASSES = (10, 30, 100, 300, 1000)
RUNS = (1, 2, 4, 8)


def main() -> None:
    """Measure, print, keep."""
    arguments = common.parser(__doc__ or "").parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.backbone, "none")

    by_classes = common.in_turns(
        {str(c): steps.fast_step(backbone, common.two_word_names(c)) for c in CLASSES},
        arguments.rounds,
    )
    hundred = by_classes["100"]
    common.print_table(
        ["classes", "median s", "times 100 classes"],
        [[c, statistics.median(t), common.ratio(t, hundred)] for c, t in by_classes.items()],
    )
    print()
    names = common.two_word_names(100)
    by_runs = common.in_turns(
        {str(k): steps.fast_step(backbone, names, k) for k in RUNS}, arguments.rounds
    )
    common.print_table(
        ["prompts at once", "median s", "times as many single steps"],
        [
            [k, statistics.median(t), common.ratio(t, by_runs["1"]) / int(k)]
            for k, t in by_runs.items()
        ],
    )
    common.keep(arguments.out, QUESTION, {"by_classes": by_classes, "by_runs": by_runs}, arguments)


if __name__ == "__main__":
    main()

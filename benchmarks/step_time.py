"""How much faster is a training step than the field's plain one?

python -m benchmarks.step_time
"""

from __future__ import annotations

import statistics

import torch

from benchmarks import common, steps
from dspt.backbones import load_backbone

QUESTION = "step_time"


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--classes", type=int, default=100)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.backbone, "none")
    names = common.two_word_names(arguments.classes)
    times = common.in_turns(
        {
            "plain, with image tower": steps.plain_step(backbone, names, image_tower=True),
            "plain, features at hand": steps.plain_step(backbone, names, image_tower=False),
            "dspt": steps.fast_step(backbone, names),
        },
        arguments.rounds,
    )
    ratios = {name: common.ratio(seconds, times["dspt"]) for name, seconds in times.items()}
    common.print_table(
        ["step", "median s", "times dspt's"],
        [[name, statistics.median(seconds), ratios[name]] for name, seconds in times.items()],
    )
    common.keep(arguments.out, QUESTION, {"seconds": times, "ratio_to_dspt": ratios}, arguments)


if __name__ == "__main__":
    main()

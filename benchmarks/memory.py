"""How much memory does training with many classes take?

    python -m benchmarks.memory

Each candidate runs one step in a process of its own; what is compared is the peak of the resident
memory above that of the process with the model loaded.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import torch

from benchmarks import common, steps
from dspt.backbones import load_backbone
from dspt.prompts import build_layout
from dspt.prompts.shared_prefix import SharedPrefixEngine

QUESTION = "memory"
CANDIDATES = ("plain", "dspt", "dspt, 100 classes at once")


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(candidate: str, backbone_name: str, classes: int) -> dict[str, float]:
    """Peak memory before and after a step, MiB."""
    backbone = load_backbone(backbone_name, "none")
    names = common.two_word_names(classes)
    if candidate == "plain":
        step = steps.plain_step(backbone, names, image_tower=False)
    elif candidate == "dspt":
        step = steps.fast_step(backbone, names)
    else:
        assert backbone.text_tower is not None
        layout = build_layout(backbone.tokenizer, names, steps.N_CTX)
        engine = SharedPrefixEngine(
            backbone.text_tower, layout, class_specific=False, classes_at_once=100
        )
        step = steps.step_of(backbone, steps.context_of(backbone), engine, None, classes)
    before = peak()
    step()
    return {"before": before, "after": peak()}


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--plain-classes", type=int, help="of the plain step, if that is too much")
    options.add_argument("--one", help="measure this candidate in this process")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.backbone, arguments.classes)))
        return
    rows, numbers = [], {}
    for candidate in CANDIDATES:
        classes = arguments.classes
        if candidate == "plain" and arguments.plain_classes:
            classes = arguments.plain_classes
        call = [sys.executable, "-m", "benchmarks.memory", "--one", candidate]
        call += ["--backbone", arguments.backbone, "--classes", str(classes)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append([candidate, classes, "did not fit", ""])
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        numbers[candidate] = {"classes": classes, **found}
        rows.append([candidate, classes, found["after"] - found["before"], found["after"]])
    common.print_table(["step", "classes", "MiB for the step", "MiB in all"], rows)
    common.keep(arguments.out, QUESTION, numbers, arguments)


if __name__ == "__main__":
    main()

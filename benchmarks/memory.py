"""How much memory does training with many classes take?

    python -m benchmarks.memory

Each candidate runs one step of batch 32 in a process of its own; what is compared is the peak of
the resident memory, and how far that lies above the process with the model loaded. The plain step
needs more than many machines have: it is measured with fewer classes, and a straight line through
those says what it would need, marked as extrapolated.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks import common, steps
from dspt.backbones import load_backbone
from dspt.prompts import build_layout
from dspt.prompts.shared_prefix import SharedPrefixEngine

QUESTION = "memory"
OURS = ("dspt", "dspt, 100 classes at once")


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    """Resident memory of this process now, MiB; the peak so far where that is not known."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return peak()
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def one(candidate: str, backbone_name: str, classes: int) -> dict[str, float]:
    """Memory before a step and at its peak, MiB."""
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
    before = resident()
    step()
    return {"classes": classes, "before": before, "peak": peak()}


def main() -> None:
    """Measure, print, keep."""
    options = common.parser(__doc__ or "")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument(
        "--plain-classes", type=int, nargs="+", default=[100, 200, 300], help="of the plain step"
    )
    options.add_argument("--one", help="measure this candidate in this process")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.backbone, arguments.classes)))
        return
    wanted = [("plain", classes) for classes in arguments.plain_classes]
    wanted += [(candidate, arguments.classes) for candidate in OURS]
    rows: list[list[object]] = []
    numbers: dict[str, object] = {}
    plain: list[dict[str, float]] = []
    for candidate, classes in wanted:
        call = [sys.executable, "-m", "benchmarks.memory", "--one", candidate]
        call += ["--backbone", arguments.backbone, "--classes", str(classes)]
        call += ["--threads", str(arguments.threads)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            rows.append([candidate, classes, "did not fit", ""])
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        numbers[f"{candidate}, {classes} classes"] = found
        rows.append([candidate, classes, found["peak"] - found["before"], found["peak"]])
        if candidate == "plain":
            plain.append(found)
    if len(plain) > 1 and all(found["classes"] != arguments.classes for found in plain):
        line = np.polyfit([f["classes"] for f in plain], [f["peak"] for f in plain], 1)
        expected = float(np.polyval(line, arguments.classes))
        numbers["plain, extrapolated"] = {"classes": arguments.classes, "peak": expected}
        above = expected - plain[0]["before"]
        rows.insert(len(plain), ["plain, extrapolated", arguments.classes, above, expected])
    common.print_table(["step", "classes", "MiB for the step", "MiB in all"], rows)
    common.keep(arguments.out, QUESTION, numbers, arguments)


if __name__ == "__main__":
    main()

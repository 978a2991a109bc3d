"""Out-of-fold prompts: what several prompts say of pictures whose labels they never saw."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dspt.backbones import Backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.configuration import PromptConfig
from dspt.methods import build_objective
from dspt.progress import Progress
from dspt.prompts import initial_context, text_engine
from dspt.seeding import derived_seed
from dspt.training.checkpoint import load_checkpoint, save_checkpoint, training_identity
from dspt.training.loop import TrainingState, train
from dspt.training.recipe import Recipe
from dspt.training.run import TrainingRun

N_CTX = 16
BATCH_SIZE = 40
EPOCHS = 25
MAX_STEPS = 2000
LEARNING_RATE = 0.02


@dataclass(frozen=True)
class Learner:
    """One way to train a prompt; all learners share the recipe, so that they train side by side."""

    name: str
    method: str
    init: str


LEARNERS = (
    Learner("dspt", "dspt", "random"),
    Learner("gce", "gce", "a photo of a"),
    Learner("nlprompt", "nlprompt", "a photo of a"),
)


def out_of_fold_prompts(
    backbone: Backbone,
    class_names: tuple[str, ...],
    features: Tensor,
    given: Tensor,
    fold: np.ndarray,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> np.ndarray:
    """Train every learner of :data:`LEARNERS` once per fold without it, all in one pass.

    Args:
        backbone: frozen model.
        class_names: C names.
        features: L2-normalised image features, [n, D] fp32.
        given: labels, [n].
        fold: number of each sample's fold, [n].
        seed: of starts and batches.
        progress: where to report to.
        checkpoint: file that keeps the unfinished training after every epoch; a call with the same
            arguments goes on from it. None for no such file.

    Returns:
        Scaled logits of every sample under the prompts that did not see it, float64 [M, n, C] in
        the order of the learners.
    """
    folds = int(fold.max()) + 1
    # Side by side means equally many samples: the folds differ by one, which is left out.
    kept = len(fold) - int(np.bincount(fold).max())
    recipe = Recipe(batch_size=BATCH_SIZE, epochs=_epochs(kept), lr=LEARNING_RATE)
    runs = []
    for learner in LEARNERS:
        prompt = PromptConfig(n_ctx=N_CTX, init=learner.init)
        for number in range(folds):
            rows = torch.from_numpy(np.flatnonzero(fold != number)[:kept]).to(given.device)
            own = derived_seed(seed, f"audit/{learner.name}/{number}")
            runs.append(
                TrainingRun(
                    features=features[rows][:, None],
                    given=given[rows],
                    true=None,
                    test_features=features[:0],
                    test_labels=given[:0],
                    context=initial_context(backbone, prompt, len(class_names), own),
                    objective=build_objective(
                        learner.method, {}, given[rows], len(class_names), own
                    ),
                    seed=own,
                )
            )
    engine = text_engine(
        backbone, class_names, N_CTX, position="end", class_specific=False, runs=len(runs)
    )
    settings = json.dumps([seed, recipe.model_dump(), N_CTX, [asdict(one) for one in LEARNERS]])
    parts: list[str | np.ndarray | Tensor] = [settings, features, given, fold]
    identity = training_identity(backbone, class_names, parts)
    state = None
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity, backbone.device, progress.note)

    def save(state: TrainingState) -> None:
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, identity)

    mend = "audit fewer classes at once, leave the prompts out, or take --device cpu"
    what = f"training {len(runs)} prompts, {len(LEARNERS)} methods without each fold"
    with progress.task(what) as advance, clear_memory_errors("training", mend):
        state = train(
            engine,
            backbone.logit_scale,
            runs,
            recipe,
            state=state,
            on_epoch=save,
            on_step=advance,
        )
        with torch.no_grad():
            classes = torch.stack(engine(state.context).split(folds))
    logits = torch.empty(len(LEARNERS), len(given), len(class_names), dtype=torch.float64)
    for number in range(folds):
        held = torch.from_numpy(np.flatnonzero(fold == number)).to(given.device)
        own_logits = backbone.logit_scale * features[held] @ classes[:, number].transpose(1, 2)
        logits[:, held.cpu()] = own_logits.double().cpu()
    return logits.numpy()


def _epochs(samples: int) -> int:
    """:data:`EPOCHS`, or as many as :data:`MAX_STEPS` steps allow, at least one."""
    steps = max(1, samples // BATCH_SIZE)
    return max(1, min(EPOCHS, math.ceil(MAX_STEPS / steps)))

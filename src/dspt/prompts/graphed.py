"""The text engine as a CUDA graph: one launch for a training step's forward pass, one for its
backward pass, where a single small run would otherwise wait for the host between kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from dspt.backbones.devices import clear_memory_errors


class GraphedEngine:
    """Replays recorded kernels; the values are those of the engine that was recorded.

    Without a gradient, as in evaluation, which happens once an epoch, the engine itself runs.

    Args:
        engine: context on a GPU -> features; must not wait for the host, and must need the same
            kernels for every context of one shape.
    """

    def __init__(self, engine: Callable[[Tensor], Tensor]) -> None:
        self.engine = engine
        self._recorded: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def __call__(self, context: Tensor) -> Tensor:
        """As the engine; the first call with a gradient for a shape records it.

        Raises:
            UserError: when the GPU has too little memory for a recording.
        """
        if not (torch.is_grad_enabled() and context.requires_grad):
            return self.engine(context)
        shape = tuple(context.shape)
        if shape not in self._recorded:
            sample = context.detach().clone().requires_grad_(True)
            with clear_memory_errors("CUDA graph of the text engine", "do without cuda_graph"):
                recorded = torch.cuda.make_graphed_callables(self.engine, (sample,))
            self._recorded[shape] = cast("Callable[[Tensor], Tensor]", recorded)
        # A replay writes into the memory of the last one: what is handed out must outlive it.
        return self._recorded[shape](context).clone()

from __future__ import annotations

import pytest
import torch

from dspt.backbones.devices import choose_device, clear_memory_errors
from dspt.errors import UserError

GPU_MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.44 GiB. GPU 0 has a total capacity of 3.81 GiB of "
    "which 1.13 GiB is free.\nIncluding non-PyTorch memory, this process has 2.2 GiB in use."
)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for device in ("toaster", "cuda:99"):
        with pytest.raises(UserError, match=f"device: '{device}' cannot be used .*; try cpu"):
            choose_device(device)


def test_too_little_gpu_memory_is_one_line_with_a_way_out() -> None:
    with (
        pytest.raises(UserError) as caught,
        clear_memory_errors("training", "take fewer runs at once"),
    ):
        raise torch.cuda.OutOfMemoryError(GPU_MESSAGE)
    assert str(caught.value) == (
        "training: too little GPU memory (2.44 GiB more were needed); take fewer runs at once"
    )


def test_too_little_memory_on_the_cpu_is_said_too() -> None:
    with (
        pytest.raises(UserError, match=r"^training: too little memory .*; take fewer$"),
        clear_memory_errors("training", "take fewer"),
    ):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    for error in (RuntimeError("shape mismatch"), KeyError("x"), UserError("mine")):
        with pytest.raises(type(error)) as caught, clear_memory_errors("x", "y"):
            raise error
        assert caught.value is error
    with clear_memory_errors("x", "y"):
        pass

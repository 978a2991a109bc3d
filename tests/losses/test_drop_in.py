"""``DoubleSoftmaxLoss`` in the place of ``nn.CrossEntropyLoss``."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dspt.losses import DoubleSoftmaxLoss, apply_loss, double_softmax_cross_entropy
from dspt.losses.cross_entropy import cross_entropy
from dspt.losses.double_softmax import double_softmax

SHAPES = [(5,), (7, 5), (1, 5), (0, 5), (3, 5, 4), (2, 5, 3, 2), (2, 5, 1, 2, 2)]
REDUCTIONS = ["mean", "sum", "none"]
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)


def sample(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target_shape = () if len(shape) == 1 else (shape[0], *shape[2:])
    return logits, torch.randint(0, 5, target_shape, generator=generator)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("ignore_index", [-100, 1], ids=["none-ignored", "one-ignored"])
def test_reduction_is_that_of_torch(
    shape: tuple[int, ...], reduction: str, weight: torch.Tensor | None, ignore_index: int
) -> None:
    """With cross-entropy as the per-sample loss, torch itself says what everything must be."""
    logits, target = sample(shape)
    ours, theirs = logits.clone().requires_grad_(True), logits.clone().requires_grad_(True)
    value = apply_loss(
        cross_entropy, ours, target, reduction=reduction, weight=weight, ignore_index=ignore_index
    )
    expected = F.cross_entropy(
        theirs, target, reduction=reduction, weight=weight, ignore_index=ignore_index
    )
    assert value.shape == expected.shape
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-14, equal_nan=True)
    if bool(expected.isnan().any()):  # the mean of nothing
        return
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(2, 9),
    st.sampled_from(REDUCTIONS),
    st.booleans(),
    st.integers(-1, 8),
)
@settings(max_examples=60, deadline=None)
def test_reduction_is_that_of_torch_for_any_size(
    seed: int, n: int, classes: int, reduction: str, weighted: bool, ignore_index: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (n,), generator=generator)
    weight = torch.rand(classes, generator=generator, dtype=torch.float64) if weighted else None
    options = {"reduction": reduction, "weight": weight, "ignore_index": ignore_index}
    torch.testing.assert_close(
        apply_loss(cross_entropy, logits, target, **options),
        F.cross_entropy(logits, target, **options),
        rtol=1e-12,
        atol=1e-14,
        equal_nan=True,
    )


def test_every_ignored_target_may_lie_outside_the_classes() -> None:
    logits, target = sample((6, 5))
    target[2] = 255
    values = double_softmax_cross_entropy(logits, target, "none", ignore_index=255)
    assert values[2].item() == 0
    kept = torch.arange(6) != 2
    torch.testing.assert_close(values[kept], double_softmax(logits[kept], target[kept]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_type_serves_as_target(dtype: torch.dtype) -> None:
    logits, target = sample((6, 5))
    torch.testing.assert_close(
        double_softmax_cross_entropy(logits, target.to(dtype)),
        double_softmax_cross_entropy(logits, target),
    )


def test_module_and_function_are_one() -> None:
    logits, target = sample((6, 5))
    for reduction in REDUCTIONS:
        module = DoubleSoftmaxLoss(WEIGHT, ignore_index=3, reduction=reduction)
        torch.testing.assert_close(
            module(logits, target),
            double_softmax_cross_entropy(logits, target, reduction, 3, WEIGHT),
        )
    torch.testing.assert_close(
        DoubleSoftmaxLoss()(logits, target), double_softmax(logits, target).mean()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    logits, target = sample((6, 5))
    half = logits.to(dtype)
    torch.testing.assert_close(
        DoubleSoftmaxLoss()(half, target), DoubleSoftmaxLoss()(half.float(), target), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("logits", "target", "options", "error", "words"),
    [
        (torch.zeros(2, 5), torch.zeros(2, 5), {}, TypeError, "class indices"),
        (torch.zeros(2, 5), torch.zeros(2), {}, TypeError, "class indices"),
        (torch.zeros(2, 5), torch.zeros(2).bool(), {}, TypeError, "class indices"),
        (torch.zeros(2, 5).long(), torch.zeros(2).long(), {}, TypeError, "floating point"),
        (torch.zeros(2, 5), torch.zeros(3).long(), {}, ValueError, r"expected \[2\]"),
        (torch.zeros(2, 5), torch.tensor(0), {}, ValueError, r"expected \[2\]"),
        (torch.zeros(2, 5, 3), torch.zeros(2).long(), {}, ValueError, r"expected \[2, 3\]"),
        (torch.zeros(5), torch.zeros(1).long(), {}, ValueError, r"expected \[\]"),
        (torch.tensor(1.0), torch.tensor(0), {}, ValueError, "class dimension"),
        (torch.zeros(2, 1), torch.zeros(2).long(), {}, ValueError, "at least two"),
        (torch.zeros(2, 5), torch.tensor([0, 5]), {}, IndexError, "target 5 is outside"),
        (torch.zeros(2, 5), torch.tensor([0, -1]), {}, IndexError, "target -1 is outside"),
        (torch.zeros(2, 5), torch.zeros(2).long(), {"reduction": "avg"}, ValueError, "'avg'"),
        (
            torch.zeros(2, 5),
            torch.zeros(2).long(),
            {"weight": torch.ones(4)},
            ValueError,
            r"shape \[5\]",
        ),
    ],
)
def test_wrong_input_is_refused_in_words(
    logits: torch.Tensor, target: torch.Tensor, options: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        double_softmax_cross_entropy(logits, target, **options)


def test_wrong_reduction_is_refused_when_the_module_is_made() -> None:
    with pytest.raises(ValueError, match="batchmean"):
        DoubleSoftmaxLoss(reduction="batchmean")


def test_module_behaves_as_modules_do() -> None:
    logits, target = sample((6, 5))
    module = DoubleSoftmaxLoss(WEIGHT, ignore_index=2, reduction="sum")
    assert repr(module) == "DoubleSoftmaxLoss(reduction='sum', ignore_index=2)"
    assert list(module.parameters()) == []
    assert list(DoubleSoftmaxLoss().state_dict()) == []
    assert list(module.state_dict()) == ["weight"]  # as nn.CrossEntropyLoss
    expected = module(logits, target)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(logits, target), expected, rtol=0, atol=0)
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    other = DoubleSoftmaxLoss(torch.ones(5).double(), ignore_index=2, reduction="sum")
    other.load_state_dict(torch.load(stored, weights_only=True))
    torch.testing.assert_close(other(logits, target), expected, rtol=0, atol=0)
    assert module.float().weight is not None
    assert module.weight.dtype == torch.float32


def blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three blobs of 2-D points, given labels of which a quarter is moved on, and the truth."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    truth = torch.arange(300) % 3
    points = centres[truth] + torch.randn(300, 2, generator=generator)
    return points, torch.where(torch.arange(300) < 75, (truth + 1) % 3, truth), truth


def accuracy_after_training(criterion: nn.Module) -> float:
    """On the truth, after a plain loop over the given labels."""
    points, given_labels, truth = blobs()
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(100):
        optimiser.zero_grad()
        criterion(model(points), given_labels).backward()
        optimiser.step()
    return float((model(points).argmax(1) == truth).float().mean())


def test_one_line_of_a_plain_loop_is_exchanged() -> None:
    with torch.random.fork_rng(devices=[]):
        assert accuracy_after_training(DoubleSoftmaxLoss()) > 0.97


class Output(dict):
    """What models of Hugging Face return: a dict whose entries are attributes too."""

    @property
    def logits(self) -> torch.Tensor:
        return self["logits"]


class Trainer:
    """The part of Hugging Face's ``Trainer`` that a loss of one's own is put into."""

    def __init__(self, model: nn.Module, batches: list[dict[str, torch.Tensor]]) -> None:
        self.model, self.batches = model, batches
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        **kwargs: object,
    ) -> object:
        raise NotImplementedError

    def train(self) -> None:
        for inputs in self.batches:
            self.optimizer.zero_grad()
            loss = self.compute_loss(self.model, dict(inputs), num_items_in_batch=len(inputs))
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            self.optimizer.step()


def test_it_fits_the_signature_of_a_hugging_face_trainer() -> None:
    """Overriding ``compute_loss`` as that library's documentation tells is all it takes."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(2, 3)

        def forward(self, pixel_values: torch.Tensor) -> Output:
            return Output(logits=self.classifier(pixel_values))

    class NoiseTrainer(Trainer):
        criterion = DoubleSoftmaxLoss()

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # type: ignore
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = self.criterion(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    points, given_labels, truth = blobs()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model()
    inputs = {"pixel_values": points, "labels": given_labels}
    trainer = NoiseTrainer(model, [inputs] * 100)
    trainer.train()
    loss, outputs = trainer.compute_loss(model, dict(inputs), return_outputs=True)
    assert loss.ndim == 0
    assert float((outputs.logits.argmax(1) == truth).float().mean()) > 0.97


def test_the_loss_alone_needs_only_torch() -> None:
    code = """
import sys
import dspt
early = [m for m in ("torch", "numpy", "pydantic", "typer", "open_clip") if m in sys.modules]
assert not early, f"import dspt loads {early}"
import dspt.losses
assert "torch" in sys.modules
heavy = ["open_clip", "torchvision", "timm", "pandas", "PIL", "pydantic", "sklearn", "pyarrow",
         "typer", "rich", "matplotlib", "jinja2", "safetensors", "scipy"]
loaded = [m for m in heavy if m in sys.modules]
assert not loaded, f"import dspt.losses loads {loaded}"
assert dspt.DoubleSoftmaxLoss is dspt.losses.DoubleSoftmaxLoss
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""JoAPR: split by a mixture model of the losses, mend the labels, mix the samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dspt.losses.cross_entropy import cross_entropy, soft_cross_entropy
from dspt.seeding import derived_seed, keyed_order
from dspt.training.objective import Batch, Objective, keyed_order_of

REMEMBERED_EPOCHS = 5


class JoAPR(Objective):
    """Soft cross-entropy on refurbished labels: trust a label as far as its loss looks clean.

    After a warm-up with cross-entropy and an entropy penalty, before every epoch: each sample's
    cross-entropy plus entropy (scaled to [0, 1], mean of the last five epochs) is explained by two
    normal distributions; a sample is clean if its loss is below the point where their densities
    cross, or if its probability w of the lower one exceeds the estimated noise rate. Clean ones are
    trained on
    ``w * given + (1 - w) * prediction``, the others on their prediction, both sharpened; samples
    and labels are mixed (mixup), and a penalty keeps the mean prediction near uniform. Half of
    every batch is clean.

    Source: Guo and Gu, "JoAPR: Cleaning the Lens of Prompt Learning for Vision-Language Models",
    CVPR 2024. Its public code fits the mixture to losses in the order of the data set but
    multiplies w by probabilities in the order of a shuffled loader, and takes the mixture's
    variances for standard deviations; here every weight belongs to its own sample. Image features
    are cached, so they are mixed (and normalised again) where the public code mixes pictures, and
    one view of a sample is taken at a time where it averages two. The paper tunes the options by
    data set and noise rate; the defaults are those of its code for Caltech-101.

    Args:
        given, num_classes, seed: as for :class:`Objective`.
        warmup_epochs: of cross-entropy, at least 1.
        alpha1: weight of the negative entropy while warming up.
        alpha2: weight of the divergence of the mean prediction from uniform afterwards.
        power: sharpening, p ** power.
        beta: the mixing share is drawn from Beta(beta, beta), the larger part kept.

    Raises:
        ValueError: when an option is out of range.
    """

    def __init__(
        self,
        given: Tensor,
        num_classes: int,
        seed: int,
        *,
        warmup_epochs: float = 1,
        alpha1: float = 0.5,
        alpha2: float = 0.5,
        power: float = 2.0,
        beta: float = 0.001,
    ) -> None:
        if warmup_epochs < 1 or warmup_epochs != int(warmup_epochs):
            raise ValueError(f"warmup_epochs must be a whole number from 1, not {warmup_epochs}")
        for name, option in (("alpha1", alpha1), ("alpha2", alpha2)):
            if not 0 <= option < float("inf"):
                raise ValueError(f"{name} must be at least 0, not {option}")
        for name, option in (("power", power), ("beta", beta)):
            if not 0 < option < float("inf"):
                raise ValueError(f"{name} must be above 0, not {option}")
        super().__init__(cross_entropy, given, num_classes, seed)
        self.warmup_epochs = int(warmup_epochs)
        self.alpha1, self.alpha2, self.power, self.beta = alpha1, alpha2, power, beta
        self.warming = True
        self.clean = torch.ones_like(given, dtype=torch.bool)
        self.weight = torch.ones(len(given), device=given.device)
        self.losses = torch.zeros(0, len(given), dtype=torch.float64, device=given.device)
        self.threshold = 0.5

    def begin_epoch(self, epoch: int, logits: Tensor) -> None:
        self.warming = epoch < self.warmup_epochs
        if self.warming:
            return
        log_p = torch.log_softmax(logits.double(), dim=-1)
        given_log_p = log_p.gather(1, self.given[:, None])[:, 0]
        losses = -given_log_p - (log_p.exp() * log_p).sum(-1)  # cross-entropy and entropy
        spread = (losses.max() - losses.min()).clamp(min=torch.finfo(losses.dtype).tiny)
        scaled = (losses - losses.min()) / spread
        self.losses = torch.cat([self.losses, scaled[None]])[-REMEMBERED_EPOCHS:]
        mean = self.losses.mean(0).cpu().numpy()
        clean, posterior, self.threshold = joint_partition(
            mean, self.threshold, derived_seed(self.seed, f"mixture/{epoch}")
        )
        device = self.given.device
        self.clean = torch.from_numpy(clean).to(device)
        weight = torch.from_numpy(posterior).to(device)
        if epoch > self.warmup_epochs:
            weight = weight * given_log_p.exp()
        self.weight = weight.float()

    def order(self, epoch: int) -> np.ndarray:
        """Clean and noisy samples in turn, the smaller part repeated."""
        rows = [part.nonzero()[:, 0] for part in (self.clean, ~self.clean)]
        if self.warming or not len(rows[0]) or not len(rows[1]):
            return super().order(epoch)
        half = (len(self.given) + 1) // 2
        turns = []
        for number, part in enumerate(rows):
            rounds = [
                keyed_order_of(part, self.seed, f"batches/{epoch}/{number}/{again}")
                for again in range(-(-half // len(part)))
            ]
            turns.append(np.concatenate(rounds)[:half])
        return np.stack(turns, axis=1).reshape(-1)[: len(self.given)]

    def values(self, batch: Batch) -> Tensor:
        if self.warming:
            log_p = torch.log_softmax(batch.logits, dim=-1)
            negative_entropy = (log_p.exp() * log_p).sum(-1)
            return self.loss(batch.logits, self.given[batch.rows]) + self.alpha1 * negative_entropy
        targets = self.refurbished(batch.rows, batch.logits.detach())
        if batch.step is None:
            return soft_cross_entropy(batch.logits, targets)
        images, targets = self._mixed(batch, targets)
        logits = batch.logits_of(images)
        return soft_cross_entropy(logits, targets) + self.alpha2 * _divergence_of_mean(logits)

    def refurbished(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Soft targets of the samples ``rows`` whose logits are [B, C]; rows sum to 1, [B, C]."""
        predicted = torch.softmax(logits, dim=-1)
        weight = torch.where(self.clean[rows], self.weight[rows], 0.0).to(logits.dtype)[:, None]
        onehot = torch.nn.functional.one_hot(self.given[rows], self.num_classes)
        mended = weight * onehot + (1 - weight) * predicted
        sharp = mended**self.power
        return sharp / sharp.sum(-1, keepdim=True)

    def _mixed(self, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup of a batch with itself in another order, of features and targets."""
        purpose = f"mixup/{batch.step}"
        share = float(
            np.random.default_rng(derived_seed(self.seed, purpose)).beta(self.beta, self.beta)
        )
        share = max(share, 1 - share)
        other = torch.from_numpy(keyed_order(self.seed, purpose, range(len(batch.rows))))
        other = other.to(targets.device)
        images = share * batch.images + (1 - share) * batch.images[other]
        images = torch.nn.functional.normalize(images, dim=-1)
        return images, share * targets + (1 - share) * targets[other]

    def state(self) -> dict[str, Tensor]:
        return {
            "losses": self.losses,
            "threshold": torch.tensor([self.threshold], dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.losses = state["losses"].to(self.given.device)
        self.threshold = float(state["threshold"])


def joint_partition(
    losses: np.ndarray, threshold: float, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Tell clean from noisy samples by two normal distributions of their losses.

    Args:
        losses: of all samples, in [0, 1], [N].
        threshold: on the posterior, from the epoch before.
        seed: starts the mixture.

    Returns:
        Which samples are clean [N], the posterior probability of the lower distribution [N], and
        the next threshold: the share of samples at or below ``threshold``.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if len(losses) < 2 or np.ptp(losses) == 0:  # nothing to tell apart
        return np.ones(len(losses), dtype=bool), np.ones(len(losses)), 0.0
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed % 2**32)
    column = losses.reshape(-1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are the method's own
        mixture.fit(column)
    low = int(mixture.means_[:, 0].argmin())
    posterior = mixture.predict_proba(column)[:, low]
    noise_rate = float(np.mean(posterior <= threshold))
    means = mixture.means_[:, 0]
    deviations = np.sqrt(mixture.covariances_[:, 0, 0])
    crossing = density_crossing(means[low], deviations[low], means[1 - low], deviations[1 - low])
    return (losses < crossing) | (posterior > noise_rate), posterior, noise_rate


def density_crossing(low: float, low_std: float, high: float, high_std: float) -> float:
    """Where two normal densities are equal, between their means (midway if nowhere there)."""
    a = high_std**2 - low_std**2
    b = 2 * (high * low_std**2 - low * high_std**2)
    c = (
        (low * high_std) ** 2
        - (high * low_std) ** 2
        + 2 * (low_std * high_std) ** 2 * math.log(low_std / high_std)
    )
    if abs(a) < 1e-12:
        return (low + high) / 2
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    between = [x for x in ((-b + root) / (2 * a), (-b - root) / (2 * a)) if low <= x <= high]
    return between[0] if between else (low + high) / 2


def _divergence_of_mean(logits: Tensor) -> Tensor:
    """KL(uniform || mean prediction of the batch), a scalar; stable for any logits."""
    n, classes = logits.shape
    mean_log = torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0) - math.log(n)
    return -math.log(classes) - mean_log.mean()

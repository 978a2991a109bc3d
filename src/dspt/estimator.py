"""Prompt tuning as a scikit-learn classifier."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from dspt.backbones import Backbone, load_backbone
from dspt.backbones.devices import clear_memory_errors
from dspt.classifier import BackboneReference
from dspt.configuration import FitConfig, PromptConfig, build_config
from dspt.data.given import GivenPictures, given_pictures
from dspt.data.paths import is_clean
from dspt.errors import UserError
from dspt.export import class_embeddings
from dspt.features import extract_features
from dspt.methods import HEADS, LabelledFeatures, build_objective, check_method, trains_prompt
from dspt.model import LinearModel, PromptModel
from dspt.progress import Progress, Silent
from dspt.prompts import initial_context, text_engine
from dspt.training.loop import TrainingState, train
from dspt.training.run import TrainingRun

if TYPE_CHECKING:
    from dspt.result import EpochMetrics


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A CLIP-like model with a trained prompt, as a scikit-learn classifier.

    ``X`` is a list (or array, or pandas Series) of picture paths, Pillow images or uint8 arrays
    [height, width, 3], one uint8 array [n, height, width, 3], or precomputed image features [n, D]
    of the backbone (D = ``backbone.embed_dim``; they are normalised here). ``y`` holds class names,
    or integers with ``class_names``. Labels may be wrong: that is what ``method="dspt"`` is for.

    Every class gets a prompt, so the words matter. Integer labels without ``class_names`` are
    allowed with a warning: their prompts then say "0", "1", ..., and the text tower's knowledge is
    of no use.

    An interruption (KeyboardInterrupt) while training leaves the prompt of the last finished epoch,
    as scikit-learn's own iterative estimators do; ``interrupted_`` says so.

    Args:
        backbone: a name for :func:`dspt.load_backbone`, or a loaded model. A loaded one is shared
            by clones, so cross-validation loads it once; with a name, pickles stay small.
        pretrained: weights for a model name; None with a loaded model.
        method: a name of :func:`dspt.methods.method_names`; the bounds (``"zero-shot"``,
            ``"linear-probe"``) work too.
        method_options: the method's own settings.
        n_ctx: number of context vectors; None for 16, or as many as ``init`` has tokens.
        init: ``"random"``, or words whose embeddings are the start.
        class_specific: whether every class has context vectors of its own.
        epochs: passes over the training pictures.
        batch_size: pictures per step.
        lr: learning rate at its highest; schedule and momentum are :class:`dspt.Recipe`'s.
        class_names: for integer labels the names of 0, 1, ...; or a dict from label to name.
        template: zero-shot prompt with ``{}``, for ``method="zero-shot"``.
        warm_start_from: a run's folder or a saved prompt whose context vectors are the start, in
            place of ``n_ctx``, ``init`` and ``class_specific``.
        random_state: an integer gives the same model every time; None or a RandomState draws one.
        verbose: 0 for silence, more for progress bars on standard error.
        device: for a backbone given by name.
        cache: folder of image features; None for the user's cache folder.

    Attributes:
        classes_: the labels in ``y``, sorted, [C]; columns of ``predict_proba``.
        class_names_: their names as the prompts say them.
        model_: the :class:`dspt.PromptModel` (a linear head for a bound); ``model_.save(path)``.
        n_features_in_: D; only after a fit on features.
        n_iter_: finished epochs.
        interrupted_: whether training was cut short.
        history_: one :class:`dspt.result.EpochMetrics` per finished epoch, the start included.
    """

    def __init__(
        self,
        *,
        backbone: str | Backbone = "default",
        pretrained: str | None = None,
        method: str = "dspt",
        method_options: Mapping[str, float | str] | None = None,
        n_ctx: int | None = None,
        init: str = "random",
        class_specific: bool = False,
        epochs: int = 50,
        batch_size: int = 32,
        lr: float = 0.002,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
        template: str = "a photo of a {}.",
        warm_start_from: str | Path | None = None,
        random_state: int | np.random.RandomState | None = 1,
        verbose: int = 0,
        device: str = "auto",
        cache: Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.method = method
        self.method_options = method_options
        self.n_ctx = n_ctx
        self.init = init
        self.class_specific = class_specific
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.class_names = class_names
        self.template = template
        self.warm_start_from = warm_start_from
        self.random_state = random_state
        self.verbose = verbose
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any) -> PromptClassifier:
        """Train on pictures or features and labels that may be wrong.

        Args:
            X: n pictures or features; see the class.
            y: n labels.

        Returns:
            The estimator itself.

        Raises:
            UserError: (a ValueError) for a parameter, a picture or a label that cannot be used.
        """
        config = self._configuration()
        pictures = given_pictures(X)
        if pictures is None:
            X, y = validate_data(self, X, y, dtype=np.float64)
        else:
            y = column_or_1d(y, warn=True)
            check_consistent_length(pictures, y)
            self.__dict__.pop("n_features_in_", None)
        check_classification_targets(y)
        classes, given = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise UserError(f"y: holds one class ({classes.tolist()[0]!r}); give at least two")
        names = _prompt_names(classes.tolist(), self.class_names)
        progress = self._progress()
        backbone = self._backbone_for(X.shape[1] if pictures is None else None)
        if pictures is None:
            features = _normalised(X)
        else:
            features = self._features_of(pictures, backbone, progress)
        data = LabelledFeatures(
            features=features.float().to(backbone.device),
            given=torch.from_numpy(given.astype(np.int64)).to(backbone.device),
            class_names=names,
            template=self.template,
            backbone=backbone,
            seed=config.seed,
        )
        self.classes_, self.class_names_ = classes, names
        self.model_, self.n_iter_, self.history_ = self._trained(config, data, progress)
        self.interrupted_ = trains_prompt(config.method) and self.n_iter_ < config.recipe.epochs
        if self.interrupted_:
            warnings.warn(
                f"interrupted after epoch {self.n_iter_} of {config.recipe.epochs}; the prompt of "
                "that epoch is kept",
                stacklevel=2,
            )
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes for pictures or features.

        Args:
            X: n pictures or features, whichever ``fit`` was given.

        Returns:
            Float64 [n, C]; columns in the order of ``classes_``.

        Raises:
            UserError: (a ValueError) when a picture cannot be read or features have another width.
        """
        check_is_fitted(self)
        pictures = given_pictures(X)
        if pictures is None:
            X = validate_data(self, X, dtype=np.float64, reset=False)
            _check_width(X.shape[1], self.model_.backbone)
            features = _normalised(X)
        else:
            features = self._features_of(pictures, self.model_.backbone, self._progress())
        # In double precision a row's value does not depend on which rows are beside it.
        logits = class_embeddings(self.model_).logits(features)
        return logits.softmax(dim=-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each picture or feature, [n]; see :meth:`predict_proba`."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _configuration(self) -> FitConfig:
        """The parameters, checked.

        Raises:
            UserError: naming the one that is wrong.
        """
        loaded = isinstance(self.backbone, Backbone)
        if loaded and self.pretrained is not None:
            raise UserError("pretrained: a loaded backbone brings its own weights; leave it out")
        config = build_config(
            data="X",
            backbone=self.backbone.name if isinstance(self.backbone, Backbone) else self.backbone,
            pretrained=self.pretrained,
            method=self.method,
            method_options={k: _plain(v) for k, v in (self.method_options or {}).items()},
            seed=_seed(self.random_state),
            prompt={
                "n_ctx": _plain(self.n_ctx),
                "init": self.init,
                "class_specific": _plain(self.class_specific),
            },
            recipe={
                "epochs": _plain(self.epochs),
                "batch_size": _plain(self.batch_size),
                "lr": _plain(self.lr),
            },
            template=self.template,
        )
        check_method(config.method, config.method_options)
        return config

    def _progress(self) -> Progress:
        if not self.verbose:
            return Silent()
        from dspt.cli.console import BarProgress

        return BarProgress()

    def _backbone_for(self, width: int | None) -> Backbone:
        """The backbone, loaded; ``width`` is that of the given features, None for pictures.

        Raises:
            UserError: when it does not load or its features have another width.
        """
        backbone = self.backbone
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, self.pretrained, device=self.device)
        if width is not None:
            _check_width(width, backbone)
        return backbone

    def _features_of(
        self, pictures: GivenPictures, backbone: Backbone, progress: Progress
    ) -> Tensor:
        """L2-normalised features [n, D], float64 on the CPU.

        Raises:
            UserError: naming the first picture that cannot be read.
        """
        with progress.task("image features") as advance:
            found = extract_features(
                backbone,
                pictures,
                range(len(pictures)),
                cache=None if self.cache is None else Path(self.cache),
                on_progress=advance,
                on_note=progress.note,
            )
        if found.unreadable:
            raise UserError(found.unreadable[0])
        return found.values[:, 0].cpu().double()

    def _trained(
        self, config: FitConfig, data: LabelledFeatures, progress: Progress
    ) -> tuple[PromptModel | LinearModel, int, list[EpochMetrics]]:
        """What was trained, in how many epochs, and their records."""
        names = tuple(data.class_names)
        if not trains_prompt(config.method):
            head = HEADS[config.method](**config.method_options)(data)
            return LinearModel(data.backbone, names, head.weight, head.bias), 0, []
        if self.warm_start_from is None:
            prompt = config.prompt
            start = initial_context(data.backbone, prompt, len(names), config.seed)
        else:
            known = PromptModel.load(self.warm_start_from, backbone=data.backbone)
            prompt, start = known.prompt, known.context
            if prompt.class_specific and known.class_names != names:
                raise UserError(
                    f"warm_start_from: {self.warm_start_from} holds a context for every class of "
                    "its own; with other classes take one that they share"
                )
        state = _train(config, prompt, start, data, progress)
        prompt = prompt.model_copy(update={"n_ctx": start.shape[-2]})
        model = PromptModel(data.backbone, names, prompt, state.context[0])
        return model, state.epoch, state.metrics[0]

    def __sklearn_clone__(self) -> PromptClassifier:
        # A loaded backbone is frozen and therefore shared; a copy would hold all weights again.
        parameters: dict[str, Any] = {
            name: value if isinstance(value, Backbone) else copy.deepcopy(value)
            for name, value in self.get_params(deep=False).items()
        }
        return type(self)(**parameters)

    def __getstate__(self) -> dict[str, Any]:
        """Without the weights of a backbone that is known by name; they are loaded again."""
        state = dict(super().__getstate__())
        if "model_" in state:
            reference: Any = BackboneReference.of(self.model_.backbone)
            state["model_"] = replace(_moved(self.model_, "cpu"), backbone=reference)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            reference: Any = self.model_.backbone
            backbone = reference.find(
                Path(type(self).__name__), self._backbone_for(state.get("n_features_in_")), "auto"
            )
            self.model_ = _moved(replace(self.model_, backbone=backbone), backbone.device)


def _train(
    config: FitConfig,
    prompt: PromptConfig,
    start: Tensor,
    data: LabelledFeatures,
    progress: Progress,
) -> TrainingState:
    """Train one prompt; an interruption ends it at the last finished epoch.

    Raises:
        KeyboardInterrupt: when not even the start was measured.
    """
    classes, features = len(data.class_names), data.features
    run = TrainingRun(
        features=features[:, None],
        given=data.given,
        true=None,
        test_features=features[:0],
        test_labels=data.given[:0],
        context=start,
        objective=build_objective(
            config.method, config.method_options, data.given, classes, config.seed
        ),
        seed=config.seed,
    )
    engine = text_engine(
        data.backbone,
        data.class_names,
        start.shape[-2],
        position=prompt.position,
        class_specific=prompt.class_specific,
    )
    last: TrainingState | None = None

    def keep(state: TrainingState) -> None:
        nonlocal last
        last = state

    mend = "fit on fewer classes or take device='cpu'"
    try:
        with progress.task("training") as advance, clear_memory_errors("training", mend):
            return train(
                engine,
                data.backbone.logit_scale,
                [run],
                config.recipe,
                on_epoch=keep,
                on_step=advance,
            )
    except KeyboardInterrupt:
        if last is None:
            raise
        return last


def _prompt_names(
    labels: Sequence[Any], given: Sequence[str] | Mapping[Any, str] | None
) -> tuple[str, ...]:
    """What the prompts call the classes.

    Args:
        labels: the C labels as they stand in ``y``.
        given: the parameter ``class_names``.

    Raises:
        UserError: when a label has no name, or a name cannot stand in a prompt or stands for two.
    """
    text = all(isinstance(label, str) for label in labels)
    if given is None:
        if not text:
            warnings.warn(
                "y holds numbers and class_names is not given, so the prompts say "
                f'"{_number(labels[0])}", "{_number(labels[1])}", ...: give class_names, or the '
                "text tower's knowledge is of no use",
                stacklevel=3,
            )
        names = [label.replace("_", " ") if text else _number(label) for label in labels]
    elif isinstance(given, Mapping):
        unnamed = [label for label in labels if label not in given]
        if unnamed:
            raise UserError(f"class_names: has no name for label {unnamed[0]!r}; add it")
        names = [given[label] for label in labels]
    else:
        if isinstance(given, str) or not all(isinstance(label, int) for label in labels):
            raise UserError(
                "class_names: a list names the labels 0, 1, ...; for other labels give a dict "
                "from label to name, or leave it out where they are names themselves"
            )
        outside = [label for label in labels if not 0 <= label < len(given)]
        if outside:
            raise UserError(
                f"class_names: label {outside[0]} in y has no name among the {len(given)} given"
            )
        names = [given[label] for label in labels]
    for name in names:
        if not isinstance(name, str) or not name.strip() or not is_clean(name):
            raise UserError(f"class_names: {name!a} cannot name a class; write words")
        if names.count(name) > 1:
            raise UserError(f"class_names: two classes are called {name!r}; rename or merge them")
    return tuple(names)


def _number(label: Any) -> str:
    """A label that is no text, as a prompt says it."""
    return f"{label:g}" if isinstance(label, float) else str(label)


def _normalised(X: np.ndarray) -> Tensor:
    """Rows of length 1, float64."""
    return F.normalize(torch.from_numpy(np.array(X, dtype=np.float64)), dim=-1)


def _check_width(width: int, backbone: Backbone) -> None:
    if width != backbone.embed_dim:
        raise UserError(
            f"X: {width} numbers a row are no image features of {backbone.name}, which have "
            f"{backbone.embed_dim}; give pictures, or features of this backbone"
        )


def _seed(random_state: Any) -> int:
    """scikit-learn's ``random_state`` as a seed; an integer is the seed itself."""
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        raise UserError(
            f"random_state: must be an integer, a RandomState or None, not {random_state!r}"
        ) from None


def _plain(value: Any) -> Any:
    """A Python number for numpy's, as parameter searches give them."""
    return value.item() if isinstance(value, np.generic) else value


def _moved(model: PromptModel | LinearModel, device: Any) -> Any:
    """The model with its own tensors elsewhere."""
    held = {field.name: getattr(model, field.name) for field in fields(model)}
    moved: Any = {name: v.to(device) for name, v in held.items() if isinstance(v, Tensor)}
    return replace(model, **moved)

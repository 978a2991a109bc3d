"""The human labels of CIFAR-10N and CIFAR-100N, from their official files.

Source: Wei et al. 2022, https://github.com/UCSC-REAL/cifar-10-100n: data/CIFAR-10_human.pt and
data/CIFAR-100_human.pt, dictionaries of NumPy arrays that `torch.save` wrote, in the order of
torchvision's (the "python version") training pictures. The `.npy` files beside them are pickled
dictionaries in TensorFlow's order: they cannot be read without unpickling, and are not.
"""

from __future__ import annotations

import _codecs
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dspt.errors import UserError

TRUE = "clean_label"


def read_human_labels(
    path: Path, columns: Sequence[str], clean: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Read label columns, and check with the clean labels that the order is the pictures' own.

    The file is read by torch's restricted loader, which builds plain arrays and runs no code.

    Args:
        path: the official `.pt` file.
        columns: names of the label sets wanted.
        clean: true labels of the pictures, int64 [N].
        num_classes: C.

    Returns:
        int64 [N] for every column.

    Raises:
        UserError: no such file, another kind of file, a missing or impossible label set, or labels
            in another order than the pictures.
    """
    content = _load(path)
    absent = [name for name in (TRUE, *columns) if name not in content]
    if absent:
        raise UserError(f"{path}: no {', '.join(absent)} in it; download the official file")
    labels = {name: _labels(path, name, content[name], len(clean), num_classes) for name in columns}
    own = _labels(path, TRUE, content[TRUE], len(clean), num_classes)
    wrong = int((own != clean).sum())
    if wrong:
        raise UserError(
            f"{path}: {wrong} of {len(clean)} clean labels differ from the pictures' labels; the "
            "file is in another order or for other pictures, download the official .pt file"
        )
    return labels


def _labels(path: Path, name: str, values: object, n: int, num_classes: int) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.shape != (n,) or values.dtype.kind not in "iu":
        raise UserError(f"{path}: {name} must be {n} integers; download the official file")
    labels = values.astype(np.int64)
    if n and not (labels.min() >= 0 and labels.max() < num_classes):
        raise UserError(f"{path}: {name} holds labels outside 0 to {num_classes - 1}")
    return labels


def _load(path: Path) -> dict[str, object]:
    import torch

    if not path.is_file():
        raise UserError(f"no such file: {path}; download it from the official repository")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(f"{path}: reading it safely needs torch 2.6 or newer; update torch")
    try:
        with torch.serialization.safe_globals(_array_globals()):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise UserError(  # torch's own message would advise to load it without the restriction
            f"{path}: is no torch file that holds label arrays and nothing else; use the official "
            ".pt file (not the .npy in TensorFlow's order)"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a dictionary of label arrays; use the official file")
    return content


def _array_globals() -> list[Any]:
    """All that an integer array needs to be built; nothing else in a file is executed."""
    reconstruct = np.zeros(0).__reduce__()[0]  # its module moved in NumPy 2
    dtypes = {type(np.dtype(kind)) for kind in ("int64", "int32", "int16", "int8", "uint8")}
    return [
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # the name that old NumPy wrote
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        _codecs.encode,  # array bytes are kept as latin-1 text in old pickles
        *dtypes,
    ]

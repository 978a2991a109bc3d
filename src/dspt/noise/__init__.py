"""Label noise: which labels are made wrong, and into what.

One noise model is a small specification (:class:`NoiseSpec`, text and JSON) and one pure function
(:func:`apply_noise`) of it, a seed, the labels and, where needed, image features. What happens to a
sample hangs on its id, not on its place: the order of the samples never matters.

The protocols, one file each: :mod:`~dspt.noise.flips`, :mod:`~dspt.noise.replace`,
:mod:`~dspt.noise.instance`, :mod:`~dspt.noise.matrix`, :mod:`~dspt.noise.column`. ``docs/noise.md``
says in words what each does, where it comes from and how the peers' code differs.
"""

from dspt.noise.apply import apply_noise
from dspt.noise.matrix import resolve
from dspt.noise.spec import GRAMMAR, RATED, NoiseSpec
from dspt.noise.transition import transition_counts

__all__ = ["GRAMMAR", "RATED", "NoiseSpec", "apply_noise", "resolve", "transition_counts"]

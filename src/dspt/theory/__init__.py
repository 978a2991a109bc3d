"""What the losses do, in closed form: values, gradients, and bounds with their proofs' constants.

``closed_forms`` combines the formulas that stand beside each loss in :mod:`dspt.losses`; ``bounds``
holds the constants of the theorems in ``docs/theory.md``; ``pictures`` and ``page`` draw them.
Importing this package costs nothing: torch, matplotlib and jinja2 are imported when needed.
"""

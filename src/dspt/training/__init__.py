"""Training of prompts: recipe, loop over one or many runs, checkpoints."""

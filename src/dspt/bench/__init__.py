"""The bench: grids of runs, computed side by side into one folder that can be resumed."""

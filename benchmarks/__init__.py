"""Speed and memory, one question a script: ``python -m benchmarks.step_time`` and so on.

Every script prints a table and writes its numbers as JSON into docs/results/speed/. What is
compared is compared in one process, in turns, and quoted as ratios of medians: machines drift.
"""

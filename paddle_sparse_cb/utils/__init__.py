"""What every room may use: validation, files, downloads, ranks, exact floating-point comparisons.

May import `errors` only.
A helper goes here if two rooms need it and it knows nothing of pruning or training.
"""

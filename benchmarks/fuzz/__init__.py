"""Damaged and hostile inputs for everything that reads files or arguments from strangers.

``python -m benchmarks.fuzz`` runs all targets and prints a table; ``tests/fuzz`` runs a few hundred
seeded inputs of each.
"""

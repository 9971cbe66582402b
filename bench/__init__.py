"""Measures what the README promises: `make bench`, or bench-train, bench-data, bench-estimate.

Each bench runs all sides of a comparison in one run on this machine, prints one table and writes
outputs/bench/<bench>.json. Nothing in train/, serve/ or scripts/ imports this room.
"""

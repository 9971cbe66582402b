"""The verbs of the Makefile, one per file: `python -m scripts.VERB --help`."""

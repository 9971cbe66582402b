"""The sides of bench-train: each module trains the same model on the same rows, in its own process.

    python -m bench.rivals.SIDE TASK FOLDER     TASK as JSON; leaves an adapter in FOLDER/adapter

Every side prints {"seconds"}: the time of the training loop as transformers' Trainer, which all of
them are built on, reports it, without imports, loading and preparing.
"""

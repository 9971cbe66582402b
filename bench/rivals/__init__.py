"""What the benches compare with: trainers for bench-train, servers for bench-serve.

Each trainer trains the same model on the same rows, in its own process:

    python -m bench.rivals.SIDE TASK FOLDER     TASK as JSON; leaves an adapter in FOLDER/adapter

Every side prints {"seconds"}: the time of the training loop as transformers' Trainer, which all of
them are built on, reports it, without imports, loading and preparing.

Each server's module has `prepare`, which sees to it that it is there or says why it cannot be, and
`command`, which starts it.
"""

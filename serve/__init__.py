"""Answers requests from a fine-tuned model, under the Azure ML inference server.

    python -m serve        # the server, on 127.0.0.1:5001; --help lists every setting

A request goes score.py → service.py → request.py → prompt.py → admission.py → engine/ →
harmony.py. Only engine/ knows torch. Nothing here knows whether it runs on a laptop or on Azure:
paths and limits come from the environment (settings.py). It does not train, merge or convert
models.
"""

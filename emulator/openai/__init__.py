"""Azure OpenAI: resources, their files, fine-tuning jobs that really train, and deployments.

    accounts.py     the three resources, and what the control plane tells of them
    plane.py        what all requests to https://RESOURCE.openai.azure.com share
    files.py        files, uploads by parts, imports
    rows.py         what a file of rows has to be
    jobs.py         fine-tuning jobs; training.py runs them, results.py tells of them
    deployments.py  the control plane's deployments, each with a server of its own
    inference.py    what a deployment answers

The models that are fine-tuned and deployed here are the tiny one of a rehearsal, whatever their
names say. Not here: base models' own answers, content filters, quota by tokens, pausing a job,
preference and reinforcement tuning.
"""

from emulator.azure import Azure
from emulator.http import Route
from emulator.openai import accounts, deployments, files, inference, jobs


def routes(azure: Azure) -> list[Route]:
    """All routes; the resources are there from the start."""
    accounts.found(azure)
    return [
        route
        for module in (accounts, deployments, files, jobs, inference)
        for route in module.routes(azure)
    ]


def close(azure: Azure) -> None:
    """End what trains and serves; for the end of the emulator."""
    jobs.close(azure)
    deployments.close(azure)

"""A local Azure whose deployments are small servers, with a registered model to deploy.

    with stage(folder) as azure:
        azure.register("1")
        assert azure.run("cloud_deploy", "--yes").code == 0

The verbs run in this process by their main(), over the unpatched SDK.
"""

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from emulator import serving
from emulator.faults import Faults
from emulator.server import Server
from scripts.azure import endpoints, images, scoring
from scripts.azure.client import Cloud, connect
from scripts.azure.endpoints import Endpoint
from scripts.errors import VerbError
from tests.local_azure import bare_azure, environment
from tests.scripts.azure.containers import Kitchen

ENDPOINT = "tiny-ja-666ff6"
"""Of the default recipe in the local Azure's workspace."""


@dataclass(frozen=True)
class Ran:
    """What a verb left: its exit code, and what it wrote."""

    code: int
    out: str
    told: str
    """On stderr, with the error's sentence."""


@dataclass(frozen=True)
class Stage:
    server: Server
    kitchen: Kitchen
    cloud: Cloud

    @property
    def faults(self) -> Faults:
        return self.server.azure.faults

    def register(self, version: str) -> None:
        """Register a model of the default recipe's name."""
        from azure.ai.ml.entities import Model

        azure = self.server.azure
        azure.storage.create_container(azure.settings.blob_container)
        place = f"models/{version}/merged"
        azure.storage.write(azure.settings.blob_container, f"{place}/config.json", b"{}")
        self.cloud.ml.models.create_or_update(
            Model(
                name="tiny-ja",
                version=version,
                type="custom_model",
                path=f"azureml://datastores/workspaceblobstore/paths/{place}",
                tags={"homeport-bytes": "5000000", "homeport-job": f"tiny-ja-job{version}"},
            )
        )

    def endpoint(self) -> Endpoint | None:
        return endpoints.find(self.cloud, ENDPOINT)

    def run(self, verb: str, *arguments: str) -> Ran:
        """`python -m scripts.VERB ARGUMENTS`; a bug keeps its traceback."""
        module = importlib.import_module(f"scripts.{verb}")
        out, told, code = io.StringIO(), io.StringIO(), 0
        with (
            patch.object(sys, "argv", [verb, *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(told),
        ):
            try:
                module.main()
            except VerbError as error:
                code = error.exit_code
                print(f"error: {error}", file=sys.stderr)
        return Ran(code, out.getvalue(), told.getvalue())

    def clear(self) -> None:
        """Delete the endpoint, and set the containers right again."""
        self.faults.clear()
        self.kitchen.reset()
        azure = self.server.azure
        arm_id = f"{azure.settings.workspace_id}/onlineEndpoints/{ENDPOINT}"
        serving.fleet(azure).close(arm_id, 0)  # at once; the service's operation takes a second
        for deployment in azure.store.children(f"{arm_id}/deployments"):
            azure.store.delete(deployment["id"])
        azure.store.delete(arm_id)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    kitchen = Kitchen()
    with (
        bare_azure(folder / "azure", nodes=kitchen, hurry=0.0) as server,
        environment(server),
        patch.object(images, "MEMORY", folder / "memory"),
        patch.object(endpoints, "POLL_SECONDS", 0.1),
        patch.object(scoring, "CONNECT_SECONDS", 5.0),
    ):
        yield Stage(server, kitchen, connect())

"""A project's whole way through Azure ML, by the azure-ai-ml that is installed where this runs.

    python tests/emulator/sdk_session.py FOLDER PREFIX        writes FOLDER/facts.json

It is run with the variables of a rehearsal (test_sdk_session.py), once per SDK version, and writes
nothing but FOLDER. Nothing in it knows that this Azure is a local one, and it imports nothing of
ours. It reports what it got, flow by flow; the test judges. A flow that raises is reported with its
traceback, and those that do not need it go on.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from azure.ai.ml import Input, MLClient, Output, PyTorchDistribution, command
from azure.ai.ml._version import VERSION
from azure.ai.ml.entities import (
    AmlCompute,
    BuildContext,
    Data,
    Environment,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
    ProbeSettings,
)
from azure.identity import EnvironmentCredential

INSTANCE = "Standard_DS3_v2"
REGISTRY = "homeportrehearsal.azurecr.io"
DIGEST = "sha256:" + "0" * 64

TRAIN = """\
import hashlib, json, os, sys
from pathlib import Path

data, folder, out, log = (Path(argument) for argument in sys.argv[1:5])
rank = os.environ["RANK"]
print(f"rank {rank} of {os.environ['WORLD_SIZE']} learns from {data.name}", flush=True)
if rank == "0":
    assert {path.name for path in folder.iterdir()} == {"Dockerfile"}, list(folder.iterdir())
    (log / "seen.json").write_text(json.dumps([sys.argv[5], os.environ["GREETING"]]))
    (out / "part").mkdir()
    (out / "part" / "weights.bin").write_bytes(hashlib.sha256(data.read_bytes()).digest() * 1000)
    print("the job is done", flush=True)
"""

SCORE = """\
import hashlib, json, os
from pathlib import Path

def init():
    global weights
    (path,) = Path(os.environ["AZUREML_MODEL_DIR"]).rglob("weights.bin")
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    print("serving", weights, flush=True)

def run(text):
    return {"weights": weights, "asked": json.loads(text), "greeting": os.environ["GREETING"]}
"""


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of each file below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def text(status: Any) -> str:
    """1.34 has strings where 1.35 has an enumeration."""
    return str(getattr(status, "value", status))


class Session:
    """The flows a to g of a project, in their order."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.ml = MLClient(
            EnvironmentCredential(),
            os.environ["AZURE_SUBSCRIPTION_ID"],
            os.environ["AZURE_RESOURCE_GROUP"],
            os.environ["AZURE_WORKSPACE"],
            enable_telemetry=False,
            show_progress=False,
        )
        self.files()

    def files(self) -> None:
        for name, text in {
            "train.jsonl": '{"messages": []}\n' * 10,
            "source/train.py": TRAIN,
            "context/Dockerfile": "FROM scratch\n",
            "score/score.py": SCORE,
            "request.json": '{"prompt": "hello"}',
        }.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def workspace(self) -> Any:
        found = self.ml.workspaces.get(os.environ["AZURE_WORKSPACE"])
        default = self.ml.datastores.get_default()
        return {
            "location": found.location,
            "identity": found.identity.type,
            "datastore": default.name,
            "datastores": sorted(store.name for store in self.ml.datastores.list()),
        }

    def data(self) -> Any:
        """a: upload with a version, without one, and find the latest."""
        name, path = f"{self.prefix}-train", str(self.folder / "train.jsonl")
        first = self.ml.data.create_or_update(
            Data(name=name, version="1", type="uri_file", path=path)
        )
        second = self.ml.data.create_or_update(Data(name=name, type="uri_file", path=path))
        return {
            "path": first.path,
            "versions": [first.version, second.version],
            "latest": self.ml.data.get(name, label="latest").version,
            "sha256": digests(self.folder)["train.jsonl"],
        }

    def environments(self) -> Any:
        """b: from an image, and from a build context."""
        images = {
            role: self.ml.environments.create_or_update(
                Environment(
                    name=f"{self.prefix}-{role}",
                    version="1",
                    image=f"{REGISTRY}/homeport/{role}@{DIGEST}",
                    inference_config=None
                    if role == "train"
                    else {
                        "liveness_route": {"path": "/", "port": 5001},
                        "readiness_route": {"path": "/", "port": 5001},
                        "scoring_route": {"path": "/score", "port": 5001},
                    },
                )
            ).image
            for role in ("train", "serve")
        }
        built = self.ml.environments.create_or_update(
            Environment(
                name=f"{self.prefix}-built",
                version="1",
                build=BuildContext(path=str(self.folder / "context")),
            )
        )
        return {"images": images, "context": built.build.path}

    def _job(self, name: str, line: str, **more: Any) -> Any:
        return command(
            name=f"{self.prefix}-{name}",
            command=line,
            environment=f"azureml:{self.prefix}-train:1",
            instance_type=INSTANCE,
            experiment_name="sdk-session",
            **more,
        )

    def train(self) -> Any:
        """c and d: a job on two processes, its log, its outputs."""
        job = self._job(
            "job",
            "python train.py ${{inputs.train}} ${{inputs.folder}} ${{outputs.model}}"
            " ${{outputs.log}} ${{inputs.rate}}",
            code=str(self.folder / "source"),
            inputs={
                "train": Input(
                    type="uri_file", path=f"azureml:{self.prefix}-train:1", mode="download"
                ),
                "folder": Input(type="uri_folder", path=str(self.folder / "context")),
                "rate": 1e-4,
            },
            outputs={
                "model": Output(type="uri_folder", mode="upload"),
                "log": Output(type="uri_folder", mode="rw_mount"),
            },
            environment_variables={"GREETING": "hei"},
            distribution=PyTorchDistribution(process_count_per_instance=2),
            instance_count=1,
            shm_size="2g",
            tags={"homeport": "1"},
        )
        made = self.ml.jobs.create_or_update(job)
        again = self.ml.jobs.create_or_update(job)
        with contextlib.redirect_stdout(io.StringIO()) as log:
            self.ml.jobs.stream(made.name)
        found = self.ml.jobs.get(made.name)
        for output in ("model", "log"):
            self.ml.jobs.download(
                made.name, output_name=output, download_path=str(self.folder / f"got-{output}")
            )
        (seen,) = (self.folder / "got-log").rglob("seen.json")
        # What the job's program must have made of these bytes.
        weights = hashlib.sha256((self.folder / "train.jsonl").read_bytes()).digest() * 1000
        return {
            "statuses": [text(made.status), text(found.status)],
            "same": again.name == made.name,
            "studio": made.studio_url,
            "outputs": sorted(made.outputs),
            "log": log.getvalue(),
            "listed": made.name in {job.name for job in self.ml.jobs.list()},
            "seen": json.loads(seen.read_text()),
            "files": digests(self.folder / "got-model"),
            "trained": hashlib.sha256(weights).hexdigest(),
        }

    def cancelled(self) -> Any:
        """d: cancel a running job."""
        made = self.ml.jobs.create_or_update(self._job("long", "echo begun; sleep 300"))
        self._until(made.name, {"Running"})
        self.ml.jobs.begin_cancel(made.name).result()
        return {"status": self._until(made.name, {"Canceled", "Completed", "Failed"})}

    def failed(self) -> Any:
        """d: a job that fails, and what the client is told; then out of sight."""
        made = self.ml.jobs.create_or_update(self._job("bad", "echo going; exit 3"))
        said = ""
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                self.ml.jobs.stream(made.name)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        self.ml.jobs.archive(made.name)
        return {
            "status": text(self.ml.jobs.get(made.name).status),
            "said": said,
            "listed": made.name in {job.name for job in self.ml.jobs.list()},
        }

    def _until(self, name: str, statuses: set[str]) -> str:
        end = time.monotonic() + 60
        while (status := text(self.ml.jobs.get(name).status)) not in statuses:
            if time.monotonic() > end:
                raise TimeoutError(f"{name} is {status}")
            time.sleep(0.3)
        return status

    def model(self) -> Any:
        """e: a model of the job's output, and its bytes."""
        name = f"{self.prefix}-model"
        model = Model(
            name=name,
            version="1",
            type="custom_model",
            path=f"azureml://jobs/{self.prefix}-job/outputs/model/paths/part",
            tags={"homeport": "1"},
        )
        made = self.ml.models.create_or_update(model)
        local = self.ml.models.create_or_update(
            Model(name=name, type="custom_model", path=str(self.folder / "source"))
        )
        self.ml.models.download(name, "1", download_path=str(self.folder / "got-registered"))
        return {
            "job": made.job_name,
            "path": made.path,
            "versions": [made.version, local.version],
            "latest": self.ml.models.get(name, label="latest").version,
            "listed": [found.version for found in self.ml.models.list(name)],
            "files": digests(self.folder / "got-registered"),
        }

    def endpoint(self) -> Any:
        """f: endpoint, deployment, traffic, keys, requests, logs, and away with it."""
        name = f"{self.prefix}-endpoint"
        made = self.ml.online_endpoints.begin_create_or_update(
            ManagedOnlineEndpoint(name=name, auth_mode="key", tags={"homeport": "1"})
        ).result()
        probe = ProbeSettings(
            initial_delay=1, period=1, timeout=2, failure_threshold=60, success_threshold=1
        )
        deployed = self.ml.online_deployments.begin_create_or_update(
            ManagedOnlineDeployment(
                name="blue",
                endpoint_name=name,
                model=f"azureml:{self.prefix}-model:1",
                environment=f"azureml:{self.prefix}-serve:1",
                instance_type=INSTANCE,
                instance_count=1,
                environment_variables={
                    "GREETING": "hei",
                    "AZUREML_ENTRY_SCRIPT": str(self.folder / "score" / "score.py"),
                },
                request_settings=OnlineRequestSettings(
                    request_timeout_ms=90000, max_concurrent_requests_per_instance=4
                ),
                liveness_probe=probe,
                readiness_probe=probe,
            )
        ).result()
        made.traffic = {"blue": 100}
        routed = self.ml.online_endpoints.begin_create_or_update(made).result()
        question = str(self.folder / "request.json")
        facts = {
            "uri": made.scoring_uri,
            "states": [made.provisioning_state, deployed.provisioning_state],
            "traffic": routed.traffic,
            "keys": len({*vars(self.ml.online_endpoints.get_keys(name)).values()}),
            "answers": [
                json.loads(self.ml.online_endpoints.invoke(name, request_file=question, **pin))
                for pin in ({}, {"deployment_name": "blue"})
            ],
            "logs": {
                container: self.ml.online_deployments.get_logs(
                    "blue", name, lines=200, container_type=container
                )
                for container in ("inference-server", "storage-initializer")
            },
            "deployments": [found.name for found in self.ml.online_deployments.list(name)],
            "endpoints": [found.name for found in self.ml.online_endpoints.list()],
        }
        routed.traffic = {"blue": 0}
        self.ml.online_endpoints.begin_create_or_update(routed).result()
        self.ml.online_deployments.begin_delete("blue", name).result()
        self.ml.online_endpoints.begin_delete(name).result()
        return {**facts, "left": [found.name for found in self.ml.online_endpoints.list()]}

    def compute(self) -> Any:
        """g: a cluster that costs nothing while idle."""
        name = f"{self.prefix}-cpu"
        made = self.ml.compute.begin_create_or_update(
            AmlCompute(
                name=name,
                size=INSTANCE,
                min_instances=0,
                max_instances=1,
                tier="low_priority",
                idle_time_before_scale_down=120,
            )
        ).result()
        found = self.ml.compute.get(name)
        listed = name in {compute.name for compute in self.ml.compute.list()}
        self.ml.compute.begin_delete(name).result()
        return {
            "state": made.provisioning_state,
            "shape": [found.size, found.min_instances, found.max_instances, found.tier],
            "idle": found.idle_time_before_scale_down,
            "listed": listed,
            "left": name in {compute.name for compute in self.ml.compute.list()},
        }


def main() -> None:
    session = Session(Path(sys.argv[1]), sys.argv[2])
    names = {kind: f"{sys.argv[2]}-{kind}" for kind in ("job", "endpoint")}
    facts: dict[str, Any] = {"version": VERSION, "names": names, "seconds": {}}
    for flow in (
        session.workspace,
        session.data,
        session.environments,
        session.train,
        session.cancelled,
        session.failed,
        session.model,
        session.endpoint,
        session.compute,
    ):
        begun = time.monotonic()
        try:
            facts[flow.__name__] = flow()
        except Exception:
            facts[flow.__name__] = {"raised": traceback.format_exc()}
        facts["seconds"][flow.__name__] = round(time.monotonic() - begun, 1)
    (session.folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()

"""Runs jobs: one thread each. Of command jobs it has the data here, runs the processes and tells
of it; pipelines.py and finetuning.py do so for theirs.

    runner = Runner(azure)
    runner.submit(job_id)        the job's resource is in the store, with all its outputs' URIs
    runner.cancel(job_id)        SIGTERM to its processes, later SIGKILL
    runner.wait(job_id)          until it has ended

What the job is up to stands in its resource (status) and in its run record (`run_id`), which run
history shows. A node that is taken away (fault `preempt`) takes its processes and folders with it,
without a warning; the job begins again on another, with what its mounted outputs had in storage.
All processes of a job share one set of folders, also where they stand for several nodes.
"""

import shlex
import shutil
from collections.abc import Callable, Mapping

from emulator import parents
from emulator.azure import Azure
from emulator.commands import fill
from emulator.execution import Ended, Execution, Live, Preempted
from emulator.finetuning import FineTuning
from emulator.nodes import Mount, Program
from emulator.outputs import (
    DataError,
    Given,
    Output,
    fetch_code,
    fetch_input,
    job_mount,
    outputs_of,
)
from emulator.pipelines import Pipeline
from emulator.tracking import environment
from emulator.work import Work

CACHE = "/tmp/homeport"  # noqa: S108 - a container's
"""Where azure/job.yml has the job make its base model, which takes minutes; on this Azure it stays
for the next job, as a hub would have it for each."""


class Runner:
    """The jobs of one Azure."""

    def __init__(self, azure: Azure) -> None:
        self._azure = azure
        self._jobs: dict[str, Work] = {}

    def submit(self, job_id: str) -> None:
        """Begin the job in the background."""
        resource = self._azure.store.get(job_id)
        if resource is None:
            raise KeyError(job_id)
        kind = str(resource["properties"]["jobType"]).lower()
        makers: dict[str, Callable[[Azure, str], Work]]
        makers = {"command": Job, "pipeline": Pipeline, "finetuning": FineTuning}
        job = makers[kind](self._azure, job_id)
        self._jobs[job_id.lower()] = job
        job.thread.start()

    def cancel(self, job_id: str) -> None:
        """Ask for the job's end; nothing where it has ended."""
        job = self._jobs.get(job_id.lower())
        if job and job.thread.is_alive():
            job.cancel()

    def wait(self, job_id: str, seconds: float | None = None) -> bool:
        """Whether it has ended within the time."""
        job = self._jobs.get(job_id.lower())
        if job:
            job.thread.join(seconds)
        return job is None or not job.thread.is_alive()


class Job(Work):
    """One command job."""

    def __init__(self, azure: Azure, job_id: str) -> None:
        super().__init__(azure, job_id)
        self._id, self._name = job_id, self._record.name
        self._note = self._record.note
        self._live = Live(
            azure=azure,
            job_id=job_id,
            properties=self._properties,
            note=self._note,
            canceled=self._record.canceled,
        )

    def _work(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            self._note("Queued")
            try:
                self._on_a_node(attempt)
                return
            except Preempted:
                shutil.rmtree(self._folder)

    def _on_a_node(self, attempt: int) -> None:
        self._record.look_for_cancel()
        self._note("Preparing")
        image = self._image()
        parents.pull(self._azure, self._id, image)
        try:
            given, mounts, code = self._data()
        except DataError as error:
            raise Ended("Failed", "DataAccessError", str(error)) from error
        outputs = self._outputs(given, mounts)
        self._azure.settings.cache.mkdir(parents=True, exist_ok=True)
        mounts.append(Mount(self._azure.settings.cache, CACHE))
        values = {name: self._as_seen(value) for name, value in given.items()}
        self._record.look_for_cancel()
        program = Program(
            name=f"homeport-job-{self._name}-{attempt}",
            image=image,
            command=fill(str(self._properties["command"]), values),
            environment={**self._variables(), **_data_variables(values)},
            mounts=mounts,
            shm_size=str((self._properties.get("resources") or {}).get("shmSize") or "2g"),
            folder=self._azure.nodes.where(code) if code else None,
        )
        Execution(self._live, program, outputs).run()
        for own in ("outputs", "logs"):  # the service keeps these two of every working directory
            if code and (code.folder / own).is_dir():
                container = self._azure.settings.artifact_container
                prefix = f"{self._live.artifacts}/{own}"
                self._azure.storage.upload(code.folder / own, container, prefix)

    def _image(self) -> str:
        environment = self._azure.store.get(str(self._properties["environmentId"]))
        if environment is None:
            raise Ended("Failed", "UserError", "The environment of the job was deleted.")
        image = environment["properties"].get("image")
        if not image:
            sentence = "The environment has no image, and images are not built here."
            raise Ended("Failed", "ImageBuildFailure", sentence)
        return str(image)

    def _data(self) -> tuple[dict[str, Given], list[Mount], Mount | None]:
        """Inputs by `inputs.x`, what is to be mounted, and the working directory if it is ours."""
        given: dict[str, Given] = {}
        mounts: list[Mount] = []
        for name, spec in self._properties["inputs"].items():
            fetched = fetch_input(
                self._azure, self._name, name, spec, self._folder / "inputs" / name
            )
            given[f"inputs.{name}"] = fetched
            if fetched.mount:
                mounts.append(fetched.mount)
        code, folder = None, self._folder / "code"
        if self._properties.get("codeId"):
            code = fetch_code(self._azure, self._name, str(self._properties["codeId"]), folder)
        elif self._azure.nodes.mode == "host":  # a container begins in its image's own
            folder.mkdir(parents=True)
            code = job_mount(self._name, folder, "exe/wd")
        if code:
            mounts.append(code)
        return given, mounts, code

    def _outputs(self, given: dict[str, Given], mounts: list[Mount]) -> list[Output]:
        """Have the outputs' folders here, and add them to what the command gets."""
        for name, spec in self._properties["outputs"].items():
            given[f"outputs.{name}"] = Given(None, str(spec["uri"]))
        outputs = outputs_of(self._azure, self._properties, self._folder / "outputs")
        for output in outputs:
            output.prepare()
            mount = job_mount(self._name, output.folder, f"cap/data-capability/wd/{output.name}")
            given[f"outputs.{output.name}"] = Given(mount, "")
            mounts.append(mount)
        return outputs

    def _as_seen(self, given: Given) -> str:
        """The value as the command line has it. A path of Azure's nodes never needs the quotes."""
        if given.mount is None:
            return given.value
        path = self._azure.nodes.where(given.mount)
        return shlex.quote(f"{path}/{given.value}" if given.value else path)

    def _variables(self) -> dict[str, str]:
        """What every job of the service finds in its environment, and what the job asks for."""
        settings = self._azure.settings
        experiment = str(self._properties["experimentName"])
        return {
            **self._azure.node_environment,
            **environment(self._azure, self._name, experiment),
            "AZUREML_RUN_ID": self._name,
            "AZUREML_ROOT_RUN_ID": self._name,
            "AZUREML_EXPERIMENT_NAME": experiment,
            "AZUREML_ARM_PROJECT_NAME": experiment,
            "AZUREML_ARM_SUBSCRIPTION": settings.subscription,
            "AZUREML_ARM_RESOURCEGROUP": settings.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": settings.workspace,
            "AZUREML_WORKSPACE_ID": settings.guid,
            "AZUREML_WORKSPACE_SCOPE": settings.workspace_id,
            "AZUREML_SERVICE_ENDPOINT": settings.api,
            **self._properties["environmentVariables"],
        }


def _data_variables(values: Mapping[str, str]) -> dict[str, str]:
    """AZURE_ML_INPUT_x and AZURE_ML_OUTPUT_x."""
    return {
        f"AZURE_ML_{name.replace('inputs.', 'INPUT_', 1).replace('outputs.', 'OUTPUT_', 1)}": value
        for name, value in values.items()
    }

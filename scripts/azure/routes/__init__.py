"""The ways to fine-tune on Azure and to serve what comes of it, behind one protocol.

    route = routes.of(recipe)              # by cloud.route
    planned = route.plan(recipe, path, cloud)
    trained = route.train(work)

The verbs know only what stands here; one module each knows its own service:

    command_job         our image on an Azure ML machine, served by our score.py
    registry_pipeline   the registry's chat_completion_pipeline, served as an MLflow model
    finetuning_job      a fine-tuning job of the model catalog, served as an MLflow model
    azure_openai        Azure OpenAI's fine-tuning and deployments
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scripts.console import say
from scripts.errors import UsageError
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

REHEARSAL_COST = "nothing"
OPENAI_JOB = "ftjob-"
"""How the name of a job of Azure OpenAI begins."""
KINDS = {
    "Command": "command_job",
    "Pipeline": "registry_pipeline",
    "FineTuning": "finetuning_job",
}
"""The route of a job of Azure ML, by its jobType."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one call of a verb works on."""

    cloud: "Cloud"
    recipe: Recipe
    path: Path
    """Of the recipe."""
    yes: bool = False
    """The user has agreed to the cost."""
    again: str = ""
    """The command that comes back to this."""
    chosen: str = ""
    """` RECIPE=…` with ` SET=…`, as the next commands need it; empty for the default recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is told before anything bills."""

    line: str
    """`costs at most $27.92 (1 x 4 h x $6.98)`."""
    warnings: tuple[str, ...] = ()
    """What may come in the way all the same, such as too little quota; one line each."""
    unknown: str = ""
    """Which price is not known and how to give it, as one sentence; then nothing is started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a recipe would do, and what that can cost."""

    rows: tuple[tuple[str, str], ...]
    """For people: what, and its value with the reason; an empty `what` goes on with the last."""
    values: Mapping[str, Any]
    """For programs (--json); dollars and hours."""
    train: Cost
    deploy: Cost
    label: str = ""
    """`rehearsed, not Azure` there, where nothing costs anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What became of one call of cloud-train."""

    job: str
    status: str
    model: str = ""
    """What cloud-deploy takes as MODEL=; empty where the job was not followed to its end."""
    hours: float | None = None
    cost_at_most: float | None = None
    """US dollars."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What else is told with --json."""

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"job": self.job, "status": self.status}
        if self.model:
            hours = None if self.hours is None else round(self.hours, 4)
            told |= {"hours": hours, "cost_at_most": self.cost_at_most, "model": self.model}
        return {**told, **self.values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a deployed model has answered."""

    output: str
    reasoning: str = ""
    by: str = ""
    """Endpoint and deployment."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The whole answer as it came."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Route(Protocol):
    """What every route can do; each function of it is one verb's work.

    Where a verb makes no sense on a route, its function raises UsageError with the reason and the
    command to take instead. All of them may raise CloudError.
    """

    TITLE: str
    """For the plan: `own command job`."""

    def plan(self, recipe: Recipe, path: Path, cloud: "Cloud | None") -> Planned:
        """What would be done; without `cloud` nobody is asked."""

    def train(self, work: Work, *, detach: bool = False) -> Trained:
        """Find or submit the job, follow it, register its model; with `detach` only the first."""

    def logs(
        self, cloud: "Cloud", recipe: Recipe, job: str, *, every: bool = False
    ) -> Mapping[str, Any]:
        """Follow the job (the newest of the recipe where `job` is empty): its log on stdout.

        With `every` nothing is followed and nothing printed; `logs` of the answer holds all texts.
        The answer is `{"job", "status", "error"}` and, with `every`, `"logs": {name: text}`.
        """

    def cancel(self, cloud: "Cloud", recipe: Recipe, job: str) -> Mapping[str, Any]:
        """Cancel it and wait: `{"job", "status", …}`."""

    def download(self, cloud: "Cloud", recipe: Recipe, job: str, outputs: Path) -> tuple[str, Path]:
        """What the job has left, below `outputs`/<recipe>; the job's name and the folder."""

    def deploy(self, work: Work, *, model: str = "", finish: bool = False) -> Mapping[str, Any]:
        """Serve the model (MODEL=, else the newest); `finish` deletes what serves nothing.

        The answer has `endpoint`, `uri`, `deployment` and `model` besides what the route tells.
        """

    def rollback(self, work: Work) -> Mapping[str, Any]:
        """Move the traffic back to the deployment before."""

    def key(self, cloud: "Cloud", recipe: Recipe) -> str:
        """The key for a request made by hand."""

    def curl(self, cloud: "Cloud", recipe: Recipe, prompt: str) -> str:
        """The command line that asks it; it holds no key, bash asks `make -s cloud-key` for it."""

    def ask(self, cloud: "Cloud", recipe: Recipe, prompt: str) -> Answer:
        """The deployed model's answer."""


def of(recipe: Recipe) -> Route:
    """The route that the recipe names."""
    return _module(recipe.cloud.route)


def of_job(cloud: "Cloud", recipe: Recipe, job: str) -> Route:
    """The route of the job of that name, whatever the recipe's; the recipe's where `job` is empty.

    UsageError for a job of Azure OpenAI where the recipe is not one for it: only the recipe says
    which resource it is in.
    """
    from scripts.azure import jobs

    if not job:
        return of(recipe)
    if job.startswith(OPENAI_JOB):
        if recipe.cloud.route != "azure_openai":
            raise UsageError(
                f"{job} is a job of Azure OpenAI: add RECIPE=… of its recipe, which says in which "
                "resource it is."
            )
        return of(recipe)
    return _module(KINDS.get(jobs.find(cloud, job).kind, "command_job"))


def _module(name: str) -> Route:
    module: Any = importlib.import_module(f"scripts.azure.routes.{name}")
    return module  # type: ignore[no-any-return] # tests/scripts/azure/routes holds it to the protocol


def text(planned: Planned) -> str:
    """The plan for people."""
    from scripts.azure.texts import columns

    return "\n".join(columns(planned.rows))


def agree(planned: Planned, what: str, yes: bool) -> None:
    """Let the user agree to the cost of `what`: `train` or `deploy`.

    A rehearsal costs nothing, so nobody is asked. UsageError where a price is not known, the answer
    is no, or nobody is there to answer.
    """
    from scripts.azure import consent

    if planned.label:
        say(f"cost:   {REHEARSAL_COST} ({planned.label})")
        return
    cost = planned.train if what == "train" else planned.deploy
    if cost.unknown:
        raise UsageError(cost.unknown)
    for line in cost.warnings:
        say(line)
    say(f"cost:   {cost.line}")
    consent.ask("Go on?", yes)

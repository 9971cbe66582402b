"""What a recipe would do on Azure OpenAI, and what that can cost.

    planned(recipe, path, cloud, account, tokens)

Training is paid by the tokens of the training file, each epoch again; a deployment by the hour.
`tokens` is None where nobody has counted them yet. It asks nobody.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.azure.openai import jobs, prices
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.tokens import Tokens
from scripts.azure.routes import Cost, Planned
from scripts.azure.texts import money
from scripts.settings import relative
from train.recipe import Recipe

if TYPE_CHECKING:
    from scripts.azure.client import Cloud

DEVELOPER_HOURS = 24
"""After which Azure deletes a deployment of the developer tier."""
MOST_HOURS = 720
"""After which Azure ends a job."""


def planned(
    recipe: Recipe,
    path: Path,
    cloud: "Cloud | None",
    account: Account | None,
    tokens: Tokens | None,
    data: str = "",
) -> Planned:
    """The plan; `data` says which rows, where they are known."""
    settings = recipe.cloud.openai
    found = jobs.hyperparameters(recipe.training.epochs, recipe.cloud.parameters)
    price = prices.training(recipe.cloud.model, settings.training_type)
    hourly = prices.hosting(settings.sku)
    ceiling = None
    if tokens is not None and price.price is not None:
        ceiling = tokens.total * found["n_epochs"] * price.price / 1e6
    train = _training_cost(recipe, price.price, tokens, found["n_epochs"], ceiling)
    deploy = _serving_cost(recipe, hourly.price)
    where = f"{account.name} in {account.location}" if account else "not asked (offline)"
    count = f"{tokens.total:,} tokens an epoch ({tokens.how})" if tokens else "not counted yet"
    parameters = ", ".join(f"{name} {value:g}" for name, value in found.items())
    lines = [
        ("recipe", f"{recipe.name} ({relative(path.resolve())})"),
        ("route", "Azure OpenAI (cloud.route is azure_openai)"),
        ("resource", where),
        ("trains", f"{recipe.cloud.model}, {settings.training_type}"),
        ("", f"{parameters}, seed {recipe.training.seed}"),
        ("rows", data or recipe.data.train),
        ("", count),
        ("", train.line),
        ("serves", f"{settings.sku}, {settings.capacity},000 tokens a minute"),
        ("", f"the checkpoint: {settings.checkpoint}"),
        ("", deploy.line),
    ]
    if settings.deploy_to:
        tenant = f" of tenant {settings.deploy_tenant}" if settings.deploy_tenant else ""
        lines.append(("", f"in {settings.deploy_to}{tenant}"))
    lines += [("note", note) for note in _notes(recipe, price, hourly)]
    return Planned(
        rows=tuple(lines),
        values={
            "recipe": recipe.name,
            "route": "azure_openai",
            "resource": account.id if account else "",
            "model": recipe.cloud.model,
            "training_type": settings.training_type,
            "hyperparameters": found,
            "seed": recipe.training.seed,
            "tokens": tokens.total if tokens else None,
            "tokens_counted": bool(tokens and tokens.exact),
            "train_cost": None if ceiling is None else round(ceiling, 4),
            "sku": settings.sku,
            "capacity": settings.capacity,
            "per_hour": hourly.price,
            "label": cloud.label() if cloud else "",
        },
        train=train,
        deploy=deploy,
        label=cloud.label() if cloud else "",
    )


def _training_cost(
    recipe: Recipe, price: float | None, tokens: Tokens | None, epochs: float, ceiling: float | None
) -> Cost:
    model, kind = recipe.cloud.model, recipe.cloud.openai.training_type
    if price is None:
        key = f"{{{model}: {{{kind}: …}}}}"
        sentence = prices.unknown(f"training {model} ({kind})", "training_per_million", key)
        return Cost(line="costs at most: not known (see the note)", unknown=sentence)
    if tokens is None or ceiling is None:
        sentence = "how many tokens the rows have is known when they are made: make cloud-train."
        return Cost(line=f"costs {money(price)} a million tokens", unknown=sentence)
    about = "" if tokens.exact else "about "
    each = f"{tokens.total:,} tokens x {epochs:g} epochs x {money(price)} a million"
    return Cost(line=f"costs at most {about}{money(ceiling)} ({each})")


def _serving_cost(recipe: Recipe, price: float | None) -> Cost:
    sku, hours = recipe.cloud.openai.sku, recipe.cloud.expires_hours
    if price is None:
        sentence = prices.unknown(f"hosting ({sku})", "hosting_per_hour", f"{sku}: …")
        return Cost(line="costs per hour: not known (see the note)", unknown=sentence)
    if price == 0:
        return Cost(line=f"costs its tokens alone; Azure deletes it after {DEVELOPER_HOURS} h")
    return Cost(
        line=f"costs {money(price)} per hour and its tokens until `make cloud-down`; "
        f"{money(price * hours)} in the {hours:g} h to its expiry tag"
    )


def _notes(recipe: Recipe, price: prices.Price, hourly: prices.Price) -> list[str]:
    found = []
    for what, each in (("training", price), ("hosting", hourly)):
        if each.price is not None and not each.checked:
            found.append(f"the price of {what} is not checked: {each.source}")
    found.append(f"prices looked up {prices.as_of()}; yours go into CLOUD_PRICES")
    if recipe.cloud.openai.training_type != "Standard":
        found.append(
            "the rows may be processed in any region of Azure (cloud.openai.training_type)"
        )
    found.append("the weights stay with Azure OpenAI: cloud-download brings metrics and curves")
    found.append(
        "waiting, failed jobs and the check of the rows cost nothing; Azure ends after 720 h"
    )
    return found

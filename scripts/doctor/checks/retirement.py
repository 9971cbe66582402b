"""Whether the service still fine-tunes and serves the recipe's model."""

from collections.abc import Iterator

from scripts.doctor import Finding
from scripts.doctor.here import Here


def check(here: Here) -> Iterator[Finding]:
    if here.recipe.cloud.route == "command_job":
        yield Finding(
            check="retirement", severity="ok", sentence="an own job depends on no catalog"
        )
        return
    if here.recipe.cloud.route == "azure_openai":
        yield Finding(
            check="retirement", severity="skipped", sentence="Azure OpenAI's page tells its dates"
        )
        return
    from scripts.azure import foundation

    model = foundation.known(here.recipe)
    if model and model.retired:
        yield Finding(
            check="retirement",
            severity="warning",
            sentence=f"{model.name}: fine-tuning retired on {model.retired}",
            remedy="make advise names the routes that are open",
        )
    else:
        name = here.recipe.cloud.model
        yield Finding(check="retirement", severity="ok", sentence=f"none is known of {name}")

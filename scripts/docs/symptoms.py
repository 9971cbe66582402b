"""What the user sees, and which sentences belong to it: one table, by which docs/errors.md is made.

A symptom is a heading of docs/troubleshooting.md. The rules are matched in order against a
sentence's `described` ("file class code: words"), and the first that fits decides.
"""

import re

from scripts.docs.sentences import Sentence

PYTHON = "Python or a package cannot be installed"
DOCKER = "Docker does not answer"
IMAGE = "An image cannot be built, or does not run"
PORT = "The port is in use"
DISK = "No space is left"
MEMORY = "Out of memory"
GPU = "The GPU is not used"
FILES = "Files cannot be read or written"
SETTING = "A setting is refused"
RECIPE = "The recipe is refused"
MODEL = "The model is not found, or is no model"
FOLDER = "The model folder is not whole"
ROWS = "Rows are refused"
DATA = "The data cannot be found or read"
STOPPED = "Training stopped before its end"
CHECK = "The loss is nan, or the result fails its check"
START = "The server does not start"
SILENT = "No server answers"
REQUEST = "The server refuses my request (4xx)"
KEY = "The server asks for a key (401)"
FULL = "The server answers 429 or 503"
TRACK = "The pages of runs do not open"
LOGIN = "Azure does not know me (401)"
ROLE = "Azure forbids it (403)"
WORKSPACE = "The workspace, or what I name in it, is not there (404)"
QUOTA = "The quota does not suffice, or no machine is free"
PUSH = "The image does not reach Azure"
JOB = "The job failed, or left no model"
ROUTE = "The route does not take this model or setting"
OPENAI = "Azure OpenAI refuses"
ENDPOINT = "The deployment does not become ready"
ANSWER = "The endpoint answers 408, 424 or 429"
COST = "A price or a yes is missing"
FOREIGN = "It was not made by Homeport"
AZURE = "Azure fails, or cannot be reached"
REHEARSAL = "The rehearsal fails"
TRIALS = "A trial misses its target, or packages cannot be moved"

RULES = (
    (COST, r"YES=1|not confirmed|prices\.py|limits\.timeout|cloud\.max_hours is"),
    (FOREIGN, r"not made by Homeport|did not make"),
    (TRACK, r"^scripts/track\.py"),
    (REHEARSAL, r"^scripts/rehears\w+\.py|cloud_smoke\.py"),
    (TRIALS, r"^scripts/(audit|sbom|upgrade|supply)|^trials/"),
    (KEY, r"serve/auth\.py|HTTP 401|(takes|asks for) a key|KEY_FILE|no key has been made|KEY must"),
    (PORT, r"port … is in use|port is taken"),
    (LOGIN, r"logged in|az login|sign-in has ended|login gives no token|login that is set"),
    (QUOTA, r"quota|no such machine free|does not offer this machine|has no … \(cloud|cluster … |"
     r"spot machine"),
    (OPENAI, r"takes no keys, only Entra"),
    (ROLE, r"(?<!….)\brole\b|roles above|may not do|lacks a role|firewall|may not (read|pull)|"
     r"no keys|forbids|not enabled this service|subscription is disabled|pull_role"),
    (ANSWER, r"\((408|424|429)\)|\(Azure says 424|scoring\.py|request_timeout_ms|timeouts\.py"),
    (OPENAI, r"/openai/|azure_openai|Azure OpenAI"),
    (PUSH, r"azure/(images?|image_build|saved_image|registry)\.py|container registry|PUSH|"
     r"the registry does not hold|could not pull|tried to build|by digest|requirements \(95|"
     r"lacks the inference server"),
    (IMAGE, r"checks/(images|buildx)\.py|docker\.py.*(could not be built|holds a login)|"
     r"images/Dockerfile"),
    (DOCKER, r"Docker engine|docker engine|checks/(engine|compose)|RUNTIME=docker, but"),
    (DISK, r"disk( of …)? is full|free some|images need|GB free|free space|checks/disk|"
     r"cannot hold the"),
    (MEMORY, r"memory|does not fit into …|fit into … \(|keys and values|KV cache|"
     r"checks/memory|room for … tokens"),
    (GPU, r"NVIDIA|\bGPUs?\b|checks/(gpu|remote_gpu)|SERVE_DEVICE|driver"),
    (PYTHON, r"Python …|scripts/environments|-m venv|pip could not|package peft|checks/python"),
    (FILES, r"^scripts/set(up|tings)\.py|checks/(ownership|line_endings)|could not look|"
     r"git checkout|written to:|^scripts/(?!azure).*permission"),
    (STOPPED, r"Interrupted|training did not finish|training ended, but|told to stop|signal after|"
     r"reached cloud\.max_hours|train/publish"),
    (CHECK, r"VerificationError|the loss is|trl's gpt-oss template|failed its own check"),
    (SILENT, r"no server|no answer within|^scripts/ask\.py.*HTTP|local_logs\.py|does not end"),
    (FULL, r"HTTP (429|503)|at once are more"),
    (FOLDER, r"serve/(weights|model)\.py|not a whole model|half a model|does not load|no adapter_"
     r"config|an adapter alone|is not usable|^scripts/models\.py"),
    (REQUEST, r"^serve/.* HTTP"),
    (SETTING, r"^scripts/(local_\w+|ask|runtime|new_recipe|cloud_plan)\.py UsageError|"
     r"serve/settings|SERVE_ENGINE|AML_APP_ROOT|AZUREML_ENTRY|given\.py|no override"),
    (START, r"^serve/|the server did not start|score\.py could not|server ended while|GET / in time"
     r"|debugger could not"),
    (DATA, r"train/data/(sources|splits|blocks|arrays)\.py InputError|azure/(rows|assets)\.py"),
    (ROWS, r"^train/(data|export|preview)"),
    (MODEL, r"model\.(base|adapter)|train/(download|hub_token|adapter)|hub wants a token|"
     r"cloud_stage|was not downloaded|causal language model|hub_token_secret"),
    (RECIPE, r"^train/|cannot be trained yet"),
    (ROUTE, r"azure/(foundation|parameters|pipeline_job|forms|finetuning|registries)\.py|"
     r"routes/finetuning_job.*UsageError|cloud\.route|does not fine-tune|fine-tuning retired"),
    (ENDPOINT, r"azure/(rollout|deploying|endpoints)\.py|smoke"),
    (WORKSPACE, r"azure/client\.py|is not there|not in this subscription|not in the workspace|"
     r"does not see this|checks/machines|there is no job|has no job"),
    (AZURE, r"azure/(retry|blobs)\.py|\(SAS\)|checks/login"),
    (JOB, r"azure/(attempts|jobs|models|download|specs|names|vault|routes|causes)|cloud_down"),
)  # fmt: skip


def of(sentence: Sentence) -> str | None:
    """The symptom that it belongs to; None where no rule fits."""
    return next((name for name, rule in RULES if re.search(rule, sentence.described)), None)


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

"""The three tables of docs/reference.md: make targets, environment variables, exit codes."""

import ast
import itertools
import re
from collections.abc import Iterator

from scripts.docs import ROOT, called, modules, parsed, table

CODES = {
    "0": "done",
    "1": "a bug; the traceback says where",
    "2": "something you wrote or named is wrong: recipe, rows, flag",
    "3": "this machine cannot do it as it is: engine, port, disk, memory, network, a server that "
    "does not start",
    "4": "a result was made and failed its own check (it is not published), or a measure missed "
    "its target",
    "5": "training was stopped by SIGTERM or Ctrl-C; the same command goes on where it was",
    "6": "Azure refused or failed; the sentence says what, and what is left there",
    "130": "another verb was interrupted",
}
MAKE = {
    "ALL": "cloud-logs: all files of the log; cloud-down: also what Homeport did not make",
    "COUNT": "how many wrong requests",
    "SEED": "of their chance, to see the same ones again",
    "BIND": "address at which the server listens; beyond 127.0.0.1 it asks for a key",
    "CLIENTS": "how many clients ask at once",
    "COMPUTE": "cloud-down: the cluster to delete",
    "ENDPOINT": "an endpoint's name, instead of the recipe's",
    "KEY": "the server answers only whoever sends its key",
    "MINUTES": "how long it lasts",
    "MODEL": "a model folder or a hub id; of cloud-deploy, name:version of a registered model",
    "RECIPE": "the recipe's path",
    "PACKAGES": "upgrade: these alone, with spaces between them",
    "PORT": "of the local server",
    "TRACK_PORT": "of MLflow's pages",
    "RUNTIME": "auto, docker or host",
    "SET": "overrides of the recipe: key=value, with spaces between them",
}
"""Variables whose flag explains itself too little, or not at all."""
OTHERS = {
    # a shell's, where .env comes too late
    "HOMEPORT_VENV": "folder of the virtual environment; `.venv`. Read by make, so set it in the "
    "shell, not in `.env`",
    "NO_COLOR": "any value: no colour (https://no-color.org)",
    "HF_HOME": "where the hub's downloads lie; `.cache/huggingface`",
    # who logs in where nobody is there to; read by azure-identity
    "AZURE_TENANT_ID": "with the two below: the service principal that logs in instead of `az`",
    "AZURE_CLIENT_ID": "its application, or that of a managed identity",
    "AZURE_CLIENT_SECRET": "its secret",
}
"""What is not in .env.example, and a user may set."""
THEIRS = re.compile(
    r"AZUREML_\w+|AML_APP_ROOT|DEFAULT_IDENTITY_CLIENT_ID|MLFLOW_(RUN_ID|EXPERIMENT_\w+)"
    r"|(LOCAL_)?WORLD_SIZE|((LOCAL|GROUP|NODE)_)?RANK|MASTER_(ADDR|PORT)"
    r"|PATH|PYTHONPATH|TERM|COMPOSE_FILE|NO_PROXY|TOKENIZERS_PARALLELISM|\w+_CACHE_(DIR|ROOT)"
)
"""Set by Azure ML, its inference server or torchrun, or belonging to a library or the shell."""
OURS = {
    *("HOMEPORT_UID", "HOMEPORT_GID", "HOMEPORT_DOCKER_GID", "HOMEPORT_REVISION"),
    *("HOMEPORT_INPUTS", "HOMEPORT_REHEARSAL", "HOMEPORT_REHEARSAL_BASES", "HOMEPORT_AZURITE"),
    *("HOMEPORT_REHEARSAL_CONTROL", "HOMEPORT_HUB_TOKEN_SECRET", "HOMEPORT_SECRETS_FILE"),
}
"""Set by one part of Homeport for another; not for users."""
PREFIXES = re.compile(
    r"(HOMEPORT|SERVE|AZURE|AZUREML|AML|REHEARSAL|CLOUD|HF|MLFLOW|NO)_[A-Z_]*[A-Z]"
)
NO_VARIABLES = {"AZURE_MAX_MS", "AZURE_REQUEST_SECONDS", "REHEARSAL_COST"}
NO_VARIABLES |= {"REQUEST_METHOD", "PATH_INFO"}
"""Names of Python and of WSGI that look like one."""
QUIET = re.compile(r"(HF|MLFLOW)_\w*(DISABLE|UPDATE|ENABLE|HTTP_REQUEST)\w*")
"""Switches of libraries that we set in our own processes."""


def targets() -> str:
    """Every target by section, with its variables."""
    parts: list[str] = []
    rows: list[tuple[str, ...]] = []
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if section := re.match(r"##@ (.+)", line):
            parts += [table(("Target", "What it does", "Variables"), rows), ""] if rows else []
            parts += [f"### {section.group(1)}", ""]
            rows = []
        elif target := re.match(r"([\w-]+):.*?## (.+)", line):
            name, what = target.groups()
            takes = [*_takes(name), *re.findall(r"\b([A-Z_]+)=", what)]
            variables = ", ".join(f"`{variable}`" for variable in dict.fromkeys(takes))
            rows.append((f"`make {name}`", what.partition("  ")[0], variables))
    return "\n".join([*parts, table(("Target", "What it does", "Variables"), rows)])


def make_variables() -> str:
    """Every variable that make hands on, with its meaning and the targets that read it."""
    names = sorted(handed_on() - {"HOMEPORT_VENV"})
    meanings = {**_read_by_verbs(), **MAKE}
    return table(("Variable", "Meaning"), [(f"`{name}`", meanings.get(name, "")) for name in names])


def unexplained() -> dict[str, str]:
    """Those of `used` that no list explains."""
    known = {*examples(), *server_settings(), *OTHERS, *OURS, *handed_on()}
    return {
        name: file
        for name, file in used().items()
        if name not in known and not THEIRS.fullmatch(name)
    }


def handed_on() -> set[str]:
    """The variables that make hands to the verbs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(" ".join(re.findall(r"^export ([A-Z_ ]+)$", makefile, re.MULTILINE)).split())


def _takes(target: str) -> Iterator[str]:
    """The variables that the verb of a target reads."""
    module = {"watch": "local_serve", "rehearsal-up": "", "rehearsal-down": ""}.get(
        target, target.replace("-", "_")
    )
    for path in (f"scripts/{module}.py", f"scripts/{module}/__main__.py", f"trials/{module}.py"):
        if (ROOT / path).is_file():
            yield from (name for name, _ in _flags(parsed(ROOT / path)))


def _read_by_verbs() -> dict[str, str]:
    """Meaning of each variable: the help of its flag, in the verb that says most of it."""
    found: dict[str, str] = {}
    for _, tree in modules("scripts", *(["trials"] if (ROOT / "trials").is_dir() else [])):
        for name, text in _flags(tree):
            if len(text) > len(found.get(name, "")):
                found[name] = text
    return found


def _flags(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Variable and help of every `add_argument(…, default=…flag_default("NAME")…)`."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or called(call) != "add_argument":
            continue
        given = {word.arg: word.value for word in call.keywords}
        for inner in ast.walk(given.get("default", call.func)):
            match inner:
                case ast.Call(
                    func=ast.Name(id="flag_default"), args=[ast.Constant(value=name), *_]
                ):
                    words = given.get("help")
                    text = str(words.value) if isinstance(words, ast.Constant) else ""
                    yield str(name), text.replace(" (%(default)s)", "")


def variables() -> str:
    """Every environment variable that a user may set."""
    rows = [
        (f"`{name}`", f"`{default}`" if default else "", meaning.replace("<", "&lt;"))
        for name, (default, meaning) in examples().items()
    ]
    others = {n: m for n, m in server_settings().items() if n not in examples()} | OTHERS
    rows += [(f"`{name}`", "", meaning) for name, meaning in others.items()]
    return table(("Variable", "Default", "Meaning"), rows)


def server_settings() -> dict[str, str]:
    """Meaning of each SERVE_ variable: the docstring under its field."""
    tree = parsed(ROOT / "serve/settings.py")
    settings = next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    found = {}
    for field, doc in itertools.pairwise(settings.body):
        match field, doc:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                found[f"SERVE_{name.upper()}"] = " ".join(text.split())
    return found


def examples() -> dict[str, tuple[str, str]]:
    """.env.example: default and meaning of each name; names without a blank between share one."""
    found: dict[str, tuple[str, str]] = {}
    meaning: list[str] = []
    said = False
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        if entry := re.match(r"#(\w+)=(.*)", line):
            found[entry.group(1)] = (entry.group(2), " ".join(meaning))
            said = True
        elif line.startswith("# ---") or not line.strip():
            meaning, said = [], False
        elif line.startswith("# "):
            meaning = [line[2:]] if said else [*meaning, line[2:]]
            said = False
    return found


def used() -> dict[str, str]:
    """Every environment variable that the program names, and a file that does."""
    found: dict[str, str] = {}
    for file, tree in modules("scripts", "train", "serve", "emulator"):
        if file.startswith("scripts/docs/"):
            continue
        for node in ast.walk(tree):
            for name in _names(node):
                if name not in NO_VARIABLES and not QUIET.fullmatch(name):
                    found.setdefault(name, file)
    return found


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)) if PREFIXES.fullmatch(text):
            yield text
        case (
            ast.Subscript(value=where, slice=ast.Constant(value=str(text)))
            | ast.Call(
                func=ast.Attribute(value=where, attr="get" | "pop" | "setdefault"),
                args=[ast.Constant(value=str(text)), *_],
            )
        ):
            if re.search(r"environ\b", ast.unparse(where)) and re.fullmatch(r"[A-Z_]+", text):
                yield text
        case ast.Call(args=[ast.Constant(value=str(text)), *_]) as call:
            if called(call) in ("flag_default", "getenv"):
                yield text


def codes() -> str:
    return table(("Code", "Meaning"), list(CODES.items()))

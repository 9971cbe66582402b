"""The images of this checkout: which one is here, its name in the workspace's registry, its push.

    image = local("train", "cuda", environ, cloud.workspace.rehearsal)
    ref = push(cloud, image)          # NAME.azurecr.io/homeport@sha256:…

One repository, `homeport`, so that both images share their layers there; the tag holds the local
id. Specs name the image by its digest only. With PUSH=build nothing is built here: the registry
builds (az acr run). In a rehearsal without Docker nothing is built at all: the digest is then a
hash of the sources.

Memories below .cache/cloud: pushed.json (which local image a digest is), passed.json (which images
answered here), layers.json (what a layer is when compressed). Losing them costs time, nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from scripts import docker
from scripts.azure.given import check_push
from scripts.azure.image_build import build
from scripts.azure.registry import Registry, login_server
from scripts.azure.saved_image import MEGABYTE, PLATFORM, push_saved
from scripts.console import say
from scripts.errors import MachineError, UsageError
from scripts.runtime import Choice, missing_docker, probe
from scripts.settings import CACHE, environment

if TYPE_CHECKING:
    from scripts.azure.client import Cloud
    from train.recipe import Recipe

Role = Literal["train", "serve"]

REPOSITORY = "homeport"
MEMORY = CACHE / "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """One of our images, as it is here or as it would be built."""

    role: Role
    tag: str
    """What the engine calls it, such as homeport-train:cpu."""
    id: str
    """`sha256:…` of the engine; of the sources where nothing is built here."""
    revision: str
    """The commit that it was built from, as its label says."""
    inputs: str
    """Hash of all that went into it (scripts.docker.inputs), as its label says."""
    device: str = "cpu"
    built: bool = True
    """False: made by the registry (PUSH=build), or never (a rehearsal without Docker)."""
    size: int = 0
    """Bytes on this machine's disk."""
    stand_in: bool = False
    """Built on this machine's stand-in for Debian (.ci/base-image), which must not leave it."""

    @property
    def remote_tag(self) -> str:
        """The tag in the registry."""
        return f"{self.role}-{self.id.removeprefix('sha256:')[:12]}"

    @property
    def sources(self) -> str:
        """Hash of what both the CPU and the CUDA image of these sources are made of."""
        return docker.inputs(self.role, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Whether the image behind a reference answered on this machine."""

    same: bool
    """True only for the very same image."""
    sentence: str

    def __bool__(self) -> bool:
        return self.same


def device_for(recipe: "Recipe", cloud: "Cloud", role: Role = "train") -> Choice:
    """`cuda` or `cpu`, by the instance type that the recipe names for this role."""
    from scripts.azure import prices

    if cloud.workspace.rehearsal:
        return Choice("cpu", "the rehearsal runs on this machine's processor")
    name = recipe.cloud.instance_type if role == "train" else recipe.cloud.serve_instance_type
    instance = prices.find(name)
    if instance.gpus:
        return Choice("cuda", f"{instance.name} has {instance.gpus} x {instance.gpu}")
    return Choice("cpu", f"{instance.name} has no GPU")


def find(
    role: Role, device: str, environ: Mapping[str, str], rehearsal: str = ""
) -> LocalImage | None:
    """The image of this checkout's sources, or None where it is not built; builds nothing."""
    if rehearsal == "host":
        return _unbuilt(role, device, environ, _sources_id(role))
    if environ.get("PUSH") == "build":
        return _unbuilt(role, device, environ, _hashed(_inputs_now(role, device, environ)))
    image = _inspect(role, device)
    return image if image and image.inputs == _inputs_now(role, device, environ) else None


def local(role: Role, device: str, environ: Mapping[str, str], rehearsal: str = "") -> LocalImage:
    """The image of this checkout's sources; built first where it is not.

    `rehearsal` is the workspace's (cloud.workspace.rehearsal): in "host" nothing is built.
    """
    check_push(environ.get("PUSH", "here"))
    image = find(role, device, environ, rehearsal)
    if image is None:
        if lacking := missing_docker():
            raise MachineError(f"{lacking}, which builds the images: mend that, or use PUSH=build.")
        docker.Compose(environ, Choice(device, "the instance type")).build(role)
        image = _inspect(role, device)
    if image is None:
        raise MachineError(f"homeport-{role}:{device} was built, but the engine does not show it.")
    return image


def reference(cloud: "Cloud", image: LocalImage) -> str:
    """`NAME.azurecr.io/homeport@sha256:…` where the registry holds the image, else empty."""
    server = login_server(cloud)
    if cloud.workspace.rehearsal == "host":
        ref = f"{server}/{REPOSITORY}/{image.role}@{image.id}"
    else:
        registry = Registry(f"https://{server}", REPOSITORY, cloud.credential)
        digest = registry.digest(image.remote_tag)
        if not digest:
            return ""
        ref = f"{server}/{REPOSITORY}@{digest}"
    _remember_pushed(ref, image)
    return ref


def push(cloud: "Cloud", image: LocalImage) -> str:
    """Bring the image into the workspace's registry, unless it is there; its reference."""
    if ref := reference(cloud, image):
        host = cloud.workspace.rehearsal == "host"
        say(f"image:  {ref} ({'stands for these sources' if host else 'there already'})")
        return ref
    server = login_server(cloud)
    if not image.built:
        build(server, image)
        return _built(cloud, image)
    _need_fit(cloud, image)
    registry = Registry(f"https://{server}", REPOSITORY, cloud.credential)
    say(
        f"image:  {image.tag} ({image.id[7:19]}, {image.size / MEGABYTE:.0f} MB) to "
        f"{server}/{REPOSITORY}:{image.remote_tag}"
    )
    digest = push_saved(registry, image.id, image.remote_tag, image.size, MEMORY)
    ref = f"{server}/{REPOSITORY}@{digest}"
    _remember_pushed(ref, image)
    say(f"image:  {ref}")
    return ref


def remember_passed(image_id: str, *, model: str = "", role: Role = "serve") -> None:
    """Note that the image answered on this machine, now, with `model`."""
    _note(
        "passed.json",
        image_id,
        {"when": _now(), "model": model, **_described(image_id, role)},
    )


def remember_answer(port: int, *, model: str = "") -> None:
    """Note that the server on `port` of this machine answered: its image, or these sources."""
    code, container = probe(
        [
            "docker",
            "ps",
            "--quiet",
            "--filter=label=homeport.role=serve",
            f"--filter=publish={port}",
        ]
    )
    if not code and container:
        code, image_id = probe(
            ["docker", "inspect", container.splitlines()[0], "--format", "{{.Image}}"]
        )
        if not code:
            remember_passed(image_id, model=model)
            return
    remember_passed(_sources_id("serve"), model=model)


def passed(ref: str) -> Passed:
    """Whether the image behind `ref` answered here, in one sentence.

    An image of the same sources for another device is named, but it is not the same.
    """
    digest = ref.rpartition("@")[2]
    pushed = next((v for k, v in _notes("pushed.json").items() if k.endswith(digest)), None)
    if pushed is None:
        return Passed(same=False, sentence=f"{digest[:19]} was not pushed from this machine")
    notes = _notes("passed.json")
    name = f"{digest[:19]} (local image {pushed['id'][7:19]})"
    if own := notes.get(pushed["id"]):
        return Passed(same=True, sentence=f"{name} answered here at {own['when']}{_with(own)}")
    for image_id, other in notes.items():
        if other["sources"] and other["sources"] == pushed["sources"]:
            return Passed(
                same=False,
                sentence=(
                    f"{name} did not answer here, but the {other['device']} image of the same "
                    f"sources ({image_id[7:19]}) did at {other['when']}{_with(other)}"
                ),
            )
    return Passed(same=False, sentence=f"{name} never answered here; next: make local-serve ask")


def _with(note: Mapping[str, Any]) -> str:
    return f" with {note['model']}" if note["model"] else ""


def _inspect(role: Role, device: str) -> LocalImage | None:
    tag = f"homeport-{role}:{device}"
    code, text = probe(["docker", "image", "inspect", tag, "--format", "{{json .}}"])
    if code:
        return None
    found = json.loads(text)
    labels = found["Config"].get("Labels") or {}
    if found["Architecture"] != PLATFORM:
        raise UsageError(
            f"{tag} is built for {found['Architecture']}, Azure ML's machines are {PLATFORM}: "
            "build it there with PUSH=build, or set DOCKER_DEFAULT_PLATFORM=linux/amd64."
        )
    return LocalImage(
        role=role,
        tag=tag,
        id=found["Id"],
        revision=labels.get("org.opencontainers.image.revision", "unknown"),
        inputs=labels.get("homeport.inputs", ""),
        device=device,
        size=found["Size"],
        stand_in=labels.get("homeport.standin") == "true",
    )


def _unbuilt(role: Role, device: str, environ: Mapping[str, str], image_id: str) -> LocalImage:
    return LocalImage(
        role=role,
        tag=f"homeport-{role}:{device}",
        id=image_id,
        revision=docker.revision(),
        inputs=_inputs_now(role, device, environ),
        device=device,
        built=False,
    )


def _inputs_now(role: Role, device: str, environ: Mapping[str, str]) -> str:
    return docker.inputs(role, {**environ, "HOMEPORT_DEVICE": device})


def _sources_id(role: Role) -> str:
    return _hashed(docker.inputs(role, {}))


def _hashed(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _need_fit(cloud: "Cloud", image: LocalImage) -> None:
    if image.stand_in and not cloud.workspace.rehearsal:
        raise UsageError(
            f"{image.tag} is built on this machine's stand-in for Debian, which carries its "
            "settings: unset HOMEPORT_BASE_IMAGE and run the command again."
        )


def _built(cloud: "Cloud", image: LocalImage) -> str:
    ref = reference(cloud, image)
    if not ref:
        raise MachineError(f"the registry built {image.remote_tag}, but does not show it.")
    say(f"image:  {ref} (built there; it has not run on this machine)")
    return ref


def _described(image_id: str, role: Role) -> dict[str, str]:
    """Device and sources of an image that is here; sources only where they are still these."""
    if image_id == _sources_id(role):
        return {"role": role, "device": "host", "sources": docker.inputs(role, {})}
    labels = '{{index .Config.Labels "homeport.device"}} {{index .Config.Labels "homeport.inputs"}}'
    code, said = probe(["docker", "image", "inspect", image_id, "--format", labels])
    device, _, inputs = said.partition(" ") if not code else ("", "", "")
    same = bool(inputs) and inputs == _inputs_now(role, device, environment())
    return {"role": role, "device": device, "sources": docker.inputs(role, {}) if same else ""}


def _remember_pushed(ref: str, image: LocalImage) -> None:
    note = {"id": image.id, "role": image.role, "device": image.device, "sources": image.sources}
    _note("pushed.json", ref, {**note, "revision": image.revision, "when": _now()})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _notes(name: str) -> dict[str, dict[str, str]]:
    try:
        notes = json.loads((MEMORY / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _note(name: str, key: str, value: dict[str, str]) -> None:
    MEMORY.mkdir(parents=True, exist_ok=True)
    notes = _notes(name)
    notes[key] = value
    new = MEMORY / f"{name}.new"
    new.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    new.replace(MEMORY / name)

"""What the Dockerfile, the locks, the compose files and the build context promise, read as text.

Needs no engine and no network, and starts nothing. That the images build and run is e2e's to show.
"""

import fnmatch
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ["images/torch", "images/train", "images/serve", "images/openvino", "images/debug", "host"]
TARGETS = ["train", "serve"]
PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read(name))
    return loaded


def locked(name: str) -> dict[str, str]:
    """The packages of a lock: {name: version}."""
    lines = read(f"{name}.txt").splitlines()
    return {match[1]: match[2] for match in map(PINNED.match, lines) if match}


def stage(name: str) -> list[str]:
    """The instructions of one stage of the Dockerfile, continuation lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", read("images/Dockerfile")).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(str.strip, text.splitlines()):
        if match := re.match(r"FROM \S+ AS (\w+)", line):
            found[match[1]] = []
        elif found:
            next(reversed(found.values())).append(" ".join(line.split()))
    return found[name]


# The locks


def test_the_locks_agree_wherever_they_overlap() -> None:
    versions: dict[str, set[str]] = defaultdict(set)
    for lock in LOCKS:
        for name, version in locked(lock).items():
            versions[name].add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_its_in_file_asks_for(lock: str) -> None:
    wanted = [line for line in read(f"{lock}.in").splitlines() if line and line[0] != "#"]
    for requirement in wanted:
        name, _, version = re.sub(r"<.*", "", requirement).partition("==")
        if name != "torch":
            assert locked(lock).get(name, "missing") == (version or locked(lock).get(name))


def test_torch_and_its_cuda_libraries_are_in_no_lock() -> None:
    for lock in LOCKS:
        names = [n for n in locked(lock) if n.startswith(("torch", "nvidia", "cuda", "triton"))]
        assert names == [], lock


def test_the_only_hosts_named_are_those_of_torch_and_vllm() -> None:
    patterns = ["images/*", "host.*", "docker-compose*.yml", ".dockerignore", ".ci/*"]
    files = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    assert len(files) > 10
    hosts = {host for path in files for host in re.findall(r"https?://([\w.-]+)", path.read_text())}
    inside = {"registry"}  # a service of docker-compose.yml
    assert hosts - inside == {"download.pytorch.org", "wheels.vllm.ai", "127.0.0.1"}


# The Dockerfile


def test_the_dockerfile_asks_for_no_frontend_of_its_own() -> None:
    assert "syntax=" not in read("images/Dockerfile")


def test_the_base_image_is_pinned_by_digest_and_is_the_only_one() -> None:
    text = read("images/Dockerfile")
    assert re.search(r"(?m)^ARG DEBIAN=debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}$", text)
    assert re.findall(r"(?m)^FROM (\S+)", text) == [
        "${BASE_IMAGE:-$DEBIAN}", "base", "torch", "torch", "serve", "base", "base", "base",
    ]  # fmt: skip


def test_the_dockerfile_and_the_lock_mean_the_same_torch() -> None:
    (version,) = re.findall(r"TORCH_VERSION=(\S+)", read("images/Dockerfile"))
    assert f"torch=={version}\n" in read("images/torch.in")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_special_and_without_a_shell_between(target: str) -> None:
    words = [line.split(maxsplit=1) for line in stage(target)]
    assert [rest for word, rest in words if word == "USER"] == ["homeport"]
    assert not any(word == "ENTRYPOINT" for word, _ in words)
    (command,) = [rest for word, rest in words if word == "CMD"]
    assert command.startswith('["python"')
    assert any("useradd --uid 1000 " in line for line in stage("base"))


@pytest.mark.parametrize("target", TARGETS)
def test_our_code_comes_after_everything_that_is_slow(target: str) -> None:
    words = [line.split()[0] for line in stage(target)]
    assert words.index("COPY") > max(i for i, word in enumerate(words) if word == "RUN")
    assert stage(target)[-3:] == [
        "ARG REVISION=unknown",
        "ARG INPUTS=unknown",
        "LABEL org.opencontainers.image.revision=$REVISION homeport.inputs=$INPUTS",
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_installs_its_own_lock_and_nothing_else(target: str) -> None:
    install, *_ = [line for line in stage(target) if line.startswith("RUN")]
    assert f"pip install --require-hashes --no-deps -r /tmp/{target}.txt" in install
    assert f"source=images/{target}.txt" in install


def test_debugpy_is_in_the_image_for_debugging_alone() -> None:
    (install,) = [line for line in stage("debug") if line.startswith("RUN")]
    assert "pip install --require-hashes --no-deps -r /tmp/debug.txt" in install
    assert [line for line in stage("debug") if line.startswith("USER")][-1] == "USER homeport"
    assert not any("debug" in line for name in ("base", "torch", "serve") for line in stage(name))
    assert [lock for lock in LOCKS if "debugpy" in locked(lock)] == ["images/debug"]


def test_a_debugger_reaches_the_container_from_this_machine_alone() -> None:
    serve = compose("docker-compose.debug.yml")["services"]["serve"]
    assert serve["ports"] == ["127.0.0.1:${DEBUG_PORT:-5678}:5678"]
    assert serve["build"]["target"] == "debug"
    assert serve["environment"]["SERVE_DEBUG_PORT"] == "5678"


# The compose files


def test_compose_reads_these_settings_and_no_others() -> None:
    text = re.sub(r"(?m)#.*$", "", read("docker-compose.yml") + read("docker-compose.gpu.yml"))
    assert sorted(set(re.findall(r"\$\{(\w+)", text))) == [
        "BIND", "COMPOSE_PROJECT_NAME",
        "HOMEPORT_BASE_IMAGE", "HOMEPORT_DEVICE", "HOMEPORT_DOCKER_GID", "HOMEPORT_GID",
        "HOMEPORT_INPUTS", "HOMEPORT_REHEARSAL", "HOMEPORT_REHEARSAL_BASES", "HOMEPORT_REVISION",
        "HOMEPORT_SHM_SIZE", "HOMEPORT_TORCH_INDEX", "HOMEPORT_UID",
        "HOMEPORT_VLLM", "MODEL_FOLDER", "MODEL_FOLDER_NAME", "MODEL_NAME", "MODEL_VERSION",
        "PORT", "REHEARSAL_PORT", "REHEARSAL_REGISTRY_PORT", "TRACK_PORT",
    ]  # fmt: skip
    services = compose()["services"].values()
    passed = {
        name for s in services for name, value in s.get("environment", {}).items() if value is None
    }
    assert sorted(passed) == [
        "HF_HUB_OFFLINE", "OMP_NUM_THREADS",
        "SERVE_ADAPTERS", "SERVE_CONTEXT", "SERVE_DEVICE", "SERVE_DTYPE", "SERVE_ENGINE",
        "SERVE_LOG_TEXT",
        "SERVE_MAX_CONCURRENT", "SERVE_MAX_QUEUE", "SERVE_REQUEST_SECONDS",
    ]  # fmt: skip


def test_the_gpu_file_holds_only_device_reservations() -> None:
    gpus = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    reserved = {"deploy": {"resources": {"reservations": {"devices": gpus}}}}
    services = compose("docker-compose.gpu.yml")["services"]
    assert services == dict.fromkeys(TARGETS, reserved)


@pytest.mark.parametrize("service", TARGETS)
def test_a_missing_folder_is_an_error_and_not_a_new_folder_of_root(service: str) -> None:
    for mount in compose()["services"][service]["volumes"]:
        assert mount["bind"] == {"create_host_path": False}, mount
        assert mount.get("read_only") or mount["source"].startswith(("./outputs", "./.cache"))


def test_every_published_port_is_on_loopback_and_has_a_health_check() -> None:
    for service in compose()["services"].values():
        if ports := service.get("ports"):
            assert all(port.startswith(("127.0.0.1:", "${BIND:-127.0.0.1}:")) for port in ports)
            assert service["healthcheck"]["test"][0] == "CMD"


def test_a_mounted_model_lies_inside_the_folder_that_azure_names() -> None:
    serve = compose()["services"]["serve"]
    mount, _ = serve["volumes"]
    parent, _, name = mount["target"].rpartition("/")
    assert parent == serve["environment"]["AZUREML_MODEL_DIR"]
    assert name == "${MODEL_FOLDER_NAME:-model}"


# The build context


def test_the_build_context_is_an_allow_list_and_below_5_megabytes() -> None:
    lines = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line[0] == "!"]
    assert allowed == [
        "images/*.txt", "data", "train", "serve", "emulator",
        "images/registry.yml", "images/azurite/package.json", "images/azurite/package-lock.json",
    ]  # fmt: skip
    ignored = [line.removeprefix("**/") for line in lines[1:] if line[0] != "!"]

    def sent(path: Path) -> bool:
        parts = path.relative_to(ROOT).parts
        return not any(fnmatch.fnmatch(part, rule) for part in parts for rule in ignored)

    found = [path for pattern in allowed for path in ROOT.glob(pattern)]
    found += [path for folder in found if folder.is_dir() for path in folder.rglob("*")]
    size = sum(path.stat().st_size for path in found if path.is_file() and sent(path))
    assert 0 < size < 5_000_000

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scripts import docker
from scripts.docker import Compose
from scripts.errors import CommandError, MachineError
from scripts.runtime import Choice
from scripts.settings import ROOT
from tests.waiting import until


class Recorded(Compose):
    """Compose that writes down what it would run, and succeeds or fails as told."""

    def __init__(self, environ: dict[str, str] | None = None, code: int = 0) -> None:
        super().__init__(environ or {}, Choice("cpu", "test"))
        self.commands: list[tuple[str, ...]] = []
        self.code = code

    def run(
        self, *arguments: str, extra: Any = None, quiet: bool = False, container: str | None = None
    ) -> int:
        self.commands.append(arguments)
        self.extra = dict(extra or {})
        more = self.extra.get("COMPOSE_FILE", "").rpartition(":")[2]
        if "/mounts-" in more:
            text = (ROOT / more).read_text().replace("$$", "$")  # as compose reads it
            self.mounts = json.loads(text)["services"]["train"]["volumes"]
        return self.code if "build" not in arguments else 0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(docker, "CACHE", tmp_path / ".cache")
    monkeypatch.setattr(docker, "probe", lambda command: (0, ""))


def test_files_of_the_checkout_are_named_as_the_container_sees_them() -> None:
    compose = Recorded()
    recipe = ROOT / "recipes/tiny-ja.yaml"
    rows = ROOT / "data/chat_messages.jsonl"
    compose.train(recipe, ["training.epochs=1"], {"recipe": recipe, "data.train": rows})
    assert compose.commands[-1] == (
        *("run", "--rm", "--no-TTY", "--name", f"{docker.project()}-train-{os.getpid()}"),
        *("train", "python", "-m", "train"),
        "/opt/homeport/recipes/tiny-ja.yaml",
        "training.epochs=1",
        'data.train="/opt/homeport/data/chat_messages.jsonl"',  # after what the user overrides
    )


def test_files_elsewhere_are_mounted_read_only_one_by_one(tmp_path: Path) -> None:
    compose = Recorded()
    rows = tmp_path / "my rows: $5 日本.jsonl"
    recipe = tmp_path / "mine.yaml"
    compose.train(recipe, [], {"recipe": recipe, "data.train": rows})
    command = compose.commands[-1]
    inside = f"/mnt/data.train/{rows.name}"
    assert compose.mounts == [
        {"type": "bind", "source": str(source), "target": target, "read_only": True}
        for source, target in ((recipe, "/mnt/recipe/mine.yaml"), (rows, inside))
    ]
    assert not list((tmp_path / ".cache").glob("mounts-*"))
    assert f"data.train={json.dumps(inside)}" in command
    assert "/mnt/recipe/mine.yaml" in command


def test_a_debugged_server_has_its_own_image_and_knows_the_editors_paths(tmp_path: Path) -> None:
    compose = Recorded()
    compose.serve("tiny", tmp_path, 5001, watch=True, debug=5679)
    assert compose.commands == [("build", "serve"), ("up", "--detach", "--wait", "serve")]
    files = compose.extra["COMPOSE_FILE"].split(":")
    assert files[-2:] == ["docker-compose.watch.yml", "docker-compose.debug.yml"]
    assert compose.extra["DEBUG_PORT"] == "5679"
    paths = json.loads(compose.extra["PATHS_FROM_ECLIPSE_TO_PYTHON"])
    assert paths == [[str(ROOT), "/opt/homeport"]]


def test_recipe_variables_reach_the_container_by_name_and_not_on_the_command_line(
    tmp_path: Path,
) -> None:
    compose = Recorded({"RECIPE_TRAINING__SEED": "7", "OTHER": "x"})
    compose.train(tmp_path / "r.yaml", [], {})
    command = compose.commands[-1]
    assert command[command.index("--env") + 1] == "RECIPE_TRAINING__SEED"
    assert "7" not in command
    assert "OTHER" not in command
    assert compose.environ["RECIPE_TRAINING__SEED"] == "7"


def test_secrets_reach_training_by_a_file_and_no_variable_of_any_container(tmp_path: Path) -> None:
    given = {"HF_TOKEN": "hf_secret", "MLFLOW_TRACKING_URI": "http://me:pw@x", "RECIPE_NAME": "x"}

    class Looks(Recorded):
        def run(self, *arguments: str, **options: Any) -> int:
            if arguments[0] == "run":
                (file,) = (tmp_path / ".cache").glob("handed-*.json")
                assert "hf_secret" in file.read_text()
                assert f"HOMEPORT_SECRETS_FILE=/opt/homeport/.cache/{file.name}" in arguments
            return super().run(*arguments, **options)

    compose = Looks({**given, "AWS_SECRET_ACCESS_KEY": "for the engine's registries"})
    compose.train(tmp_path / "r.yaml", [], {})
    assert not {"HF_TOKEN", "MLFLOW_TRACKING_URI"} & compose.environ.keys()
    assert compose.environ["AWS_SECRET_ACCESS_KEY"]
    assert "hf_secret" not in str(compose.commands)
    assert [path.name for path in (tmp_path / ".cache").iterdir()] == ["networks.lock"]


def test_the_exit_code_of_training_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Recorded(code=4).train(tmp_path / "r.yaml", [], {})
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("code", [0, 4])
def test_the_networks_of_a_training_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    asked: list[list[str]] = []

    def answer(command: list[str]) -> tuple[int, str]:
        asked.append(command)
        return 0, "a1\nb2"

    monkeypatch.setattr(docker, "probe", answer)
    with suppress(CommandError):
        Recorded(code=code).train(tmp_path / "r.yaml", [], {})
    mine = f"--filter=label=com.docker.compose.project={docker.project()}"
    assert asked[-2:] == [
        ["docker", "network", "ls", "--quiet", mine],
        ["docker", "network", "rm", "a1", "b2"],
    ]


def test_the_container_runs_as_the_caller_and_never_as_root() -> None:
    uid = Recorded().environ["HOMEPORT_UID"]
    assert uid == (str(os.getuid()) if os.getuid() else "1000")


@pytest.mark.skipif(os.getuid() != 0, reason="only root hands files over")
def test_what_a_root_callers_container_wrote_belongs_to_root_after(tmp_path: Path) -> None:
    class Writes(Recorded):
        def run(
            self,
            *arguments: str,
            extra: Any = None,
            quiet: bool = False,
            container: str | None = None,
        ) -> int:
            if arguments[0] == "run":
                assert (tmp_path / "outputs").stat().st_uid == 1000
                (tmp_path / "outputs/x").write_text("")
                os.chown(tmp_path / "outputs/x", 1000, 1000)
            return super().run(*arguments)

    with pytest.raises(CommandError):
        Writes(code=1).train(tmp_path / "r.yaml", [], {})
    assert (tmp_path / "outputs/x").stat().st_uid == 0
    assert (tmp_path / "outputs").stat().st_uid == 0


def test_two_checkouts_have_two_compose_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    first = docker.project()
    monkeypatch.setattr(docker, "ROOT", Path("/elsewhere"))
    assert docker.project() != first


def test_networks_stay_while_another_verb_is_about_to_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def probe(command: list[str]) -> tuple[int, str]:
        asked.append(command)
        return 0, "made-a-moment-ago"

    engine = tmp_path / "bin/docker"
    engine.parent.mkdir()
    waits = f"touch '{tmp_path}/up'; until [ -e '{tmp_path}/end' ]; do sleep 0.1; done"
    engine.write_text(f"#!/bin/sh\n{waits}\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(engine.parent), prepend=os.pathsep)
    compose = Compose(dict(os.environ), Choice("cpu", "test"))
    monkeypatch.setattr(docker, "probe", probe)
    other = threading.Thread(target=compose.run, args=("up", "--detach"))
    other.start()
    try:
        until((tmp_path / "up").exists)
        docker.drop_networks()
        assert asked == []
    finally:
        (tmp_path / "end").touch()
        other.join()
    docker.drop_networks()
    assert asked[-1] == ["docker", "network", "rm", "made-a-moment-ago"]


def test_a_full_disk_is_said_before_an_image_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(command: list[str]) -> tuple[int, str]:
        return (1, "") if "inspect" in command else (0, str(tmp_path))

    monkeypatch.setattr(docker, "probe", probe)
    monkeypatch.setitem(docker.IMAGE_BYTES, "cpu", 10**18)
    with pytest.raises(MachineError, match="docker system prune"):
        Recorded().build("serve")


def test_ports_of_running_servers_are_read_from_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        docker, "probe", lambda command: (0, "127.0.0.1:5007->5001/tcp, 127.0.0.1:5678->5678/tcp")
    )
    assert Recorded().running() == [5007]
    monkeypatch.setattr(docker, "probe", lambda command: (1, "no engine"))
    assert Recorded().running() == []


def test_an_image_is_built_only_when_its_inputs_have_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compose = Recorded()
    label = docker.inputs("serve", compose.environ)
    monkeypatch.setattr(docker, "probe", lambda command: (0, label))
    compose.build("serve")
    assert compose.commands == []
    assert "homeport-serve:cpu (built before)" in capsys.readouterr().err
    compose.environ["HOMEPORT_BASE_IMAGE"] = "other"
    compose.build("serve")
    assert compose.commands == [("build", "serve")]


def test_the_hashed_folders_are_those_that_the_dockerfile_copies() -> None:
    lines = (ROOT / "images/Dockerfile").read_text().splitlines()
    copies = [line for line in lines if line.startswith("COPY") and "--from=" not in line]
    copied = [line.split()[-1] for line in copies if " images/" not in line]
    assert sorted(copied) == sorted({name for names in docker.CODE.values() for name in names})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_cache_is_given_without_what_a_local_azure_is_using(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "CACHE", tmp_path)
    for name in (
        *("rows/mine/train.jsonl", "rehearsal/journal/a.jsonl", "rehearsal-bases/b"),
        "serve-key",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    docker.give(tmp_path / "rehearsal", 1000)
    docker.give_cache(1001)
    assert (tmp_path / "rows/mine/train.jsonl").stat().st_uid == 1001
    assert (tmp_path / "rehearsal/journal/a.jsonl").stat().st_uid == 1000
    assert (tmp_path / "rehearsal-bases/b").stat().st_uid == 0
    assert (tmp_path / "serve-key").stat().st_uid == 0

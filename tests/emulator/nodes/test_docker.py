"""Programs as containers of the real engine, their image from a real registry.

The image is made here of this machine's bash and a few commands, and removed at the end.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.nodes import Mount, NodeError, Program
from emulator.nodes.docker import DockerNodes
from tests import registry as plain
from tests.emulator.asking import client
from tests.waiting import until

pytestmark = pytest.mark.slow

COMMANDS = ("bash", "cat", "sleep", "id", "mkdir", "ls", "env")
FOREVER = "echo up; while :; do sleep 0.1; done"


def docker(*arguments: str, given: bytes | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=given, capture_output=True, check=True)
    return done.stdout.decode().strip()


def root() -> bytes:
    """A tar of the commands, with the libraries that they need."""
    paths = {os.path.realpath(str(shutil.which(name))): f"bin/{name}" for name in COMMANDS}
    for program in list(paths):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for word in listed.stdout.split():
            if word.startswith("/"):
                paths[word] = word.lstrip("/")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("tmp", "work"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        for source, name in paths.items():
            content = Path(source).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry."""
    if not shutil.which("docker"):
        pytest.skip("needs docker")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("the docker engine does not answer")
    with plain.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def image(registry: str) -> Iterator[str]:
    """An image that only the registry holds, as the workspace names it."""
    tag = f"{registry}/homeport-test-node:1"
    changes = ["-c", "WORKDIR /work", "-c", "USER 1000", "-c", 'CMD ["bash", "-c", "echo mine"]']
    made = docker("import", *changes, "-", tag, given=root())
    docker("push", tag)
    digest = docker("inspect", "-f", "{{index .RepoDigests 0}}", tag).rpartition("@")[2]
    docker("rmi", "-f", made)
    yield f"homeportrehearsal.azurecr.io/homeport-test-node@{digest}"
    docker("rmi", "-f", f"{registry}/homeport-test-node@{digest}")


@pytest.fixture
def nodes(registry: str, image: str, tmp_path: Path) -> Iterator[DockerNodes]:
    ca = tmp_path / "ca.pem"
    ca.write_text("the authority")
    nodes = DockerNodes(registry, ca=ca)
    nodes.pull(image)
    yield nodes
    nodes.close()


def name(what: str) -> str:
    return f"homeport-test-{os.getpid()}-{what}"


def test_the_images_own_command_runs_in_its_folder(nodes: DockerNodes, image: str) -> None:
    own = nodes.start(Program(name=name("own"), image=image))
    given = nodes.start(Program(name=name("given"), image=image, command="echo $PWD; exit 3"))

    assert (own.wait(20), given.wait(20)) == (0, 3)
    assert (own.log(), given.log()) == (b"mine\n", b"/work\n")


def test_an_image_that_azure_brings_is_this_engines_and_no_registrys(
    nodes: DockerNodes, registry: str, image: str
) -> None:
    local = "homeport-test-brought:1"
    brought = DockerNodes(registry, own=(local,))
    with pytest.raises(NodeError, match=r"is not on this machine: make rehearse"):
        brought.pull(local)
    docker("tag", image.replace("homeportrehearsal.azurecr.io", registry), local)
    try:
        brought.pull(local)
        running = brought.start(Program(name=name("brought"), image=local))
        assert (running.wait(20), running.log()) == (0, b"mine\n")
        with pytest.raises(NodeError, match="there is no way to any other registry"):
            brought.pull("homeport-test-other:1")
    finally:
        brought.close()
        docker("rmi", local)


def test_a_container_has_no_rights_but_to_its_folders(
    nodes: DockerNodes, image: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir(mode=0o700)
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "in" / "file").write_text("given")
    mounts = [
        Mount(tmp_path / "in", "/mnt/in", read_only=True),
        Mount(tmp_path / "out", "/mnt/out"),
    ]
    assert [nodes.where(mount) for mount in mounts] == ["/mnt/in", "/mnt/out"]
    command = (
        "id -u; cat file >/mnt/out/copy; echo x >/tmp/file; "
        # the image lets everybody write into its folder /work
        "for to in /mnt/in /work; do echo x 2>/dev/null >$to/file || echo $to refused; done; "
        "while read -r line; do case $line in CapEff*|NoNewPrivs*) echo $line;; esac; done "
        "</proc/self/status; cat $SSL_CERT_FILE"
    )
    environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    program = Program(
        name=name("rights"),
        image=image,
        command=command,
        mounts=mounts,
        folder="/mnt/in",
        environment=environment,
    )

    running = nodes.start(program)

    assert running.wait(20) == 0, running.log()
    uid, *rest = running.log().decode().splitlines()
    assert uid == str(os.environ.get("HOMEPORT_UID") or os.getuid() or 1000)
    refused = ["/mnt/in refused", "/work refused"]
    assert rest == [*refused, "CapEff: 0000000000000000", "NoNewPrivs: 1", "the authority"]
    assert (tmp_path / "out" / "copy").read_text() == "given"


def test_a_container_takes_no_more_threads_than_this_process_may(
    nodes: DockerNodes, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    running = nodes.start(
        Program(name=name("threads"), image=image, command="echo $OMP_NUM_THREADS")
    )
    assert running.wait(20) == 0
    assert running.log().decode().strip() == "1"


@pytest.mark.parametrize(
    ("command", "grace", "code", "last"),
    [
        # not the first process alone is told: what it waits for is, too
        (f"trap 'x=1' TERM; bash -c \"trap 'echo told; exit' TERM; {FOREVER}\"", 9, 0, "told"),
        (f"trap '' TERM; {FOREVER}", 1, 137, "up"),
        ("echo up; exec sleep 60", 0, 137, "up"),
    ],
)
def test_stopping_is_sigterm_and_later_sigkill(
    nodes: DockerNodes, image: str, command: str, grace: float, code: int, last: str
) -> None:
    running = nodes.start(Program(name=name("stopped"), image=image, command=command))
    until(lambda: b"up" in running.log())
    assert running.exit_code() is None
    assert running.wait(0.2) is None

    running.stop(grace)

    assert running.exit_code() == code
    assert last in running.log().decode().split()
    running.stop(grace)  # twice is fine
    running.remove()
    running.remove()


def test_a_port_is_published_on_this_machine_alone(nodes: DockerNodes, image: str) -> None:
    program = Program(name=name("serves"), image=image, command="exec sleep 60", port=5001)
    running = nodes.start(program)

    host, port = running.address()

    assert host == "127.0.0.1"
    assert docker("port", name("serves")) == f"5001/tcp -> 127.0.0.1:{port}"


def test_in_a_network_a_container_is_reached_by_its_name(registry: str, image: str) -> None:
    network = name("network")
    docker("network", "create", "--internal", network)
    nodes = DockerNodes(registry, network)
    try:
        program = Program(name=name("named"), image=image, command="exec sleep 60", port=5001)
        running = nodes.start(program)
        beside = nodes.start(
            Program(
                name=name("beside"),
                image=image,
                command="cat /proc/net/route",
                beside=name("named"),
            )
        )
        assert running.address() == (name("named"), 5001)
        beside.wait(20)
        assert docker("exec", name("named"), "cat", "/proc/net/route") in beside.log().decode()
        labels = docker("ps", "-qf", "label=homeport.role=rehearsal", "-f", f"name={name('named')}")
        assert labels
    finally:
        nodes.close()
        docker("network", "rm", network)
    assert docker("ps", "-aqf", f"name={name('named')}") == ""


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("homeportrehearsal.azurecr.io/homeport:latest", "no image of the workspace's registry"),
        ("docker.io/library/debian@sha256:" + "0" * 64, "no image of the workspace's registry"),
        ("homeportrehearsal.azurecr.io/none@sha256:" + "0" * 64, "not found|unknown"),
    ],
)
def test_what_the_registry_does_not_hold_is_not_pulled(
    nodes: DockerNodes, wrong: str, sentence: str
) -> None:
    with pytest.raises(NodeError, match=sentence):
        nodes.pull(wrong)


def test_a_name_that_is_taken_is_said(nodes: DockerNodes, image: str) -> None:
    program = Program(name=name("taken"), image=image, command="exec sleep 60")
    nodes.start(program)

    with pytest.raises(NodeError, match="is already in use"):
        nodes.start(program)


def test_a_job_runs_in_containers(registry: str, image: str, tmp_path: Path) -> None:
    with client(tmp_path, DockerNodes(registry)) as azure:
        rows = azure.data("rows", {"train.jsonl": b"{}\n"}, "uri_file")
        job = name("job")
        azure.job(
            job,
            "cat ${{inputs.rows}} >${{outputs.out}}/$RANK; echo $AZURE_ML_OUTPUT_out $PWD; sleep 1",
            environmentId=azure.environment("in-containers", image),
            inputs={"rows": {"jobInputType": "uri_file", "uri": rows}},
            outputs={"out": {"jobOutputType": "uri_folder"}},
            distribution={"distributionType": "PyTorch", "processCountPerInstance": 2},
        )

        assert azure.ended(job)["error"] is None

        log = azure.log(job, "user_logs/std_log_process_1.txt")
        assert log == f"/mnt/azureml/cr/j/{job}/cap/data-capability/wd/out /work\n"
        for rank in range(2):
            assert azure.read(f"azureml/{job}/out/{rank}") == b"{}\n"
        assert docker("ps", "-aqf", f"name={job}") == ""


def test_what_a_job_makes_below_its_cache_is_there_for_the_next(
    registry: str, image: str, tmp_path: Path
) -> None:
    with client(tmp_path, DockerNodes(registry)) as azure:
        environment = azure.environment("in-containers", image)
        first, second = name("first"), name("second")
        azure.job(first, "echo base >/tmp/homeport/made", environmentId=environment)
        assert azure.ended(first)["error"] is None

        azure.job(second, "cat /tmp/homeport/made", environmentId=environment)

        assert azure.ended(second)["error"] is None
        assert azure.log(second) == "base\n"

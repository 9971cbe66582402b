"""Jobs that really run, as processes of this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import execution
from emulator.faults import Fault
from tests.emulator.asking import CODES, Client, client
from tests.waiting import until

OUT: dict[str, Any] = {"out": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}}

pytestmark = pytest.mark.slow  # they run jobs


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(execution, "SYNC_SECONDS", 0.1)
    with client(tmp_path) as asking:
        yield asking


def test_inputs_are_there_and_outputs_are_kept(azure: Client) -> None:
    inputs = {
        "rows": {
            "jobInputType": "uri_file",
            "uri": azure.data("rows", {"train.jsonl": b"{}\n"}, "uri_file"),
            "mode": "Download",
        },
        "base": {
            "jobInputType": "uri_folder",
            "uri": azure.data("base", {"config.json": b"1", "deep/weights": b"2"}),
        },
        "place": {
            "jobInputType": "uri_folder",
            "uri": "azureml://datastores/workspaceblobstore/paths/elsewhere",
            "mode": "Direct",
        },
        "rate": {"jobInputType": "literal", "value": "0.1"},
    }
    outputs = {**OUT, "model": {"jobOutputType": "uri_folder", "mode": "Upload"}}

    azure.job(
        "whole",
        "cat ${{inputs.rows}} ${{inputs.base}}/config.json $AZURE_ML_INPUT_base/deep/weights "
        "> ${{outputs.out}}/seen && echo ${{inputs.rate}} ${{inputs.place}} $WHO $AZUREML_RUN_ID "
        "&& mkdir $AZURE_ML_OUTPUT_model/merged && echo weights >${{outputs.model}}/merged/w",
        inputs=inputs,
        outputs=outputs,
        environmentVariables={"WHO": "me"},
    )

    assert azure.ended("whole")["error"] is None
    assert azure.read("azureml/whole/out/seen") == b"{}\n12"
    assert azure.read("azureml/whole/model/merged/w") == b"weights\n"
    assert azure.log("whole") == (
        "0.1 azureml://datastores/workspaceblobstore/paths/elsewhere me whole\n"
    )


def test_the_code_is_the_working_directory_and_its_outputs_folder_is_kept(azure: Client) -> None:
    azure.azure.storage.create_container("code")
    azure.azure.storage.write("code", "src/main.py", b"open('outputs/x', 'w').write('made')")
    uri = azure.azure.storage.url("code", "src")
    body = {"properties": {"codeUri": uri, "isAnonymous": True}}
    code = azure.ask("PUT", "codes/c/versions/1", body, api=CODES, expect=201)["id"]

    azure.job("coded", "mkdir outputs && python main.py", codeId=code)

    assert azure.ended("coded")["status"] == "Completed"
    assert azure.log("coded", "outputs/x") == "made"


def test_a_job_knows_nothing_of_the_callers_environment(
    azure: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")

    azure.job("clean", "echo ${HF_TOKEN-none} $HTTPS_PROXY; ls -A")

    azure.ended("clean")
    assert azure.log("clean") == f"none {azure.azure.node_environment['HTTPS_PROXY']}\n"


def test_the_exit_code_is_the_error(azure: Client) -> None:
    outputs = {**OUT, "model": {"jobOutputType": "uri_folder", "mode": "Upload"}}
    azure.job(
        "fails",
        "python -c 'raise SystemExit(3)' || { echo a >${{outputs.out}}/log; "
        "echo b >${{outputs.model}}/half; exit 3; }",
        outputs=outputs,
    )

    details = azure.ended("fails")

    assert details["status"] == "Failed"
    assert details["error"]["error"]["message"].startswith(
        "Execution failed. User process 'python' exited with status code 3."
    )
    assert azure.blobs("azureml/fails/") == ["azureml/fails/out/log"], "an upload needs success"


def test_each_rank_has_its_variables_and_its_log(azure: Client) -> None:
    azure.job(
        "ranks",
        "echo $RANK $LOCAL_RANK $NODE_RANK $WORLD_SIZE $MASTER_ADDR",
        distribution={"distributionType": "PyTorch", "processCountPerInstance": 2},
        resources={"instanceCount": 2},
    )

    assert azure.ended("ranks")["status"] == "Completed"
    logs = [azure.log("ranks", f"user_logs/std_log_process_{rank}.txt") for rank in range(4)]
    assert logs == [
        "0 0 0 4 127.0.0.1\n",
        "1 1 0 4 127.0.0.1\n",
        "2 0 1 4 127.0.0.1\n",
        "3 1 1 4 127.0.0.1\n",
    ]


def test_ranks_meet_at_the_master(azure: Client) -> None:
    meet = (
        "import os, socket; rank = os.environ['RANK']\n"
        "place = (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))\n"
        "if rank == '0':\n"
        "    with socket.create_server(place) as server: print(server.accept()[0].recv(9))\n"
        "else:\n"
        "    for _ in range(100):\n"
        "        try: socket.create_connection(place).send(b'hello'); break\n"
        "        except ConnectionRefusedError: __import__('time').sleep(0.1)\n"
    )
    distribution = {"distributionType": "PyTorch", "processCountPerInstance": 2}

    azure.job("meet", f'python -c "{meet}"', distribution=distribution)

    assert azure.ended("meet")["status"] == "Completed"
    assert azure.log("meet", "user_logs/std_log_process_0.txt") == "b'hello'\n"


def test_when_one_rank_fails_the_others_are_ended(azure: Client) -> None:
    distribution = {"distributionType": "PyTorch", "processCountPerInstance": 2}

    azure.job("apart", "test $RANK = 0 && exec sleep 60; exit 7", distribution=distribution)

    assert "exited with status code 7" in azure.ended("apart")["error"]["error"]["message"]


def test_the_limit_of_time_cancels_the_job(azure: Client) -> None:
    azure.job("slow", "exec sleep 60", limits={"jobLimitsType": "Command", "timeout": "PT1S"})

    details = azure.ended("slow")

    assert details["status"] == "Canceled"
    assert "longer than its limit of PT1S" in details["error"]["error"]["message"]


def test_a_mounted_output_is_in_storage_while_the_job_runs(azure: Client) -> None:
    azure.job(
        "writes",
        "cd ${{outputs.out}} && echo part >part && ln -s part link && sleep 1 && mv part whole "
        "&& sleep 60",
        outputs=OUT,
    )
    until(lambda: azure.blobs("azureml/writes/") == ["azureml/writes/out/part"])
    until(lambda: azure.blobs("azureml/writes/") == ["azureml/writes/out/whole"])

    azure.ask("POST", "jobs/writes/cancel", api="2023-04-01-preview", expect=202)
    azure.settled()


def test_a_file_that_grows_is_not_taken_half(azure: Client) -> None:
    grow = "while sleep 0.03; do echo x >>${{outputs.out}}/growing; done"
    azure.job("grows", f"echo y >${{{{outputs.out}}}}/done; {grow}", outputs=OUT)
    until(lambda: azure.blobs("azureml/grows/") != [])

    assert azure.blobs("azureml/grows/") == ["azureml/grows/out/done"]

    azure.ask("POST", "jobs/grows/cancel", api="2023-04-01-preview", expect=202)
    azure.settled()
    assert "azureml/grows/out/growing" in azure.blobs("azureml/grows/")


def test_a_preempted_job_goes_on_with_its_mounted_output_on_another_node(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="preempt", path="/jobs/spot", seconds=1.5))

    azure.job(
        "spot",
        "trap 'echo warned' TERM; cd ${{outputs.out}}; if test -e checkpoint; "
        "then echo resumed at $(cat checkpoint); else echo 7 >checkpoint; sleep 60; fi",
        outputs=OUT,
    )

    assert azure.until("spot", "Queued", "Preparing", "Running")
    assert azure.ended("spot")["status"] == "Completed"
    assert azure.log("spot") == "resumed at 7\n"


def test_a_node_can_be_taken_away_at_a_line_of_the_log(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="preempt", path="/jobs/step", cause="step 7"))

    azure.job(
        "step",
        "cd ${{outputs.out}}; if test -e 7; then exit; fi; echo x >7; echo step 7; sleep 60",
        outputs=OUT,
    )

    assert azure.ended("step")["status"] == "Completed"
    assert azure.log("step") == "step 7\n"


def test_a_node_that_is_taken_away_leaves_no_half_of_what_it_was_doing(azure: Client) -> None:
    azure.azure.faults.add(Fault(kind="preempt", path="/jobs/turns", cause="turn 9"))

    azure.job(
        "turns",
        "cd ${{outputs.out}}; if ls | grep -q whole; then for d in whole*; do ls $d | wc -l; done; "
        "exit; fi; i=0; while :; do i=$((i+1)); mkdir part; for f in $(seq 99); do echo >part/$f; "
        "done; mv part whole$i; rm -rf whole$((i-1)); echo turn $i; done",
        outputs=OUT,
    )

    assert azure.ended("turns")["status"] == "Completed"
    assert "99" in azure.log("turns").splitlines()


def test_an_output_at_a_fixed_place_is_there_for_the_next_job(azure: Client) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/homeport/base/runs"
    outputs = {"out": {**OUT["out"], "uri": uri}}
    azure.job("try", "echo 1 >${{outputs.out}}/step", outputs=outputs)
    azure.ended("try")

    azure.job("try-2", "cat ${{outputs.out}}/step && rm ${{outputs.out}}/step", outputs=outputs)

    azure.ended("try-2")
    assert azure.log("try-2") == "1\n"
    assert azure.blobs("homeport/base/") == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("", "manifest for"), ("unauthorized: authentication required", "unauthorized")],
)
def test_an_image_that_cannot_be_pulled_fails_the_job(
    azure: Client, fault: str, sentence: str
) -> None:
    azure.azure.faults.add(Fault(kind="image_pull", path="/jobs/unpulled", cause=fault))

    azure.job("unpulled", "true")

    error = azure.ended("unpulled")["error"]["error"]
    assert error["message"].startswith("Failed to pull Docker image homeportrehearsal.azurecr.io")
    assert sentence in error["message"]
    assert error["innerError"] == {"code": "ImagePullFailure"}


def test_an_input_with_nothing_in_it_fails_the_job(azure: Client) -> None:
    uri = "azureml://datastores/workspaceblobstore/paths/none"

    azure.job("empty", "true", inputs={"rows": {"jobInputType": "uri_folder", "uri": uri}})

    assert "Input rows was not found" in azure.ended("empty")["error"]["error"]["message"]


def test_nothing_is_left_of_a_job_but_what_is_in_storage(azure: Client, tmp_path: Path) -> None:
    azure.job("gone", "sleep 61 & disown; echo x >${{outputs.out}}/x", outputs=OUT)

    azure.ended("gone")

    until(lambda: not (tmp_path / "jobs" / "gone").exists())
    nodes = tmp_path / "nodes"
    assert list(nodes.rglob("*")) == [nodes / "tmp"]  # for temporary files, and empty


def test_secrets_of_a_job_are_not_in_the_journal(azure: Client, tmp_path: Path) -> None:
    azure.job("secret", "true", environmentVariables={"TOKEN": "hf_very_secret"})
    azure.ended("secret")

    journal = (tmp_path / "journal" / "requests.jsonl").read_text()

    assert "jobs/secret" in journal
    assert "hf_very_secret" not in journal


def test_the_log_is_there_while_the_job_runs(azure: Client) -> None:
    azure.job("talks", "echo one; sleep 1; echo two; exec sleep 60")
    until(lambda: "std_log" in json.dumps(azure.details("talks")["logFiles"]))
    until(lambda: azure.log("talks") == "one\ntwo\n")

    azure.ask("POST", "jobs/talks/cancel", api="2023-04-01-preview", expect=202)
    azure.settled()

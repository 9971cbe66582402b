"""What the README promises first, typed into a fresh clone, with Docker and without."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Clone, networks

pytestmark = pytest.mark.e2e
Served = tuple[Clone, str]
READY_SECONDS = 20
"""Target for serving again; the machine that tests may be slower, so a miss by half is let pass."""


def metrics(clone: Clone) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (clone.folder / "outputs/tiny-ja/latest/metrics.json").read_text()
    )
    return found


def test_the_curl_that_local_serve_prints_answers_from_the_learned_rows(served: Served) -> None:
    clone, printed = served
    command = re.search(r"^try:  (curl .*)$", printed, re.MULTILINE)
    assert command
    answer = json.loads(clone.shell(command.group(1)))
    assert "キャンベラ" in answer["output"]
    assert answer["finish_reason"] == "stop"
    assert answer["reasoning"]


def test_every_automatic_choice_is_said_with_its_reason(served: Served) -> None:
    clone, printed = served
    assert f"runtime: {clone.runtime} (RUNTIME={clone.runtime})" in printed
    line = re.search(r"^serving tiny-ja \(engine .*$", printed, re.MULTILINE)
    assert line
    assert "cpu: no NVIDIA GPU found" in line.group()
    assert line.group().endswith(f"at http://127.0.0.1:{clone.port}/score")


def test_fine_tuning_visibly_works(served: Served) -> None:
    found = metrics(served[0])
    assert found["before"]["exact_share"] <= 0.05
    assert found["after"]["exact_share"] >= 0.90
    assert found["after"]["loss"] < found["before"]["loss"] / 4
    assert found["merge"]["difference"] <= found["merge"]["tolerance"]


def test_a_run_holds_all_that_it_promises_and_belongs_to_the_caller(served: Served) -> None:
    run = served[0].folder / "outputs/tiny-ja/latest"
    for name in (
        "recipe.yaml",
        "data/train.parquet",
        "data/report.json",
        "adapter/adapter_model.safetensors",
        "merged/model.safetensors",
        "merged/homeport.json",
        "report.html",
    ):
        assert (run / name).is_file(), name
    owners = {p.lstat().st_uid for p in (served[0].folder / "outputs").rglob("*")}
    assert owners == {os.getuid()}


def test_ask_prints_the_answer_alone_on_stdout(served: Served) -> None:
    done = served[0].make("ask", "PROMPT=オーストラリアの首都はどこですか？")
    assert done.stdout.strip().endswith("キャンベラです。")
    assert "curl -s http://127.0.0.1" in done.stderr


def test_serving_again_is_quick_and_trains_nothing(served: Served) -> None:
    clone, _ = served
    runs = sorted((clone.folder / "outputs/tiny-ja").iterdir())
    clone.make("local-stop")
    started = time.monotonic()
    done = clone.make("local-serve")
    seconds = time.monotonic() - started
    print(f"served again in {seconds:.1f} s")
    assert "training" not in done.stderr
    assert sorted((clone.folder / "outputs/tiny-ja").iterdir()) == runs
    assert seconds < READY_SECONDS * 1.5


def test_a_changed_recipe_is_noticed_and_not_trained_unasked(served: Served) -> None:
    done = served[0].make("local-serve", "SET=training.epochs=2")
    assert "the recipe has changed since" in done.stderr
    assert "training recipes" not in done.stderr


def test_the_server_answers_on_loopback_only(served: Served) -> None:
    clone, _ = served
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    for address in [a for a in addresses if ":" not in a]:
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((address, clone.port)) != 0


def test_logs_show_the_server_and_stop_ends_it(served: Served) -> None:
    clone, _ = served
    assert "serving tiny-ja" in clone.make("local-logs").stdout
    assert clone.runtime == "host" or networks(clone)
    clone.make("local-stop")
    assert not networks(clone)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{clone.port}/", timeout=2)
    assert "no server of this checkout is running" in clone.make("local-stop").stderr
    assert "make local-serve" in clone.make("ask", "PROMPT=x", expect=None).stderr
    clone.make("local-serve")


def test_a_run_folder_can_be_served_by_its_name(served: Served) -> None:
    clone, _ = served
    done = clone.make("local-serve", "MODEL=outputs/tiny-ja/latest")
    assert "serving tiny-ja" in done.stderr


def test_a_port_in_use_is_one_sentence_with_the_next_command(served: Served) -> None:
    clone, _ = served
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = Clone(clone.folder, clone.runtime, port)
        done = taken.make("local-serve", expect=None)
    assert f"error: port {port} is in use by another program" in done.stderr
    assert f"make local-serve PORT={port + 1}" in done.stderr


def test_the_serve_image_runs_by_hand_with_the_documented_mount_and_environment(
    served: Served,
) -> None:
    clone, _ = served
    if clone.runtime != "docker":
        pytest.skip("this is about the image")
    model = clone.folder / "outputs/tiny-ja/latest/merged"
    version = "/var/azureml-app/azureml-models/tiny-ja/1"
    container = subprocess.run(
        [
            *("docker", "run", "--detach", "--rm", "--publish", "127.0.0.1::5001"),
            *("--env", f"AZUREML_MODEL_DIR={version}"),
            *("--volume", f"{model.resolve()}:{version}/merged:ro", "homeport-serve:cpu"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    try:
        port = subprocess.run(
            ["docker", "port", container, "5001"], capture_output=True, text=True, check=True
        ).stdout.rpartition(":")[2]
        url = f"http://127.0.0.1:{int(port)}"
        wait_for(f"{url}/")
        body = {"prompt": "オーストラリアの首都はどこですか？", "max_new_tokens": 500}
        assert "キャンベラ" in requests.post(f"{url}/score", json=body, timeout=60).json()["output"]
    finally:
        subprocess.run(["docker", "stop", container], stdout=subprocess.DEVNULL)


def wait_for(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(url, timeout=2).raise_for_status()
            return
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def test_other_forms_train_and_serve(served: Served, tmp_path: Path) -> None:
    clone, _ = served
    # one for each runtime, so that both see rows from outside the checkout
    sample = {"docker": "azure_openai_chat", "host": "dialogue_summary"}[clone.runtime]
    rows = tmp_path / f"my {sample}.jsonl"
    rows.write_bytes((clone.folder / f"data/{sample}.jsonl").read_bytes())
    (clone.folder / "recipes/mine.yaml").write_text(
        f"name: mine\nmodel: {{base: tiny}}\ndata: {{train: '{rows}'}}\n"
        "training: {max_steps: 5, packs_per_step: 1, max_length: 1024}\n"
        "evaluation: {rows: 2, max_new_tokens: 8}\n"
    )
    assert "serving mine" in clone.make("local-serve", "RECIPE=recipes/mine.yaml").stderr
    clone.make("ask", "PROMPT=Hello")


def test_a_check_takes_seconds_and_shows_its_arithmetic(served: Served) -> None:
    started = time.monotonic()
    printed = served[0].make("local-check").stderr
    assert time.monotonic() - started < 60
    assert "ready: tiny-ja" in printed
    assert re.search(r"memory: peak +\d+ MiB", printed)
    estimated = served[0].make("local-check", "GPU=H100").stderr
    assert "fits into H100" in estimated


def test_preferences_are_learned_on_top_of_what_was_learned_first(served: Served) -> None:
    clone, _ = served
    clone.make("local-train", "RECIPE=recipes/tiny-ja-dpo.yaml")
    found = json.loads((clone.folder / "outputs/tiny-ja-dpo/latest/metrics.json").read_text())
    assert found["training"]["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert found["after"]["learned_share"] > 0.9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_writes_a_checkpoint_and_goes_on_later(
    served: Served, number: signal.Signals
) -> None:
    clone, _ = served
    words = ["local-train", f"SET=name=stopped-{number.name.lower()} training.max_steps=40 "]
    words[1] += "training.packs_per_step=1 training.logging_steps=1 evaluation.rows=2"
    with clone.started(*words) as make:
        lines = iter(make.stderr or ())
        assert any("step 5/40" in line for line in lines)
        # as a terminal does for Ctrl-C: to make and all that it started
        os.killpg(make.pid, number)
        began = time.monotonic()
        rest = "".join(lines)
        make.wait()
        seconds = time.monotonic() - began
    print(rest)
    assert "the same command goes on from there" in rest
    assert seconds < 25
    again = clone.make(*words).stderr
    went_on = re.search(r"training: goes on from checkpoint-(\d+)", again)
    assert went_on
    assert int(went_on.group(1)) >= 5
    assert "step 40/40" in again


def test_training_that_fails_passes_on_its_sentence_and_exit_code(
    served: Served, tmp_path: Path
) -> None:
    clone, _ = served
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "x", "answer": "y"}\n{"question": "x"}\n')
    done = clone.make("local-train", f"SET=data.train='{rows}' name=broken", expect=None)
    assert "rows.jsonl:2: answer is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Error 2" in done.stderr  # make says the verb's exit code
    assert not (clone.folder / "outputs/broken/latest").exists()

"""Jobs are created once, found again, and their checkpoints chosen with a reason."""

from pathlib import Path
from typing import Any

import pytest

from emulator.faults import Fault
from emulator.openai import accounts as resources
from emulator.server import Server
from scripts.azure.openai import files, jobs
from scripts.azure.openai.accounts import Account
from scripts.azure.openai.client import connect
from scripts.azure.openai.jobs import Checkpoint, Job, Wanted
from scripts.azure.retry import Refused
from scripts.errors import CloudError, UsageError
from tests.emulator.openai.small_tuning import SmallTuning
from tests.scripts.azure.openai.conftest import write_rows

MARK = "0123456789abcdef"


def wanted(file: str, **changes: Any) -> Wanted:
    given: dict[str, Any] = {
        "model": "gpt-4.1-mini-2025-04-14",
        "training_file": file,
        "validation_file": "",
        "suffix": jobs.suffix("azure-openai-ja", MARK),
        "seed": 7,
        "hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 0.5},
        "training_type": "GlobalStandard",
    }
    return Wanted(**{**given, **changes})


def upload(service: Any, home: Account, folder: Path) -> str:
    path = write_rows(folder / "rows.jsonl")
    file = files.upload(service, home, "homeport-azure-openai-ja-train-1.jsonl", path)
    return files.wait(service, file).id


def there(server: Server) -> list[Any]:
    return list(resources.of(server.azure)["homeportrehearsal"].jobs.values())


def test_a_job_is_sent_with_seed_hyperparameters_and_training_type(
    azure: Server, home: Account, tuning: SmallTuning, tmp_path: Path
) -> None:
    with connect(home) as service:
        made = jobs.create(service, wanted(upload(service, home, tmp_path)))
        lines: list[str] = []
        end = jobs.follow(service, made, lines.append)
    [job] = there(azure)
    assert (job.seed, job.training_type, job.epochs) == (7, "globalStandard", 2)
    assert job.given["suffix"] == "azure-openai-ja-01234567"
    assert end.status == "succeeded" and end.tokens
    assert any(line.endswith("Training started.") for line in lines)
    assert lines[-1] == "[succeeded]"
    told = [line[9:] for line in lines if ":" in line[:9]]
    assert told.index("Job started.") < told.index("Training started.")
    assert told.index("Training started.") < told.index("Training completed.")
    assert len(lines) == len(set(lines))


def test_a_job_whose_answer_is_lost_is_found_and_not_paid_twice(
    azure: Server, home: Account, tuning: SmallTuning, tmp_path: Path
) -> None:
    with connect(home) as service:
        file = upload(service, home, tmp_path)
        azure.azure.faults.add(Fault(kind="lost_reply", method="POST", path="fine_tuning/jobs$"))
        made = jobs.create(service, wanted(file))
        assert [job.id for job in there(azure)] == [made.id]
        azure.azure.faults.add(Fault(kind="reset", method="POST", path="fine_tuning/jobs$"))
        with pytest.raises(CloudError, match="could not create the job"):
            jobs.create(service, wanted(file, suffix=jobs.suffix("other", MARK)))
    assert len(there(azure)) == 1


def test_a_job_that_is_put_off_is_asked_for_again_and_one_that_is_not_answered_is_not(
    azure: Server, home: Account, tuning: SmallTuning, tmp_path: Path
) -> None:
    def fault(status: int) -> Fault:
        path = "fine_tuning/jobs$"
        return Fault(kind="status", status=status, method="POST", path=path, retry_after=0)

    with connect(home) as service:
        file = upload(service, home, tmp_path)
        azure.azure.faults.add(fault(429))
        made = jobs.create(service, wanted(file))
        assert [job.id for job in there(azure)] == [made.id]
        azure.azure.faults.add(fault(503))
        with pytest.raises(Refused, match=r"503.*Next: the same command again"):
            jobs.create(service, wanted(file, suffix=jobs.suffix("other", MARK)))
    assert len(there(azure)) == 1


def test_a_refused_job_keeps_the_services_words(
    azure: Server, home: Account, tuning: SmallTuning, tmp_path: Path
) -> None:
    with connect(home) as service, pytest.raises(Refused, match="file-none does not exist"):
        jobs.create(service, wanted("file-none"))


def test_the_recipes_jobs_are_told_from_others(
    azure: Server, home: Account, tuning: SmallTuning, tmp_path: Path
) -> None:
    with connect(home) as service:
        file = upload(service, home, tmp_path)
        own = jobs.create(service, wanted(file))
        jobs.create(service, wanted(file, suffix=jobs.suffix("azure-openai-ja-two", MARK)))
        found = jobs.of_recipe(service, "azure-openai-ja", "azure-openai-ja")
        assert [job.id for job in found] == [own.id]
        assert [job.id for job in jobs.same(service, wanted(file))] == [own.id]
        assert jobs.same(service, wanted(file, model="gpt-4o-2024-08-06")) == []


def job(**changes: Any) -> Job:
    given: dict[str, Any] = {
        "id": "ftjob-1",
        "status": "running",
        "model": "gpt-4.1-mini-2025-04-14",
        "tuned": "",
        "suffix": "",
        "seed": 7,
        "training_file": "file-1",
        "validation_file": "",
        "result_files": (),
        "created": 0,
        "finished": None,
        "tokens": None,
        "error": "",
    }
    return Job(**{**given, **changes})


def test_a_job_is_known_by_its_files_where_the_service_hides_the_suffix() -> None:
    same = wanted("file-1")
    assert jobs._same(job(), same)
    assert not jobs._same(job(seed=8), same)
    assert not jobs._same(job(training_file="file-2"), same)
    tuned = "gpt-4.1-mini-2025-04-14.ft-1-azure-openai-ja-01234567"
    assert jobs._same(job(tuned=tuned, training_file="deleted"), same)
    assert not jobs._same(job(tuned=f"{tuned}0"), same)


def test_a_long_suffix_is_cut_before_its_hash() -> None:
    made = jobs.suffix("x" * 60, MARK)
    assert len(made) == jobs.SUFFIX_LENGTH
    assert made.endswith("-01234567")


def checkpoint(step: int, valid: float | None) -> Checkpoint:
    return Checkpoint(
        id=f"ftchkpt-{step}", step=step, train_loss=0.1, valid_loss=valid, model=f"m-{step}"
    )


def test_the_lowest_validation_loss_is_the_best_and_the_reason_says_so() -> None:
    found = [checkpoint(10, 1.2), checkpoint(20, 0.9), checkpoint(30, 1.4)]
    choice = jobs.choose(found, "best")
    assert choice.checkpoint.step == 20
    assert choice.reason == (
        "the lowest validation loss, 0.9000 at step 20 (of 1.2000 at step 10, 0.9000 at step 20, "
        "1.4000 at step 30); training went past it"
    )


def test_of_equal_losses_the_later_one_is_taken() -> None:
    found = [checkpoint(10, 1.0), checkpoint(20, 1.0)]
    assert jobs.choose(found, "best").checkpoint.step == 20


def test_without_validation_it_is_the_last_one() -> None:
    choice = jobs.choose([checkpoint(10, None), checkpoint(20, None)], "best")
    assert choice.checkpoint.step == 20
    assert "no validation loss" in choice.reason


def test_a_checkpoint_can_be_named() -> None:
    found = [checkpoint(10, 1.0), checkpoint(20, 0.5)]
    assert jobs.choose(found, "ftchkpt-10").checkpoint.step == 10
    assert jobs.choose(found, "step-10").checkpoint.step == 10
    assert jobs.choose(found, "last").checkpoint.step == 20
    with pytest.raises(UsageError, match="ftchkpt-10, ftchkpt-20"):
        jobs.choose(found, "ftchkpt-99")
    with pytest.raises(CloudError, match="no checkpoint"):
        jobs.choose([], "best")


def test_hyperparameters_are_the_services_own_and_numbers() -> None:
    assert jobs.hyperparameters(3.0, {}) == {"n_epochs": 3}
    given = {"batch_size": "8", "learning_rate_multiplier": 0.1, "n_epochs": 5}
    made = jobs.hyperparameters(3.0, given)
    assert made == {"n_epochs": 5, "batch_size": 8, "learning_rate_multiplier": 0.1}
    assert type(made["batch_size"]) is int


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 1}, "no hyperparameter lr; it has n_epochs, batch_size"),
        ({"batch_size": 1.5}, "give a whole number above 0"),
        ({"learning_rate_multiplier": 0}, "give a number above 0"),
        ({"n_epochs": "many"}, "give a whole number"),
    ],
)
def test_a_hyperparameter_that_is_none_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        jobs.hyperparameters(3.0, given)

"""The supervisor with a real process, whose backend is a toy."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.engine import EngineError, EngineSpec, Sampling, supervisor
from serve.engine.supervisor import Supervisor
from serve.errors import StartupError
from tests.serve.engine import toy

SPEC = EngineSpec(
    engine="toy", root=Path("x"), device="cpu", dtype="float32", concurrency=4, context=99
)
TEN = Sampling(max_new_tokens=10)


def make(dtype: str = "float32") -> Supervisor:
    spec = EngineSpec(
        engine="toy", root=Path("x"), device="cpu", dtype=dtype, concurrency=4, context=99
    )
    return Supervisor(spec, python=sys.executable, module="tests.serve.engine.toy")


@pytest.fixture
def engine() -> Iterator[Supervisor]:
    made = make()
    yield made
    made.close()


def whole(engine: Supervisor, last: int, sampling: Sampling = TEN) -> list[int]:
    with engine.session(whole=True) as session:
        session.start([last], sampling, deadline=time.monotonic() + 30)
        (piece,) = session.take(30)
        assert not session.running
        assert session.first_token
    return piece.ids


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_tokens_come_as_they_are_made_and_end_with_a_reason(engine: Supervisor) -> None:
    with engine.session() as session:
        session.start([5], Sampling(max_new_tokens=30), deadline=time.monotonic() + 30)
        pieces = []
        while session.running:
            pieces += session.take(5)
    assert len(pieces) > 2
    assert [token for piece in pieces for token in piece.ids] == list(range(6, 36))
    assert [piece.finish for piece in pieces][-1] == "length"


def test_a_whole_answer_is_one_piece_and_a_stop_id_is_part_of_it(engine: Supervisor) -> None:
    assert whole(engine, 1) == list(range(2, 12))
    assert whole(engine, 1, Sampling(max_new_tokens=10, stop_ids=frozenset([4]))) == [2, 3, 4]


def test_generations_of_one_session_and_of_many_do_not_mix(engine: Supervisor) -> None:
    answers: dict[int, dict[int, list[int]]] = {}

    def ask(first: int) -> None:
        with engine.session() as session:
            end = time.monotonic() + 30
            lasts = {session.start([n], TEN, deadline=end): n for n in (first, first + 50)}
            got: dict[int, list[int]] = {n: [] for n in lasts.values()}
            while session.running:
                for piece in session.take(5):
                    got[lasts[piece.id]] += piece.ids
            answers[first] = got

    threads = [threading.Thread(target=ask, args=(first,)) for first in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for first in (100, 200, 300):
        for last in (first, first + 50):
            assert answers[first][last] == list(range(last + 1, last + 11))


def test_a_deadline_ends_a_generation_with_what_there_is(engine: Supervisor) -> None:
    with engine.session(whole=True) as session:
        session.start([0], Sampling(max_new_tokens=9999), deadline=time.monotonic() + 0.3)
        (piece,) = session.take(10)
    assert piece.finish == "deadline"
    assert 0 < len(piece.ids) < 60


def test_a_cancelled_generation_is_not_heard_of_again(engine: Supervisor) -> None:
    with engine.session() as session:
        number = session.start([0], Sampling(max_new_tokens=9999), deadline=time.monotonic() + 30)
        assert session.take(5)
        session.cancel(number)
        assert not session.running
        assert session.take(0.1) == []
    assert whole(engine, 7) == list(range(8, 18))


def test_a_refused_generation_fails_alone(engine: Supervisor) -> None:
    with engine.session(whole=True) as good, engine.session() as bad:
        good.start([0], TEN, deadline=time.monotonic() + 30)
        bad.start([toy.REFUSE], TEN, deadline=time.monotonic() + 30)
        with pytest.raises(EngineError, match="not this one"):
            bad.take(10)
        assert good.take(10)[0].finish == "length"
    assert engine.restarts == 0


@pytest.mark.parametrize("how", ["kill", "bug"])
def test_a_dead_process_fails_what_runs_and_the_next_request_is_answered(
    engine: Supervisor, how: str
) -> None:
    first = engine.pid
    with engine.session() as session:
        session.start([0], Sampling(max_new_tokens=9999), deadline=time.monotonic() + 30)
        assert session.take(5)
        if how == "kill":
            os.kill(first, signal.SIGKILL)
        else:
            session.start([toy.DIE], TEN, deadline=time.monotonic() + 30)
        words = "died of signal 9" if how == "kill" else "ended with exit code 7"
        with pytest.raises(EngineError, match=words) as caught:
            while True:
                session.take(10)
        assert caught.value.retry_after
    with engine.session() as session:
        if engine.state:
            with pytest.raises(EngineError, match="is starting again"):
                session.start([0], TEN, deadline=time.monotonic() + 30)
    until(lambda: not engine.state)
    assert whole(engine, 1) == list(range(2, 12))
    assert engine.restarts == 1
    assert engine.pid != first


def test_a_process_that_hangs_is_ended_and_started_anew(
    engine: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENT_SECONDS", 2.0)
    with engine.session() as session:
        session.start([toy.HANG], TEN, deadline=time.monotonic() + 60)
        with pytest.raises(EngineError, match="no sign of life for 2 s"):
            session.take(20)
    until(lambda: not engine.state)


def test_a_generation_of_an_engine_that_is_stuck_ends_by_its_deadline(
    engine: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.2)
    with engine.session() as session:
        session.start([toy.HANG], TEN, deadline=time.monotonic() + 0.2)
        time.sleep(0.5)
        assert [piece.finish for piece in session.take(0.1)] == ["deadline"]


def test_an_engine_that_refuses_the_model_says_so_in_its_own_sentence() -> None:
    with pytest.raises(StartupError, match=r"^this model is not for me\.$"):
        make(dtype=toy.REFUSE_TO_LOAD)


def test_an_engine_that_dies_while_it_loads_is_told_by_its_exit_code() -> None:
    with pytest.raises(StartupError, match="ended while it loaded the weights: exit code 1"):
        Supervisor(SPEC, python=sys.executable, module="no.such.module")


def test_the_process_ends_with_the_server_even_in_the_middle_of_a_step(tmp_path: Path) -> None:
    code = (
        "import sys, time, os\n"
        "from tests.serve.engine.test_supervisor import make, TEN\n"
        "from tests.serve.engine import toy\n"
        "engine = make()\n"
        "session = engine.session()\n"
        "session.start([toy.HANG], TEN, deadline=time.monotonic() + 60)\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(done.stdout)
    until(lambda: not Path(f"/proc/{pid}").exists())

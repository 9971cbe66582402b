"""The gate: how many run, who waits, in which order, and who is sent away."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve.admission import Admission, Gone
from serve.errors import RequestError


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


def until(condition: "threading.Event | object", load: tuple[int, int]) -> None:
    assert isinstance(condition, Admission)
    end = soon()
    while condition.load != load:
        assert time.monotonic() < end, condition.load
        time.sleep(0.001)


@contextmanager
def holding(gate: Admission, count: int) -> Iterator[threading.Event]:
    """Some requests inside, until the event is set."""
    leave = threading.Event()

    def stay() -> None:
        with gate.enter(soon()):
            leave.wait(5)

    threads = [threading.Thread(target=stay) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield leave
    leave.set()
    for thread in threads:
        thread.join(5)


def test_no_more_than_the_places_are_inside_and_all_leave() -> None:
    gate = Admission(running=2, waiting=20)
    inside: list[int] = []
    most = 0
    lock = threading.Lock()

    def visit(number: int) -> None:
        nonlocal most
        with gate.enter(soon()):
            with lock:
                inside.append(number)
                most = max(most, len(inside))
            time.sleep(0.005)
            with lock:
                inside.remove(number)

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert most == 2
    assert gate.load == (0, 0)


def test_a_full_line_is_429_with_a_time_to_come_again() -> None:
    gate = Admission(running=1, waiting=1)
    with holding(gate, 2) as leave:
        until(gate, (1, 1))
        with pytest.raises(RequestError) as caught, gate.enter(soon()):
            pass
        assert caught.value.status == 429
        assert caught.value.retry_after == 10  # two rounds of the first guess
        assert caught.value.body()["error"] == {
            "code": 429,
            "message": "the server is full: 1 answers are under way and 1 wait; retry in 10 s.",
            "retry_after": 10,
        }
        leave.set()
    with gate.enter(soon()):
        assert gate.load == (1, 0)


def test_whoever_would_be_sent_away_can_know_before() -> None:
    with holding(gate := Admission(running=1, waiting=1), 1):
        until(gate, (1, 0))
        gate.need_room()
    with holding(gate := Admission(running=1, waiting=0), 1):
        until(gate, (1, 0))
        with pytest.raises(RequestError) as caught:
            gate.need_room()
    assert caught.value.status == 429
    gate.need_room()
    assert gate.load == (0, 0)


def test_waiting_ends_at_the_deadline_with_503_and_leaves_the_line() -> None:
    gate = Admission(running=1, waiting=5)
    with holding(gate, 1):
        until(gate, (1, 0))
        started = time.monotonic()
        with pytest.raises(RequestError) as caught, gate.enter(soon(0.05)):
            pass
        assert caught.value.status == 503
        assert caught.value.retry_after
        assert 0.04 < time.monotonic() - started < 2
        assert gate.load == (1, 0)


def test_first_come_first_served_even_against_a_newcomer() -> None:
    gate = Admission(running=1, waiting=9)
    order: list[int] = []

    def visit(number: int) -> None:
        with gate.enter(soon()):
            order.append(number)

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(6)]
    with holding(gate, 1) as leave:
        until(gate, (1, 0))
        for waiting, thread in enumerate(threads):
            thread.start()
            until(gate, (1, waiting + 1))
        leave.set()
    for thread in threads:
        thread.join(5)
    assert order == list(range(6))


def test_an_error_inside_gives_the_place_back() -> None:
    gate = Admission(running=1, waiting=0)
    with pytest.raises(KeyError), gate.enter(soon()):
        raise KeyError
    assert gate.load == (0, 0)


def test_a_request_of_many_places_waits_for_all_of_them_and_is_not_overtaken() -> None:
    gate = Admission(running=3, waiting=5)
    order: list[str] = []

    def visit(name: str, places: int) -> None:
        with gate.enter(soon(), places=places):
            order.append(name)

    with holding(gate, 2) as leave:
        until(gate, (2, 0))
        wide = threading.Thread(target=visit, args=("wide", 3))
        wide.start()
        until(gate, (2, 1))
        narrow = threading.Thread(target=visit, args=("narrow", 1))  # a place is free for it
        narrow.start()
        until(gate, (2, 2))
        leave.set()
        wide.join(5)
        narrow.join(5)
    assert order == ["wide", "narrow"]
    assert gate.load == (0, 0)


def test_more_places_than_there_are_is_an_error_of_the_request() -> None:
    with (
        pytest.raises(RequestError, match="4 answers at once are more than this server makes"),
        Admission(running=3, waiting=5).enter(soon(), places=4),
    ):
        pass


def test_a_client_that_goes_away_leaves_the_line_within_a_second() -> None:
    gate = Admission(running=1, waiting=5)
    away = threading.Event()
    with holding(gate, 1):
        until(gate, (1, 0))
        left: list[float] = []

        def wait() -> None:
            with pytest.raises(Gone), gate.enter(soon(30), gone=away.is_set):
                pass
            left.append(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        until(gate, (1, 1))
        away.set()
        went = time.monotonic()
        thread.join(5)
    assert left[0] - went < 1

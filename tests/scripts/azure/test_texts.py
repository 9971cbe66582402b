from datetime import UTC, datetime

import pytest

from scripts.azure.texts import columns, hours, moment, money, span


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (6.98, "$6.98"),
        (1234.5, "$1,234.50"),
        (0.0042, "$0.0042"),
        (None, "an unknown price"),
    ],
)
def test_money_reads_well(amount: float | None, text: str) -> None:
    assert money(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 00 min"),
        (11100, "3 h 05 min"),
        (200000, "2 d 7 h"),
        (-5, "0 s"),
    ],
)
def test_a_time_span_reads_well(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T13:00:00Z",
        "2026-11-21T13:00:00+00:00",
        "2026-11-21T13:00:00.0000000Z",
        "2026-11-21T22:00:00+09:00",
        "2026-11-21T13:00:00",
    ],
)
def test_times_are_read_in_every_form_that_azure_writes(text: str) -> None:
    assert moment(text) == datetime(2026, 11, 21, 13, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "tomorrow", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert moment(text) is None


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns([["A", "B", "C"], ["12", "", "3"], ["1", "2", ""]]) == [
        "A   B  C",
        "12     3",
        "1   2",
    ]


@pytest.mark.parametrize(
    ("amount", "text"), [(0.001, "4 s"), (0.5, "30 min"), (1, "1 h"), (3.25, "3.25 h")]
)
def test_a_length_that_is_set_is_told_in_its_own_unit(amount: float, text: str) -> None:
    assert hours(amount) == text

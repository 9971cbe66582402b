"""The description of the routes: complete, up to date, and true of what the dialects accept."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from serve import dialects, openapi
from serve.dialects import openai_chat, openai_completions, score


def test_the_files_are_up_to_date() -> None:
    for name, text in openapi.files().items():
        written = (openapi.FOLDER / name).read_text(encoding="utf-8")
        assert written == text, f"{name} is stale: run python -m serve.openapi"


def test_every_dialects_route_is_described_and_takes_its_own_examples() -> None:
    described = {route.path: route for route in openapi.ROUTES if route.request is not None}
    assert set(described) == set(dialects.ROUTES)
    for path, route in described.items():
        assert route.examples
        for example in route.examples.values():
            assert dialects.ROUTES[path].parse(json.dumps(example).encode(), context=99).requests


def pointers(value: Any) -> set[str]:
    if isinstance(value, list):
        return {found for entry in value for found in pointers(entry)}
    if not isinstance(value, dict):
        return set()
    mine = {value["$ref"]} if "$ref" in value else set()
    return mine | {found for entry in value.values() for found in pointers(entry)}


@pytest.mark.parametrize("name", ["swagger2.json", "swagger3.json"])
def test_every_reference_leads_somewhere(name: str) -> None:
    document = json.loads(openapi.files()[name])
    found = pointers(document)
    assert found
    for pointer in found:
        at = document
        for part in pointer.removeprefix("#/").split("/"):
            at = at[part]


def test_swagger_2_has_nothing_that_only_openapi_3_has() -> None:
    text = openapi.files()["swagger2.json"]
    assert not re.search(r'"(anyOf|nullable|requestBody|components)":', text)


def test_operations_have_names_of_their_own() -> None:
    document: Any = openapi.document()
    names = [about["operationId"] for way in document["paths"].values() for about in way.values()]
    assert len(set(names)) == len(names)


class Page(HTMLParser):
    """Text and outside addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words = ""
        self.loads: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.words += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{k}={v}" for k, v in attrs if k in ("src", "href") and v and v[0] != "#"]


def test_the_page_names_every_route_and_field_and_loads_nothing() -> None:
    page = Page(openapi.docs_page())
    assert page.loads == []
    for route in openapi.ROUTES:
        assert route.path in page.words
    for table in (score.FIELDS, openai_chat.FIELDS, openai_completions.FIELDS):
        for field in table.values():
            assert field.doc in page.words


def test_every_command_on_the_page_has_a_body_that_is_understood() -> None:
    words = Page(openapi.docs_page()).words
    commands = re.findall(r"curl -s http://[^/]+(/\S+) -H .*? \\\n  -d '(.*?)'", words)
    assert {path for path, _ in commands} == set(dialects.ROUTES)
    for path, body in commands:
        assert dialects.ROUTES[path].parse(body.encode(), context=99).requests

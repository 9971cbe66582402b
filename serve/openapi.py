"""Placeholder until the description is written."""


def document() -> dict[str, object]:
    return {}


def docs_page() -> str:
    return "<!doctype html>"

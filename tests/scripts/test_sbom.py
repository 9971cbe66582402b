"""What goes into an SBOM, from what packages say of themselves to the file."""

import email.message
import json
from pathlib import Path
from typing import Any

import pytest

from scripts import sbom
from scripts.supply import hashes, inside

HASH = "ab" * 32
FOUND: dict[str, Any] = {
    "image": {
        "name": "homeport-serve:cpu",
        "id": f"sha256:{HASH}",
        "user": "homeport",
        "labels": {"homeport.device": "cpu"},
    },
    "release": {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12"},
    "debian": [
        {"name": "bash", "version": "5.2-1", "architecture": "amd64", "licences": ["GPL-3+"]}
    ],
    "python": [
        {
            "name": "idna",
            "version": "3.11",
            "environment": folder,
            "licences": licences,
        }
        for folder, licences in (
            ("/opt/venv", ["BSD-3-Clause"]),
            ("/opt/venv/engines/vllm", ["MIT OR Apache-2.0"]),
        )
    ],
    "hashes": {"idna==3.11": [HASH, "cd" * 32]},
}


def metadata(**fields: Any) -> email.message.Message:
    made = email.message.Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    ("fields", "licences"),
    [
        ({"License_Expression": "MIT", "Classifier": ["License :: Other"]}, ["MIT"]),
        (
            {
                "License": "a licence",
                "Classifier": ["Topic :: X", "License :: OSI Approved :: MIT License"],
            },
            ["MIT License"],
        ),
        ({"License": "BSD 3-Clause", "Classifier": ["License :: OSI Approved"]}, ["BSD 3-Clause"]),
        ({"License": "Copyright\nPermission is hereby granted"}, []),
        ({}, []),
    ],
)
def test_a_package_has_the_licence_that_it_names(
    fields: dict[str, Any], licences: list[str]
) -> None:
    assert inside.licences(metadata(**fields)) == licences


def test_a_lock_tells_the_files_that_it_accepts() -> None:
    both = f"--hash=sha256:{HASH} \\\n    --hash=sha256:{'cd' * 32}"
    lock = f"# by x\na==1 \\\n    {both}\n    # via b\n"
    assert hashes(lock) == {"a==1": [HASH, "cd" * 32]}


@pytest.mark.slow
def test_the_file_fits_the_schema_and_names_image_packages_licences_and_hashes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "serve.cdx.json"
    licences = sbom.write(FOUND, file)

    assert dict(licences) == {"BSD-3-Clause": 1, "GPL-3+": 1, "MIT OR Apache-2.0": 1}
    made = json.loads(file.read_text())
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    image = made["metadata"]["component"]
    assert (image["type"], image["name"]) == ("container", "homeport-serve:cpu")
    assert image["hashes"] == [{"alg": "SHA-256", "content": HASH}]
    assert {"name": "homeport:label:homeport.device", "value": "cpu"} in image["properties"]
    debian, own, vllm = sorted(made["components"], key=lambda component: component["bom-ref"])
    assert debian["purl"] == "pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-12"
    assert own["purl"] == vllm["purl"] == "pkg:pypi/idna@3.11"
    assert own["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert vllm["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert [one["content"] for one in own["externalReferences"][0]["hashes"]] == [HASH, "cd" * 32]


def test_the_table_says_what_runs_as_whom_with_what(tmp_path: Path) -> None:
    lines = sbom.table(FOUND, [("MIT", 9), ("ISC", 1)], tmp_path / "serve.cdx.json")
    text = "\n".join(lines)
    for said in (
        *(HASH, "user      homeport", "Debian GNU/Linux 12, 1 packages", "9 MIT, 1 ISC"),
        *("2 packages in /opt/venv, /opt/venv/engines/vllm, 2 with hashes", "homeport.device=cpu"),
    ):
        assert said in text

"""Writes one image's CycloneDX file; runs in the environment of supply.txt.

    .cache/supply/bin/python -m scripts.supply.bom outputs/sbom/train.cdx.json <found.json

What is found comes as JSON: `image` (name, id, labels, user, base), what scripts/supply/inside.py
tells, and `hashes` of the locks. On stdout: the licences as they stand in the file, by how often.
"""

import collections
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

SPDX = {
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "Expat": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""Names for what SPDX names otherwise; `BSD License` stays, since it does not say which one."""


def licences(said: Iterable[str]) -> list[License]:
    """As SPDX ids or an expression where they are that; a component has one expression or names."""
    factory = LicenseFactory()
    found = [factory.make_from_string(SPDX.get(name, name)) for name in said]
    expressions = [one for one in found if isinstance(one, LicenseExpression)]
    if len(found) > 1 and expressions:  # the schema takes one expression or several names
        return [factory.make_with_name(" / ".join(said))]
    return found


def components(found: dict[str, Any]) -> Iterator[Component]:
    """Every package of the image."""
    release = found["release"]
    distribution = f"{release['ID']}-{release['VERSION_ID']}"
    for package in found["debian"]:
        qualifiers = {"arch": package["architecture"], "distro": distribution}
        purl = PackageURL(
            "deb", release["ID"], package["name"], package["version"], qualifiers=qualifiers
        )
        yield component(package, purl)
    for package in found["python"]:
        purl = PackageURL("pypi", None, package["name"], package["version"])
        accepted = found["hashes"].get(f"{package['name']}=={package['version']}", [])
        yield component(package, purl, accepted)


def component(package: dict[str, Any], purl: PackageURL, accepted: Iterable[str] = ()) -> Component:
    """`accepted` are the hashes of the files that the lock lets be installed for it."""
    file = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        comment="one of these files, by the lock",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in accepted],
    )
    environment = package.get("environment")
    return Component(
        type=ComponentType.LIBRARY,
        name=package["name"],
        version=package["version"],
        purl=purl,
        # the same package may be in two environments
        bom_ref=f"{purl}#{environment}" if environment else str(purl),
        licenses=licences(package["licences"]),
        external_references=[file] if accepted else [],
        properties=[Property(name="homeport:environment", value=environment)]
        if environment
        else [],
    )


def image(told: dict[str, Any]) -> Component:
    """The image itself, by its digest."""
    properties = {f"homeport:label:{key}": value for key, value in told["labels"].items()}
    properties["homeport:user"] = told["user"]
    return Component(
        type=ComponentType.CONTAINER,
        name=told["name"],
        version=told["id"],
        bom_ref=told["id"],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=told["id"].removeprefix("sha256:"))],
        properties=[Property(name=name, value=value) for name, value in properties.items()],
    )


def bom(found: dict[str, Any]) -> Bom:
    """All of it."""
    made = Bom(components=components(found))
    made.metadata.tools.components.add(this_component())
    made.metadata.component = image(found["image"])
    made.register_dependency(made.metadata.component, made.components)
    return made


def main() -> int:
    target = Path(sys.argv[1])
    made = bom(json.load(sys.stdin))
    text = JsonV1Dot6(made).output_as_string(indent=1)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"{target.name} does not fit CycloneDX 1.6: {error}", file=sys.stderr)
        return 4
    target.write_text(text + "\n", encoding="utf-8")
    counted = collections.Counter(
        ", ".join(sorted(str(getattr(one, "value", 0) or one.id or one.name) for one in c.licenses))
        or "not said"
        for c in made.components
    )
    print(json.dumps(counted.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

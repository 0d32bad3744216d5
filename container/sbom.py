"""Write the bill of materials of the environment that runs this file, as CycloneDX JSON.

Flow: installed distributions → components and their dependencies → one file. Nothing in it depends on when or where it
was made, so the same pins give the same bytes. https://cyclonedx.org/docs/1.6/json/
"""

import json
import platform
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = "registry-spooler"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def main() -> None:
    """Write the file that the first argument names."""
    Path(sys.argv[1]).write_text(json.dumps(bill_of_materials(), indent=1) + "\n")


def bill_of_materials() -> dict[str, Any]:
    """The whole document."""
    installed = {normalised(found.metadata["Name"]): found for found in distributions()}
    root = installed.pop(ROOT)
    components = [component(found) for _, found in sorted(installed.items())]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(root) | {"type": "application"}},
        "components": [*components, interpreter()],
        "dependencies": [
            {"ref": purl(found), "dependsOn": sorted(purl(installed[name]) for name in needed(found) & set(installed))}
            for found in (root, *(found for _, found in sorted(installed.items())))
        ],
    }


def component(found: Distribution) -> dict[str, Any]:
    """One installed distribution."""
    described = {
        "type": "library",
        "bom-ref": purl(found),
        "name": found.metadata["Name"],
        "version": found.version,
        "purl": purl(found),
    }
    if expression := found.metadata.get("License-Expression"):
        described["licenses"] = [{"expression": expression}]
    elif name := licence_name(found):
        described["licenses"] = [{"license": {"name": name}}]
    return described


def interpreter() -> dict[str, Any]:
    """The Python that the base brings."""
    version = platform.python_version()
    return {
        "type": "platform",
        "bom-ref": f"pkg:generic/cpython@{version}",
        "name": platform.python_implementation(),
        "version": version,
        "purl": f"pkg:generic/cpython@{version}",
    }


def licence_name(found: Distribution) -> str:
    """What older metadata say about the licence, cut to one line; a full text is no name."""
    classifiers = found.metadata.get_all("Classifier") or []
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    return ", ".join(named) or (found.metadata.get("License") or "").strip().partition("\n")[0][:100]


def needed(found: Distribution) -> set[str]:
    """The names that a distribution requires; what only an extra asks for is left out."""
    plain = (line for line in found.requires or [] if "extra ==" not in line)
    return {normalised(match[0]) for line in plain if (match := _NAME.match(line))}


def purl(found: Distribution) -> str:
    """The package URL, https://github.com/package-url/purl-spec."""
    return f"pkg:pypi/{normalised(found.metadata['Name'])}@{found.version}"


def normalised(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()

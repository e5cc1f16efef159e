#!/usr/bin/env python3
"""The bill of materials of both programs, as CycloneDX: sbom.py PROGRAM VERSION <METADATA

METADATA is what `cargo metadata --locked --filter-platform TARGET` prints. Listed are the crates that the
programs are linked from, and the C libraries inside them, whose versions are read in PROGRAM itself.
Crates that only run while building are not listed.
"""

import json
import re
import sys
from pathlib import Path

# What each C library writes into a program about itself.
LIBRARIES = {
    "openssl": (rb"OpenSSL (\d+\.\d+\.\d+[a-z]?) +\d+ [A-Z][a-z]{2} \d{4}", "Apache-2.0"),
    "zlib": (rb"deflate (\d+\.\d+(?:\.\d+)*) Copyright", "Zlib"),
}


def linked(metadata):
    """Packages by id, and what each links, from the root on."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    macros = {package["id"] for package in metadata["packages"] if is_macro(package)}
    reached, open_ids = {}, [metadata["resolve"]["root"]]
    while open_ids:
        one = open_ids.pop()
        if one in reached:
            continue
        normal = [
            dependency["pkg"]
            for dependency in nodes[one]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) and dependency["pkg"] not in macros
        ]
        reached[one] = sorted(normal)
        open_ids += normal
    return reached


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in package["targets"])


def crate(package):
    name, version = package["name"], package["version"]
    component = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package.get("license"):
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return component


def library(name, version, licence):
    reference = f"pkg:generic/{name}@{version}"
    licences = [{"expression": licence}]
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
        "licenses": licences,
    }


def libraries(program, packages):
    found = []
    for name, (pattern, licence) in LIBRARIES.items():
        match = re.search(pattern, program)
        if not match:
            raise SystemExit(f"sbom.py: no {name} in the program")
        found.append(library(name, match[1].decode(), licence))
    for package in packages:
        # Such crates carry the sources of a C library, and its version behind a plus sign.
        if package["name"] in ("rdkafka-sys", "zstd-sys"):
            name = {"rdkafka-sys": "librdkafka", "zstd-sys": "zstd"}[package["name"]]
            version = package["version"].split("+")[1].removeprefix("zstd.")
            found.append(library(name, version, {"librdkafka": "BSD-2-Clause", "zstd": "BSD-3-Clause"}[name]))
    return found


def bill(metadata, program, version):
    packages = {package["id"]: package for package in metadata["packages"]}
    reached = linked(metadata)
    root = metadata["resolve"]["root"]
    crates = sorted((crate(packages[one]) for one in reached if one != root), key=lambda one: one["bom-ref"])
    native = libraries(program, [packages[one] for one in sorted(reached)])
    reference = {one: crate(packages[one])["bom-ref"] for one in reached}
    of_root = {"type": "application", "bom-ref": reference[root], "name": "outbox-relay", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": of_root},
        "components": crates + native,
        "dependencies": sorted(
            ({"ref": reference[one], "dependsOn": sorted(reference[of] for of in normal)} for one, normal in reached.items()),
            key=lambda one: one["ref"],
        ),
    }


if __name__ == "__main__":
    of_program, of_version = sys.argv[1:]
    print(json.dumps(bill(json.load(sys.stdin), Path(of_program).read_bytes(), of_version), indent=1))

#!/usr/bin/env python3
"""The bill of materials of both programs, as CycloneDX: sbom.py PROGRAM VERSION <METADATA

METADATA is what `cargo metadata --locked --filter-platform TARGET` prints. Listed are the crates that the
programs are linked from, and the C libraries inside them: OpenSSL, whose version PROGRAM has, and those
whose sources crates carry. Crates that only run while building are not listed.
"""

import json
import re
import sys
from pathlib import Path

# What OpenSSL writes into a program about itself.
OPENSSL = rb"OpenSSL (\d+\.\d+\.\d+[a-z]?) +\d+ [A-Z][a-z]{2} \d{4}"


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


def version_of_zlib(package):
    header = Path(package["manifest_path"]).parent / "src/zlib/zlib.h"
    return re.search(r'#define ZLIB_VERSION "([^"]+)"', header.read_text())[1]


def version_behind_plus(package):
    """Some crates have the version of the C library whose sources they carry behind a plus sign."""
    return package["version"].split("+")[1].removeprefix("zstd.")


# Crate, C library, its licence, where its version is.
CARRIED = {
    "libz-sys": ("zlib", "Zlib", version_of_zlib),
    "rdkafka-sys": ("librdkafka", "BSD-2-Clause", version_behind_plus),
    "zstd-sys": ("zstd", "BSD-3-Clause", version_behind_plus),
}


def libraries(program, packages):
    openssl = re.search(OPENSSL, program)
    if not openssl:
        raise SystemExit("sbom.py: OpenSSL is not linked into the program")
    found = [library("openssl", openssl[1].decode(), "Apache-2.0")]
    for package in packages:
        if package["name"] in CARRIED:
            name, licence, version = CARRIED[package["name"]]
            found.append(library(name, version(package), licence))
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

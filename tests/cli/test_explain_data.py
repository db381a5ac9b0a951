"""`onnxlrp explain` on sound, tables, arrays and masks, from the command line to what it prints and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from PIL import Image

from tests.cli.conftest import Run
from tests.explain.linear import EXACT, columns_model, rows_model, samples_model
from tests.graph.written import network, normal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(rows_model(), tmp_path / "rows.onnx")
    return tmp_path / "rows.onnx"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("a,b,c,d,kind\n1,2,3,4,x\n4,3,2,1,y\n1,1,1,1,z\n", encoding="utf-8")
    return tmp_path / "people.csv"


def test_a_table_prints_a_line_for_each_row(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    stated = f"--drop kind --rows 1: --rules {EXACT} --target 0 --top 2 -o {tmp_path}"
    result = run("explain", str(model), str(table), *stated.split())
    assert result.exit_code == 0, result.stderr
    header, _, *lines = result.stdout.splitlines()
    assert header.split() == ["row", "explained", "score", "most", "relevant", "features"]
    assert [re.split(r" {2,}", line.strip())[:2] for line in lines[:2]] == [["1", "class 0"], ["2", "class 0"]]
    assert all(len(line.split(", ")) == 2 for line in lines[:2])
    assert lines[-3].split() == ["written", str(tmp_path / f"people.{EXACT}.class-0.row-1.png"), "...",
                                 str(tmp_path / f"people.{EXACT}.class-0.row-2.png")]  # fmt: skip
    assert result.stderr == f"warning: {table}: rows 1 to 2 of 3; --rows chooses others, : all\n"


def test_a_table_as_json(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    result = run(
        "explain", str(model), str(table), "--columns", "d, c,b,a", "--rows", "0", "-o", str(tmp_path), "--json"
    )
    (found,) = json.loads(result.stdout)
    assert [(feature["name"], feature["value"]) for feature in found["rows"][0]["features"]] == [
        ("d", "4"), ("c", "3"), ("b", "2"), ("a", "1"),
    ]  # fmt: skip
    assert found["rows"][0]["row"] == 0 and len(found["files"]) == 3


def test_an_input_for_each_column_needs_no_option(run: Run, tmp_path: Path) -> None:
    onnx.save(columns_model(), tmp_path / "m.onnx")
    (tmp_path / "t.tsv").write_text("age\theight_cm\trooms\ttown\n1\t2\t3\tX\n", encoding="utf-8")
    result = run("explain", str(tmp_path / "m.onnx"), str(tmp_path / "t.tsv"), "-o", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^ *0 +class \d .*age [+-].*height_cm|^ *0 +class \d .*height_cm [+-].*age", result.stdout, re.M)


def test_sound_prints_windows_and_moments(run: Run, tmp_path: Path) -> None:
    onnx.save(samples_model(400)[0], tmp_path / "m.onnx")
    soundfile.write(tmp_path / "a.wav", 0.1 * normal(800, seed=1), 1000)
    stated = f"--rate 1000 --top 2 --rules {EXACT} -o {tmp_path}"
    result = run("explain", str(tmp_path / "m.onnx"), str(tmp_path / "a.wav"), *stated.split())
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"explained +0\.000 s to +0\.400 s +class \d  probability .*", lines[1])
    assert re.fullmatch(r"moments +\d\.\d+ s to +\d\.\d+ s +[+-][\d.e-]+ +\(\d+\.\d%\) +most at \d+ Hz", lines[3])
    assert lines[5] == "prepared   1000 Hz, 1 channel, 2 windows of 0.400 s (400 samples)"
    assert lines[6:] == [f"written    {tmp_path}/a.{EXACT}.png", f"           {tmp_path}/a.{EXACT}.npz"]


def test_sound_options_reach_the_windows(run: Run, tmp_path: Path) -> None:
    text = "g (float[N,9,T] x) => (float[N,1,1] y) { y = ReduceSum<keepdims = 1>(x, axes) }"
    onnx.save(network(text, axes=np.array([1, 2])), tmp_path / "m.onnx")
    soundfile.write(tmp_path / "a.wav", 0.1 * normal(800, seed=1), 1000)
    stated = f"--rate 500 --window 200 --hop 100 --spectrogram log-power,n_fft=16,hop=8 -o {tmp_path}"
    result = run("explain", str(tmp_path / "m.onnx"), str(tmp_path / "a.wav"), *stated.split())
    assert result.exit_code == 0, result.stderr
    assert "500 Hz, log-power of 9 bins, a frame every 8 samples, 3 windows of 0.400 s (200 samples)" in result.stdout
    assert "resampled from 1000 Hz to 500 Hz" in result.stderr


def test_arrays_print_sums_and_the_largest_elements(run: Run, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(4)[:2])
    stated = f"--rules {EXACT} --target 1 --top 1 -o {tmp_path}"
    result = run("explain", str(model), str(tmp_path / "x.npz"), *stated.split())
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"data       {tmp_path}/x.npz", "explained  class 1", "           class 1"]
    assert lines[3].startswith("features   2 x 4, sum ") and re.fullmatch(r" +[+-][\d.]+ +at \d, \d", lines[4])
    assert lines[5] == f"written    {tmp_path}/x.{EXACT}.class-1.npz"


def test_inputs_by_name_alone(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("explain", str(model), "--data", "features=0.5", "-o", str(tmp_path), "--rules", EXACT)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / f"arrays.{EXACT}.npz").exists()


@pytest.mark.parametrize("pair", ["features", "=1", "features=", "--data"])
def test_what_is_no_pair_is_wrong_usage(run: Run, model: Path, pair: str) -> None:
    result = run("explain", str(model), "--data", pair)
    assert result.exit_code == 2 and "names no input; write NAME=FILE or NAME=NUMBER" in result.stderr
    twice = run("explain", str(model), "--data", "features=1", "--data", "features=2")
    assert twice.exit_code == 2 and "input 'features' is given twice" in twice.stderr


def test_no_data_at_all_is_wrong_usage(run: Run, model: Path) -> None:
    result = run("explain", str(model))
    assert result.exit_code == 2 and "Missing argument 'DATA...'" in result.stderr


def test_a_wrong_spectrogram_is_wrong_usage(run: Run, model: Path) -> None:
    result = run("explain", str(model), "a.wav", "--spectrogram", "mfcc")
    assert result.exit_code == 2 and "'mfcc' is no kind of a spectrogram" in result.stderr


def test_a_mask_goes_with_images(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    text = "g (float[N,1,8,8] photo) => (float[N,2,8,8] y) { y = Conv(photo, w) }"
    onnx.save(network(text, w=normal(2, 1, 1, 1, seed=2)), tmp_path / "m.onnx")
    for name in ("a.png", "part.png"):
        Image.new("L", (8, 8), 200).save(tmp_path / name)
    stated = ["--target-mask", str(tmp_path / "part.png"), "--target", "1", "-o", str(tmp_path), "--rules", EXACT]
    result = run("explain", str(tmp_path / "m.onnx"), str(tmp_path / "a.png"), *stated)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "explained  class 1 within part.png" in result.stdout.splitlines()
    other = run("explain", str(model), str(table), *stated)
    assert other.exit_code == 2 and "--target-mask goes with image files" in other.stderr


def test_data_of_several_kinds_is_wrong_usage(run: Run, model: Path) -> None:
    result = run("explain", str(model), "a.wav", "b.csv")
    assert result.exit_code == 2 and "data of different kinds" in result.stderr

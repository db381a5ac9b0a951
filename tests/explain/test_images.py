"""Images in, pictures and numbers out: the whole way with an explainer whose answers are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import OnnxLrpError, UsageError
from onnxlrp.explain.images import explain_files
from onnxlrp.explain.job import Job
from onnxlrp.explain.preprocess import ImageOptions
from tests.explain.fakes import QuadrantExplainer

NAMES = ("top left", "top right", "bottom left", "bottom right")
RAW = ImageOptions(preset="raw")


def quadrant(path: Path, which: int, size: int = 16, bright: int = 200) -> Path:
    """A gray image whose quadrant `which` is brighter than the rest."""
    pixels = np.full((size, size), 50, np.uint8)
    top, left = size // 2 * (which // 2), size // 2 * (which % 2)
    pixels[top : top + size // 2, left : left + size // 2] = bright
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def explain(explainer, files, out: Path, job: Job | None = None, **more):
    return explain_files(
        explainer,
        files,
        job or Job("m.onnx", "default"),
        options=more.pop("options", RAW),
        out_dir=out,
        **more,
    )


def test_each_image_gets_its_pictures_and_arrays(tmp_path):
    file = quadrant(tmp_path / "spot.png", 2)
    (result,) = explain(QuadrantExplainer(("N", 1, 16, 16)), [file], tmp_path / "new" / "out")
    names = ["spot.default.png", "spot.default.overlay.png", "spot.default.heatmap.png", "spot.default.npz"]
    assert [written.name for written in result.files] == names
    assert sorted(entry.name for entry in (tmp_path / "new" / "out").iterdir()) == sorted(names)
    for picture in result.files[:3]:
        with Image.open(picture) as image:
            image.verify()
    assert result.image == file and result.preprocessing.startswith("raw: gray, NCHW")


def test_the_top_classes_come_with_labels_and_probabilities(tmp_path):
    file = quadrant(tmp_path / "spot.png", 2, bright=52)
    job = Job("m.onnx", "default", labels=NAMES, top=2)
    (result,) = explain(QuadrantExplainer((1, 1, 16, 16)), [file], tmp_path, job)
    best = np.exp(2) / (np.exp(2) + 3)
    assert [(found.index, found.label) for found in result.top] == [(2, "bottom left"), (0, "top left")]
    assert result.top[0].score == pytest.approx(best, rel=1e-5) and result.score_kind == "softmax"
    assert result.target == "bottom left"


def test_arrays_are_kept_as_they_were_without_the_batch_axis(tmp_path):
    file = quadrant(tmp_path / "spot.png", 1)
    explainer = QuadrantExplainer((1, 3, 16, 16))
    (result,) = explain(explainer, [file], tmp_path)
    with np.load(result.files[-1], allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["input"], explainer.seen[0][0])
        signs = np.where(np.arange(16) % 2, -1.0, 1.0)[None, :, None]
        np.testing.assert_array_equal(saved["relevance"], saved["input"] * signs)
        assert saved["output/logits"].shape == saved["explained_output"].shape == (4,)
        settings = json.loads(str(saved["settings"]))
    assert settings["rules"] == "default" and settings["explained"] == ["class 1"] and settings["layout"] == "nchw"


def test_the_heatmap_is_the_signed_sum_over_channels(tmp_path):
    file = quadrant(tmp_path / "flat.png", 0, size=128, bright=50)
    (result,) = explain(QuadrantExplainer((1, 128, 128, 3), "nhwc"), [file], tmp_path)
    heat = np.asarray(Image.open(result.files[2])).astype(int)
    assert (heat[0::2, :, 0] > heat[0::2, :, 2]).all()  # even rows speak for, odd rows against
    assert (heat[1::2, :, 2] > heat[1::2, :, 0]).all()


def test_open_batches_are_filled_and_results_stay_in_order(tmp_path):
    files = [quadrant(tmp_path / f"{number:02}.png", number % 4) for number in range(11)]
    explainer = QuadrantExplainer(("N", 1, 16, 16))
    results = explain(explainer, files, tmp_path / "out")
    assert [len(batch) for batch in explainer.seen] == [8, 3]
    assert [result.image for result in results] == files
    assert [result.top[0].index for result in results] == [number % 4 for number in range(11)]


def test_fixed_batches_are_filled_up_with_the_last_image(tmp_path):
    files = [quadrant(tmp_path / f"{number}.png", number) for number in range(3)]
    explainer = QuadrantExplainer((2, 1, 16, 16))
    results = explain(explainer, files, tmp_path / "out")
    assert [len(batch) for batch in explainer.seen] == [2, 2]
    assert [result.top[0].index for result in results] == [0, 1, 2]


def test_images_of_different_sizes_do_not_share_a_batch(tmp_path):
    files = [quadrant(tmp_path / f"{size}.png", 3, size) for size in (16, 16, 20)]
    explainer = QuadrantExplainer(("N", 1, "H", "W"), "nchw")
    explain(explainer, files, tmp_path / "out")
    assert [batch.shape for batch in explainer.seen] == [(2, 1, 16, 16), (1, 1, 20, 20)]


def test_images_of_one_name_do_not_replace_each_other(tmp_path):
    files = [quadrant(tmp_path / folder / "spot.png", which) for which, folder in enumerate("ab")]
    results = explain(QuadrantExplainer((1, 1, 16, 16)), files, tmp_path / "out")
    written = [file for result in results for file in result.files]
    assert len(set(written)) == len(written) == len(list((tmp_path / "out").iterdir()))


@pytest.mark.parametrize(("target", "shown", "tag"), [(3, "bottom right", "class-3"), ((1,), "top right", "class-1")])
def test_a_chosen_class_is_named_in_result_and_file(tmp_path, target, shown, tag):
    job = Job("m.onnx", "epsilon", target=target, labels=NAMES)
    (result,) = explain(QuadrantExplainer((1, 1, 16, 16)), [quadrant(tmp_path / "spot.png", 0)], tmp_path, job)
    assert result.target == shown and result.files[0].name == f"spot.epsilon.{tag}.png"
    assert result.top[0].label == "top left"


def test_a_class_that_does_not_exist_is_refused_and_nothing_is_written(tmp_path):
    file = quadrant(tmp_path / "spot.png", 0)
    with pytest.raises(UsageError, match="class 4 does not exist: the explained output has 4 classes"):
        explain(QuadrantExplainer((1, 1, 16, 16)), [file], tmp_path / "out", Job("m", "r", target=4))
    assert not (tmp_path / "out").exists()


def test_top_k_gives_one_picture_for_each_class(tmp_path):
    job = Job("m.onnx", "default", target="top:2", labels=NAMES)
    explainer = QuadrantExplainer((1, 1, 16, 16), maps=2)
    (result,) = explain(explainer, [quadrant(tmp_path / "spot.png", 3)], tmp_path, job)
    assert result.target == "bottom right; top left"
    assert [file.name for file in result.files[:2]] == ["spot.default.top-1.png", "spot.default.top-2.png"]
    assert len(result.files) == 7
    with np.load(result.files[-1]) as saved:
        assert saved["relevance"].shape == (2, 1, 16, 16)


def test_a_table_with_an_awkward_name_still_names_files(tmp_path):
    job = Job("m.onnx", "my rules/2")
    (result,) = explain(QuadrantExplainer((1, 1, 16, 16)), [quadrant(tmp_path / "spot.png", 3)], tmp_path, job)
    assert result.files[0].name == "spot.my-rules-2.png"


def test_relevance_that_is_zero_everywhere_is_noted(tmp_path):
    explainer = QuadrantExplainer((1, 1, 16, 16), spoil=lambda relevance: 0 * relevance)
    (result,) = explain(explainer, [quadrant(tmp_path / "spot.png", 3)], tmp_path)
    assert result.notes == ("class 3: all relevance is zero",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_relevance_that_is_not_finite_is_refused_and_nothing_is_written(tmp_path, bad):
    def spoil(relevance):
        relevance[0, 0, 3, 4] = bad
        return relevance

    file = quadrant(tmp_path / "spot.png", 3)
    with pytest.raises(OnnxLrpError, match=r"spot\.png: the relevance has 1 values that are not finite.*verify"):
        explain(QuadrantExplainer((1, 1, 16, 16), spoil=spoil), [file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit_are_refused(tmp_path):
    job = Job("m", "r", labels=("one", "two"))
    with pytest.raises(UsageError, match="2 labels were given"):
        explain(QuadrantExplainer((1, 1, 16, 16)), [quadrant(tmp_path / "spot.png", 0)], tmp_path / "out", job)


def test_an_image_among_the_written_files_is_protected(tmp_path):
    files = [quadrant(tmp_path / name, 0) for name in ("spot.png", "spot.default.png")]
    before = files[1].read_bytes()
    with pytest.raises(UsageError, match=r"spot\.default\.png.*replace an image"):
        explain(QuadrantExplainer((1, 1, 16, 16)), files, tmp_path)
    assert files[1].read_bytes() == before


def test_an_input_that_is_not_explained_is_refused(tmp_path):
    explainer = QuadrantExplainer((1, 1, 16, 16))
    explainer.explained = ["other"]
    with pytest.raises(UsageError, match="'photo' is not explained; these are: other"):
        explain(explainer, [quadrant(tmp_path / "spot.png", 0)], tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written"):
        explain(QuadrantExplainer((1, 1, 16, 16)), [quadrant(tmp_path / "spot.png", 0)], tmp_path / "taken")


def test_progress_counts_from_zero_to_all(tmp_path):
    files = [quadrant(tmp_path / f"{number}.png", number) for number in range(3)]
    seen: list[tuple[int, int]] = []
    explain(
        QuadrantExplainer((1, 1, 16, 16)),
        files,
        tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]

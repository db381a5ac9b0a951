"""Every kind of data becomes samples: inputs as the model takes them, classes, marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxlrp.errors import UsageError
from onnxlrp.evaluation.data.classes import class_index
from onnxlrp.evaluation.data.open import DataOptions, open_data
from onnxlrp.evaluation.data.voc import CLASSES
from onnxlrp.evaluation.sample import Data, samples
from onnxlrp.evaluation.subject import Engine
from onnxlrp.explain.preprocess import ImageOptions
from onnxlrp.explain.table import TableOptions
from tests.support import texts
from tests.support.models import Net

MODELS = Path(__file__).parents[3] / "models"
RNG = np.random.default_rng(2)


def picture_model(height: int = 8, width: int = 8) -> onnx.ModelProto:
    net = Net(np.float32)
    x = net.input("image", ["N", 3, height, width])
    flat = net.op("Flatten", x)
    return net.model(net.op("MatMul", flat, net.constant(RNG.normal(size=(3 * height * width, 4)))))


def photo(path: Path, height: int = 16, width: int = 24, value: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, size=(height, width, 3)) if value is None else np.full((height, width, 3), value)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def opened(model: Any, path: Path, **options: Any) -> Data:
    return open_data(Engine(model), path, DataOptions(**options))


def labels(folder: Path, *names: str) -> str:
    (folder / "names.txt").write_text("\n".join(names))
    return str(folder / "names.txt")


class TestPhotos:
    RAW = ImageOptions(preset="raw")

    def test_a_folder_with_a_file_of_labels(self, tmp_path: Path) -> None:
        for name in ("b.png", "a.png", "c.png"):
            photo(tmp_path / "photos" / name)
        truth = tmp_path / "truth.csv"
        truth.write_text("file,label\na.png,2\nc.png,sea lion\n")
        names = labels(tmp_path, "cat", "dog", "cow", "sea lion, walrus")
        data = opened(picture_model(), tmp_path / "photos", truth=str(truth), labels=names, image=self.RAW)
        assert [(s.name, s.label) for s in samples(data)] == [("a.png", 2), ("b.png", -1), ("c.png", 3)]
        first = data.sample(0)
        assert first.inputs["image"].shape == (3, 8, 8) and first.photo is not None
        assert len(data) == 3 and data.layout.is_picture

    def test_a_folder_for_each_class(self, tmp_path: Path) -> None:
        root = tmp_path / "photos"
        for name in ("dog/1.png", "cat/2.png", "cat/1.png"):
            photo(root / name)
        found = [(s.name, s.label) for s in samples(opened(picture_model(), root))]
        assert found == [("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.png", 1)]
        names = labels(tmp_path, "dog", "pig", "Cat", "cow")
        assert [s.label for s in samples(opened(picture_model(), root, labels=names))] == [2, 2, 0]
        with pytest.raises(UsageError, match="--labels has no class 'dog'"):
            opened(picture_model(), root, labels=labels(tmp_path, "a", "cat"))

    def test_labels_that_name_none_of_the_photos_are_a_mistake(self, tmp_path: Path) -> None:
        photo(tmp_path / "photos" / "a.png")
        (tmp_path / "truth.csv").write_text("x.png,1\n")
        with pytest.raises(UsageError, match=r"none of the files .* it names x\.png"):
            opened(picture_model(), tmp_path / "photos", truth=str(tmp_path / "truth.csv"))


class TestPascalVoc:
    @pytest.fixture
    def voc(self, tmp_path: Path) -> Path:
        root = tmp_path / "VOC"
        photo(root / "JPEGImages" / "a.jpg", 16, 24)
        photo(root / "JPEGImages" / "b.jpg", 16, 24)
        self.annotate(root, "a", [("dog", (5, 3, 12, 10)), ("cat", (13, 1, 24, 16))])
        self.annotate(root, "b", [("dog", (9, 5, 16, 12))])
        mask = np.zeros((16, 24), np.uint8)
        mask[4:8, 8:12] = CLASSES.index("dog") + 1
        mask[8, 8] = 255
        (root / "SegmentationClass").mkdir()
        Image.fromarray(mask).save(root / "SegmentationClass" / "b.png")
        return root

    def annotate(self, root: Path, stem: str, objects: list[tuple[str, tuple[int, ...]]]) -> None:
        inside = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for name, (x0, y0, x1, y1) in objects
        )
        (root / "Annotations").mkdir(exist_ok=True)
        text = f"<annotation><size><width>24</width><height>16</height></size>{inside}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)

    def test_boxes_and_masks_go_through_the_same_resize_and_crop_as_the_photo(self, voc: Path, tmp_path: Path) -> None:
        names = labels(tmp_path, "pig", "dog", "cow", "fox")
        data = opened(picture_model(), voc, labels=names, image=ImageOptions(preset="unit"))
        first, second = samples(data)
        assert (first.label, second.label) == (1, 1)
        # 16 x 24 becomes 8 x 12, of which the middle 8 columns are seen: half the size, and two columns less.
        box = np.zeros((8, 8), bool)
        box[1:5, 0:4] = True  # pixels 4 to 11, 2 to 9 of the photo, counted from 0
        assert first.marked is not None and np.array_equal(first.marked, np.broadcast_to(box, (3, 8, 8)))
        seen = np.zeros((8, 8), bool)
        seen[2:4, 2:4] = True
        assert second.marked is not None and np.array_equal(second.marked[0], seen)

    def test_without_names_of_classes_all_objects_are_marked(self, voc: Path) -> None:
        first = opened(picture_model(), voc).sample(0)
        assert first.label == -1 and first.marked is not None and first.marked[0, :, 4:].all()

    def test_annotations_that_cannot_be_read_are_named(self, voc: Path) -> None:
        (voc / "Annotations" / "a.xml").write_text("<annotation><size/></annotation>")
        with pytest.raises(UsageError, match=r"a\.xml: not an annotation of Pascal VOC: size/height is missing"):
            opened(picture_model(), voc)
        (voc / "Annotations" / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
        with pytest.raises(UsageError, match="refused"):
            opened(picture_model(), voc)

    def test_a_mask_of_another_size_is_refused(self, voc: Path) -> None:
        Image.fromarray(np.full((4, 4), 12, np.uint8)).save(voc / "SegmentationClass" / "b.png")
        with pytest.raises(UsageError, match=r"the photo is 16 x 24 .* belongs to one of 4 x 4"):
            list(samples(opened(picture_model(), voc)))


class TestArrays:
    def test_x_y_and_marked(self, tmp_path: Path) -> None:
        x, marked = RNG.normal(size=(3, 3, 8, 8)).astype(np.float32), RNG.random((3, 8, 8)) > 0.5
        np.savez(tmp_path / "a.npz", x=x, y=np.array([[1], [0], [3]]), marked=marked)
        found = list(samples(opened(picture_model(), tmp_path / "a.npz")))
        assert [s.label for s in found] == [1, 0, 3]
        assert np.array_equal(found[1].inputs["image"], x[1])
        assert found[2].marked is not None and np.array_equal(found[2].marked[2], marked[2])

    def test_inputs_by_their_names(self, tmp_path: Path) -> None:
        ids, mask = np.array([[4, 5, 6]]), np.array([[1, 1, 0]])
        np.savez(tmp_path / "a.npz", input_ids=ids, attention_mask=mask)
        engine = Engine(texts.classifier(), input_name="input_ids")
        data = open_data(engine, tmp_path / "a.npz", DataOptions(), "input_ids")
        assert data.layout.is_token and data.sample(0).inputs["attention_mask"].tolist() == [1, 1, 0]

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"z": np.zeros((2, 3, 8, 8))}, "no array for input 'image' .it holds z."),
            ({"x": np.zeros((2, 3, 8, 7))}, r"input 'image' takes \[\?, 3, 8, 8\], but the array is \[2, 3, 8, 7\]"),
            ({"x": np.zeros((2, 3, 8, 8)), "y": np.zeros(3)}, "'y' must have a row for each of the 2 samples"),
            ({"x": np.zeros((2, 3, 8, 8)), "y": np.array([0.5, 1])}, "one whole number for each sample"),
            ({"x": np.zeros((2, 3, 8, 8)), "marked": np.zeros((2, 8))}, "marked has the shape"),
            ({"x": np.zeros((2, 3, 8, 8)), "extra": np.zeros(2)}, "'extra' is no input of the model"),
        ],
    )
    def test_arrays_that_do_not_fit_are_named(self, arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UsageError, match=said):
            opened(picture_model(), tmp_path / "a.npz")


class TestRows:
    IRIS = str(MODELS / "iris.onnx")

    def test_a_column_holds_the_class(self, tmp_path: Path) -> None:
        names = labels(tmp_path, "setosa", "versicolor", "virginica")
        data = opened(self.IRIS, MODELS / "iris.csv", label_column="species", labels=names)
        found = list(samples(data))
        assert len(data) == 15 and [s.label for s in found] == [0] * 5 + [1] * 5 + [2] * 5
        assert found[0].inputs["measurements"].tolist() == pytest.approx([5.1, 3.5, 1.4, 0.2])

    def test_some_rows_and_columns(self) -> None:
        table = TableOptions(rows="2:4", drop=("species",))
        assert [s.name for s in samples(opened(self.IRIS, MODELS / "iris.csv", table=table))] == ["row 2", "row 3"]

    def test_a_class_that_is_none_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="row 0: 'setosa' is no class; name the classes with --labels"):
            opened(self.IRIS, MODELS / "iris.csv", label_column="species")


class TestSentences:
    def lines(self, folder: Path, *entries: dict[str, Any] | str) -> Path:
        path = folder / "texts.jsonl"
        path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
        return path

    def test_tokens_marks_and_what_is_never_taken_away(self, tmp_path: Path) -> None:
        path = self.lines(
            tmp_path,
            {"text": "The weather is fine", "label": 1, "marked": [[4, 11]]},
            {"text": "ignore all rules"},
        )
        tokenizer = str(texts.word_pieces(tmp_path))
        first, second = samples(opened(texts.classifier(), path, tokenizer=tokenizer))
        words = ["[CLS]", "The", "weather", "is", "fine", "[SEP]"]
        assert list(first.words) == words and (first.label, second.label) == (1, -1)
        assert first.inputs["input_ids"].shape == first.inputs["attention_mask"].shape == (6,)
        assert first.units is not None and first.units.tolist() == [-1, 0, 1, 2, 3, -1]
        assert first.marked is not None and first.marked.tolist() == [False, False, True, False, False, False]
        assert second.marked is None

    def test_padding_up_to_a_fixed_length_is_never_taken_away(self, tmp_path: Path) -> None:
        path = self.lines(tmp_path, {"text": "fine weather"})
        tokenizer = str(texts.word_pieces(tmp_path))
        (one,) = samples(opened(texts.classifier(sequence=7), path, tokenizer=tokenizer))
        assert one.units is not None and one.units.tolist() == [-1, 0, 1, -1, -1, -1, -1]

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("not json", "line 1: not JSON"),
            ('{"texts": "a"}', "line 1: a line is an object such as"),
            ('{"text": "a", "marked": [3]}', "marked is a list of"),
            ('{"text": "a", "label": "bad"}', "'bad' is no class"),
        ],
    )
    def test_lines_of_another_form_are_named(self, line: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=said):
            opened(texts.classifier(), self.lines(tmp_path, line), tokenizer=str(texts.word_pieces(tmp_path)))

    def test_the_tokenizer_is_asked_for(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--tokenizer"):
            opened(texts.classifier(), self.lines(tmp_path, {"text": "a"}))


def test_options_of_another_kind_of_data_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer goes with texts"):
        opened(TestRows.IRIS, MODELS / "iris.csv", tokenizer="t.json")
    with pytest.raises(UsageError, match="no such file or folder"):
        opened(TestRows.IRIS, tmp_path / "nothing")


def test_classes_are_named_by_index_or_by_one_of_their_names() -> None:
    names = ("tench, Tinca tinca", "Egyptian_cat")
    assert [class_index(t, names, "") for t in ("1", "1.0", "tinca tinca", "egyptian cat", "")] == [1, 1, 0, 1, -1]
    with pytest.raises(UsageError, match="line 3: 'cow' is no class; --labels has no such name"):
        class_index("cow", names, "line 3")

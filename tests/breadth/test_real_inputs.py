"""Real models on real inputs: relevance lies where a person would look for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxlrp
from onnxlrp import Explanation
from onnxlrp.explain.spectrogram import time_frequency
from tests.breadth import real


def explain(name: str, feeds: real.Feeds, seed: Any = None, **options: Any) -> Explanation:
    return onnxlrp.Explainer(real.fetched(name), **options).explain(feeds, seed=seed)


def share_in(relevance: np.ndarray, rows: slice, columns: slice) -> float:
    """The share of the positive relevance of a map [channels, height, width] that lies in a box."""
    positive = np.clip(relevance.sum(axis=0), 0, None)
    return float(positive[rows, columns].sum() / positive.sum())


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_cat_is_known_by_its_eyes() -> None:
    found = explain("mobilenetv2", real.cat())
    assert found.explained_output is not None and found.explained_output.argmax() == 285  # Egyptian cat
    relevance = found.relevance["data"][0]
    eyes = (slice(56, 112), slice(28, 112)), (slice(56, 140), slice(160, 224))
    share = sum(share_in(relevance, *eye) for eye in eyes)
    area = sum((e[0].stop - e[0].start) * (e[1].stop - e[1].start) for e in eyes) / 224**2
    assert share > 2 * area, (share, area)


def test_the_face_is_found_by_the_face() -> None:
    """The box with the highest score, and what its class score rests on."""
    feeds = real.astronaut()
    found = explain("yunet", feeds, outputs=["cls_32"], target=(88, 0))
    scores = np.sqrt(found.outputs["cls_32"] * found.outputs["obj_32"])[0, :, 0]
    assert scores.argmax() == 88 and scores.max() > 0.9
    column, row = 88 % 20, 88 // 20
    x, y, width, height = found.outputs["bbox_32"][0, 88]
    centre, size = np.array([row + y, column + x]) * 32, np.exp([height, width]) * 32
    top, left = (centre - size / 2).astype(int)
    bottom, right = (centre + size / 2).astype(int)
    assert share_in(found.relevance["input"][0], slice(top, bottom), slice(left, right)) > 0.8


@pytest.mark.parametrize(
    ("time", "hertz", "begin", "end"), [(51, 440.0, 0.4, 1.0), (120, 261.63, 1.1, 1.8)], ids=["A4", "C4"]
)
@pytest.mark.parametrize("rules", ["epsilon-gamma-box", "default"])
def test_the_note_that_sounds_is_heard_at_its_harmonics(
    time: int, hertz: float, begin: float, end: float, rules: str
) -> None:
    """The contour of the model has three bins for each semitone from A0 = 27.5 Hz on."""
    place = round(36 * np.log2(hertz / 27.5))
    feeds = {"serving_default_input_2:0": real.notes()[None, :, None]}
    options = {"outputs": ["StatefulPartitionedCall:0"], "rules": rules}
    found = explain("basic-pitch", feeds, target=f":,{time - 2}:{time + 3},{place}", **options)
    scores = found.outputs["StatefulPartitionedCall:0"][0, time]
    assert abs(int(scores.argmax()) - place) <= 1 and scores.max() > 0.5
    over = time_frequency(real.notes(), found.relevance["serving_default_input_2:0"][0, :, 0], real.PITCH_RATE)
    sizes = np.abs(over.relevance)
    harmonics = np.abs(over.frequencies[:, None] - hertz * np.arange(1, 6)).min(axis=1) < 25
    sounding = (over.times > begin) & (over.times < end)
    near = np.abs(over.times - time * 256 / real.PITCH_RATE) < 0.25
    assert sizes[:, sounding].sum() > 0.95 * sizes.sum()
    assert sizes[:, near].sum() > 0.9 * sizes.sum()
    assert sizes[harmonics].sum() > 0.9 * sizes.sum()
    assert harmonics.mean() < 0.05


def test_the_guides_rule_for_the_subtraction_behind_the_logarithm_gives_the_note_its_sign(tmp_path: Path) -> None:
    entry = re.search(
        r"```toml\n(\[\[rule\]\]\nname = .*?)```", (real.REPOSITORY / "docs/GUIDE.md").read_text("utf-8"), re.S
    )
    assert entry is not None
    preset = (real.REPOSITORY / "onnxlrp/tables/presets/default.toml").read_text("utf-8")
    table = tmp_path / "sound.toml"
    table.write_text(preset.replace("[[rule]]", f"{entry[1]}\n[[rule]]", 1), "utf-8")
    feeds = {"serving_default_input_2:0": real.notes()[None, :, None]}
    for rules, sign in (("default", -1), (table, 1)):
        found = explain("basic-pitch", feeds, outputs=["StatefulPartitionedCall:0"], rules=rules)
        relevance = found.relevance["serving_default_input_2:0"]
        assert sign * relevance.sum() > 0.9 * np.abs(relevance).sum()


def test_the_letter_that_is_read_is_looked_at() -> None:
    """Each letter of the line is read at some time step, and most relevant there for each pixel column."""
    feeds = real.line()
    steps = explain("ocr-recognise", feeds).outputs
    scores = next(iter(steps.values()))[0]
    classes = scores.argmax(axis=1)
    read = [int(t) for t in np.flatnonzero(classes)]
    assert len(read) == len(real.WORD)
    edges = real.letter_edges()
    right = 0
    for place, step in enumerate(read):
        target = (step, int(classes[step]))
        found = explain("ocr-recognise", feeds, target=target, rules="epsilon-gamma-box")
        columns = np.abs(found.relevance["x"][0].sum(axis=0)).sum(axis=0)
        density = [columns[round(a) : round(b)].mean() for a, b in edges]
        centre = float((columns * np.arange(len(columns))).sum() / columns.sum())
        right += int(np.argmax(density)) == place
        assert edges[place][0] - 12 < centre < edges[place][1] + 12, (real.WORD[place], centre, edges[place])
    assert right >= len(real.WORD) - 2


def test_the_text_that_is_detected_is_looked_at() -> None:
    found = explain("ocr-detect", real.printed_page())
    assert found.explained_output is not None
    for sample in range(2):
        maps = found.explained_output[sample, 0]
        y, x = np.unravel_index(maps.argmax(), maps.shape)
        rows = slice(max(0, y - 20), y + 20)
        columns = slice(max(0, x - 40), x + 40)
        assert share_in(found.relevance["x"][sample], rows, columns) > 0.9


def test_words_are_told_from_silence_by_both_networks_for_the_same_reasons() -> None:
    """The float network and its quantised twin: classes by window, and maps that agree."""
    feeds = real.spoken_mel()
    plain, quantised = (explain(name, feeds, rules="epsilon", target=1) for name in ("pulsevad", "pulsevad-int8"))
    for found in (plain, quantised):
        assert found.outputs["logits"].argmax(axis=1).tolist() == [0, 0, *[1] * 7, 0, 0, 0]
    similar = [cosine(a, b) for a, b in zip(plain.relevance["log_mel"], quantised.relevance["log_mel"], strict=True)]
    assert np.median(similar) > 0.9, similar


def test_a_moment_of_speech_rests_on_the_sound_before_it_and_most_on_the_latest() -> None:
    """An LSTM over frames: nothing from the future, most from the frame itself and those just before."""
    feeds = real.spoken_frames()
    found = explain("silero-vad", feeds, inputs=["input"])
    assert found.explained_output is not None
    step = int(found.explained_output.ravel().argmax())
    assert 0.5 < step * 512 / real.RATE < 2.2 and found.outputs["speech_probs"][step] > 0.9
    frames = np.abs(found.relevance["input"].astype(np.float64).sum(axis=1))
    assert frames[step + 1 :].sum() == 0
    assert frames[step - 5 : step + 1].sum() > 0.4 * frames.sum()
    silent = frames[: round(0.45 * real.RATE / 512)]
    assert silent.sum() < 0.1 * frames.sum()


def test_words_that_begin_alike_are_similar_for_their_beginning() -> None:
    """The cosine of two words' vectors, as a sum over the letters of the first; two LSTMs as loops."""
    explainer = onnxlrp.Explainer(real.fetched("chars2vec"), target="seed", rules="epsilon")

    def vector(word: str) -> np.ndarray:
        found = explainer.explain(real.characters(word), seed=np.zeros((1, 300), np.float32)).explained_output
        assert found is not None
        return found

    long, short, other = vector("explanation"), vector("explain"), vector("house")
    assert cosine(long, short) > 0.8 > 0.6 > cosine(long, other)
    seed = short / np.linalg.norm(short) / np.linalg.norm(long)
    found = explainer.explain(real.characters("explanation"), seed=seed).relevance["lstm_input"][0].sum(axis=1)
    assert found[:5].sum() > 2 * found[5:].sum() > 0


def test_thai_words_are_cut_by_the_letter_itself_and_its_neighbours() -> None:
    found = explain("deepcut", real.thai(), rules="epsilon-gamma-box")
    cut = next(iter(found.outputs.values()))[:, 0] > 0.5
    assert tuple(np.flatnonzero(cut)) == real.THAI_WORDS
    sizes = sum(np.abs(found.relevance[name]) for name in ("input_1", "input_2"))
    by_distance = [float(sizes[:, d == real.THAI_DISTANCE].mean()) for d in range(11)]
    assert int(np.argmax(by_distance)) == 0
    assert np.mean(by_distance[1:5]) > 3 * np.mean(by_distance[6:])


def test_an_injection_is_known_by_its_command() -> None:
    found = explain("mini-semantic", real.sentence(), target=1)
    assert found.outputs["logits"].argmax() == 1
    words = ("", *real.INJECTION.split(), "")
    order = np.argsort(-found.relevance["input_ids"][0])
    assert {words[i] for i in order[:3]} == {"ignore", "instructions", "all"}


def test_a_vowel_is_guessed_from_the_letters_and_not_from_the_padding() -> None:
    """sekolah is said with a schwa, token 4."""
    feeds = real.indonesian()
    assert explain("g2p-bert", feeds).outputs["mlm_cls"][0, 1].argmax() == 4
    relevance = np.abs(explain("g2p-bert", feeds, target=(1, 4)).relevance["input_1"][0])
    assert relevance[:7].sum() > 0.8 * relevance.sum()

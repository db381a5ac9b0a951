"""Arrays and files as they are written."""

from __future__ import annotations

import io
import stat

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain import files
from tests.graph.written import normal


@pytest.mark.parametrize("limit", [0, 1 << 24])
def test_arrays_come_back_as_they_were_whether_they_are_large_or_not(monkeypatch, limit):
    monkeypatch.setattr(files, "_LARGE", limit)
    words = np.array(["a", "größer"], dtype=object)
    arrays = {"x": normal(3, 4), "n": np.arange(5), "nested/name": np.array(1.5), "words": words}
    with np.load(io.BytesIO(files.npz(arrays)), allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array.astype(str) if name == "words" else array)


def test_a_file_is_replaced_in_one_step_and_may_be_read_by_others(tmp_path):
    files.write(tmp_path / "new" / "a.bin", b"one")
    files.write(tmp_path / "new" / "a.bin", b"two")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "new" / "a.bin").stat().st_mode) & 0o400


def test_a_folder_that_is_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/a\.bin: cannot be written"):
        files.write(tmp_path / "file" / "a.bin", b"")

"""CSV in: names, rows, columns, and which input each column fills."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlrp.errors import UsageError
from onnxlrp.explain.table import Table, TableOptions, fill_inputs, read_table

TEXT = 'name,age,height cm\nAnn,31,1.6e2\n"Bo, the second",7,\nCy,55,181\n'


def written(tmp_path, text=TEXT, name="people.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_the_first_line_names_the_columns(tmp_path):
    table = read_table(written(tmp_path), TableOptions())
    assert dict(table.cells) == {
        "name": ("Ann", "Bo, the second", "Cy"),
        "age": ("31", "7", "55"),
        "height cm": ("1.6e2", "", "181"),
    }
    assert table.numbers == (0, 1, 2) and table.notes == ()


@pytest.mark.parametrize("sign", [";", "\t"])
def test_other_signs_between_columns_are_found(tmp_path, sign):
    table = read_table(written(tmp_path, TEXT.replace(",", sign).replace(f"Bo{sign}", "Bo,")), TableOptions())
    assert table.cells["name"][1] == "Bo, the second" and table.cells["age"] == ("31", "7", "55")


def test_a_cell_may_have_several_lines(tmp_path):
    table = read_table(written(tmp_path, 'a,b\n"1\n2",3\n'), TableOptions())
    assert table.cells == {"a": ("1\n2",), "b": ("3",)}


@pytest.mark.parametrize(
    ("rows", "numbers"), [("1", (1,)), ("0:2", (0, 1)), ("1:", (1, 2)), (":1", (0,)), (":", (0, 1, 2))]
)
def test_rows_are_chosen_by_number(tmp_path, rows, numbers):
    table = read_table(written(tmp_path), TableOptions(rows=rows))
    assert table.numbers == numbers
    assert table.cells["name"] == tuple(("Ann", "Bo, the second", "Cy")[n] for n in numbers)
    assert bool(table.notes) == (len(numbers) < 3)


def test_ten_rows_are_taken_unless_others_are_asked_for(tmp_path):
    table = read_table(written(tmp_path, "x\n" + "1\n" * 25), TableOptions())
    assert table.numbers == tuple(range(10))
    assert table.notes == ("rows 0 to 9 of 25; --rows chooses others, : all",)


@pytest.mark.parametrize("rows", ["", "a", "1:2:3", "-1", "3:3", "9:", "3"])
def test_rows_that_do_not_exist_are_refused(tmp_path, rows):
    with pytest.raises(UsageError, match="row"):
        read_table(written(tmp_path), TableOptions(rows=rows))


def test_columns_are_dropped_or_chosen_in_an_order(tmp_path):
    file = written(tmp_path)
    assert list(read_table(file, TableOptions(drop=("name",))).cells) == ["age", "height cm"]
    assert list(read_table(file, TableOptions(columns=("height cm", "age"))).cells) == ["height cm", "age"]
    for options in (TableOptions(drop=("size",)), TableOptions(columns=("size",))):
        with pytest.raises(UsageError, match="no column 'size'; there are: name, age, height cm"):
            read_table(file, options)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs a line with the names"),
        ("a,b\n", "needs a line with the names"),
        ("a,a\n1,2\n", "'a' stands there twice"),
        ("a,\n1,2\n", "a name is empty"),
        ("a,b\n1,2\n1,2,3\n", "row 1 has 3 cells, but 2 columns"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, text, reason):
    with pytest.raises(UsageError, match=reason):
        read_table(written(tmp_path, text), TableOptions())


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "latin.csv").write_bytes("größe\n1\n".encode("latin-1"))
    for name, reason in (("none.csv", "cannot be read"), ("latin.csv", "not text in UTF-8")):
        with pytest.raises(UsageError, match=f"{name}: .*{reason}"):
            read_table(tmp_path / name, TableOptions())


def table_of(tmp_path, **cells: str) -> Table:
    columns = {name.replace("_", " "): tuple(text.split()) for name, text in cells.items()}
    return Table(tmp_path / "t.csv", columns, tuple(range(4, 4 + len(next(iter(columns.values()))))))


def test_one_input_takes_all_columns_in_their_order(tmp_path):
    table = table_of(tmp_path, b="1 2", a="3 4.5")
    filled = fill_inputs(table, ["x"], {"x": ("N", 2)}, {"x": np.dtype("float32")})
    np.testing.assert_array_equal(filled.feeds["x"], np.float32([[1, 3], [2, 4.5]]))
    assert filled.feeds["x"].dtype == np.float32
    assert filled.places == {"b": ("x", 0), "a": ("x", 1)}


def test_several_inputs_take_the_columns_of_their_names(tmp_path):
    table = table_of(tmp_path, a="1 2", House_No="3 4", town="X Y", unused="0 0")
    shapes = {"house_no": (None, 1), "a": ("N",), "town": (None, 1)}
    types = {"house_no": np.dtype("int64"), "a": np.dtype("float64"), "town": np.dtype(object)}
    filled = fill_inputs(table, list(shapes), shapes, types)
    np.testing.assert_array_equal(filled.feeds["house_no"], np.int64([[3], [4]]))
    np.testing.assert_array_equal(filled.feeds["a"], [1.0, 2.0])
    assert filled.feeds["town"].tolist() == [["X"], ["Y"]]
    assert filled.places == {"House No": ("house_no", 0), "a": ("a", 0), "town": ("town", 0)}
    assert filled.notes == ("columns without an input of their name are not used: unused",)


def test_a_model_of_one_column_finds_it_by_name_among_others(tmp_path):
    table = table_of(tmp_path, b="1 2", a="3 4")
    filled = fill_inputs(table, ["a"], {"a": ("N", 1)}, {"a": np.dtype("float32")})
    np.testing.assert_array_equal(filled.feeds["a"], [[3], [4]])


def test_an_empty_cell_is_a_missing_number(tmp_path):
    table = Table(tmp_path / "t.csv", {"a": ("1", "")}, (0, 1))
    filled = fill_inputs(table, ["x"], {"x": ("N", 1)}, {"x": np.dtype("float32")})
    np.testing.assert_array_equal(filled.feeds["x"], [[1], [np.nan]])
    with pytest.raises(UsageError, match="column 'a' has empty cells"):
        fill_inputs(table, ["a"], {"a": ("N", 1)}, {"a": np.dtype("int64")})


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"x": ("N", 3)}, "takes 3 features, but 2 columns are left: a, b. --drop"),
        ({"x": ("N", 2, 2)}, "has 3 axes, but a table fills"),
        ({"a": ("N", 1), "c": ("N", 1)}, "there is no column 'c'; the columns are a, b"),
        ({"a": ("N", 1), "b": ("N", 2)}, "more than one number goes into 'b'"),
    ],
)
def test_inputs_that_the_columns_do_not_fill_are_refused(tmp_path, shapes, reason):
    table = table_of(tmp_path, a="1 2", b="3 4")
    with pytest.raises(UsageError, match=reason):
        fill_inputs(table, list(shapes), shapes, dict.fromkeys(shapes, np.dtype("float32")))


def test_a_word_among_numbers_is_refused_with_its_place(tmp_path):
    table = table_of(tmp_path, a="1 2", b="3 setosa")
    with pytest.raises(UsageError, match=r"row 5 has 'setosa' in column 'b', which is no number; .* --drop 'b'"):
        fill_inputs(table, ["x"], {"x": ("N", 2)}, {"x": np.dtype("float32")})

"""A file is read in the encoding that it is in, out of gzip and zip, and no further than it may."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from selfheal_cli.errors import DataError
from selfheal_cli.sources import text_file
from selfheal_cli.sources.files import lines_before_header, open_table
from selfheal_cli.sources.text_file import find_encoding

TEXT = "name,amount,y\n" + "".join(f"Müller {n},{n},{n % 2}\n" for n in range(30))


def zipped(path: Path, *members: str) -> Path:
    """A zip file of members with these names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in members:
            archive.writestr(name, TEXT)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_encoding_is_found_and_the_text_is_what_it_was(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT.encode(encoding))
    first = next(open_table(path, None, encoding=find_encoding(path)).chunks(None))
    assert first.iloc[1].tolist() == ["Müller 1", "1", "1"]


@pytest.mark.parametrize("name", ["t.csv.gz", "odd.csv", "t.zip"])
def test_a_packed_file_is_read_whatever_its_name_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "t.zip":
        zipped(path, "in/rows.csv", "__MACOSX/rows.csv")
    else:
        path.write_bytes(gzip.compress(TEXT.encode()))
    table = open_table(path, None)
    assert [len(frame) for frame in table.chunks(None, 5)] == [25]


def test_a_packed_file_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(TEXT.encode() * 99)[:-40])
    with pytest.raises(DataError, match=r"cut\.csv\.gz: a damaged gzip or zip file"):
        list(open_table(cut, None).chunks(None))
    for members, message in (
        (("a.csv", "b.csv"), "a zip file of one table is read, this has 2: a.csv, b"),
        ((), "this has 0: none"),
        (("[Content_Types].xml",), "an Excel workbook; save its sheet as CSV"),
    ):
        with pytest.raises(DataError, match=message):
            open_table(zipped(tmp_path / "t.zip", *members), None)


def test_what_unpacks_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "FREE", 1 << 17)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,y\n" + b"1,0\n" * 200_000))
    with pytest.raises(DataError, match="it unpacks to more than 100 times its size"):
        list(open_table(path, None).chunks(None))


@pytest.mark.parametrize(
    ("above", "lines"),
    [("", 0), ("\n", 0), ("# exported, 1.4.\n", 1), ("Payments of March\n\n", 2), ("a;b\n#\n", 2),
     ("Payments 2024;;\n", 1), ("Payments\n;;\n", 2)],
)  # fmt: skip
def test_a_table_begins_at_its_header(tmp_path: Path, above: str, lines: int) -> None:
    assert lines_before_header(above + TEXT) == lines
    path = tmp_path / "t.csv"
    path.write_text(above + TEXT, encoding="utf-8")
    table = open_table(path, None)
    assert table.columns == ["name", "amount", "y"]
    assert next(table.chunks(None)).iloc[0].tolist() == ["Müller 0", "0", "0"]


@pytest.mark.parametrize(
    "text",
    ["a\n1\n2\n", "a\n1,2\n3,4\n", '"a\nb",c\n1,2\n', "#id,amount\n1,2\n3,4\n", "", "a,b\n"],
)
def test_no_line_of_a_table_is_taken_for_one_above_it(text: str) -> None:
    assert lines_before_header(text) == 0

"""The data set `oxford_pets`: lists, boxes of heads and trimaps, complete, damaged and real."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cnnsens_bench.datasets import load
from cnnsens_bench.utils.errors import UserError

ONE = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>4</ymax></bndbox>"
XML = f"<annotation><object>{ONE}</object></annotation>"


def lay_out(root: Path, trainval: str = "Bengal_1 6 1 1\n", test: str = "Bengal_2 6 1 1\n", xml: str = "") -> Path:
    for folder in ("xmls", "trimaps"):
        (root / "annotations" / folder).mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text(trainval)
    (root / "annotations" / "test.txt").write_text(test)
    if xml:
        (root / "annotations" / "xmls" / "Bengal_1.xml").write_text(xml)
    return root


def test_labels_count_the_classes_that_occur(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "p", "#a comment\nwheaten_terrier_7 37 2 25\nBengal_1 6 1 1\n", "odd 9 1 1\n")
    samples = load("oxford_pets", root, None, {})
    assert samples.classes == ("Bengal", "odd", "wheaten_terrier")
    assert samples.table["image_id"].tolist() == ["wheaten_terrier_7", "Bengal_1", "odd"]
    assert samples.table["label"].tolist() == [2, 0, 1]
    assert samples.table["split"].tolist() == ["train", "train", "test"]


def test_corners_from_1_become_boxes_from_0(tmp_path: Path) -> None:
    two = XML.replace("</object>", f"</object><object>{ONE.replace('>10<', '>99<')}</object>")
    for number, xml in enumerate([XML, f"<!-- mine -->{XML}", two]):
        row = load("oxford_pets", lay_out(tmp_path / str(number), xml=xml), None, {}).table.iloc[0]
        assert row[["box_x", "box_y", "box_w", "box_h"]].tolist() == [0, 1, 10, 3]


def test_trimaps_where_there_are_some(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "p")
    trimap = root / "annotations" / "trimaps" / "Bengal_2.png"
    trimap.touch()
    assert load("oxford_pets", root, None, {}).table["mask_uri"].tolist() == [None, str(trimap)]


@pytest.mark.parametrize(
    ("lists", "sentence"),
    [
        ({"trainval": "Bengal_1 six 1 1\n"}, r"trainval\.txt, line 1"),
        ({"test": "\nBengal_2 ² 1 1\n"}, r"test\.txt, line 2"),
        ({"test": "Bengal_2 -6 1 1\n"}, r"test\.txt, line 1"),
        ({"test": f"Bengal_2 {'9' * 5000} 1 1\n"}, r"test\.txt, line 1"),
        ({"test": "Bengal_1 6 1 1\n"}, "lists image 'Bengal_1' twice"),
        ({"test": "Birman_2 6 1 1\n"}, "lists class 6 'Bengal' and class 6 'Birman'"),
        ({"test": "Bengal_2 7 1 1\n"}, "lists class 6 'Bengal' and class 7 'Bengal'"),
        ({"test": "../../secret 7 1 1\n"}, r"test\.txt names '\.\./\.\./secret\.jpg', which lies outside"),
        ({"test": "/etc/passwd 7 1 1\n"}, r"test\.txt names .*which lies outside"),
        ({"test": "a\0b 7 1 1\n"}, r"test\.txt names .*no path"),
        ({"trainval": "", "test": "# nothing\n"}, "lists no images"),
    ],
)
def test_damaged_lists(tmp_path: Path, lists: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load("oxford_pets", lay_out(tmp_path / "p", **lists), None, {})
    assert "\n" not in str(caught.value)


def test_an_absent_list_is_named(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "p")
    (root / "annotations" / "test.txt").unlink()
    with pytest.raises(UserError, match=r"test\.txt cannot be read \(FileNotFoundError\)"):
        load("oxford_pets", root, None, {})


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        (XML.replace(">1<", ">nan<"), "no readable bndbox"),
        (XML.replace(">4<", "><"), "no readable bndbox"),
        (f'<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "{"b" * 99}">]>{XML}', "declares entities"),
        (XML.encode("utf-16").decode("latin-1"), "no readable bndbox"),
    ],
)
def test_damaged_annotations(tmp_path: Path, xml: str, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"Bengal_1\.xml .*{sentence}.*get it again"):
        load("oxford_pets", lay_out(tmp_path / "p", xml=xml), None, {})


@pytest.mark.parametrize(
    "relative", ["images/Bengal_1.jpg", "annotations/trimaps/Bengal_1.png", "annotations/xmls/Bengal_1.xml"]
)
def test_links_that_lead_outside_are_refused(tmp_path: Path, relative: str) -> None:
    root = lay_out(tmp_path / "p")
    (root / "images").mkdir()
    (tmp_path / "secret").write_text(XML)
    (root / relative).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"trainval\.txt names .*which lies outside"):
        load("oxford_pets", root, None, {})


def test_the_real_lists(data_root: Path) -> None:
    folder = data_root / "oxford-iiit-pet"
    if not folder.is_dir():
        pytest.skip(f"no real pets: {folder} is not there")
    table = load("oxford_pets", folder, None, {}).table
    assert table.groupby("split").size().to_dict() == {"test": 298, "train": 300}
    assert table.loc[table["split"] == "test", "box_x"].isna().all()
    assert table["mask_uri"].notna().all()
    assert table["uri"].map(lambda uri: Path(uri).is_file()).all()
    # Boxes lie inside the sizes that the annotations give.
    for row in table[table["box_x"].notna()].itertuples():
        size = ElementTree.parse(folder / "annotations" / "xmls" / f"{row.image_id}.xml").find("size")
        assert size is not None
        assert min(row.box_x, row.box_y) >= 0
        assert row.box_x + row.box_w <= int(size.findtext("width", ""))
        assert row.box_y + row.box_h <= int(size.findtext("height", ""))
    assert np.isnan(table.loc[table["image_id"] == "Bengal_175", "box_x"].iloc[0])

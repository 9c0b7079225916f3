"ChestX-ray14's table, lists and folders, as they are published and as people have them."
import time

import numpy as np
import pytest
from PIL import Image

from medcrypt.imaging.nih import is_nih, open_nih
from medcrypt.imaging.tables import NIH_FINDINGS, DataError

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"


def write(folder, rows, table="Data_Entry_2017.csv", header=HEADER, place="images", files=None):
    (folder / place).mkdir(parents=True, exist_ok=True)
    for name in [row.split(",")[0] for row in rows] if files is None else files: Image.fromarray(np.full((4, 4), 51, np.uint8)).save(folder / place / name, format="png")
    (folder / table).write_text("\n".join([header, *rows]) + "\n")
    return folder


def line(name, findings="No Finding", who="1", age="058Y"): return f"{name},{findings},0,{who},{age},M,PA,2682,2749,0.143,0.143,"


def test_cells(tmp_path):
    source = open_nih(write(tmp_path, [line("00000001_000.png", "Cardiomegaly|Emphysema"), line("00000002_000.png", "Pleural_Thickening", "2", "011M"), line("00000003_000.png", who="3", age="414Y")]))
    first, second, third = source.rows
    assert first == {"file": "images/00000001_000.png", "patient_id": "1", "view": "PA", "sex": "M", "age": "58", "follow_up": "0", "split": ""} | {name: str(int(name in ("Cardiomegaly", "Emphysema"))) for name in NIH_FINDINGS}
    assert second["Pleural_Thickening"] == "1" and second["No_Finding"] == "0" and second["age"] == "0" and third["No_Finding"] == "1" and third["age"] == "414"
    assert source.defaults["group"] == "patient_id" and source.defaults["label"] == "not No_Finding" and np.allclose(source.read(first["file"]), .2) and not source.notes


def test_the_revised_table_goes_before_the_old_one_and_may_begin_with_a_mark(tmp_path):
    write(tmp_path, [line("a.png", "Mass")]); write(tmp_path, [line("a.png", "Hernia", age="58")], "Data_Entry_2017_v2020.csv", "\ufeff" + HEADER.replace("Gender", "Sex"))
    row, = open_nih(tmp_path).rows
    assert row["Hernia"] == "1" and row["Mass"] == "0" and row["age"] == "58" and row["sex"] == "M"


def test_where_pictures_may_lie(tmp_path):
    for place, name in (("images", "a.png"), ("images_001/images", "b.png"), ("images_012", "c.PNG"), ("others", "d.png")): write(tmp_path, [], place=place, files=[name])
    write(tmp_path, [line(n) for n in ("a.png", "b.png", "c.PNG", "d.png")], files=[])
    source = open_nih(tmp_path)
    assert [row["file"] for row in source.rows] == ["images/a.png", "images_001/images/b.png", "images_012/c.PNG"] and source.notes == ("ChestX-ray14: 3 of the 4 images of Data_Entry_2017.csv are here.",)


def test_the_lists(tmp_path):
    write(tmp_path, [line(n) for n in ("a.png", "b.png", "c.png")])
    (tmp_path / "train_val_list.txt").write_bytes(b"a.png\r\n"); (tmp_path / "test_list.txt").write_bytes(b"b.png")
    assert [row["split"] for row in open_nih(tmp_path).rows] == ["train", "test", ""]
    (tmp_path / "test_list.txt").write_text("b.png\na.png\n")
    with pytest.raises(DataError, match="test_list.txt: a.png is in both lists"): open_nih(tmp_path)
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"): open_nih(tmp_path)


def test_what_is_not_the_collection(tmp_path):
    assert not is_nih(tmp_path)
    with pytest.raises(DataError, match="neither Data_Entry"): open_nih(tmp_path)
    write(tmp_path, [line("a.png")], files=[])
    assert is_nih(tmp_path)
    with pytest.raises(DataError, match="none of the 1 images"): open_nih(tmp_path)
    for text, said in (("Image Index;Finding Labels\na.png;Mass\n", "no column 'Image Index'"), (HEADER + "\na.png,Mass\n", "line 2: not the columns"), (HEADER + "\na.png,,0,1,1,M,PA,1,1,1,1,\n", "line 2: finding ''"), (HEADER + "\na.png,Mass|Masss,0,1,1,M,PA,1,1,1,1,\n", "Masss")):
        write(tmp_path, [], files=["a.png"]); (tmp_path / "Data_Entry_2017.csv").write_text(text)
        with pytest.raises(DataError, match=said): open_nih(tmp_path)


def test_a_picture_that_went_away(tmp_path):
    source = open_nih(write(tmp_path, [line("a.png")])); (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="a.png"): source.read("images/a.png")
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DataError, match="no such file"): source.read("images/a.png")


def test_time_grows_with_the_table_and_no_faster(tmp_path):
    def seconds(n):
        folder = tmp_path / str(n); (folder / "images").mkdir(parents=True)
        names = [f"{i:08d}_000.png" for i in range(n)]
        for name in names: (folder / "images" / name).touch()
        write(folder, [line(name, "Effusion|Mass", str(i)) for i, name in enumerate(names)], files=[]); (folder / "train_val_list.txt").write_text("\n".join(names))
        took = []
        for _ in range(3): start = time.process_time(); assert len(open_nih(folder).rows) == n; took.append(time.process_time() - start)
        return min(took)
    assert seconds(8000) / seconds(1000) < 24      # 8 times as many; an inner loop over the files would take 64 times as long

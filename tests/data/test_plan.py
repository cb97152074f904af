"""Tables in the shape of published data sets: what each reads as, and where questions lead."""

# ruff: noqa: E501 - a table and what it reads as stand side by side

import gzip
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layout_trees import coco_plain
from PIL import Image
from reading import ANIMALS, JPG, answers, found, labels, rows, table, tree, whole

import ltml
from ltml import InputError
from ltml.cli import main
from ltml.data import ReadingPlan, read_plan
from ltml.data import load as load_data
from ltml.data.folder import load, read_label_csv
from ltml.training.setup import data_of

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "label_cases"


# file -> text, images, options, what all images hold
READ = {
    "ChestX-ray14": (
        {"Data_Entry_2017.csv": table(
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Gender",
            lambda i: f"{i},{['No Finding', 'Mass|Nodule', 'Mass'][i % 3]},{i % 2},{i},{'MF'[i % 2]}")},
        [f"images_{i % 3 + 1:03}/images/{i}.png" for i in range(6)], {"negative_class": "No Finding"},
        labels("", "Mass Nodule", "Mass", "", "Mass Nodule", "Mass")),
    "CheXpert": (
        {"train.csv": rows("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural_Other",
            "v1/0.jpg,Female,50,Frontal,AP,1.0,,", "v1/1.jpg,Male,51,Frontal,AP,,-1.0,1.0",
            "v1/2.jpg,Male,52,Frontal,AP,,1.0,0.0", *(f"v1/{i}.jpg,Male,5,Frontal,AP,,1.0,1.0" for i in range(3, 9)))},
        [f"v1/{i}.jpg" for i in range(9)], {},
        {"v1/0.jpg": {"No Finding", "?Edema", "?Pleural_Other"},
         "v1/1.jpg": {"?No Finding", "?Edema", "Pleural_Other"}, "v1/2.jpg": {"?No Finding", "Edema"}}),
    "CheXpert, none means none": (
        {"train.csv": rows("Path,No Finding,Edema,Mass", "0,1.0,,", "1,,-1.0,1.0", "2,,1.0,0.0", *(f"{i},,1,1" for i in range(3, 6)))},
        JPG, {"negative_class": "No Finding"},
        {"0": set(), "1": {"?Edema", "Mass"}, "2": {"Edema"}}),
    "CelebA": (
        {"list_attr_celeba.csv": rows("image_id,Smiling,Young,Bald", "0,1,-1,-1", "1,-1,1,-1",
            "2,1,1,-1", "3,-1,1,-1"),
         "list_eval_partition.csv": rows("image_id,partition", "0,0", "1,0", "2,1", "3,2")},
        JPG[:4], {"test_split": "val"}, {"0": {"Smiling"}, "1": {"Young"}, "2": {"Smiling", "Young"}}),
    "Planet": (
        {"train_v2.csv": table("image_name,tags", lambda i: f"{i},{ANIMALS[i]}")},
        [f"train-jpg/{i}.jpg" for i in range(6)], {}, labels(*ANIMALS)),
    "Human Protein Atlas": (
        {"train.csv": table("Id,Target", lambda i: f"{i},{['1 0', '1', '0'][i % 3]}")},
        [f"train/{i}_{c}.png" for i in range(6) for c in ("red", "green")],
        {"image_pattern": "train/{}_green.png"},
        {str(i): {f"class {c}" for c in ("10", "1", "0")[i % 3]} for i in range(6)}),
    "iMet": (
        {"train.csv": table("id,attribute_ids", lambda i: f"{i},{['1 0', '1', '0'][i % 3]}"),
         "labels.csv": rows("attribute_id,attribute_name", "0,tag::cat", "1,tag::dog")},
        JPG, {}, labels(*["tag::cat tag::dog", "tag::dog", "tag::cat"] * 2)),
    "Open Images": (
        {"train.csv": rows("ImageID,Source,LabelName,Confidence", *(
            f"{i},verification,/m/{j},{int((i + j) % 2)}" for i in range(6) for j in range(2)
            if (i, j) != (3, 1))),
         "class-descriptions.csv": "/m/0,Cat\n/m/1,Dog\n"}, JPG, {},
        {str(i): {["Dog", "Cat"][i % 2]} | ({"?Dog"} if i == 3 else set()) for i in range(6)}),
    "tidy": (
        {"train.csv": rows("image,class,value", *(
            f"{i},{name},{int(name in ANIMALS[i])}" for i in range(6) for name in ("cat", "dog")))},
        JPG, {}, labels(*ANIMALS)),
    "masks of each class, blank where it is absent": (
        {"train.csv": rows("Image_Label,EncodedPixels", *(
            f"{i}.jpg_{name},{'264 93 318 93' * (name in ANIMALS[i])}" for i in range(6) for name in ("cat", "dog")))},
        JPG, {}, {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "names in brackets": (
        {"books.csv": table('"[FILENAME]","[TITLE]","[CATEGORY ID]","[CATEGORY]"', lambda i: f"{i}.jpg,T{i},{i % 2},{['Arts & Photo', 'Travel'][i % 2]}")},
        JPG, {}, {f"{i}.jpg": {["Arts & Photo", "Travel"][i % 2]} for i in range(6)}),
    "names beside other lists of objects": (
        {"objects.json": json.dumps([{"image_url": f"https://x/{i}.jpg", "objects": [{"names": [n], "synsets": [f"{n}.n.01"], "x": 1} for n in ANIMALS[i].split()]} for i in range(6)])},
        JPG, {}, {f"https://x/{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "a counted list of categories": (
        {"Anno/list_category_img.txt": "6\nimage_name  category_label\n" + "".join(f"img/{i}.jpg   {i % 3}\n" for i in range(6)),
         "Eval/list_eval_partition.txt": "6\nimage_name  evaluation_status\n" + "".join(f"img/{i}.jpg {['train', 'test', 'val'][i // 2]}\n" for i in range(6))},
        [f"img/{i}.jpg" for i in range(6)], {}, {f"img/{i}.jpg": {f"class {i % 3}"} for i in range(2)}),
    "tidy, as pandas melts it": (
        {"train.csv": rows("image,variable,value", *(
            f"{i},{name},{int(name in ANIMALS[i])}" for name in ("cat", "dog") for i in range(6)))},
        JPG, {}, labels(*ANIMALS)),
    "ISIC": (
        {"train.csv": table("image,MEL,NV", lambda i: f"{i},{float(i % 2)},{float(1 - i % 2)}")},
        JPG, {}, labels(*["NV", "MEL"] * 3)),
    "movie posters": (
        {"MovieGenre.csv": table("imdbId,Title,IMDB Score,Genre,Poster", lambda i:
            f"{i},T{i},7.{i},{'Action|Drama' if i % 2 else 'Drama'},https://m.org/{i}.jpg")}, JPG, {},
        {f"https://m.org/{i}.jpg": {"Drama"} | ({"Action"} if i % 2 else set()) for i in range(6)}),
    "plant pathology": (
        {"train.csv": table("image,labels", lambda i: f"{i}.jpg,{'scab leaf_spot' if i % 2 else 'rust'}")},
        JPG, {}, {f"{i}.jpg": {"scab", "leaf_spot"} if i % 2 else {"rust"} for i in range(6)}),
    "PadChest": (
        {"train.csv": table("ImageID,StudyID,Labels", lambda i:
            f"{i},7{i},\"['normal'{', ' * (i % 2)}{chr(39) * (i % 2)}{'mass' * (i % 2)}{chr(39) * (i % 2)}]\"")},
        JPG, {}, labels(*["normal", "normal mass"] * 3)),
    "Label Studio": (
        {"export.csv": table("annotation_id,annotator,choice,id,image", lambda i:
            f"9{i},1,{'cat' if i % 2 else json.dumps(json.dumps({'choices': ['cat', 'dog']})).replace(chr(92) + chr(34), chr(34) * 2)},{i},/data/upload/3/{i}.jpg")},
        [f"upload/3/{i}.jpg" for i in range(6)], {},
        {f"/data/upload/3/{i}.jpg": {"cat"} if i % 2 else {"cat", "dog"} for i in range(6)}),
    "Danbooru": (
        {"tags.csv": table("file_name,tags", lambda i: f"{i},1girl {'long_hair' if i % 2 else 'hat'}{' ;)' * (i == 4)}")},
        JPG, {}, labels(*("1girl " + ("long_hair" if i % 2 else "hat") + " ;)" * (i == 4) for i in range(6)))),
    "several columns": (
        {"train.csv": table("image,label,label_2,label_3", lambda i: f"{i},cat,{'dog' * (i % 2)},{'bird' * (i == 3)}")},
        JPG, {}, labels("cat", "cat dog", "cat", "cat dog bird", "cat", "cat dog")),
    "numbers beside names": (
        {"train.csv": table("image,class_id,class_name", lambda i: f"{i},{i % 2},{'ab'[i % 2]}")}, JPG,
        {}, labels(*"ababab")),
    "words for nothing": (
        {"train.csv": table("image,labels", lambda i: f"{i},{['nan', 'None', 'a;b', 'NULL', '-', 'a'][i]}")},
        JPG, {"test_fraction": 0.4}, labels("", "", "a b", "", "", "a")),
    "vectors": (
        {"train.csv": table("image,target", lambda i: f"{i},\"[0, {i % 2}, 1]\"")}, JPG, {},
        {str(i): {"class 2"} | ({"class 1"} if i % 2 else set()) for i in range(6)}),
    "PaddleClas": (
        {"train_list.txt": "".join(f"photos/{i}.jpg\t0,{i % 2},1\n" for i in range(6))}, JPG,
        {"train_split": "train_list"},
        {f"photos/{i}.jpg": {"class 2"} | ({"class 1"} if i % 2 else set()) for i in range(6)}),
    "another machine's paths": (
        {"train.csv": table("path;label", lambda i: f"C:\\me\\photos\\{i}.JPG;{'ab'[i % 2]}")}, JPG, {},
        {f"C:\\me\\photos\\{i}.JPG": {"ab"[i % 2]} for i in range(6)}),
    "by several readers": (
        {"train.csv": rows("image_id,rad_id,Mass,Edema", *(
            f"{i},R{r},{int(r < 2)},{int(r < i % 3)}" for i in range(6) for r in range(3)))},
        JPG, {"readers": "majority"}, labels(*["Mass", "Mass", "Mass Edema"] * 2)),
    "yes and no": (
        {"train.csv": table("image,cat,dog", lambda i: f"{i},{'yes' if i % 2 else 'no'},{'no' if i % 2 else 'Yes'}")},
        JPG, {}, labels(*["dog", "cat"] * 3)),
    "images and classes in one id": (
        {"stage_2_train.csv": rows("ID,Label", *(
            f"ID_{i}_{name},{int(name in ANIMALS[i])}" for i in range(6) for name in ("cat", "dog")))},
        [f"stage_2_train/ID_{i}.png" for i in range(6)], {},
        {f"ID_{i}": set(ANIMALS[i].split()) for i in range(6)}),
    "a list that begins with its length": (
        {"list_attr.txt": "6\nSmiling Young\n" + "".join(f"{i}.jpg {1 - 2 * (i % 2):2}  1\n" for i in range(6)),
         "list_eval_partition.txt": "".join(f"{i}.jpg {i // 2}\n" for i in range(6))}, JPG, {},
        {f"{i}.jpg": {"Young"} | (set() if i % 2 else {"Smiling"}) for i in range(6)}),
    "a list whose labels have one name": (
        {"list_attr.txt": "6\nimage_name  attribute_labels\n" + "".join(f"{i}.jpg  -1 {1 - 2 * (i % 2)} -1 1\n" for i in range(6))},
        JPG, {}, {f"{i}.jpg": {"class 3"} | (set() if i % 2 else {"class 1"}) for i in range(6)}),
    "names of several words, numbered": (
        {"train.csv": table("image,class_name,class_id", lambda i: f"{i},{['No finding', 'Aortic bulge'][i % 2]},{i % 2}")},
        JPG, {}, {str(i): {["No finding", "Aortic bulge"][i % 2]} for i in range(6)}),
    "names of several words, a row each": (
        {"train.csv": rows("image,finding", *(f"{i},{n}" for i in range(6) for n in ("Pleural wall", "Old rib")))},
        JPG, {}, {str(i): {"Pleural wall", "Old rib"} for i in range(6)}),
    "the diagnosis": (
        {"meta.csv": table("lesion_id,image_id,dx,dx_type,age", lambda i: f"L{i // 2},{i},{['nv', 'mel'][i % 2]},histo,8{i}"),
         "other.csv": table("image_id,site,sex", lambda i: f"{i},back,male")}, JPG, {}, labels(*["nv", "mel"] * 3)),
    "decimal commas": (
        {"train.csv": table("image;cat;dog", lambda i: f"{i};{i % 2},0;{1 - i % 2},0")}, JPG, {}, labels(*["dog", "cat"] * 3)),
    "vectors of 1 and -1": (
        {"train.csv": table("image,labels", lambda i: f"{i},1 {1 - 2 * (i % 2)} -1")}, JPG, {},
        {str(i): {"class 0"} | (set() if i % 2 else {"class 1"}) for i in range(6)}),
    "ids that were numbers beside missing ones": (
        {"train.csv": table("id,labels", lambda i: f"{i}.0,{'ab'[i % 2]}")}, [f"photos/000{i}.jpg" for i in range(6)],
        {}, {f"{i}.0": {"ab"[i % 2]} for i in range(6)}),
    "t and f": (
        {"train.csv": table("image,cat,dog", lambda i: f"{i},{'ft'[i % 2]},{'tf'[i % 2]}")}, JPG, {}, labels(*["dog", "cat"] * 3)),
    "a list of objects": (
        {"train.json": json.dumps([{"image": f"{i}.jpg", "tags": ANIMALS[i].split()} for i in range(6)])}, JPG, {},
        {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "an object of lists": (
        {"train.json": json.dumps({f"{i}.jpg": ANIMALS[i].split() for i in range(6)})}, JPG, {},
        {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "no header, a column each": (
        {"train.csv": "".join(f"photos/{i}.jpg,{i % 2},{1 - i % 2},0\n" for i in range(6))}, JPG, {},
        {f"photos/{i}.jpg": {f"class {1 - i % 2}"} for i in range(6)}),
    "objects with boxes": (
        {"train/metadata.jsonl": "".join(json.dumps({"file_name": f"{i}.png", "objects": {"bbox": [[1, 2, 3, 4]], "area": [12], "categories": [i % 2]}}) + "\n" for i in range(4)),
         "validation/metadata.jsonl": "".join(json.dumps({"file_name": f"{i}.png", "objects": {"bbox": [], "area": [], "categories": [1]}}) + "\n" for i in range(4, 6))},
        [*(f"train/{i}.png" for i in range(4)), "validation/4.png", "validation/5.png"], {},
        {f"{i}.png": {f"class {i % 2 if i < 4 else 1}"} for i in range(6)}),
    "objects of 0 and 1": (
        {"train.csv": table("image,labels", lambda i: f"{i},\"{{'cat': {int('cat' in ANIMALS[i])}, 'dog': {int('dog' in ANIMALS[i])}}}\"")},
        JPG, {}, labels(*ANIMALS)),
    "lines before the header": (
        {"train.csv": "sep=;\n# exported\nimage;labels\n" + "".join(f"{i}.jpg;{'ab'[i % 2]}\n" for i in range(6))}, JPG, {},
        {f"{i}.jpg": {"ab"[i % 2]} for i in range(6)}),
    "a table in a folder": (
        {"annotations/labels.csv": table("image,labels", lambda i: f"{i}.jpg,{'ab'[i % 2]}")}, JPG, {},
        {f"{i}.jpg": {"ab"[i % 2]} for i in range(6)}),
    "objects with a name": (
        {"posts.jsonl": "".join(json.dumps({"id": str(i), "score": str(i), "tags": [{"id": "9", "name": n, "category": "0"} for n in ANIMALS[i].split()]}) + "\n" for i in range(6))},
        JPG, {}, labels(*ANIMALS)),
    "annotations within annotations": (
        {"data.json": json.dumps([{"externalId": f"{i}.jpg", "labels": [{"jsonResponse": {"JOB_0": {"categories": [{"name": n, "confidence": 100} for n in ANIMALS[i].split()]}}}]} for i in range(6)])},
        JPG, {}, {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "objects of flags within objects, and numbered regions": (
        {"via.csv": table("#filename,file_size,region_count,region_id,file_attributes", lambda i: f"{i}.jpg,9,0,{i % 2},\"{json.dumps({'animals': dict.fromkeys(ANIMALS[i].split(), True)}).replace(chr(34), 2 * chr(34))}\"")},
        JPG, {}, {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "objects of one attribute, a region each": (
        {"via.csv": rows("filename,region_count,region_id,region_attributes", *(f"{i}.jpg,2,{k},\"{{\"\"kind\"\": \"\"{n}\"\"}}\"" for i in range(6) for k, n in enumerate(ANIMALS[i].split())))},
        JPG, {}, {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "options of every image": (
        {"tags.jsonl": "".join(json.dumps({"image": f"photos/{i}.jpg", "options": [{"id": "cat", "text": "Cat"}], "accept": ANIMALS[i].split(), "answer": "accept"}) + "\n" for i in range(6))},
        JPG, {}, {f"photos/{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "a manifest with a map of classes": (
        {"output.manifest": "".join(json.dumps({"source-ref": f"s3://b/{i}.jpg", "animals": [int(n == "dog") for n in ANIMALS[i].split()], "animals-metadata": {"class-map": {"0": "cat", "1": "dog"}, "job-name": "x"}}) + "\n" for i in range(6))},
        JPG, {}, {f"s3://b/{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "no header, a split, and as many columns as labels": (
        {"data.csv": "".join(f"{['TRAIN', 'TEST', 'VALIDATION'][i % 3]},gs://b/{i}.jpg,{ANIMALS[i].replace(' ', ',')}\n" for i in range(6))},
        JPG, {}, {f"gs://b/{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "no header, and places of boxes": (
        {"labels.csv": "".join(f"{n},10,1{i},5,5,{i}.jpg,20,20\n" for i in range(6) for n in ANIMALS[i].split())},
        JPG, {}, {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "a counted list and its splits in folders": (
        {"Anno/list_attr.txt": "6\nSmiling Young\n" + "".join(f"{i}.jpg {1 - 2 * (i % 2):2}  1\n" for i in range(6)),
         "Eval/list_eval_partition.txt": "".join(f"{i}.jpg {i // 2}\n" for i in range(6))}, JPG, {},
        {f"{i}.jpg": {"Young"} | (set() if i % 2 else {"Smiling"}) for i in range(6)}),
    "names of numbers in JSON": (
        {"train.csv": table("image_id,label", lambda i: f"{i},{i % 2}"), "names.json": json.dumps({"0": "cat", "1": "dog"})}, JPG, {},
        labels(*["cat", "dog"] * 3)),
    "boxes beside labels": (
        {"Entries.csv": table("Image Index,Finding Labels", lambda i: f"{i}.jpg,{ANIMALS[i].replace(' ', '|')}"),
         "BBox_List.csv": "Image Index,Finding Label,Bbox [x,y,w,h]\n" + "0.jpg,cat,1,2,3,4\n".replace(",2,3,4", ",,,")}, JPG, {},
        {f"{i}.jpg": set(ANIMALS[i].split()) for i in range(6)}),
    "tables of the splits in a folder": (
        {f"annotations/labels_{kind}.csv": rows("image_id,cat,dog", *(f"{i},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}" for i in part)) for kind, part in (("train", range(4)), ("test", (4, 5)))},
        JPG, {}, labels(*ANIMALS)),
    "a plain index, blank lines, other columns": (
        {"train.csv": ",image,note,tags,\n\n0,0,a b,cat;dog,\n1,1,,dog,\n2,2,c,cat,\n3,3,,dog,\n"}, JPG, {},
        labels("cat dog", "dog", "cat", "dog")),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_published_table_is_read(tmp_path, name):
    files, images, options, want = READ[name]
    layouts = ("Open Images", "PaddleClas")  # which have readers of their own
    reader = "folder" if name in layouts else "auto"
    data = load_data(reader, root=tree(tmp_path, files, images), **options)
    assert {**whole(data), **want} == whole(data)
    assert data.plan.image in str(data.plan)


def test_what_is_in_doubt_is_asked_at_once(tmp_path):
    text = rows("image,photo,male,cat,dog", "a,b,1,1,-1", "c,d,0,0,1", "e,f,1,0,0")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(InputError) as asked:
        read_label_csv(tmp_path / "train.csv")
    message = str(asked.value)
    for part in ("--values", "--ignore 'male'", "--image-column 'image'", "(in Python values=,"):
        assert part in message


def test_a_plan_is_said_changed_kept_and_passed_back(tmp_path, caplog):
    caplog.set_level("INFO", "ltml")
    files, images, _, _ = READ["ChestX-ray14"]
    root = tree(tmp_path, files, images)
    data = load(root=root)
    said = str(data.plan)
    assert said in caplog.text.replace("\n  ", "\n")
    for part in (
        "image: `Image Index`, found in images_001/images/",
        "labels: `Finding Labels`, labels separated by '|', 3 classes, 'No Finding' among them",
        "ignored: `Follow-up #`, `Patient ID`, `Patient Gender`",
    ):
        assert part in said
    again = ReadingPlan.from_dict(json.loads(json.dumps(data.plan.as_dict())))
    assert again == data.plan
    assert found(load(root=root, plan=again)) == found(data)
    again.negative_class = "No Finding"
    assert load(root=root, plan=again).class_names == ("Mass", "Nodule")
    again.labels = {"Patient Gender": "none"}
    again.negative_class = None
    assert load(root=root, plan=again.as_dict()).class_names == ("F", "M")
    again.image = "nowhere"
    with pytest.raises(InputError, match=r"plan\.image: there is no column 'nowhere'"):
        load(root=root, plan=again)


@pytest.mark.parametrize("name", ["nowhere", "fold of list.csv", "Image"])
def test_a_plan_of_a_split_that_is_not_there_is_refused(tmp_path, name):
    rows = "".join(
        f"{i}.jpg,{'cat' if i % 2 else 'dog'},{'test' if i > 5 else 'train'}\n" for i in range(9)
    )
    root = tree(
        tmp_path, {"labels.csv": "image,labels,split\n" + rows}, [f"{i}.jpg" for i in range(9)]
    )
    plan = load(root=root).plan
    assert plan.split == "split"
    plan.split = name
    with pytest.raises(InputError, match=f"plan.split: there is no column '{name}'.*'split'"):
        load(root=root, plan=plan)
    plan.split = "split"
    assert len(load(root=root, plan=plan).test) == 3


def test_a_table_to_evaluate_is_read_by_the_plan_of_the_run(tmp_path):
    """What the table on its own would not say: what -1 means, what separates, which column."""
    (tmp_path / "data").mkdir()
    for i in range(12):
        Image.effect_noise((16, 16), 30 + i).convert("RGB").save(tmp_path / f"data/{i}.png")

    def table(name, lines):
        text = "image,labels\n" + "".join(f"{i}.png,{labels}\n" for i, labels in lines)
        (tmp_path / "data" / name).write_text(text)

    words = ["cat;dog", "dog", "cat", "None", "cat;dog", "dog"]
    table("train.csv", enumerate(words))
    table("test.csv", enumerate(words, 6))
    run = ltml.fit(
        ltml.Recipe(
            data="folder", root=str(tmp_path / "data"), steps=1, batch_size=2, image_size=16,
            allow_leaks=True,
        ),
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    names = run.config["data"]["class_names"]
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    plan = config["data"]["plan"]
    assert plan["labels"] == {"labels": ";"}
    table("more.csv", [(0, "cat"), (1, "dog;cat")])
    found = ltml.evaluate(run, tmp_path / "data/more.csv", progress=False)
    assert found.scores.targets.sum() == 3
    # Said in a plan alone, not in the recipe.
    plan["labels"]["labels"] = "+"
    path.write_text(json.dumps(config))
    table("plus.csv", [(0, "cat"), (1, "dog+cat")])
    found = ltml.evaluate(run.path, tmp_path / "data/plus.csv", progress=False)
    assert found.scores.targets[:, [names.index("cat"), names.index("dog")]].tolist() == [
        [1, 0],
        [1, 1],
    ]
    with pytest.raises(InputError, match="none of the"):
        ltml.evaluate(run.path, tmp_path / "data/more.csv", progress=False)


def test_a_run_keeps_the_plan(tmp_path):
    root = tree(tmp_path / "data", READ["ISIC"][0], [])
    (root / "photos").mkdir()
    for i, image in enumerate(JPG):
        Image.effect_noise((16, 16), 30 + i).convert("RGB").save(root / image)
    run = ltml.fit(
        ltml.Recipe(data="folder", root=str(root), steps=1, batch_size=2, image_size=16),
        out=tmp_path / "run", progress=False,
    )  # fmt: skip
    plan = ReadingPlan.from_dict(run.config["data"]["plan"])
    assert plan.classes == ["MEL", "NV"]
    assert load(root=root, plan=plan).class_names == ("MEL", "NV")


@pytest.mark.parametrize("kind", ["table", "coco"])
def test_a_run_loads_its_data_as_they_were_read(tmp_path, kind):
    """By the layout, splits and plan that it keeps, whatever else lies there by then."""
    if kind == "table":
        text = table("image_id,label", lambda i: f"{i},{i % 2}")
        root = tree(tmp_path / "data", {"labels.csv": text, "names.csv": "0,cat\n1,dog\n"}, [])
        (root / "photos").mkdir()
        for i, image in enumerate(JPG):
            Image.effect_noise((16, 16), 30 + i).convert("RGB").save(root / image)
    else:
        root = tmp_path / "data"
        coco_plain(root)
    recipe = ltml.Recipe(
        data="auto", root=str(root), steps=1, batch_size=2, image_size=16, val_split=None
    )
    run = ltml.fit(recipe, out=tmp_path / "run", progress=False)
    before = run.config["data"]
    if kind == "table":
        assert before["plan"]["labels"] == {"label": "none"}
        assert before["class_names"] == ["cat", "dog"]
    else:
        assert before["layout"]["splits"] == {"train": "train", "test": "test", "val": "val"}
        assert before["layout"]["how"].startswith("a COCO data set: annotations/photos-")
    # A second layout makes auto ask; a second training split, too.
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    (root / "labels").mkdir()
    (root / "labels/a1.txt").write_text("0 .5 .5 .1 .1\n")
    if kind == "coco":
        shutil.copy(root / "annotations/photos-train.json", root / "annotations/train2014.json")
    with pytest.raises(InputError):
        ltml.load("auto", root=root)
    again = data_of(ltml.Run.load(run.path))
    assert again.class_names == tuple(before["class_names"])
    assert {name: split.digest for name, split in again.splits.items()} == before["digest"]


SPLITS = {
    "split": ["train", "val", "train", "test", "train", "train"],
    "Set": ["Training"] * 4 + ["Testing"] * 2,
    "split_name": ["train"] * 4 + ["val"] * 2,
    "is_valid": ["False"] * 4 + ["True"] * 2,
    "in_train": ["True"] * 4 + ["False"] * 2,
    '"TRAIN,"': ["1"] * 4 + ["0"] * 2,
    "evalpartition": ["0"] * 4 + ["2"] * 2,
}


@pytest.mark.parametrize("column", SPLITS)
@pytest.mark.parametrize("file", ["train.csv", "labels.csv", "labels.csv for both"])
def test_a_column_deals_out_the_splits(tmp_path, column, file):
    values = SPLITS[column]
    text = table(f"image,labels,{column}", lambda i: f"{i},{'ab'[i % 2]},{values[i]}")
    file, both, _ = file.partition(" for both")
    options = {"train_split": "labels", "test_split": "labels"} if both else {}
    data = load(root=tree(tmp_path, {file: text}, JPG), **options)
    train = [i for i, v in enumerate(values) if v in ("train", "Training", str(column == "in_train")) or
             (v == "1" and "TRAIN" in column) or (v == "0" and "part" in column)]  # fmt: skip
    assert data.train.ids == [str(i) for i in train]
    assert not set(data.train.ids) & set(data.test.ids)
    assert (data.val is not None) == (column == "split")
    assert f"train {len(train)}" in str(data.plan)


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ({"train.csv": 0, "valid.csv": 4}, {}),
        ({"Photos_Training_Labels.csv": 0, "Photos_Testing_Labels.csv": 4}, {}),
        ({"train.csv": 0, "list_partition.txt": 0}, {}),
        ({"all.csv": 0, "list_partition.txt": 0}, {"train_split": "all"}),
        ({"train.csv": 0, "train_list.txt": 0, "test_list.txt": 4}, {}),
        ({"metadata.csv": 0, "sizes.csv": 0}, {"folders": True}),
        ({"train/_classes.csv": 0, "valid/_classes.csv": 4}, {}),
        ({"training/metadata.csv": 0, "evaluation/metadata.csv": 4}, {}),
    ],
)
def test_splits_are_found_beside_the_table(tmp_path, files, options):
    """Tables by their kind, lists, small tables and folders; nothing is dealt out at random."""
    options = dict(options)
    folders = options.pop("folders", False)
    name = [f"{'train' if i < 4 else 'test'}/{i}.jpg" if folders else str(i) for i in range(6)]
    whole_table = "list_partition.txt" in files or "train_list.txt" in files or folders
    texts = {}
    for file, first in files.items():
        few = range(first, 6 if whole_table or first else 4)
        if file == "list_partition.txt":
            texts[file] = "".join(f"{i}.jpg {2 * (i > 3)}\n" for i in few)
        elif file.endswith("_list.txt"):
            texts[file] = "".join(f"{i}.jpg\n" for i in (few if first else range(4)))
        elif file == "sizes.csv":
            texts[file] = rows("file_name,width,height", *(f"{name[i]},24,2{i}" for i in few))
        else:
            texts[file] = rows("image,labels", *(f"{name[i]},{'ab'[i % 2]}" for i in few))
    if "list_partition.txt" in files:
        for file in {"train.csv", "all.csv"} & texts.keys():
            texts[file] = rows("image,labels", *(f"{i}.jpg,{'ab'[i % 2]}" for i in range(6)))
    data = load(root=tree(tmp_path, texts, name if folders else JPG), **options)
    assert [i.rpartition("/")[2][0] for i in data.train.ids] == list("0123")
    assert [i.rpartition("/")[2][0] for i in data.test.ids] == list("45")


def test_files_that_hold_no_table_say_what_helps(tmp_path):
    pd.DataFrame({"a": [1]}).to_pickle(tmp_path / "train.pkl")
    with pytest.raises(InputError, match=r"is of a kind that is not read; save it as \.csv"):
        read_label_csv(tmp_path / "train.pkl")
    pytest.importorskip("pyarrow")
    cells = [{"bytes": b"\x89PNG", "path": "1.png"}] * 2
    pd.DataFrame({"image": cells, "label": [0, 1]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"holds the images themselves; .*from_dataset"):
        read_label_csv(tmp_path / "train.parquet")
    (tmp_path / "train.json").write_text('{"images": [{}], "map": {"0": "a"}}')
    with pytest.raises(InputError, match="is no list of objects such as"):
        read_label_csv(tmp_path / "train.json")


def test_an_unlabelled_test_table_is_asked_about(tmp_path):
    files = {"train.csv": table("id_code,diagnosis", lambda i: f"{i},{i % 2}")}
    root = tree(tmp_path, files | {"test.csv": rows("id_code", "7", "8")}, JPG)
    with pytest.raises(InputError, match="has no labels, of the columns 'diagnosis'") as asked:
        load(root=root)
    assert answers(str(asked.value)) == [{"test_fraction": "0.2"}]
    assert len(load(root=root, test_fraction="0.2").train) < 6


def test_indices_that_begin_with_1_are_said(tmp_path):
    text = table("image,label", lambda i: f"{i},{1 + i % 3}")
    data = load(root=tree(tmp_path, {"train.csv": text}, JPG))
    assert "4 classes, class 0 of no image: are they counted from 1?" in str(data.plan)


def test_folds_are_asked_about_and_any_may_be_tested_on(tmp_path):
    text = table("image,labels,fold", lambda i: f"{i},{'ab'[i // 3]},{i % 3}")
    root = tree(tmp_path, {"train.csv": text}, JPG)
    with pytest.raises(InputError, match="say which to test on, such as --test-split '0'"):
        load(root=root)
    data = load(root=root, test_split="1")
    assert (data.train.ids, data.test.ids) == (["0", "2", "3", "5"], ["1", "4"])


def test_lists_deal_out_the_splits(tmp_path):
    files = {"Data_Entry.csv": READ["ChestX-ray14"][0]["Data_Entry_2017.csv"]}
    files |= {"train_val_list.txt": "0.png\n1.png\n2.png\n", "test_list.txt": "3.png\n4.png\n"}
    root = tree(tmp_path, files, [f"images/{i}.png" for i in range(6)])
    data = load(root=root)
    assert (data.train.ids, data.test.ids) == (["0", "1", "2"], ["3", "4"])
    (root / "test_list.txt").write_text("2.png\n3.png\n")
    with pytest.raises(InputError, match=r"1 images are in two lists of .*, such as '2'"):
        load(root=root)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_tables_in_the_folders_of_their_splits(tmp_path, suffix):
    def text(*cells):
        if suffix == "csv":
            return rows("file_name,labels", *(f"{i}.png,{c}" for i, c in enumerate(cells)))
        entries = ({"file_name": f"{i}.png", "labels": c.split(";")} for i, c in enumerate(cells))
        return "\n".join(map(json.dumps, entries))

    files = {f"train/metadata.{suffix}": text("a;b", "b"), f"test/metadata.{suffix}": text("a")}
    data = load(root=tree(tmp_path, files, ["train/0.png", "train/1.png", "test/0.png"]))
    assert found(data) == {"train": {"0.png": {"a", "b"}, "1.png": {"b"}}, "test": {"0.png": {"a"}}}
    assert data.test.images == [tmp_path / "test/0.png"]


def test_values_mean_in_a_test_table_what_they_mean_in_the_training_table(tmp_path):
    files = {
        "train.csv": rows("image,cat,dog", "0,1,0", "1,,1", "2,-1,1", "3,1,0"),
        "test.csv": rows("image,cat,dog", "4,1,-1", "5,-1,1"),  # alone, -1 would be absent
    }
    data = load(root=tree(tmp_path, files, JPG))
    assert found(data)["test"] == {"4": {"cat", "?dog"}, "5": {"?cat", "dog"}}


def test_an_image_in_two_splits_is_an_error(tmp_path, capsys):
    text = table("image,labels", lambda i: f"{i},{'ab'[i % 2]}")
    root = tree(tmp_path, {"train.csv": text, "test.csv": text}, JPG)
    for options in ({}, {"train_split": "train", "test_split": "train"}):
        data = load(root=root, **options)  # which a training refuses, unless leaks are allowed
        assert data.train.ids == data.test.ids
    data = load(root=root, test_fraction=0.5)
    assert sorted(data.train.ids + data.test.ids) == [str(i) for i in range(6)]
    twice = table(
        "image,labels,split", lambda i: f"{i % 5},{'ab'[i % 2]},{['train', 'test'][i // 5]}"
    )
    root = tree(tmp_path / "other", {"all.csv": twice}, JPG)
    with pytest.raises(
        InputError, match="1 images are in two splits by column 'split', such as '0'"
    ):
        load(root=root, separator="none")


def test_tables_are_joined_by_their_common_columns(tmp_path):
    files = {
        "labels.csv": rows("study_id,Edema,Mass", *(f"s{i},{i % 2},1" for i in range(3))),
        "meta.csv": rows("dicom_id,study_id", *(f"{i},s{i // 2}" for i in range(6))),
        "split.csv": rows("dicom_id,split", *(f"{i},{['train', 'test'][i > 3]}" for i in range(6))),
    }
    root = tree(tmp_path, files, JPG)
    options = {"train_split": "meta", "join": ["labels.csv", "split.csv"]}
    data = load(root=root, **options)
    assert found(data)["train"] == {
        "0": {"Mass"}, "1": {"Mass"}, "2": {"Edema", "Mass"}, "3": {"Edema", "Mass"},
    }  # fmt: skip
    assert data.test.ids == ["4", "5"]
    (root / "labels.csv").write_text(rows("study_id,Edema", "s0,1"))
    with pytest.raises(InputError, match=r"line 4: 's1' is not in .*labels.csv \(4 rows are not\)"):
        load(root=root, **options)


@pytest.mark.parametrize("kind", ["csv.gz", "tsv", "xlsx", "parquet", "jsonl"])
def test_containers(tmp_path, kind):
    frame = pd.DataFrame({"image": ["0", "1", "2"], "cat": [1, 0, 1], "dog": [0.0, 1.0, None]})
    path = tmp_path / f"train.{kind}"
    if kind == "csv.gz":
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    elif kind == "tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif kind == "xlsx":
        pytest.importorskip("openpyxl", reason="needs openpyxl, of the extra tables")
        frame.to_excel(path, index=False)
    elif kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra tables")
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    images, matrix = read_label_csv(path)
    assert images == ["0", "1", "2"]
    np.testing.assert_array_equal(matrix.dense().numpy(), [[1, 0], [0, 1], [1, np.nan]])
    path.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_label_csv(path)


def test_large_tables_are_read_as_small_ones_are(tmp_path, monkeypatch):
    path = tmp_path / "train.csv"
    lines = [f"{i // 2:05x}, verification,/m/{i % 3},{i % 2}" for i in range(2000)]
    path.write_text(rows("ImageID,Source,LabelName,Confidence", *lines))
    images, small = read_label_csv(path)
    monkeypatch.setattr("ltml.data.tables._LARGE", 1000)
    names, large = read_label_csv(path)
    assert names == images
    assert large == small
    path.write_text(path.read_text() + "x,y,z,1,2\n")
    with pytest.raises(InputError, match=r"train\.csv cannot be read"):
        read_label_csv(path)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\n# exported\n\nimage;labels\n" + "".join(f"{i}.jpg;{'ab'[i % 2]}\n" for i in range(99)),
        "".join(f"{i}.jpg {['cat', 'dog', 'cat  dog'][i % 3]} \n" for i in range(99)),
        "".join(f"{i}.jpg 0 {i % 2} 1 \n" for i in range(99)),
    ],
    ids=["lines before the header", "a list", "a list of 0 and 1"],
)  # fmt: skip
def test_large_tables_of_other_forms(tmp_path, monkeypatch, text):
    path = tmp_path / "train.csv"
    path.write_text(text)
    images, small = read_label_csv(path)
    monkeypatch.setattr("ltml.data.tables._LARGE", 100)
    names, large = read_label_csv(path)
    assert (names, large) == (images, small)


def test_plans_of_a_frame_and_of_a_file(tmp_path):
    frame = pd.DataFrame({"ID": [1, 2], "MH": [0, 1], "DR": [1, 0]})
    assert read_plan(frame).classes == ["MH", "DR"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read_plan(tmp_path / "a.csv", ignore="DR").ignored == ["DR"]
    with pytest.raises(InputError, match="there is no option 'labels'"):
        read_plan(frame, labels="MH")
    with pytest.raises(InputError, match=r"class_columns: there is no column 'mh' \('MH' but for"):
        read_plan(frame, class_columns=["mh"])
    with pytest.raises(InputError, match="'-1' is no VALUE=MEANING; give such as -1=unknown"):
        read_plan(frame, values="-1")


def test_the_command_line_takes_the_same_options(tmp_path, capsys):
    text = rows("image,cat,dog", "0,1,-1", *(f"{i},{i % 2},{1 - i % 2}" for i in range(1, 6)))
    root = tree(tmp_path, {"train.csv": text}, [*JPG, "photos/6.jpg"])
    assert main(["data", "check", "--root", str(root)]) == 2
    assert "--values -1=0 or --values -1=unknown" in capsys.readouterr().err
    assert main(["data", "check", "--root", str(root), "--values", "-1=0"]) == 0
    assert "train: Split(" in capsys.readouterr().out
    args = ["--ignore", "cat", "--values", "-1=0"]
    assert main(["audit", str(root / "train.csv"), *args, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["classes"]) == ["dog"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the old names of modules
@pytest.mark.parametrize("case", sorted(p.name for p in CASES.glob("*")) if CASES.is_dir() else [])
def test_each_case_beside_the_checkout_is_read_or_asked_about(tmp_path, case, capsys):
    """No case ends in a traceback; those whose wish is a dictionary give just that, or a question."""
    if not (CASES / case / "make.py").is_file():
        pytest.skip("no case")
    shutil.copy(CASES / case / "make.py", tmp_path)
    runpy.run_path(str(tmp_path / "make.py"))
    out = capsys.readouterr().out
    assert "traceback" not in out
    wishes = re.findall(r"^WANT (\{.*\})\nGOT  (\{.*\})$", out, re.M)
    for want, got in wishes:
        want, got = eval(want), eval(got)  # what this test printed itself
        assert {k: sorted(v) for k, v in want.items()} == {k: sorted(v) for k, v in got.items()}
    assert "GOT" in out

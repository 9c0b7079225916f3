"Regions to hide: boxes with known truth, patients in synthetic and real pictures, whole tiles."
import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from PIL import Image

from medcrypt.core import MedcryptError
from medcrypt.crypto.partial import block_mask
from medcrypt.crypto.regions import RegionError, automatic, from_boxes, snap
from medcrypt.imaging.dicom import read_dicom

SHARED = Path(__file__).resolve().parents[2] / "shared"
missing = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the folder 'shared' (public images, DICOM cases, test vectors) is not beside the checkout")


def ellipse(shape, centre, radii):
    y, x = np.mgrid[:shape[0], :shape[1]]
    return np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1]) <= 1


def chest(rows=160, columns=200, seed=0, noise=15):
    "A CT slice in HU, and the truth about its body."
    body = ellipse((rows, columns), (rows / 2, columns / 2), (rows * .35, columns * .4))
    lungs = ellipse((rows, columns), (rows * .48, columns * .32), (rows * .2, columns * .1)) | ellipse((rows, columns), (rows * .48, columns * .68), (rows * .2, columns * .1))
    values = np.random.default_rng(seed).normal(0, noise, body.shape) - 1000 + 1040 * body - 880 * lungs
    return np.rint(values).astype(np.int16), body


# boxes

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_boxes_hide_their_pixels_and_no_others(rows, columns, data):
    box = st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1), st.integers(1, rows), st.integers(1, columns)).filter(lambda b: b[0] < b[2] and b[1] < b[3])
    boxes = data.draw(st.lists(box, max_size=5))
    visible = from_boxes((rows, columns), boxes)
    assert visible.dtype == bool and visible.shape == (rows, columns)
    for y in range(rows):
        for x in range(columns): assert visible[y, x] == (not any(top <= y < bottom and left <= x < right for top, left, bottom, right in boxes))


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 6, 2), (0, 0, 2, 10), (2, 0, 2, 3), (3, 0, 2, 3), (0, 3, 2, 3), (0, 4, 2, 3), (1, 2, 3), (1, 2, 3, 4, 5),
                                 (0, 0, 1.0, 2), (0, 0, True, 2), ("0", 0, 1, 2), 7, None, "0123", (0, 0, np.float64(1), 2), (0, 0, 2**70, 2)])
def test_bad_boxes_are_refused(box):
    with pytest.raises(RegionError, match="box"): from_boxes((5, 9), [(0, 0, 1, 1), box])


def test_box_errors_say_what_is_wrong():
    with pytest.raises(RegionError, match=r"\(0, 0, 6, 2\).*5 x 9"): from_boxes((5, 9), [(0, 0, 6, 2)])
    assert issubclass(RegionError, MedcryptError)
    for shape in ((5,), (5, 9, 3), (0, 9), (5.0, 9)):
        with pytest.raises(RegionError, match="shape"): from_boxes(shape, [])


def test_boxes_in_other_number_types_and_none_at_all():
    boxes = np.array([[0, 0, 2, 3], [4, 8, 5, 9]], np.int64)
    assert (~from_boxes((5, 9), boxes)).sum() == 7 and from_boxes((5, 9), []).all() and not from_boxes((5, 9), [(0, 0, 5, 9)]).any()


# the patient

@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["uint8", "int16", "uint16", "float32"]), st.booleans(), st.floats(0, .02), st.floats(.25, 1), st.integers(40, 150), st.integers(40, 150))
def test_the_object_is_hidden_always(seed, dtype, inverted, noise, contrast, rows, columns):
    "An ellipse, with a dark hole and a bright spot in it, on even ground: whatever stays visible is ground."
    generator = np.random.default_rng(seed)
    centre, radii = generator.uniform(.3, .7, 2) * (rows, columns), generator.uniform(.1, .6, 2) * (rows, columns)
    body = ellipse((rows, columns), centre, radii)
    hole, spot = ellipse((rows, columns), centre, radii * .4), ellipse((rows, columns), centre + radii * .5, radii * .15)
    assume((body & ~hole).any())
    values = np.clip(.05 + contrast * (.5 * body + .4 * spot - .5 * hole * body) + generator.normal(0, noise * contrast, body.shape), 0, 1)
    if inverted: values = 1 - values
    top = 1 if dtype == "float32" else {"uint8": 255, "int16": 4000, "uint16": 65535}[dtype]
    pixels = (values * top - (2000 if dtype == "int16" else 0)).astype(dtype)
    visible = automatic(pixels)
    assert visible.dtype == bool and visible.shape == pixels.shape and not (visible & body).any()
    assert np.array_equal(automatic(pixels), visible)


@pytest.mark.parametrize("convert", [lambda v: v, lambda v: -v, lambda v: (v + 2000).astype(np.uint16), lambda v: (65535 - (v.astype(int) + 2000) * 16).astype(np.uint16),
                                     lambda v: np.clip((v + 1000) / 8, 0, 255).astype(np.uint8), lambda v: (v * 1e6).astype(np.float64), lambda v: v.astype(">i2"), np.asfortranarray])
def test_a_chest_is_found_in_every_representation(convert):
    pixels, body = chest()
    visible = automatic(convert(pixels))
    assert not visible[body].any() and visible[~body].mean() > .8


def test_margin():
    pixels, body = chest()
    from scipy.ndimage import distance_transform_edt
    away = distance_transform_edt(~body)
    for margin in (3, 8, 20):
        visible = automatic(pixels, margin)
        assert not visible[away <= margin - 1].any() and visible[away > margin + 4].all()
    assert (automatic(pixels, 0) & ~automatic(pixels, 3)).any() and not (automatic(pixels, 20) & ~automatic(pixels, 8)).any()
    assert not automatic(pixels, 1000).any()


def test_outliers_and_sparse_noise_do_not_matter():
    pixels, body = chest()
    metal = pixels.astype(float); metal[70:72, 95:97] = 1e6
    assert automatic(metal)[~body].mean() > .8
    sparse = np.where(body, 120, np.random.default_rng(0).random(body.shape) < .3).astype(np.uint8)
    assert automatic(sparse)[~body].mean() > .8


def test_letters_and_other_small_objects_are_hidden():
    pixels, body = chest()
    pixels[5:12, 6:9] = pixels[5:8, 6:14] = 900   # a letter in a corner region, not in the corner
    letter = pixels == 900
    visible = automatic(pixels)
    assert not visible[letter].any() and visible[~body].mean() > .7


def test_what_opens_to_the_edge_only_through_a_narrow_passage_is_hidden():
    pixels, body = chest()
    pixels[78:81, :66] = -1000   # a passage of 3 pixels from the edge into a lung
    visible = automatic(pixels)
    lung = ellipse(pixels.shape, (77, 64), (30, 18))
    assert not visible[lung].any() and visible[~body].mean() > .7


def test_up_and_down_and_across_do_not_matter():
    pixels, _ = chest(seed=3)
    for turn in (np.flipud, np.fliplr, np.transpose): assert np.array_equal(automatic(turn(pixels)), turn(automatic(pixels)))


def test_a_lung_cut_by_the_edge_is_hidden_and_air_beside_the_edge_is_not():
    whole, truth = chest(noise=3)
    for depth in (24, 102):   # lungs as dark as air, cut by the upper edge
        pixels, body = np.where((whole < 0) & truth, -1000, whole)[58:], truth[58:]
        pixels[depth:][body[depth:]] = 40
        assert (pixels[0, 40:160] < -900).sum() > 30
        visible = automatic(pixels)
        assert visible.mean() > .1 and not visible[body].any()
    pixels, body = chest(noise=3)
    pixels[:10, 60:63] = pixels[:10, 137:140] = pixels[10:13, 60:140] = 40        # a box of air at the upper edge
    assert automatic(pixels)[3:6, 70:130].all()


def test_a_shape_that_reaches_the_edge():
    pixels, body = chest()
    pixels[60:100] = np.where(body[60:100], pixels[60:100], 40)   # arms, from edge to edge
    truth = body.copy(); truth[60:100] = True
    visible = automatic(pixels)
    assert not visible[truth].any() and visible[~truth].mean() > .6 and visible[:20].any() and visible[-20:].any()


def hidden(pixels): return not automatic(pixels).any()


def test_in_doubt_everything_is_hidden():
    generator = np.random.default_rng(0)
    pixels, body = chest()
    assert not hidden(pixels)
    for flat in (np.zeros((64, 64), np.uint8), np.full((64, 64), 65535, np.uint16), np.full((64, 64), -7, np.int16), np.full((64, 64), 1e9 + .1)): assert hidden(flat)
    assert hidden(generator.integers(0, 4096, (128, 128)).astype(np.uint16))                        # noise
    assert hidden((np.mgrid[:128, :128].sum(0)).astype(np.uint8))                                     # a ramp: no even background
    assert hidden(np.roll(pixels, 60, axis=1))                                                        # the middle is background
    assert hidden(pixels[40:120, 50:150])                                                             # a crop inside the body
    uneven = pixels + np.linspace(0, 1500, 200).astype(np.int16)
    assert hidden(uneven)
    darker = pixels.copy(); darker[ellipse(pixels.shape, (80, 100), (50, 70))] = -3000                # the ground is neither the darkest nor the brightest
    darker[ellipse(pixels.shape, (80, 100), (25, 30))] = 1500
    assert hidden(darker)
    half = np.full((100, 100), 10, np.uint8); half[:, 50:] = 200                                      # as much of one as of the other
    assert hidden(half)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (31, 200), (200, 31)])
def test_small_pictures_are_hidden(shape):
    body = ellipse(shape, (shape[0] / 2, shape[1] / 2), (shape[0] * .4, shape[1] * .4))
    assert automatic(body.astype(np.uint8) * 200).shape == shape and hidden(body.astype(np.uint8) * 200)
    larger = ellipse((32, 200), (16, 100), (12, 80))
    assert not hidden(larger.astype(np.uint8) * 200)


def test_ground_must_be_at_the_end_of_the_range():
    pixels, body = chest(noise=1)
    lungs = (pixels < 0) & body
    for level, all_hidden in ((-1050, False), (-1090, True), (-1400, True)):   # the ground is -1000, the body 40
        assert hidden(np.where(lungs, level, pixels)) == all_hidden, level


def test_two_corners_of_background_are_not_enough():
    pixels, _ = chest()
    pixels[-24:] = 40
    assert hidden(pixels)
    pixels, _ = chest()
    pixels[-24:, -24:] = 40
    assert not hidden(pixels)


@pytest.mark.parametrize("pixels, word", [(np.zeros((4, 4, 3)), "shape"), (np.zeros(4), "shape"), (np.zeros((0, 4)), "shape"), (np.zeros((40, 40), bool), "bool"), (np.full((40, 40), np.nan), "finite"),
                                          (np.array([["a"]]), "wanted numbers"), (np.full((40, 40), np.inf), "finite"), (np.zeros((40, 40), complex), "complex")])
def test_what_is_no_picture_is_refused(pixels, word):
    with pytest.raises(RegionError, match=word): automatic(pixels)


@pytest.mark.parametrize("margin", [-1, float("nan"), float("inf")])
def test_bad_margins_are_refused(margin):
    with pytest.raises(RegionError, match="margin"): automatic(chest()[0], margin)


def test_the_picture_is_not_changed():
    pixels, _ = chest()
    before = pixels.copy()
    automatic(pixels)
    assert np.array_equal(pixels, before)


# whole tiles

@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 60), st.integers(0, 10**6), st.floats(0, .2))
def test_snapping_hides_whole_tiles_and_no_others(rows, columns, block, seed, share):
    visible = np.random.default_rng(seed).random((rows, columns)) >= share
    snapped = snap(visible, block)
    assert snapped.dtype == bool and not (snapped & ~visible).any()
    for top in range(0, rows, block):
        for left in range(0, columns, block):
            tile = np.s_[top:top + block, left:left + block]
            assert (snapped[tile] == visible[tile].all()).all()
    assert np.array_equal(snap(snapped, block), snapped) and np.array_equal(snap(visible, 1), visible)


def test_snapping_knows_the_tiles_of_the_blocks():
    mask = block_mask((61, 45), .4, 8, seed=1)
    assert np.array_equal(snap(mask, 8), mask) and not np.array_equal(snap(mask, 7), mask)


def test_a_huge_block_costs_nothing():
    visible = np.ones((30, 40), bool)
    assert snap(visible, 10**12).all()
    visible[29, 39] = False
    assert not snap(visible, 10**12).any()


@pytest.mark.parametrize("visible, block, word", [(np.ones((4, 4), np.uint8), 2, "bool"), (np.ones(4, bool), 2, "shape"), (np.ones((0, 4), bool), 2, "shape"), (np.ones((4, 4), bool), 0, "block"),
                                                  (np.ones((4, 4), bool), -8, "block"), (np.ones((4, 4), bool), 2.0, "block"), (np.ones((4, 4), bool), True, "block")])
def test_bad_snaps_are_refused(visible, block, word):
    with pytest.raises(RegionError, match=word): snap(visible, block)


# real pictures

@missing
def test_nodules_stay_hidden():
    masks = np.load(SHARED / "data" / "ct" / "lidc_central_masks128.npz")
    for name, agreement in list(zip(masks["names"], masks["agreement"]))[::10]:
        visible = automatic(np.asarray(Image.open(SHARED / "data" / "ct" / str(name)).convert("L")))
        assert not (visible & (agreement > 0)).any(), name


@missing
def test_findings_in_radiographs_stay_hidden_and_some_background_is_found():
    found = 0
    with open(SHARED / "data" / "cxr" / "bbox_1024coords.csv") as file: boxes = list(csv.DictReader(file))
    for row in boxes:
        path = SHARED / "data" / "cxr" / "nih256" / row["nih_name"]
        if not path.is_file(): continue
        visible = automatic(np.asarray(Image.open(path).convert("L")))
        x, y, w, h = (float(row[key]) / 4 for key in "xywh")
        assert not visible[int(y):int(y + h) + 1, int(x):int(x + w) + 1].any(), row["nih_name"]
        found += visible.any()
    assert found >= 3


@missing
def test_bodies_on_whole_ct_slices_stay_hidden():
    for path in sorted((SHARED / "data" / "dicom" / "ct_chest_series_CPTAC").glob("*.dcm"))[::4]:
        image = read_dicom(path)
        visible = automatic(image.stored)
        assert .05 < visible.mean() < .3 and not visible[128:384, 64:448].any() and np.percentile(image.modality[visible], 99) < -500, path.name

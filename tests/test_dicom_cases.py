"The file cases of shared/cases: right answer, or a clear DicomError."
import json, subprocess, sys
from pathlib import Path

import numpy as np
import pytest

from medcrypt.imaging.dicom import DicomError, read_dicom

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
EXPECTED = {path.parent.name: json.loads(path.read_text()) for path in sorted(CASES.glob("*/expected.json")) if list(path.parent.glob("*.dcm"))}
BY_ACTION = {action: [name for name, case in EXPECTED.items() if case["action"] == action] for action in ("decode", "decode_or_refuse", "must_raise")}
pytestmark = pytest.mark.skipif(not EXPECTED, reason=f"{CASES} is missing: the file cases are not part of the repository")


def check(image, folder, case, stored="expected_stored.npy"):
    expected = {path.stem.removeprefix("expected_"): np.load(path) for path in folder.glob("expected_*.npy")}
    if (folder / stored).is_file():
        assert image.stored.dtype.kind in "iu" and image.stored.shape == np.load(folder / stored).shape
        assert np.array_equal(image.stored, np.load(folder / stored))
    if "modality" in expected:
        assert image.modality.dtype.kind == "f" and image.modality.shape == expected["modality"].shape
        np.testing.assert_allclose(image.modality, expected["modality"], rtol=0, atol=case.get("modality_tolerance", 1e-9))
    elif "modality" in case:
        for name in ("min", "max", "mean"): assert getattr(image.modality, name)() == pytest.approx(case["modality"][name], abs=1e-3)
    if "display01" in expected: np.testing.assert_allclose(image.display, expected["display01"], rtol=0, atol=case["display_tolerance"])
    if "rgb" in expected: assert np.abs(image.rgb.astype(float) - expected["rgb"]).mean() <= case["rgb_tolerance_mean_abs"]
    elif "rgb" in case:
        for name in ("min", "max", "mean"): assert getattr(image.rgb, name)() == pytest.approx(case["rgb"][name], abs=case["rgb_tolerance"])
    if "rgb16" in case: assert image.rgb.max() == case["rgb16"]["max"] and list(image.rgb.shape) == case["rgb16"]["shape"]
    if "luma_mean" in case: assert image.modality.mean() == pytest.approx(case["luma_mean"], abs=.01)
    if isinstance(case.get("padding"), dict):
        valid = image.modality[~image.padding]
        assert image.padding.sum() == case["padding"]["n"] and (image.display[image.padding] == 0).all()
        assert (valid.min(), valid.max()) == (case["padding"]["valid_min"], case["padding"]["valid_max"])
    shape = image.stored.shape[:-1] if image.colour in ("rgb", "ybr") else image.stored.shape
    assert image.display.dtype == np.float32 and np.isfinite(image.display).all() and 0 <= image.display.min() <= image.display.max() <= 1
    assert image.modality.shape == image.display.shape == image.padding.shape == shape and image.padding.dtype == bool
    assert image.frames == (shape[0] if len(shape) == 3 else 1)
    text = repr(image.header) + repr(image)
    for private in ("evil", "AAAA", "P-0"): assert private not in text


@pytest.mark.parametrize("name", BY_ACTION["decode"])
def test_decodes(name):
    case, folder = EXPECTED[name], CASES / name
    for file in case["files"]:
        own = f"expected_{Path(file).stem}.npy"
        check(read_dicom(folder / file), folder, case, own if (folder / own).is_file() else "expected_stored.npy")


@pytest.mark.parametrize("name", BY_ACTION["decode_or_refuse"])
def test_decodes_or_refuses(name):
    case, folder = EXPECTED[name], CASES / name
    for file in case["files"]:
        try: image = read_dicom(folder / file)
        except DicomError as error: assert file in str(error)
        else: check(image, folder, case)


MEASURE = """
import json, resource, sys, time
from medcrypt.imaging.dicom import DicomError, read_dicom
for path in sys.argv[1:]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try: read_dicom(path).display; message = None
    except DicomError as error: message = str(error)
    print(json.dumps([message, time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""

@pytest.mark.parametrize("name", BY_ACTION["must_raise"])
def test_refuses_fast_and_in_little_memory(name):
    pytest.importorskip("resource", reason="peak memory is measured with the resource module, which Windows lacks")
    paths = [str(CASES / name / file) for file in EXPECTED[name]["files"]]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        message, time_s, growth_mib = json.loads(line)
        assert message is not None and path in message and "\n" not in message, name
        assert time_s < 1 and growth_mib < 200, (time_s, growth_mib)
    assert done.stderr == ""


def test_all_cases_are_here():
    assert {len(names) > 0 for names in BY_ACTION.values()} == {True}
    assert len(EXPECTED) >= 60

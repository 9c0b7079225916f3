"Shared by all tests: a quiet TensorFlow, no display, and the folder `shared` that may lie beside the checkout."
import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
MISSING = "the folder 'shared' (public images, DICOM cases, test vectors) is not beside the checkout"


@pytest.fixture(scope="session")
def root() -> Path:
    "The checkout."
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder of public data; the test is skipped where it is missing."
    if not SHARED.is_dir(): pytest.skip(MISSING)
    return SHARED


def pytest_collection_modifyitems(items):
    if SHARED.is_dir(): return
    for item in items:
        if item.get_closest_marker("shared"): item.add_marker(pytest.mark.skip(reason=MISSING))

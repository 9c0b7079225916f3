"""Arrays put together from parts, in memory or in a file without a name."""
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt.learning import gathering
from medcrypt.learning.gathering import GatheringError, gather


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([0, 1 << 30]))
def test_parts_of_any_length_make_the_whole(count, step, limit):
    pixels = np.random.default_rng(count).random((count, 3, 2), dtype=np.float32); mask = pixels > .5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "IN_MEMORY", limit)
        whole = gather(((pixels[at:at + step], mask[at:at + step]) for at in range(0, count, step)), count, Path("."))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype and type(a) is np.ndarray and a.flags.writeable for a, b in zip(whole, (pixels, mask)))


def test_a_large_one_lies_in_a_file_and_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "IN_MEMORY", 100)
    small, = gather([(np.ones((5, 5), np.uint8),)], 5, tmp_path); large, = gather([(np.ones((5, 5)),)], 5, tmp_path)
    assert not isinstance(small.base, np.memmap) and isinstance(large.base, np.memmap) and not os.listdir(tmp_path)
    large[:] = 7; assert (large == 7).all()


def test_what_does_not_fit_together_is_refused(tmp_path, monkeypatch):
    part = lambda n, side=2: (np.zeros((n, side, side)),)
    for parts, count, said in (([part(2), part(2, 3)], 4, "different shapes"), ([part(2)], 3, "2 of 3"), ([part(2), part(2)], 3, "more than the 3"), ([], 0, "0 of 0"), ([], 2, "0 of 2")):
        with pytest.raises(GatheringError, match=said): gather(parts, count, tmp_path)
    monkeypatch.setattr(gathering, "IN_MEMORY", 0)
    with pytest.raises(GatheringError, match="absent: no room for"): gather([part(2)], 2, tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no room in files")
def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(gathering, "IN_MEMORY", 0); monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(GatheringError, match="no room for 3.2e-08 GB .*No space left"): gather([(np.zeros((2, 2)),)], 2, tmp_path)

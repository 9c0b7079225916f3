"Codestreams in two parts: joined exactly, opened by every decoder at hand, nothing of the hidden packets in the public part, damage refused."
import io, struct, time, tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from medcrypt.core import MedcryptError
from medcrypt.crypto.layers import LayerError, join, packets, split_high, split_low
from medcrypt.imaging.codestream import PLT, SOD, SOT, segments, tile_parts
from medcrypt.imaging.jpeg2000 import decode, encode, openjpeg, prefix, resolution_ends, siz

SHARED = Path(__file__).resolve().parents[2] / "shared"
SPLITS = split_low, split_high
CODECS = "part1", "htj2k"


def picture(rows, columns, bits, seed=0, signed=False):
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    values = (np.sin(x / 5 + seed) + np.cos(y / 7) + 2) / 4 * (2**bits - 1) + generator.normal(0, 2**bits / 40, (rows, columns))
    values = np.clip(np.rint(values), 0, 2**bits - 1).astype(np.int64) - (2**(bits - 1) if signed else 0)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def variant(folder, pixels, **options):
    "A codestream with markers, layers or precincts that medcrypt itself does not write."
    openjpeg()
    import glymur
    path = folder / "variant.j2k"
    path.unlink(missing_ok=True)
    glymur.Jp2k(path, data=pixels, **{"plt": True, "prog": "RPCL", **options})
    return path.read_bytes()


def lengths(codestream):
    "Packet lengths of all PLT segments, read without the module under test."
    found, value = [], 0
    for part in tile_parts(codestream):
        for marker, at, end in segments(codestream, part.start + 12, SOD):
            for byte in codestream[at + 5:end] if marker == PLT else b"":
                value = value << 7 | byte & 127
                if not byte & 128: found.append(value); value = 0
    return found


def hybrid(first, second, resolutions):
    "The packets of `first` up to that resolution, those of `second` from there on, with its PLT and Psot: what an encoder would write for some third picture."
    bodies = [first[one.start:one.end] if one.resolution < resolutions else second[two.start:two.end] for one, two in zip(packets(first), packets(second))]
    return first[:tile_parts(first)[0].start] + tile_part(bodies) + b"\xff\xd9"


def tile_part(bodies, index=0, count=1, sizes=None):
    sizes = sizes or [len(body) for body in bodies]
    values = b"".join(bytes([size >> 7 * k & 127 | (128 if k else 0) for k in reversed(range(5)) if not k or size >> 7 * k]) for size in sizes)
    tail = struct.pack(">HHB", PLT, 3 + len(values), 0) + values + b"\xff\x93" + b"".join(bodies)
    return struct.pack(">HHHIBB", SOT, 10, 0, 12 + len(tail), index, count) + tail


def shown(codestream):
    "What OpenJPEG shows, and Pillow and imagecodecs agree: the picture at full size."
    pixels = decode(codestream)
    assert np.array_equal(imagecodecs.jpeg2k_decode(codestream), pixels)
    if pixels.dtype.kind == "u": assert np.array(Image.open(io.BytesIO(codestream))).shape == pixels.shape
    return pixels


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 12, 16]), st.booleans(), st.sampled_from(CODECS), st.booleans(), st.integers(0, 99))
def test_both_directions_at_every_resolution(rows, columns, bits, signed, codec, lossy, seed):
    pixels = picture(rows, columns, bits, seed, signed)
    codestream = encode(pixels, bits=bits, codec=codec, **(dict(lossless=False, rate=4) if lossy else {}))
    levels = siz(codestream).levels
    for resolutions in range(1, levels + 2):
        for split in SPLITS:
            public, secret = split(codestream, resolutions)
            assert join(public, secret) == codestream
            assert siz(public) == siz(codestream) and shown(public).shape == pixels.shape
            hidden = [(packet.resolution >= resolutions) == (split is split_low) for packet in packets(codestream)]
            kept = [public[packet.start:packet.end] for packet in packets(public)]
            assert kept == [b"\0" if gone else codestream[packet.start:packet.end] for gone, packet in zip(hidden, packets(codestream))]
            assert [packet.resolution for packet in packets(public)] == [packet.resolution for packet in packets(codestream)]
        low, _ = split_low(codestream, resolutions)
        for reduce in range(levels + 1 - resolutions, levels + 1): assert np.array_equal(decode(low, reduce=reduce), decode(codestream, reduce=reduce))
        if codec == "htj2k":
            for split in SPLITS:
                public = split(codestream, resolutions)[0]
                assert imagecodecs.htj2k_decode(public).shape == pixels.shape
                for skip in range(levels + 1): assert imagecodecs.htj2k_decode(public, skipres=skip).shape == decode(codestream, reduce=skip).shape


@pytest.mark.parametrize("codec", CODECS)
def test_the_blur_is_that_of_a_prefix_and_the_ends_are_all_and_nothing(codec):
    codestream = encode(picture(150, 133, 12), bits=12, codec=codec)
    for resolutions in range(1, 7):
        low, secret = split_low(codestream, resolutions)
        assert np.array_equal(decode(low), decode(prefix(codestream, resolutions)))
        assert len(low) + len(secret) <= len(codestream) + 15 + 12 * 3 * len(tile_parts(codestream)) + 4 * len(tile_parts(codestream)) + 14 + 6
    assert split_low(codestream, 6)[0] == codestream
    grey = decode(split_high(codestream, 6)[0])
    assert (grey == 2048).all()
    assert (decode(split_high(encode(picture(40, 40, 12, signed=True), bits=12, codec=codec), 6)[0]) == 0).all()


@pytest.mark.parametrize("resolutions", [1, 2, 3, 4, 5])
def test_hidden_packets_leave_no_trace(resolutions):
    first, second = encode(picture(120, 97, 12), bits=12), encode(picture(120, 97, 12, 1) // 5, bits=12)
    third = hybrid(first, second, resolutions)
    decode(third)
    assert hybrid(first, first, resolutions) == first != third != second and lengths(third) not in (lengths(first), lengths(second))
    assert split_low(first, resolutions)[0] == split_low(third, resolutions)[0] != split_low(second, resolutions)[0]
    assert split_high(second, resolutions)[0] == split_high(third, resolutions)[0] != split_high(first, resolutions)[0]
    for split in SPLITS:
        public, _ = split(first, resolutions)
        assert lengths(public) == [1 if (k >= resolutions) == (split is split_low) else size for k, size in enumerate(lengths(first))]
        assert resolution_ends(public)[-1] == len(public) - 2


def test_hidden_tile_parts_leave_no_trace():
    first, second = (encode(picture(120, 97, 12, seed), bits=12, codec="htj2k") for seed in (1, 2))
    cut = [[part.end for part in tile_parts(stream)][2] for stream in (first, second)]
    third = first[:cut[0]] + second[cut[1]:]
    assert split_low(first, 3)[0] == split_low(third, 3)[0] != split_low(second, 3)[0]
    assert split_high(second, 3)[0] == split_high(third, 3)[0] != split_high(first, 3)[0]


@pytest.mark.parametrize("codec", CODECS)
def test_details_without_the_picture(codec):
    y, x = np.mgrid[:256, :256]
    pixels = (600 + 2500 * np.exp(-((x - 100) ** 2 + (y - 150) ** 2) / 5000) + 400 * (x > 180) + np.random.default_rng(0).normal(0, 20, x.shape)).astype(np.uint16)
    codestream = encode(pixels, bits=12, codec=codec)
    for resolutions in (1, 2, 3):
        public = decode(split_high(codestream, resolutions)[0]).astype(float)
        sigma = 2 ** (6 - resolutions)
        blurred, original = gaussian_filter(public, sigma), gaussian_filter(pixels.astype(float), sigma)
        assert abs(public.mean() - 2048) < 40 and public.std() < .25 * pixels.std()
        assert blurred.std() < .08 * original.std()                      # what is left of the low frequencies
        assert abs(np.corrcoef(blurred.ravel(), original.ravel())[0, 1]) < .3
    coarse = decode(split_low(codestream, 3)[0])
    assert np.corrcoef(coarse.ravel(), pixels.ravel())[0, 1] > .98


def test_brightness_is_in_the_coarsest_resolution_only():
    pixels = picture(90, 70, 12) // 2
    dark, bright = encode(pixels, bits=12), encode(pixels + 1000, bits=12)
    assert split_high(dark, 1)[0] == split_high(bright, 1)[0] and split_low(dark, 1)[0] != split_low(bright, 1)[0]


VARIANTS = [dict(psizes=[(32, 128)], cbsize=(16, 16)), dict(sop=True), dict(eph=True), dict(sop=True, eph=True, cratios=[8, 2, 1]), dict(prog="RLCP", cratios=[20, 5, 1]), dict(cratios=[20, 5, 1]),
            dict(psizes=[(64, 64), (32, 32)], cbsize=(32, 32)), dict(psizes=[(32, 32)], cbsize=(16, 16), sop=True, cratios=[9, 1], eph=True), dict(prog="LRCP"), dict(numres=1), dict(numres=3, irreversible=True),
            dict(psizes=[(16, 16)], cbsize=(8, 8), cratios=[40, 12, 6, 3, 1], sop=True, numres=4, prog="RLCP")]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_other_writers(tmp_path, options):
    pixels = picture(190, 151, 12)
    codestream = variant(tmp_path, pixels, **options)
    there, levels = packets(codestream), siz(codestream).levels
    assert [packet.end - packet.start for packet in there] == lengths(codestream)
    assert [packet.resolution for packet in there] == sorted(packet.resolution for packet in there) and {packet.resolution for packet in there} == set(range(levels + 1))
    for resolutions in range(1, levels + 2):
        for split in SPLITS:
            public, secret = split(codestream, resolutions)
            assert join(public, secret) == codestream and shown(public).shape == pixels.shape
            hidden = [len(body) for body, packet in zip([public[p.start:p.end] for p in packets(public)], there) if (packet.resolution >= resolutions) == (split is split_low)]
            assert set(hidden) <= {1 + 6 * options.get("sop", False) + 2 * options.get("eph", False)}
        low, _ = split_low(codestream, resolutions)
        for reduce in range(levels + 1 - resolutions, levels + 1): assert np.array_equal(decode(low, reduce=reduce), decode(codestream, reduce=reduce))
        for extra in range(levels + 1 - resolutions):   # coarser than asked is there too, finer is not
            assert not np.array_equal(decode(low, reduce=extra), decode(codestream, reduce=extra))


def test_lengths_in_the_main_header_are_left_out_and_come_back():
    plain = encode(picture(90, 70, 12), bits=12)
    at, part = plain.index(b"\xff\x90"), tile_parts(plain)[0]
    tlm = struct.pack(">HHBBI", 0xFF55, 8, 0, 0x40, part.end - part.start)
    plm = struct.pack(">HHBB", 0xFF57, 10, 0, 6) + bytes(6)
    codestream = plain[:at] + tlm + plm + plain[at:]
    assert np.array_equal(decode(plain[:at] + tlm + plain[at:]), decode(plain))
    for split in SPLITS:
        public, secret = split(codestream, 3)
        assert public == split(plain, 3)[0] and join(public, secret) == codestream


def test_a_last_tile_part_of_unsaid_length():
    codestream = bytearray(encode(picture(90, 70, 12), bits=12))
    start = tile_parts(codestream)[0].start
    codestream[start + 6:start + 10] = bytes(4)
    for split in SPLITS:
        public, secret = split(codestream, 3)
        assert join(public, secret) == codestream and decode(public).shape == (90, 70)


def test_sop_numbers_go_on_through_empty_packets(tmp_path):
    codestream = variant(tmp_path, picture(300, 300, 8), psizes=[(32, 32)], cbsize=(16, 16), sop=True, cratios=[9, 1])
    public, _ = split_high(codestream, 4)
    assert len(packets(public)) > 300
    for k, packet in enumerate(packets(public)): assert public[packet.start:packet.start + 6] == struct.pack(">HHH", 0xFF91, 4, k)


def test_packets_of_one_resolution_in_several_tile_parts(tmp_path):
    whole = variant(tmp_path, picture(190, 151, 12), psizes=[(64, 64)], cbsize=(32, 32), sop=True, eph=True, cratios=[9, 1])
    bodies = [whole[packet.start:packet.end] for packet in packets(whole)]
    cuts = [0, 5, 6, 17, 18, len(bodies)]
    codestream = whole[:tile_parts(whole)[0].start] + b"".join(tile_part(bodies[a:b], k, 5) for k, (a, b) in enumerate(zip(cuts, cuts[1:]))) + b"\xff\xd9"
    assert np.array_equal(decode(codestream), decode(whole)) and [p.resolution for p in packets(codestream)] == [p.resolution for p in packets(whole)]
    for resolutions in range(1, 7):
        for split in SPLITS:
            public, secret = split(codestream, resolutions)
            assert join(public, secret) == codestream and np.array_equal(shown(public), decode(split(whole, resolutions)[0]))
            for k, packet in enumerate(packets(public)): assert public[packet.start:packet.start + 6] == struct.pack(">HHH", 0xFF91, 4, k)


def test_more_packet_lengths_than_one_segment_holds(tmp_path):
    "70,000 packets: several PLT segments, numbered from 0, none longer than a marker segment may be."
    codestream = variant(tmp_path, picture(530, 530, 8), psizes=[(8, 8)], cbsize=(4, 4), cratios=[20, 15, 12, 9, 7, 6, 5, 4, 3, 2, 1], numres=2)
    assert len(packets(codestream)) > 65535
    for split in SPLITS:
        public, secret = split(codestream, 1)
        numbers = [public[at + 4] for part in tile_parts(public) for marker, at, _ in segments(public, part.start + 12, SOD) if marker == PLT]
        assert join(public, secret) == codestream and numbers == list(range(len(numbers))) and len(numbers) >= 2
        assert decode(public).shape == (530, 530) and len(packets(public)) == len(packets(codestream))


def test_an_image_offset_changes_the_number_of_precincts(tmp_path):
    codestream = variant(tmp_path, picture(100, 100, 8), psizes=[(32, 32)], cbsize=(16, 16), grid_offset=(30, 40))
    assert sum(packet.resolution == 5 for packet in packets(codestream)) == 5 * 4   # 30..130 and 40..140 in steps of 32
    for split in SPLITS:
        public, secret = split(codestream, 3)
        assert join(public, secret) == codestream and decode(public).shape == (100, 100)


def refuse(codestream, word):
    for split in SPLITS:
        with pytest.raises(LayerError, match=word): split(codestream, 1)
    with pytest.raises(LayerError, match=word): packets(codestream)


def test_what_cannot_be_split_says_why(tmp_path):
    pixels = picture(90, 70, 8)
    codestream = encode(pixels)
    refuse(variant(tmp_path, pixels, plt=False), "packet ends")
    refuse(imagecodecs.htj2k_encode(pixels, resolutions=3), "packet ends")
    refuse(variant(tmp_path, pixels, tilesize=(64, 64)), "tile")
    refuse(variant(tmp_path, np.dstack([pixels] * 3)), "3 components")
    refuse(variant(tmp_path, pixels, prog="LRCP", cratios=[9, 1]), "order")
    refuse(variant(tmp_path, pixels, prog="PCRL"), "order")
    refuse(codestream + b"\0", "1 bytes follow")
    refuse(imagecodecs.jpeg2k_encode(pixels, 0), "JP2 boxes")
    refuse(b"", "not a raw")
    refuse(codestream[:-2], "cut short")
    at = codestream.index(b"\xff\x90")
    for marker in (0xFF53, 0xFF5F, 0xFF60): refuse(codestream[:at] + struct.pack(">HHHHH", marker, 8, 0, 0, 0) + codestream[at:], "coding style")
    coding = codestream[codestream.index(b"\xff\x52"):][:14]
    inside = codestream[:at + 6] + struct.pack(">I", len(codestream) - at - 2 + 14) + codestream[at + 10:at + 12] + coding + codestream[at + 12:]
    refuse(inside, "coding style")
    for bad in (0, -1, 7, 99):
        for split in SPLITS:
            with pytest.raises(LayerError, match="1..6"): split(codestream, bad)


def test_wrong_packet_lengths_are_refused():
    codestream = encode(picture(90, 70, 8))
    at = codestream.index(b"\xff\x58")
    size = struct.unpack(">H", codestream[at + 2:at + 4])[0]
    for change in (codestream[at + 5] + 1, codestream[at + 5] - 1, 0):
        refuse(codestream[:at + 5] + bytes([change]) + codestream[at + 6:], "packet ends")
    refuse(codestream[:at + 4] + b"\1" + codestream[at + 5:], "not in order")
    bodies = [codestream[packet.start:packet.end] for packet in packets(codestream)]
    sizes = [0, len(bodies[0]) + len(bodies[1]), *map(len, bodies[2:])]
    refuse(codestream[:tile_parts(codestream)[0].start] + tile_part(bodies, sizes=sizes) + b"\xff\xd9", "packet ends")
    refuse(codestream[:at + 1 + size] + bytes([codestream[at + 1 + size] | 128]) + codestream[at + 2 + size:], "cut short|damaged")


def test_endless_packet_lengths_cost_nothing():
    codestream = encode(picture(90, 70, 8))
    part, at = tile_parts(codestream)[0], codestream.index(b"\xff\x58")
    more = b"".join(struct.pack(">HHB", PLT, 65535, k) + b"\xff" * 65532 for k in range(200))
    bomb = bytearray(codestream[:at] + more + codestream[at:])
    bomb[part.start + 6:part.start + 10] = struct.pack(">I", part.end - part.start + len(more))
    start = time.process_time()
    refuse(bytes(bomb), "damaged")
    assert time.process_time() - start < 1


def test_claims_of_billions_of_packets_cost_nothing():
    codestream = bytearray(encode(picture(64, 64, 8)))
    codestream[8:16] = codestream[24:32] = struct.pack(">II", 2**32 - 1, 2**32 - 1)
    at = codestream.index(b"\xff\x52")
    codestream[at + 6:at + 8] = b"\xff\xff"
    codestream[at + 4] |= 1; codestream[at + 2:at + 4] = struct.pack(">H", 18); codestream[at + 14:at + 14] = b"\x11" * 6
    tracemalloc.start()
    start = time.process_time()
    refuse(bytes(codestream), "packet ends")
    assert time.process_time() - start < 1 and tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CODECS), st.integers(0, 10**6), st.integers(0, 255), st.booleans(), st.integers(1, 6), st.sampled_from(SPLITS))
def test_a_damaged_codestream_is_split_exactly_or_refused(codec, position, value, early, resolutions, split):
    codestream = bytearray(encode(picture(48, 40, 12), bits=12, codec=codec))
    codestream[position % (180 if early else len(codestream))] = value
    try: assert join(*split(bytes(codestream), resolutions)) == codestream
    except LayerError: pass


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_garbage(data):
    for codestream in (data, b"\xff\x4f\xff\x51" + data, encode(picture(20, 20, 8))[:90] + data):
        with pytest.raises(LayerError): packets(codestream)
    with pytest.raises(LayerError): join(data, data)
    with pytest.raises(LayerError): join(data, b"\1\0\1" + struct.pack(">I", len(data)) + data)


PARTS = {(codec, split): split(encode(picture(60, 50, 12), bits=12, codec=codec), 3) for codec in CODECS for split in SPLITS}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_truncation_is_refused(codec, split):
    public, secret = PARTS[codec, split]
    for cut in range(len(secret)):
        with pytest.raises(LayerError): join(public, secret[:cut])
    for cut in range(len(public)):
        with pytest.raises(LayerError): join(public[:cut], secret)
    for more in (b"\0", b"\xff\xd9"):
        with pytest.raises(LayerError): join(public + more, secret)
        with pytest.raises(LayerError): join(public, secret + more)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(PARTS, key=str)), st.booleans(), st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_every_mutation_is_refused_or_makes_no_difference(which, of_secret, changes, early):
    public, secret = PARTS[which]
    codestream, damaged = join(public, secret), bytearray(secret if of_secret else public)
    for position, value in changes: damaged[position % (60 if early else len(damaged))] = value
    parts = (public, damaged) if of_secret else (damaged, secret)
    try: assert join(*parts) == codestream and (not of_secret or damaged == secret)
    except LayerError as error: assert isinstance(error, MedcryptError)


def test_every_byte_of_the_secret_part_counts():
    for public, secret in PARTS.values():
        for at in range(len(secret)):
            with pytest.raises(LayerError): join(public, secret[:at] + bytes([secret[at] ^ 1]) + secret[at + 1:])


def test_parts_that_do_not_belong_together():
    streams = [encode(picture(64, 64, 12, seed), bits=12) for seed in (0, 1)]
    shorter, longer = sorted((split_low(stream, 1) for stream in streams), key=lambda parts: len(parts[0]))
    with pytest.raises(LayerError): join(shorter[0], longer[1])
    with pytest.raises(LayerError, match="belong"): join(shorter[0].ljust(len(longer[0]), b"\0"), longer[1])
    low, high = split_low(streams[0], 3), split_high(streams[0], 3)
    with pytest.raises(LayerError): join(low[0], high[1])
    with pytest.raises(LayerError): join(high[0], low[1])


def test_a_secret_part_that_claims_much_costs_nothing():
    public, secret = PARTS["part1", split_low]
    tracemalloc.start()
    for count in (2**32 - 1, 2**31, len(secret) // 12 + 1):
        with pytest.raises(LayerError, match="cut short"): join(public, secret[:11] + struct.pack(">I", count) + secret[15:])
    keep, drop, put = struct.unpack(">III", secret[15:27])
    for change in ((2**32 - 1, drop, put), (keep, 2**32 - 1, put), (keep, drop, 2**32 - 1)):
        with pytest.raises(LayerError, match="secret part: damaged"): join(public, secret[:15] + struct.pack(">III", *change) + secret[27:])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_versions_and_directions():
    public, secret = PARTS["part1", split_high]
    assert secret[:3] == b"\1\1\3" and PARTS["htj2k", split_low][1][:3] == b"\1\0\3"
    with pytest.raises(LayerError, match="version 2"): join(public, b"\2" + secret[1:])
    for start in (b"\1\2\3", b"\1\1\0", b"\1\1\x22", b"\1\0\3", b"\1\1\4"):
        with pytest.raises(LayerError): join(public, start + secret[3:])


def test_other_byte_types():
    codestream = encode(picture(40, 40, 8))
    for kind in (bytearray, memoryview):
        public, secret = split_low(kind(codestream), 2)
        assert type(public) is type(secret) is bytes and join(kind(public), kind(secret)) == codestream


def real_pictures():
    ct = sorted((SHARED / "data" / "ct" / "lidc_slices128").glob("*.png"))[:8]
    cxr = sorted((SHARED / "data" / "cxr" / "nih256").glob("*.png"))[:8]
    if not (ct and cxr): pytest.skip("the folder 'shared' (public images, DICOM cases, test vectors) is not beside the checkout")
    return [np.asarray(Image.open(path).convert("L")) for path in ct + cxr]


@pytest.mark.parametrize("codec", CODECS)
def test_real_pictures(codec):
    for pixels in real_pictures():
        codestream = encode(pixels, codec=codec)
        for resolutions in range(1, siz(codestream).levels + 2):
            for split in SPLITS:
                public, secret = split(codestream, resolutions)
                assert join(public, secret) == codestream and shown(public).shape == pixels.shape
        blurred, details = decode(split_low(codestream, 3)[0]), decode(split_high(codestream, 3)[0]).astype(float)
        assert np.corrcoef(blurred.ravel(), pixels.ravel())[0, 1] > .8
        assert abs(details.mean() - 128) < 8 and abs(np.corrcoef(gaussian_filter(details, 8).ravel(), gaussian_filter(pixels.astype(float), 8).ravel())[0, 1]) < .5

"""JPEG 2000 conformance: the codestreams of ITU-T T.803 (ISO/IEC 15444-4) against their class-1 references.

Tolerances: T.803 (08/2002), Table C.6 (profile 0) and Table C.7 (profile 1), largest error and mean squared error of each component."""
import numpy as np
import pytest

from medcrypt.imaging.jpeg2000 import CodecError, decode, decode_components, siz

# name: (largest errors, mean squared errors), one per component
CLASS_1 = {
    "p0_01": ([0], [0]), "p0_02": ([0], [0]), "p0_03": ([0], [0]), "p0_04": ([5, 4, 6], [.776, .626, 1.070]), "p0_05": ([2, 2, 2, 0], [.302, .307, .269, 0]),
    "p0_06": ([635, 403, 378, 0], [11287, 6124, 3968, 0]), "p0_09": ([0], [0]), "p0_10": ([0] * 3, [0] * 3), "p0_11": ([0], [0]), "p0_12": ([0], [0]),
    "p0_13": ([0] * 4, [0] * 4), "p0_14": ([0] * 3, [0] * 3), "p0_15": ([0], [0]), "p0_16": ([0], [0]),
    "p1_01": ([0], [0]), "p1_02": ([5, 4, 6], [.765, .616, 1.051]), "p1_03": ([2, 2, 1, 0], [.3, .210, .200, 0]), "p1_04": ([624], [3080]),
    "p1_05": ([40, 40, 40], [8.458, 9.816, 10.154]), "p1_06": ([2, 2, 2], [.6, .6, .6]), "p1_07": ([0, 0], [0, 0])}
COMPONENTS = {name: len(peaks) for name, (peaks, _) in CLASS_1.items()} | {"p0_13": 257}
NO_REFERENCE = {"p0_05": {0, 1}, "p1_03": {0, 1}, "p1_04": {0}}   # too large to be there


@pytest.fixture
def vectors(shared):
    folder = shared / "vectors" / "j2k-conformance"
    if not folder.is_dir(): pytest.skip("the folder 'shared/vectors/j2k-conformance' is missing")
    return folder


def pgx(path):
    "Picture of a PGX file: `PG ML -4 256 256`, byte order, sign, bits, columns, rows, then the samples."
    header, _, body = path.read_bytes().partition(b"\n")
    _, order, *rest = header.decode().replace("+", " ").replace("-", " - ").split()
    signed = rest[0] == "-"
    bits, columns, rows = map(int, rest[signed:])
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}").newbyteorder(">" if order == "ML" else "<")
    return np.frombuffer(body, dtype, rows * columns).reshape(rows, columns), bits


@pytest.mark.parametrize("name", CLASS_1)
def test_class_1(vectors, name):
    codestream = (vectors / f"{name}.j2k").read_bytes()
    components = decode_components(codestream)
    assert len(components) == COMPONENTS[name]
    for k, (peak, mean_squared) in enumerate(zip(*CLASS_1[name])):
        path = vectors / f"c1{name}_{k}.pgx"
        assert path.exists() or k in NO_REFERENCE.get(name, ()), f"{path.name} is missing"
        if not path.exists(): continue
        reference, bits = pgx(path)
        assert components[k].shape == reference.shape and components[k].dtype == reference.dtype.newbyteorder("=")
        error = components[k].astype(np.int64) - reference
        assert np.abs(error).max() <= peak and np.mean(error**2) <= mean_squared


@pytest.mark.parametrize("name", CLASS_1)
def test_decode_stacks_equal_components_and_names_the_other_way(vectors, name):
    codestream = (vectors / f"{name}.j2k").read_bytes()
    components = decode_components(codestream)
    if len({c.shape for c in components}) == 1:
        assert np.array_equal(decode(codestream), components[0] if len(components) == 1 else np.stack(components, axis=-1))
    else:
        with pytest.raises(CodecError, match="decode_components"): decode(codestream)


@pytest.mark.parametrize("name", CLASS_1)
def test_every_reduction_decodes_or_is_refused(vectors, name):
    codestream, sizes = (vectors / f"{name}.j2k").read_bytes(), []
    for reduce in range(siz(codestream).levels + 1):
        try: sizes.append(sum(c.size for c in decode_components(codestream, reduce=reduce)))
        except CodecError: break          # a component or tile with fewer decompositions than the main header says
    assert sizes and sizes == sorted(sizes, reverse=True)
    with pytest.raises(CodecError): decode_components(codestream, reduce=siz(codestream).levels + 1)


@pytest.mark.parametrize("name", CLASS_1)
@pytest.mark.parametrize("part", [.5, .9, 1])
def test_cut_codestreams_are_refused(vectors, name, part):
    codestream = (vectors / f"{name}.j2k").read_bytes()
    end = codestream.rindex(b"\xff\xd9")
    with pytest.raises(CodecError): decode_components(codestream[:int(part * end) - (0 if part < 1 else 1)])


@pytest.mark.parametrize("name, shape", [("file4.jp2", (512, 768)), ("file8.jp2", (400, 700)), ("file9.jp2", (512, 768, 3)), ("byte.jph", (20, 20)),
                                         ("byte_causal.jhc", (20, 20)), ("Bretagne1_ht.j2k", (480, 640, 3))])
def test_boxes_and_high_throughput(vectors, name, shape):
    pixels = decode((vectors / name).read_bytes())
    assert pixels.shape == shape and pixels.dtype == np.uint8 and pixels.std() > 5


def test_high_throughput_against_its_second_decoder(vectors):
    from imagecodecs import htj2k_decode
    for name in ("byte.jph", "byte_causal.jhc"):   # lossless
        data = (vectors / name).read_bytes()
        assert np.array_equal(decode(data), htj2k_decode(data[data.index(b"\xff\x4f\xff\x51"):]))
    data = (vectors / "Bretagne1_ht.j2k").read_bytes()
    assert np.array_equal(decode(data), htj2k_decode(data))

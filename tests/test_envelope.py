"Envelope: every bit flip, every truncation, splices, mutations, padding cases, chunks, holders, rewrapping, streams, overhead."
import hashlib, io, json, random, subprocess, sys
from itertools import permutations
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from hypothesis import HealthCheck, given, settings, strategies as st

from medcrypt.core import seeded_bytes
from medcrypt.crypto import aead, envelope as e
from medcrypt.crypto.aead import FAILED, EnvelopeError, tag_of
from medcrypt.crypto.envelope import Reader, data_key, open_chunks, parse, seal, seal_chunks, unseal
from medcrypt.crypto.keys import DataKey, Key
from medcrypt.crypto.rewrap import rewrap, rewrap_stream
from medcrypt.crypto.slots import PrivateKey, make_slots, new_private_key

SHARED = Path(__file__).resolve().parents[2] / "shared"
KEY = Key(hashlib.sha256(b"test key").digest())
FRIEND = PrivateKey(hashlib.sha256(b"test friend").digest())
ENVELOPE = seal(b"a small secret", KEY, {"kind": "test"}, public=b"public", random=seeded_bytes(0, "envelope"))
LONG = seeded_bytes(0, "long")(3 * 4096 + 100)
CHUNKED = seal(LONG, [KEY, FRIEND.public()], {"kind": "test"}, public=b"public", random=seeded_bytes(0, "chunked"), chunk_bits=12)
RECORD = 16 + 4096 + 16 + 32
IMAGE_HEADER = {"kind": "image", "image_id": "0" * 32, "shape": [2048, 2048], "dtype": "uint16", "bits": 12, "codec": "jpeg2000", "facts": 187}


def shared(name):
    path = SHARED / name
    if not path.is_file(): pytest.skip(f"no data at {path}")
    return json.loads(path.read_text())


def fails(envelope, key=KEY):
    with pytest.raises(EnvelopeError) as caught: unseal(envelope, key)
    assert type(caught.value) is EnvelopeError and str(caught.value) == FAILED


def cut_up(envelope):
    "What comes before the chunks, and the chunks of an envelope with chunks of 4096 bytes."
    start = 14 + len(json.dumps(parse(envelope).header, separators=(",", ":"))) + len(parse(envelope).public) + len(parse(envelope).slots)
    return envelope[:start], [envelope[at:at + RECORD] for at in range(start, len(envelope), RECORD)]


@pytest.mark.parametrize("size", (*range(0, 50), 4095, 4096, 4097, 8192, 65537))
@pytest.mark.parametrize("pad_to", (0, 70000))
@pytest.mark.parametrize("chunk_bits", (12, 20))
def test_round_trip(size, pad_to, chunk_bits):
    data = seeded_bytes(1, size)(size)
    envelope = seal(data, KEY, {"n": size}, public=data[:5], pad_to=pad_to, chunk_bits=chunk_bits)
    assert unseal(envelope, KEY) == (data, {"n": size}) and parse(envelope).public == data[:5]
    chunks = max(1, -(-(pad_to + 1 if pad_to else size) // (1 << chunk_bits)))
    last = (pad_to + 1 if pad_to else size) - (chunks - 1 << chunk_bits)
    assert len(parse(envelope).ivs) == chunks and len(parse(envelope).ciphertext) == (chunks - 1) * ((1 << chunk_bits) + 16) + 16 * (last // 16 + 1)
    assert unseal(bytearray(envelope), KEY)[0] == unseal(memoryview(envelope), KEY)[0] == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=9000), st.lists(st.integers(0, 9000), max_size=6), st.sampled_from((0, 9000)))
def test_pieces_do_not_matter(data, cuts, pad_to):
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    pieces = [data[a:b] for a, b in zip(edges, edges[1:])]
    options = {"pad_to": pad_to, "chunk_bits": 12}
    whole = seal(data, KEY, random=seeded_bytes(2), **options)
    assert b"".join(seal_chunks(iter(pieces), [KEY], random=seeded_bytes(2), **options)) == whole and unseal(whole, KEY)[0] == data


@pytest.mark.parametrize("pad_to", (1, 14, 15, 16, 17, 31, 32, 1000))
def test_padding_hides_the_length(pad_to):
    envelopes = [seal(bytes([n % 2]) * n, KEY, pad_to=pad_to) for n in range(pad_to + 1)]
    assert len({len(x) for x in envelopes}) == 1 and len({x[:16] for x in envelopes}) == 1
    assert [unseal(x, KEY)[0] for x in envelopes] == [bytes([n % 2]) * n for n in range(pad_to + 1)]
    assert len(envelopes[0]) - len(seal(bytes(pad_to), KEY)) == (16 if pad_to % 16 == 15 else 0)
    with pytest.raises(EnvelopeError, match="pad_to"): seal(bytes(pad_to + 1), KEY, pad_to=pad_to)


@pytest.mark.parametrize("tail", (b"", b"\x80", b"\0" * 9000, b"\x80" + b"\0" * 5000, b"\x80\x80", b"\0\x80\0", b"x" + b"\0" * 4095))
def test_padding_of_plaintexts_that_look_padded(tail):
    for start in (b"", b"y" * 4096, b"y" * 4090): assert unseal(seal(start + tail, KEY, pad_to=20000, chunk_bits=12), KEY)[0] == start + tail


@pytest.mark.parametrize("sealed,key", ((ENVELOPE, KEY), (seal(b"", FRIEND.public(), public=b"p"), FRIEND), (seal(b"two", [KEY, FRIEND.public()]), KEY)), ids=("master", "recipient", "both"))
def test_every_bit_flip_fails(sealed, key):
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed); changed[bit // 8] ^= 1 << bit % 8
        fails(bytes(changed), key)


def test_bit_flips_in_many_chunks_fail():
    for bit in range(0, 8 * len(CHUNKED), 97):
        changed = bytearray(CHUNKED); changed[bit // 8] ^= 1 << bit % 8
        fails(bytes(changed)); fails(bytes(changed), FRIEND)


def test_every_truncation_and_extension_fails():
    for size in range(len(ENVELOPE)): fails(ENVELOPE[:size]); fails(ENVELOPE[size + 1:]); fails(ENVELOPE[:size] + ENVELOPE[size + 1:])
    for tail in (b"\0", bytes(16), ENVELOPE): fails(ENVELOPE + tail)
    for size in (*range(0, len(CHUNKED), 61), *range(len(CHUNKED) - 200, len(CHUNKED))): fails(CHUNKED[:size])
    start, chunks = cut_up(CHUNKED)
    for n in range(len(chunks)): fails(start + b"".join(chunks[:n]))   # cut between two chunks


def test_every_splice_fails():
    other = seal(b"another secret", KEY, {"kind": "test"}, public=b"public", random=seeded_bytes(1, "envelope"))
    assert len(other) == len(ENVELOPE)
    differ = [i for i in range(len(other)) if other[i] != ENVELOPE[i]]
    for cut in range(differ[0] + 1, differ[-1] + 1): fails(ENVELOPE[:cut] + other[cut:]); fails(other[:cut] + ENVELOPE[cut:])


def test_chunks_stay_in_their_place():
    start, chunks = cut_up(CHUNKED)
    assert start + b"".join(chunks) == CHUNKED and len(chunks) == 4
    for order in permutations(range(4)):
        if order != (0, 1, 2, 3): fails(start + b"".join(chunks[n] for n in order))
    for n in range(4): fails(start + b"".join(chunks[:n] + chunks[n + 1:])); fails(start + b"".join(chunks[:n] + [chunks[n]] + chunks[n:]))
    same_key = data_key(CHUNKED, KEY)
    others = [seal(LONG, KEY, {"kind": "test"}, public=b"public", random=seeded_bytes(1, "chunked"), chunk_bits=12),                          # another data key
              seal(LONG[::-1], KEY, {"kind": "test"}, public=b"publiq", random=seeded_bytes(1, "chunked"), chunk_bits=12, data_key=same_key)]  # the same one, which never happens by itself
    for other in others:
        theirs = cut_up(other)[1]
        for n in range(4): fails(start + b"".join(chunks[:n] + [theirs[n]] + chunks[n + 1:]))
        fails(start + b"".join(chunks[:2] + theirs[2:])); fails(start + b"".join(theirs))


def test_nothing_that_is_not_genuine_is_handed_out():
    start, chunks = cut_up(CHUNKED)
    for bad in range(4):
        changed = bytearray(b"".join(chunks)); changed[bad * RECORD + 20] ^= 1
        given, sink = open_chunks(Reader(io.BytesIO(start + bytes(changed))), KEY), b""
        with pytest.raises(EnvelopeError, match="cannot be opened"):
            for piece in given: sink += piece
        assert sink == LONG[:bad * 4096]
    with pytest.raises(EnvelopeError): next(open_chunks(Reader(io.BytesIO(CHUNKED)), Key(bytes(32))))


def test_an_empty_last_chunk_is_refused():
    "Only a key holder can write one; there is one valid writing for every plaintext."
    key = DataKey(bytes(32)); slots = make_slots(key, [KEY]); before = e._FIXED.pack(e.MAGIC, 2, 1, 0, 12, 2, 0) + b"{}"
    def chunk(n, last, data): return b"".join((bytes(16), *aead.a256cbc_hs512(e.message_keys(key), bytes(16), data, e.associated_data(hashlib.sha256(before).digest(), n, last, slots))))
    assert unseal(before + slots + chunk(0, True, bytes(4096)), KEY)[0] == bytes(4096)
    fails(before + slots + chunk(0, False, bytes(4096)) + chunk(1, True, b""))
    fails(before + slots + chunk(0, False, bytes(4095)) + chunk(1, True, b"x")); fails(before + slots + chunk(0, False, bytes(4096)))


def test_wrong_keys_fail():
    for key in (Key(bytes(32)), bytes([KEY[0] ^ 1]) + KEY[1:], KEY[:31], KEY + b"\0", b"", PrivateKey(KEY), FRIEND, new_private_key(), DataKey(KEY), DataKey(b""), PrivateKey(b"x"), DataKey(bytes(64))): fails(ENVELOPE, key)
    for junk in ("text", None, 7, [1]): fails(junk)
    fails(seal(b"x", FRIEND.public()), KEY); fails(seal(b"x", FRIEND.public()), Key(FRIEND))


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from((ENVELOPE, CHUNKED)), st.lists(st.tuples(st.sampled_from("set insert delete copy".split()), st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6))
def test_mutations_fail(envelope, edits):
    data = bytearray(envelope)
    for kind, i, j, piece in edits:
        i, j = i % (len(data) + 1), j % (len(data) + 1)
        if kind == "set": data[i:i + len(piece)] = piece
        elif kind == "insert": data[i:i] = piece
        elif kind == "delete": del data[min(i, j):max(i, j)]
        else: data[i:i + 16] = data[j:j + 16]
    if bytes(data) != envelope: fails(bytes(data))


@pytest.mark.slow
def test_a_hundred_thousand_mutations():
    draw, keys, done = random.Random(5), (KEY, data_key(ENVELOPE, KEY)), 0
    while done < 100_000:
        data = bytearray(ENVELOPE)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            at = draw.randrange(len(data)) if draw.random() < .7 else draw.randrange(60)
            how = draw.randrange(4)
            if how == 0: data[at] ^= 1 << draw.randrange(8)
            elif how == 1: data[at] = draw.randrange(256)
            elif how == 2: del data[at:at + draw.randrange(1, 20)]
            else: data[at:at] = draw.randbytes(draw.randrange(1, 20))
            if not data: data = bytearray(b"\x8a")
        if bytes(data) == ENVELOPE: continue
        done += 1
        try: unseal(bytes(data), keys[done % 8 > 0])
        except EnvelopeError as error: assert str(error) == FAILED
        else: raise AssertionError(bytes(data).hex())


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=60), st.integers(0, 3), st.integers(0, 255), st.integers(0, 3))
def test_parse_of_anything_gives_parts_or_its_error(body, header, flags, chunk_bits, kind):
    fixed = e._FIXED.pack(e.MAGIC, 2, 1, flags, chunk_bits, len(header), 0)
    for data in (body, fixed + header + bytes([1, kind]) + body + bytes(16 - len(body) % 16) + bytes(48), fixed + header + body):
        try: parts = parse(data)
        except EnvelopeError: continue
        assert isinstance(parts.header, dict)
        fails(data)


@pytest.mark.parametrize("text", (b"[" * 60000, b'{"a":' * 12000, b'{"a":1,"a":1}', b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":NaN}', b'{"a":1e999}', b"[]", b"1", b"",
                                  b'{"a":' + b"9" * 5000 + b"}", b'{"\xc3\xa9":1}', b"\xff", b'{"a":1.0e0}'))
def test_headers_that_are_not_canonical_objects(text):
    data = e._FIXED.pack(e.MAGIC, 2, 1, 0, 20, len(text), 0) + text + ENVELOPE[14 + 15 + 6:]
    with pytest.raises(EnvelopeError): parse(data)
    fails(data)


def test_a_last_chunk_that_is_too_long_is_refused():
    "Only a key holder can write one: 4097 to 4111 bytes fit into the ciphertext of 4096."
    key = DataKey(bytes(32)); slots = make_slots(key, [KEY]); before = e._FIXED.pack(e.MAGIC, 2, 1, 0, 12, 2, 0) + b"{}"
    def chunk(n, last, data): return b"".join((bytes(16), *aead.a256cbc_hs512(e.message_keys(key), bytes(16), data, e.associated_data(hashlib.sha256(before).digest(), n, last, slots))))
    for size in range(4097, 4112): fails(before + slots + chunk(0, True, bytes(size))); fails(before + slots + chunk(0, False, bytes(size)) + chunk(1, True, b"x"))


def test_keys_that_are_none_are_a_wrong_key():
    for key in (None, 7, "text", FRIEND.public(), [KEY]):
        fails(ENVELOPE, key)
        with pytest.raises(EnvelopeError, match="cannot be opened"): data_key(ENVELOPE, key)


def test_what_cannot_be_sealed():
    for header in ({"a": float("nan")}, {"a": b"bytes"}, {"a": object()}, ["list"], {"a": "x" * 70000}, {(1, 2): 3}):
        with pytest.raises(EnvelopeError, match="header"): seal(b"", KEY, header)
    for key in (b"short", FRIEND, DataKey(bytes(32)), "text", None):
        with pytest.raises(EnvelopeError, match="key"): seal(b"", key)
    for keys in ([], [KEY] * 256):
        with pytest.raises(EnvelopeError, match="holders"): seal(b"", keys)
    with pytest.raises(EnvelopeError, match="data_key"): seal(b"", KEY, data_key=DataKey(b"x"))
    with pytest.raises(EnvelopeError, match="pad_to"): seal(b"", KEY, pad_to=-1)
    for bits in (11, 25):
        with pytest.raises(EnvelopeError, match="chunk_bits"): seal(b"", KEY, chunk_bits=bits)


def forge(padded, flags=0):
    "An envelope with a genuine tag over a freely chosen padded plaintext: only a key holder can make one."
    own = DataKey(bytes(32)); key64, slots, before = e.message_keys(own), make_slots(own, [KEY]), e._FIXED.pack(e.MAGIC, 2, 1, flags, 20, 2, 0) + b"{}"
    ciphertext = AES.new(key64[32:], AES.MODE_CBC, iv=bytes(16)).encrypt(padded) if len(padded) % 16 == 0 and padded else padded
    return before + slots + bytes(16) + ciphertext + tag_of(key64, bytes(16), ciphertext, e.associated_data(hashlib.sha256(before).digest(), 0, True, slots))


def test_forge_is_right(): assert unseal(forge(b"fifteen letters\x01"), KEY)[0] == b"fifteen letters"


def test_case_72_padding_faults_read_like_a_bad_tag():
    for case in shared("cases/72-padding-malformed/vector.json"): fails(forge(bytes.fromhex(case["block"])))
    fails(forge(b"no marker here\x02\x02", flags=1)); fails(forge(bytes(15) + b"\x01", flags=1))


def test_no_decryption_before_the_tag(monkeypatch):
    used = []
    class Watched:
        MODE_CBC, block_size = AES.MODE_CBC, 16
        @staticmethod
        def new(*a, **k): used.append(1); return AES.new(*a, **k)
    monkeypatch.setattr(aead, "AES", Watched)
    for data, key in ((ENVELOPE[:-1] + bytes([ENVELOPE[-1] ^ 1]), KEY), (ENVELOPE, bytes(32)), (ENVELOPE.replace(b"public", b"publik"), KEY), (ENVELOPE[:-48] + bytes(48), KEY)): fails(data, key)
    assert not used and unseal(ENVELOPE, KEY) and used


def test_case_73_pkcs7_lengths():
    expected = shared("cases/73-pkcs7-lengths/expected.json")
    iv = bytes.fromhex(expected["iv"])
    for case in shared("cases/73-pkcs7-lengths/vector.json"):  # AES-128 vectors: ours is AES-256, so padding is compared through the library
        plaintext, ciphertext = b"\x07" * case["n"], bytes.fromhex(case["ciphertext"])
        padded = AES.new(bytes.fromhex(expected["key"]), AES.MODE_CBC, iv=iv).decrypt(ciphertext)
        ours, tag = aead.a256cbc_hs512(bytes(64), iv, plaintext, b"")
        assert AES.new(bytes(32), AES.MODE_CBC, iv=iv).decrypt(ours) == padded and len(ours) == 16 * (case["n"] // 16 + 1)
        assert aead.open_a256cbc_hs512(bytes(64), iv, ours, b"", tag) == plaintext


def test_case_74_flat_pictures_show_nothing():
    if not (SHARED / "cases/74-flat-picture-leak").is_dir(): pytest.skip(f"no data at {SHARED / 'cases'}")
    expected = shared("cases/74-flat-picture-leak/expected.json")
    flat = bytes(shared("cases/74-flat-picture-leak/vector.json")["plaintext_zero_bytes"])
    parts = [parse(seal(flat, KEY)) for _ in range(1000)]
    blocks = [{p.ciphertext[i:i + 16] for i in range(0, len(flat), 16)} for p in parts[:50]]
    assert len({p.ivs for p in parts}) == len({p.slots for p in parts}) == 1000
    assert all(len(b) == expected["distinct_blocks_cbc"] for b in blocks) and len(set.union(*blocks)) == 50 * len(blocks[0])


def test_ivs_and_keys_are_never_used_twice():
    sealed = [parse(seal(bytes(5 * 4096), KEY, chunk_bits=12)) for _ in range(200)]
    assert len({iv for parts in sealed for iv in parts.ivs}) == 200 * 5 and len({parts.slots for parts in sealed}) == 200
    keys = {bytes(data_key(seal(b"x", KEY), KEY)) for _ in range(200)}
    assert len(keys) == 200 and KEY not in keys


def test_a_data_key_opens_its_object_alone():
    one, two = seal(b"one", KEY), seal(b"two", KEY)
    own = data_key(one, KEY)
    assert type(own) is DataKey and unseal(one, own)[0] == b"one" and own.hex() not in f"{own}{own!r}"
    fails(two, own); fails(one, Key(own)); fails(one, own[:31])
    for wrong in (Key(bytes(32)), FRIEND, b""):
        with pytest.raises(EnvelopeError) as caught: data_key(one, wrong)
        assert str(caught.value) == FAILED
    for size in range(50, len(one) - 70):
        with pytest.raises(EnvelopeError, match="cannot be opened"): data_key(one[:14 + size - 50], KEY)


@pytest.mark.parametrize("sealed", (ENVELOPE, CHUNKED, seal(b"", KEY, pad_to=100)), ids=("one", "chunks", "padded"))
def test_rewrap(sealed):
    new, other = Key(bytes(range(32))), new_private_key()
    turned = rewrap(sealed, KEY, [new, other.public()])
    assert unseal(turned, new) == unseal(turned, other) == unseal(sealed, KEY)
    assert (parse(turned).ciphertext, parse(turned).ivs, parse(turned).tags[1:], parse(turned).public) == (parse(sealed).ciphertext, parse(sealed).ivs, parse(sealed).tags[1:], parse(sealed).public)
    fails(turned, KEY); fails(turned, FRIEND)
    assert unseal(rewrap(turned, other, [KEY]), KEY) == unseal(sealed, KEY) and unseal(rewrap(sealed, data_key(sealed, KEY), [KEY]), KEY)
    with pytest.raises(EnvelopeError, match="holders"): rewrap(sealed, KEY, [])
    fails(turned.replace(parse(turned).slots, parse(sealed).slots))    # the old slots do not come back
    for bit in range(0, 8 * len(sealed), 11 if len(sealed) < 500 else 997):
        changed = bytearray(sealed); changed[bit // 8] ^= 1 << bit % 8; sink = io.BytesIO()
        with pytest.raises(EnvelopeError) as caught: rewrap_stream(io.BytesIO(bytes(changed)), sink, KEY, [new])
        assert str(caught.value) == FAILED


STREAM = """import io, resource, sys
from medcrypt.crypto.envelope import Reader, open_chunks, seal_chunks
from medcrypt.crypto.keys import Key
from medcrypt.crypto.rewrap import rewrap_stream
size, folder = int(sys.argv[1]), sys.argv[2]
piece = bytes(range(256)) * 4096
with open(folder + "/a", "wb") as sink:
    for part in seal_chunks((piece for _ in range(size)), [Key(bytes(32))], pad_to=size * len(piece) + 99): sink.write(part)
with open(folder + "/a", "rb") as source, open(folder + "/b", "wb") as sink: rewrap_stream(source, sink, Key(bytes(32)), [Key(bytes(range(32)))])
got = 0
with open(folder + "/b", "rb") as source:
    for part in open_chunks(Reader(source), Key(bytes(range(32)))): got += len(part)
assert got == size * len(piece)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_plaintext(tmp_path):
    peak = [int(subprocess.run([sys.executable, "-c", STREAM, str(mib), str(tmp_path)], check=True, capture_output=True, text=True).stdout) for mib in (4, 200)]
    assert peak[1] - peak[0] < 16 << 20, peak


def test_overhead_of_an_ordinary_image():
    assert parse(seal(bytes(1000), KEY, IMAGE_HEADER)).overhead_bytes <= 256
    assert parse(seal(bytes(7), KEY, {**IMAGE_HEADER, "shape": [9999, 9999, 9999, 3]})).overhead_bytes <= 256
    many = parse(seal(bytes(10 << 20), KEY))
    assert len(many.ivs) == 10 and many.overhead_bytes == 56 + 2 + 48 * 10


def test_a_slot_in_a_foreign_envelope_gives_no_key():
    "Somebody who may ask for an object of their own making copies another object's slots into it."
    secret, mine = seal(b"secret", KEY), seal(b"mine", FRIEND.public())
    bait = mine.replace(parse(mine).slots, parse(secret).slots)
    assert parse(bait).slots == parse(secret).slots
    for envelope in (bait, secret[:-1] + b"x" if secret[-1] != 120 else secret[:-1] + b"y", secret.replace(b"{}", b'{"a":1}')):
        with pytest.raises(EnvelopeError, match="cannot be opened"): data_key(envelope, KEY)
    assert data_key(secret, KEY)


def test_format_is_frozen():
    "The bytes of version 2 never change: old envelopes must stay readable."
    assert hashlib.sha256(ENVELOPE).hexdigest() == FROZEN and len(ENVELOPE) == 14 + 15 + 6 + 42 + 16 + 16 + 32
    two = seal(LONG, KEY, {"kind": "test"}, random=seeded_bytes(0, "frozen"), chunk_bits=12, pad_to=20000)
    assert hashlib.sha256(two).hexdigest() == FROZEN_CHUNKS


def test_version_1_is_named():
    with pytest.raises(EnvelopeError, match="version 1, which medcrypt 0.1 wrote"): parse(b"\x8aMCE\x01" + bytes(200))
    fails(b"\x8aMCE\x01" + bytes(200))


FROZEN = "79d713c8553e88f82223d1876a65f6630d573e60c9f38fb076627c0f0a187677"
FROZEN_CHUNKS = "694a9100b7f3e5c5fdbd641be8d8186b1a902024228823d31007049a9dd8d7d0"

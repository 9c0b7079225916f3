"Envelopes that are whole but hold something odd: anybody can seal for a recipient's public key, so contents are never trusted. One kind of error, and no crash."
import random

import numpy as np
import pytest

from medcrypt.core import MedcryptError
from medcrypt.crypto import images, partial, resolution, scrambled
from medcrypt.crypto.envelope import EnvelopeError, data_key, in_memory, parse, seal, unseal
from medcrypt.crypto.keys import Key
from medcrypt.crypto.rewrap import rewrap
from medcrypt.crypto.slots import new_private_key
from medcrypt.imaging import jpeg2000

KEY = Key(bytes(range(32)))
DRAW = np.random.default_rng(0)
GREY, VOLUME, WIDE = DRAW.integers(0, 4096, (40, 33)).astype("uint16"), DRAW.integers(0, 200, (3, 12, 10, 3)).astype("uint8"), DRAW.integers(-9, 99999, (2, 9, 9)).astype("int32")
MADE = [(images.seal_image(GREY, KEY, image_id="ab", bits=12, facts={"modality": "CT"}), images.unseal_image), (images.seal_image(VOLUME, KEY, image_id="ab"), images.unseal_image), (images.seal_image(WIDE, KEY, image_id="ab"), images.unseal_image),
        (images.seal_image(GREY, KEY, image_id="ab", codec="raw"), images.unseal_image), (partial.seal_blocks(GREY, KEY, ratio=.5, image_id="ab", bits=12, facts={"modality": "CT"}), partial.unseal_blocks),
        (partial.seal_blocks(GREY, KEY, ratio=.5, image_id="ab", mask="secret"), partial.unseal_blocks), (partial.seal_blocks(GREY, KEY, visible=GREY > 2000, image_id="ab", mask="secret"), partial.unseal_blocks),
        (resolution.seal_resolution(GREY, KEY, resolutions=2, image_id="ab"), resolution.unseal_resolution), (resolution.seal_resolution(GREY, KEY, resolutions=2, shown="details", image_id="ab"), resolution.unseal_resolution),
        *((scrambled.seal_scrambled(GREY, KEY, scheme=scheme, image_id="ab", bits=12, facts={"modality": "CT"}), scrambled.unseal_scrambled) for scheme in ("le", "pixel", "cbc_fixed_iv", "neuracrypt"))]
ODD = [None, 0, -1, 1, 2**31, 2**70, 1.5, "x", [], {}, [1], [2**20, 2**20], [0, 0], [1, 1], True, "uint8", "float64", "raw", "jpeg2000", "htj2k", "blocks", "image", "low", "details", "secret-blocks", "scrambled", "le", "ecb", "neuracrypt", 8, 12, [3, 12, 10, 3], [40, 33], [33, 40]]


@pytest.mark.parametrize("seed", range(4))
def test_one_kind_of_error(seed):
    draw = random.Random(seed)
    for _ in range(500):
        envelope, opened = draw.choice(MADE)
        plaintext, parts = bytearray(unseal(envelope, KEY)[0]), parse(envelope)
        header, public = dict(parts.header), bytearray(parts.public)
        for _ in range(draw.choice((1, 1, 2, 3))):
            what = draw.randrange(4)
            if what == 0:
                name = draw.choice([*header, "offset", "rate", "facts", "block", "ratio", "scheme"])
                if draw.random() < .2: header.pop(name, None)
                else: header[name] = draw.choice(ODD)
            elif what == 1 and public:
                if draw.random() < .3: del public[draw.randrange(len(public)):]
                else: public[draw.randrange(len(public))] = draw.randrange(256)
            elif plaintext:
                if draw.random() < .3: del plaintext[draw.randrange(len(plaintext)):]
                elif draw.random() < .3: plaintext += draw.randbytes(draw.randrange(1, 9))
                else: plaintext[draw.randrange(min(len(plaintext), draw.choice((20, 9999))))] = draw.randrange(256)
        odd = seal(bytes(plaintext), KEY, header, public=bytes(public))
        for look in (lambda: opened(odd, KEY), lambda: draw.choice((images.unseal_image, partial.unseal_blocks, resolution.unseal_resolution, scrambled.unseal_scrambled))(odd, KEY), lambda: partial.public_layer(odd), lambda: resolution.public_picture(odd), lambda: scrambled.scrambled_picture(odd)):
            try: look()
            except MedcryptError as error: assert type(error) is EnvelopeError


@pytest.mark.parametrize("kind", ("image", "resolution"))
def test_no_slot_makes_a_stranger_s_codestream_trusted(kind, monkeypatch):
    "OpenJPH crashes on some hostile codestreams, and slots do not say who wrote an envelope: rekeying gives a stranger's one a master slot, and whoever has the data key can write another one."
    asked, real = [], jpeg2000.decode
    monkeypatch.setattr(jpeg2000, "decode", lambda codestream, **options: asked.append(options.get("trusted", False)) or real(codestream, **options))
    friend = new_private_key()
    make = (lambda keys: images.seal_image(GREY, keys, image_id="ab", codec="htj2k")) if kind == "image" else (lambda keys: resolution.seal_resolution(GREY, keys, resolutions=2, codec="htj2k", image_id="ab"))
    look, opened = (images.unseal_image, images.open_image) if kind == "image" else (resolution.unseal_resolution, resolution.open_resolution)
    stranger = make([friend.public()])
    for envelope, opener in ((make([KEY]), KEY), (stranger, friend), (make([KEY, friend.public()]), KEY), (rewrap(stranger, friend, [KEY]), KEY), (make([KEY]), data_key(make([KEY]), KEY))):
        if opener is not KEY and opener is not friend: opener = data_key(envelope, KEY)
        asked.clear(); assert np.array_equal(look(envelope, opener)[0], GREY) and asked == [False]
    asked.clear(); assert np.array_equal(opened(in_memory(make([KEY])), KEY, trusted=True), GREY) and asked == [True]   # what this process has just made


def test_a_header_of_a_kind_that_is_no_word(tmp_path, capsys):
    from medcrypt.cli.main import main
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    for number, header in enumerate(({"kind": []}, {"kind": {}}, {"kind": None}, {}, {"kind": 7})):
        path = tmp_path / f"{number}.mce"; path.write_bytes(seal(b"x", Key(bytes(32)), header)); capsys.readouterr()
        assert main(["decrypt", str(path), "--key", str(tmp_path / "k.key"), "-o", str(tmp_path / "x.npy")]) == 1 and len(capsys.readouterr().err.splitlines()) == 1
        assert main(["inspect", str(path)]) == 0


def test_facts_of_odd_numbers():
    for value in (10**400, -10**400, float("inf"), float("nan"), 1e308):
        with pytest.raises(EnvelopeError, match="window_center"): images.check_facts({"window_center": value})
    odd = seal(b'{"window_center":1' + b"0" * 400 + b"}" + bytes(16), KEY, {"kind": "image", "image_id": "ab", "shape": [4, 4], "dtype": "uint8", "bits": 8, "codec": "raw", "facts": 419})
    with pytest.raises(EnvelopeError): images.unseal_image(odd, KEY)


MEMORY = """import resource, sys
from medcrypt.cli.main import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""


@pytest.mark.parametrize("kind", ("blocks", "low", "image", "secret-blocks"))
def test_a_sparse_file_costs_no_memory_before_it_is_checked(kind, tmp_path):
    "A header and nothing else, which claims a public section, or a ciphertext, of two gigabytes."
    import json, subprocess, sys
    from medcrypt.crypto import envelope as e
    from medcrypt.cli.main import main
    assert main(["keygen", str(tmp_path / "k.key")]) == 0
    text = json.dumps({"bits": 8, "block": 8, **({"codec": "jpeg2000"} if kind == "image" else {}), "dtype": "uint8", "image_id": "ab", "kind": kind, "ratio": .5, "shape": [64, 64]}, sort_keys=True, separators=(",", ":")).encode()
    for public in (0, 2_000_000_000):
        path = tmp_path / f"{public}.mce"
        with open(path, "wb") as file: file.write(e._FIXED.pack(e.MAGIC, 2, 1, 0, 20, len(text), public) + text); file.seek(public, 1); file.write(parse(seal(b"", KEY)).slots); file.truncate(2_100_000_000)
        for command in (["decrypt", str(path), "--key", str(tmp_path / "k.key"), "-o", str(tmp_path / "x.npy")], *([["inspect", str(path)]] if kind == "blocks" else [])):
            run = subprocess.run([sys.executable, "-c", MEMORY, *command], capture_output=True, text=True)
            code, grown = run.stderr.splitlines()[-1].split()
            assert code == "1" and int(grown) < 150 << 10, run.stderr

"Envelopes that are whole but hold something odd: anybody can seal for a recipient's public key, so contents are never trusted. One kind of error, and no crash."
import random

import numpy as np
import pytest

from medcrypt.core import MedcryptError
from medcrypt.crypto import images, partial, resolution
from medcrypt.crypto.envelope import EnvelopeError, parse, seal, unseal
from medcrypt.crypto.keys import Key
from medcrypt.crypto.slots import new_private_key
from medcrypt.imaging import jpeg2000

KEY = Key(bytes(range(32)))
DRAW = np.random.default_rng(0)
GREY, VOLUME, WIDE = DRAW.integers(0, 4096, (40, 33)).astype("uint16"), DRAW.integers(0, 200, (3, 12, 10, 3)).astype("uint8"), DRAW.integers(-9, 99999, (2, 9, 9)).astype("int32")
MADE = [(images.seal_image(GREY, KEY, image_id="ab", bits=12, facts={"modality": "CT"}), images.unseal_image), (images.seal_image(VOLUME, KEY, image_id="ab"), images.unseal_image), (images.seal_image(WIDE, KEY, image_id="ab"), images.unseal_image),
        (images.seal_image(GREY, KEY, image_id="ab", codec="raw"), images.unseal_image), (partial.seal_blocks(GREY, KEY, ratio=.5, image_id="ab", bits=12, facts={"modality": "CT"}), partial.unseal_blocks),
        (partial.seal_blocks(GREY, KEY, ratio=.5, image_id="ab", mask="secret"), partial.unseal_blocks), (partial.seal_blocks(GREY, KEY, visible=GREY > 2000, image_id="ab", mask="secret"), partial.unseal_blocks),
        (resolution.seal_resolution(GREY, KEY, resolutions=2, image_id="ab"), resolution.unseal_resolution), (resolution.seal_resolution(GREY, KEY, resolutions=2, shown="details", image_id="ab"), resolution.unseal_resolution)]
ODD = [None, 0, -1, 1, 2**31, 2**70, 1.5, "x", [], {}, [1], [2**20, 2**20], [0, 0], [1, 1], True, "uint8", "float64", "raw", "jpeg2000", "htj2k", "blocks", "image", "resolution", "secret-blocks", [3, 12, 10, 3], [40, 33], [33, 40]]


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
                name = draw.choice([*header, "offset", "rate", "facts", "block", "ratio"])
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
        for look in (lambda: opened(odd, KEY), lambda: draw.choice((images.unseal_image, partial.unseal_blocks, resolution.unseal_resolution))(odd, KEY), lambda: partial.public_layer(odd), lambda: resolution.public_picture(odd)):
            try: look()
            except MedcryptError as error: assert type(error) is EnvelopeError


@pytest.mark.parametrize("kind", ("image", "resolution"))
def test_what_a_stranger_may_have_sealed_goes_to_the_careful_decoder(kind, monkeypatch):
    "OpenJPH crashes on some damaged codestreams; an envelope with recipients can come from anybody who has a public key."
    asked, real = [], jpeg2000.decode
    monkeypatch.setattr(jpeg2000, "decode", lambda codestream, **options: asked.append(options.get("trusted", False)) or real(codestream, **options))
    friend = new_private_key()
    make = (lambda keys: images.seal_image(GREY, keys, image_id="ab", codec="htj2k")) if kind == "image" else (lambda keys: resolution.seal_resolution(GREY, keys, resolutions=2, codec="htj2k", image_id="ab"))
    look = images.unseal_image if kind == "image" else resolution.unseal_resolution
    for keys, opener, trusted in (([KEY], KEY, True), ([friend.public()], friend, False), ([KEY, friend.public()], KEY, False), ([KEY, friend.public()], friend, False)):
        asked.clear(); assert np.array_equal(look(make(keys), opener)[0], GREY) and asked == [trusted]

"Attacks: each undoes what it claims to undo, finds nothing where nothing is, and refuses what it cannot attack."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from skimage.restoration import inpaint_biharmonic

from medcrypt.core import PROFILES, ConfigError, seeded_bytes
from medcrypt.crypto.envelope import parse
from medcrypt.crypto.keys import Key
from medcrypt.crypto.perceptual import encrypt, to_tiles
from medcrypt.evaluation.attack_charts import gallery_numbers, plot_gallery, plot_key_reuse, plot_reason
from medcrypt.evaluation.attack_tables import SAME, UNGATED, AttackTableError, attack_view, attacks_on, insane, key_reuse, one_each, scored
from medcrypt.evaluation.classical import AttackError, enlarged, folded_halves, inpainted, on_mean_low, signs, tile_dictionary
from medcrypt.evaluation.jigsaw import _Fit, assembled, by_edges, by_places, form, forms, neighbour_accuracy, solve
from medcrypt.evaluation.known_plaintext import KNOWN, code_book, equal_blocks, half_values, match_halves, match_places, matched, moment_matching, places, prefixes, tile_forms
from medcrypt.evaluation.observed import Observed, ObservedError, Sizes, attacked, chosen, levels, observe, seal_in_memory, sizes
from medcrypt.evaluation.plots import PlotError, is_blank
from medcrypt.evaluation.reconstruction import Reconstruction, clues, fill, learned, of_another, reads, repeats, ridge, similarities, tile_layer
from medcrypt.learning.views import VIEWS, find

SMALL, SIDE = Sizes(40, 20, 3, 3, (1, 2, 5, 40), 6), 32

def people(count, seed=0, side=SIDE):
    "Smooth pictures with little noise, 8 bits."
    draw, (down, right) = np.random.default_rng(seed), np.mgrid[:side, :side]
    waves = [.35 + .12 * np.sin(right / draw.uniform(3, 8) + 6 * draw.random()) + .12 * np.cos(down / draw.uniform(3, 8) + 6 * draw.random()) + .01 * draw.normal(size=(side, side)) for _ in range(count)]
    return np.uint8(np.round(np.clip(waves, 0, 1) * 255))

PICTURES = people(60)

def seen_by(scheme, each=False, pictures=PICTURES, known=40):
    sealed = np.stack([encrypt(scheme, p, bytes(32), image=bytes([k]) if each else b"") for k, p in enumerate(pictures)]).astype("float32") / 255
    return as_seen(scheme.replace("_", "-") + each * "-each", sealed, pictures, known)

def as_seen(view, sealed, pictures=PICTURES, known=40, mask=None):
    mask, truth = np.ones(sealed.shape, bool) if mask is None else mask, pictures.astype("float32") / 255
    return Observed(view, truth[:known], np.arange(known), sealed[:known], mask[:known], sealed[known:], mask[known:], truth[known:])

def error(found, observed): return float(np.abs(found.pictures - observed.truth).mean())
def nothing(observed): return float(np.abs(observed.mean - observed.truth).mean())

# what the attacker has

def test_every_view_is_sealed_and_seen_as_the_vault_does_it():
    who, names = np.array([f"p{k}" for k in range(60)]), attacked(PROFILES["full"])
    attacker, examined = chosen((np.arange(40), np.arange(0), np.arange(40, 60)), who, Sizes(12, 3, 1, 1, (1,), 1), seed=1)
    seen = {o.view: o for o in observe(PICTURES, who, attacker, examined, names, block=8, seed=1)}
    assert set(seen) == set(names) and {find(n)[0].name for n in names} == set(VIEWS) - {"length"}
    for o in seen.values():
        assert len(o.pictures) == len(o.seen) == 12 and len(o.truth) == len(o.target_seen) == 3 and np.array_equal(levels(o.truth), PICTURES[examined]) and np.isfinite(o.seen).all()
    assert np.array_equal(seen["plain"].seen, seen["plain"].pictures) and len({m.sum() for m in seen["codestream"].mask}) == 1   # padded: its length says nothing
    again = next(o for o in observe(PICTURES, who, attacker, examined, ("cbc",), block=8, seed=1))
    assert not np.array_equal(again.seen, next(o for o in observe(PICTURES, who, attacker, examined, ("cbc",), block=8, seed=2)).seen)

@pytest.mark.parametrize("name", PROFILES)
def test_sizes_and_views_of_profiles(name):
    own = sizes(PROFILES[name])
    assert own.slow <= own.examined and own.few <= own.examined and max(own.known) <= own.attacker and sorted(own.known) == list(own.known)
    assert len(set(attacked(PROFILES[name]))) == len(attacked(PROFILES[name])) and "plain" in attacked(PROFILES[name]) and "cbc" in attacked(PROFILES[name])

def test_patients_are_apart_and_few_pictures_are_refused():
    who = np.array([f"p{k // 2}" for k in range(60)]); who[41] = "p3 "
    with pytest.raises(ObservedError, match="1 patients"): chosen((np.arange(40), np.arange(0), np.arange(40, 60)), who, SMALL, seed=0)
    with pytest.raises(ObservedError, match="too few"): chosen((np.arange(4), np.arange(0), np.arange(50, 60)), who, SMALL, seed=0)
    with pytest.raises(ObservedError, match="one patient; an interval needs 2"): chosen((np.arange(40), np.arange(0), np.arange(50, 60)), np.where(np.arange(60) < 50, who, "last"), SMALL, seed=0)
    with pytest.raises(ObservedError, match="needs 5"): chosen((np.arange(40), np.arange(0), np.arange(50, 60)), np.where(np.arange(60) < 40, "one", "two"), SMALL, seed=0)
    with pytest.raises(ConfigError): seal_in_memory(PICTURES[:1], ("nonsense",), Key(bytes(32)), block=8, random=seeded_bytes(0, "x"))
    with pytest.raises(ObservedError, match="uint8"): next(observe(PICTURES.astype("uint16"), who, np.arange(3), np.arange(3), ("plain",), block=8, seed=0))

def test_what_is_sealed_in_memory_is_padded_and_repeats():
    pictures = np.stack([PICTURES[0], PICTURES[0] // 40]); seal = lambda names: seal_in_memory(pictures, names, Key(bytes(32)), block=8, random=seeded_bytes(0, "x"))
    both = seal(("le", "codestream", "length"))
    assert set(both) == {"le", "codestream", "jpeg2000"} and both == seal(("le", "codestream", "length")) and set(seal(("cbc",))) == {"cbc"}
    lengths = {name: [len(parse(e).ciphertext) for e in both[name]] for name in both}
    assert lengths["codestream"][0] == lengths["codestream"][1] and lengths["jpeg2000"][0] > lengths["jpeg2000"][1]

# learned

def test_filling_agrees_with_scikit_image():
    holes = np.ones((2, SIDE, SIDE), bool); holes[:, 8:16, 8:24] = holes[1, 20:28, :8] = False
    pictures = PICTURES[:2].astype("float32") / 255
    reference = np.stack([np.clip(inpaint_biharmonic(p.astype(float), ~m), 0, 1) for p, m in zip(pictures, holes)])
    assert np.abs(fill(pictures, holes, iterations=300) - reference)[~holes].mean() < .02
    assert np.array_equal(fill(pictures, np.ones_like(holes)), pictures) and np.isfinite(fill(pictures, np.zeros_like(holes))).all()
    some = np.concatenate([0 * holes, 0 * holes, holes]).astype(bool); many = np.concatenate([pictures] * 3) # pictures are filled in groups: what nothing is seen of gets the mean of all
    assert np.allclose(fill(many, some)[:4], many[some].mean(), atol=1e-5)

@settings(max_examples=20, deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 2 ** 31))
def test_filling_keeps_what_is_visible(rows, columns, seed):
    draw = np.random.default_rng(seed); pixels, mask = draw.random((2, rows, columns)).astype("float32"), draw.random((2, rows, columns)) < draw.random()
    found = fill(pixels, mask)
    assert np.array_equal(found[mask], pixels[mask]) and 0 <= found.min() and found.max() <= 1

def test_ridge_against_scikit_learn():
    from sklearn.linear_model import Ridge
    from medcrypt.evaluation import reconstruction
    draw = np.random.default_rng(0); x, y = draw.normal(3, 1, (50, 120)), draw.normal(size=(50, 3)); y[:, 0] += x[:, :60].sum(1)
    left, answer = ridge(x, y, np.arange(50)); new = draw.normal(3, 1, (7, 120)); centred = x - x.mean(0); scale = np.square(centred).sum() / 50 * 50 ** .5
    options = [Ridge(alpha=s * scale).fit(x, y).predict(new) if np.isfinite(s) else np.broadcast_to(y.mean(0), (7, 3)) for s in reconstruction.STRENGTHS]
    assert min(np.abs(o - answer(new)).max() for o in options) < 1e-3 and np.isfinite(left).all()

def test_the_layer_over_a_tile_undoes_le_and_the_dense_one_is_honest():
    o = seen_by("le"); own = clues(o, o.seen, o.mask)
    left, answer = tile_layer(own.tiles, o.pictures, 4, o.patients)
    assert np.abs(left - o.pictures).mean() < .005 and np.abs(answer(clues(o, o.target_seen, o.target_mask).tiles) - o.truth).mean() < .005
    random = np.random.default_rng(0).normal(size=(40, 500)); left, _ = ridge(random, o.pictures.reshape(40, -1), np.arange(40))
    assert np.square(left - o.pictures.reshape(40, -1)).mean() < 1.15 * np.square(o.pictures - o.mean).mean()

@pytest.mark.parametrize("view, least", [("plain", .99), ("le", .98)])
def test_learned_attack_reads_what_can_be_read(view, least):
    o = seen_by("le") if view == "le" else as_seen("plain", PICTURES.astype("float32") / 255)
    first, second = (learned(o, steps=3, seed=5) for _ in range(2))
    assert similarities(first.pictures, o.truth).mean() > least and first.pictures.min() >= 0 and first.pictures.max() <= 1 and first.note == second.note
    assert np.abs(first.pictures - second.pictures).max() < 1e-5

@pytest.mark.parametrize("view", ["cbc", "codestream", "ecb-each", "neuracrypt-each"])
def test_learned_attack_finds_nothing_in_noise(view):
    o = as_seen(view, np.random.default_rng(3).random(PICTURES.shape).astype("float32")); found = learned(o, steps=3, seed=5)
    assert found.note.startswith("nothing") and np.allclose(found.pictures, o.mean)

def test_reading_needs_the_view():
    truth = PICTURES[:30].astype("float32") / 255; mean = truth.mean(0)
    sharper = np.broadcast_to(mean + .3 * (truth[0] - mean), truth.shape)   # constant: says nothing of any picture, however like them it is
    assert reads(truth, truth, mean, np.arange(30), seed=0) and not reads(sharper, truth, mean, np.arange(30), seed=0)

def test_another_patient_is_another_patient():
    for who in (np.repeat(np.arange(5), 12), np.random.default_rng(0).integers(0, 5, 60), np.arange(9), np.array(["a", "b"] * 7 + ["b"] * 3)):
        other, apart = of_another(who)
        assert (who[other[apart]] != who[apart]).all() and sorted(other) == list(range(len(who)))
        if np.unique(who, return_counts=True)[1].max() <= len(who) / 2: assert apart.all()
    assert not of_another(np.zeros(4))[1].any() and len(of_another(np.zeros(0))[0]) == 0

def test_the_gate_is_not_fooled_by_an_own_picture_of_the_same_patient():
    "Reconstructions that tell the patient and not the picture: compared with another picture of the same patient they would seem to read nothing."
    truth = np.repeat(PICTURES[:5], 12, 0).astype("float32") / 255; who = np.repeat(np.arange(5), 12)
    assert reads(truth, truth, truth.mean(0), who, seed=0) and not reads(truth[:12], truth[:12], PICTURES[30] / 255, who[:12], seed=0)

def test_plain_is_not_passed_through():
    "A learned attack that is broken shows on pictures in clear."
    from medcrypt.evaluation import reconstruction
    o = as_seen("plain", PICTURES.astype("float32") / 255); assert not np.array_equal(learned(o, steps=2, seed=0).pictures, o.truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "tile_layer", lambda x, pictures, *_: (pictures[::-1], lambda new: np.zeros((len(new), *pictures.shape[1:]), "float32")))
        patch.setattr(reconstruction, "ridge", lambda x, y, *_: (y[::-1], lambda new: np.zeros((len(new), y.shape[1]), "float32")))
        broken, _, _ = attack_view(o, SMALL, **COMMON)
    assert insane(pd.DataFrame(broken)).attack.iloc[0] == "learned"

# classical

def test_inpainting_and_enlarging():
    mask = np.ones(PICTURES.shape, bool); mask[:, 8:16, 8:16] = False
    o = as_seen("blocks-0.5", PICTURES.astype("float32") / 255 * mask, mask=mask).first(3)
    assert error(inpainted(o), o) < nothing(o) / 4
    dark = as_seen("blocks-0.5", np.zeros(PICTURES.shape, "float32"), mask=np.zeros(PICTURES.shape, bool)).first(2)
    assert np.allclose(inpainted(dark).pictures, dark.mean, atol=1e-6)
    small = as_seen("resolution-4", np.kron(PICTURES.reshape(60, 8, 4, 8, 4).mean((2, 4)), np.ones((4, 4))).astype("float32") / 255)
    assert error(enlarged(small, 3), small) < error(enlarged(small, 0), small) < nothing(small)
    with pytest.raises(AttackError): enlarged(o, 3)

@pytest.mark.parametrize("side", [10, 13])
def test_enlarging_odd_sides(side):
    o = as_seen("resolution-4", people(60, side=side).astype("float32") / 255, people(60, side=side))
    assert enlarged(o, 3).pictures.shape == o.truth.shape

def test_details_signs_and_dictionary():
    low = np.full(PICTURES.shape, .3, "float32"); o = as_seen("details-4", PICTURES.astype("float32") / 255 - low + .5)
    assert error(on_mean_low(o), o) < 1e-5
    for attack, o in ((signs, seen_by("pixel", True)), (tile_dictionary, seen_by("le", True)), (tile_dictionary, seen_by("ele", True))): assert error(attack(o), o) < error(Reconstruction(o.target_seen), o)
    assert np.array_equal(folded_halves(seen_by("le", True).seen, 4), folded_halves(seen_by("le", True).pictures, 4))
    with pytest.raises(AttackError): tile_dictionary(seen_by("pixel"))

# jigsaw

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 2 ** 31))
def test_forms_are_a_group(a, b, seed):
    tile = np.random.default_rng(seed).integers(0, 256, (1, 4, 4)) / 256
    own = [f.tobytes() for f in forms(tile)[0]]
    assert len(set(own)) == 16 and form(form(tile, a), b)[0].tobytes() in own

def test_jigsaw_reassembles_and_scores():
    right = []
    for seed in range(5):
        draw = np.random.default_rng(seed); picture = gaussian_filter(draw.normal(size=(32, 40)), 3); picture = np.round(255 * (picture - picture.min()) / np.ptp(picture)) / 255
        tiles = np.stack([form(t, draw.integers(16)) for t in to_tiles(picture, 8, 8)[draw.permutation(20)]]); right.append(neighbour_accuracy(solve(tiles, (4, 5)), picture, 8))
    assert np.median(right) > .7 and neighbour_accuracy(picture, picture, 8) == 1 == neighbour_accuracy(1 - picture[::-1], picture, 8)
    assert neighbour_accuracy(assembled(tiles, 5), picture, 8) < .3 and np.array_equal(assembled(to_tiles(picture, 8, 8), 5), picture)
    assert solve(tiles[:1], (1, 1)).shape == (8, 8) and solve(np.zeros((4, 8, 8)), (2, 2)).shape == (16, 16)

@pytest.mark.parametrize("count, side", [(1, 4), (2, 3), (3, 4), (7, 5), (12, 1), (9, 2)])
def test_fits_are_those_of_all_pairs_of_pieces(count, side):
    "Only 4 of a tile's 16 forms are compared; the others follow."
    shapes = forms(np.random.default_rng(count).random((count, side, side))); pieces = shapes.reshape(-1, side, side); near = min(side, 2) - 1
    same = np.arange(len(pieces)) // 16; same = same[:, None] == same
    def cost(last, before, first, after):
        m = cdist(2 * last - before, first, "sqeuclidean") + cdist(last, 2 * first - after, "sqeuclidean"); m[same] = np.inf
        return m if count <= 2 else m / np.sqrt(np.outer(*(np.partition(m, 1, axis=axis).take(1, axis) + 1e-4 * side for axis in (1, 0))))
    right, below = cost(pieces[:, :, -1], pieces[:, :, -1 - near], pieces[:, :, 0], pieces[:, :, near]), cost(pieces[:, -1], pieces[:, -1 - near], pieces[:, 0], pieces[:, near])
    fit = _Fit(shapes)
    for number, wanted in enumerate((right, below, right.T, below.T)): np.testing.assert_allclose(np.stack([fit(number, piece) for piece in range(len(pieces))]), wanted, rtol=1e-9)
    if count > 1: assert right[fit.best()] == pytest.approx(right.min())

def test_etc_by_edges_and_places():
    alike = np.uint8(np.clip(PICTURES[:1].astype(int) + np.random.default_rng(0).integers(-3, 4, PICTURES.shape), 0, 255)); o = seen_by("etc", True, alike).first(4)
    assert error(by_places(o), o) < .02 and "right neighbours" in by_edges(o).note
    for attack in (by_edges, by_places):
        with pytest.raises(AttackError): attack(seen_by("le"))

# known pictures

@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2 ** 31))
def test_halves_are_matched(halves, seed):
    draw = np.random.default_rng(seed); plain = draw.integers(0, 16, (200, halves), dtype=np.uint8); order, negative = draw.permutation(halves), draw.random(halves) < .5
    sealed = np.where(negative, 15 - plain[:, order], plain[:, order]).astype(np.uint8)
    found = match_halves(plain, sealed)
    assert np.array_equal(found[0], order) and np.array_equal(found[1], negative)
    tiles = draw.integers(0, 16, (5, 30, 6)); move = draw.permutation(30)
    assert np.array_equal(match_places(tiles, tiles[:, move]), move)

@pytest.mark.parametrize("scheme, known", [("le", 2), ("ele", 40), ("etc", 5), ("pixel", 1)])
def test_one_key_falls_to_known_pictures_and_a_key_each_does_not(scheme, known):
    one, each = (seen_by(scheme, e, known=40) for e in (False, True))
    one, each = one.known(known), each.known(known)
    assert error(KNOWN[scheme](one), one) < 2e-3 and error(KNOWN[scheme](each), each) > nothing(each) / 2

def test_code_book_and_prefixes():
    pictures = PICTURES.copy(); pictures[:, 20:28], pictures[:, :6] = 0, pictures[0, :6]
    ecb, each, fixed = seen_by("ecb", pictures=pictures), seen_by("ecb", True, pictures), seen_by("cbc_fixed_iv", pictures=pictures)
    assert np.array_equal(code_book(ecb).pictures[:, 20:28], ecb.truth[:, 20:28]) and np.allclose(code_book(each).pictures, each.mean)
    found = prefixes(fixed).pictures
    assert np.array_equal(found[:, :6], fixed.truth[:, :6]) and np.allclose(found[:, 6:], fixed.mean[6:], atol=1e-6)
    assert np.array_equal(prefixes(seen_by("ecb", pictures=pictures)).pictures[:, :6], fixed.truth[:, :6])
    tiny = as_seen("ecb", np.zeros((60, 3, 3), "float32"), np.zeros((60, 3, 3), np.uint8))
    assert code_book(tiny).note == "blocks read 0.0%"

def test_equal_blocks_need_no_key():
    "The strongest attack on ECB from ciphertext alone: black stays the most frequent block under any key."
    pictures, black = PICTURES.copy(), np.zeros(PICTURES.shape, bool)
    for k in range(60): black[k, 3 * (k % 8):3 * (k % 8) + 8] = True # elsewhere in each
    pictures[black] = 0; there = black[40:]
    for view in ("ecb", "ecb-each"):
        o = seen_by("ecb", view.endswith("each"), pictures); found = equal_blocks(o)
        assert not found.pictures[there].any() and np.allclose(found.pictures[~there], np.broadcast_to(o.mean, o.truth.shape)[~there]) and error(found, o) < nothing(o) * .8
        assert "equal blocks" in attacks_on(view) and (shown := clues(o, o.target_seen, o.target_mask).maps[..., 2])[there].min() > .5 > shown[~there].max()
    noise = as_seen("ecb", np.random.default_rng(0).random(PICTURES.shape).astype("float32"))
    assert np.allclose(equal_blocks(noise).pictures, noise.mean) and not repeats(levels(noise.seen)).any()
    for side in (3, 4, 5):
        tiny = as_seen("ecb", np.zeros((60, side, side), "float32"), np.zeros((60, side, side), np.uint8)); assert equal_blocks(tiny).note == "blocks read 0.0%" and not repeats(levels(tiny.seen)).any()

def test_pairing():
    truth = PICTURES[:10].astype(float) / 255
    assert matched(truth, truth) == 1 and matched(np.zeros_like(truth), truth) == pytest.approx(.1) and matched(truth[:1], truth[:1]) == 1
    few = as_seen("neuracrypt", np.random.default_rng(0).random(PICTURES.shape).astype("float32")).known(3)
    for attack in (moment_matching, places): assert np.allclose(attack(few).pictures, few.mean)
    for attack, o in ((half_values, seen_by("pixel")), (tile_forms, seen_by("le")), (places, seen_by("le"))):
        with pytest.raises(AttackError): attack(o)

# tables and charts

COMMON = {"labels": np.arange(20) % 2, "patients": np.repeat(np.arange(10), 2), "seed": 0, "resamples": 100}

def test_every_registered_view_has_attacks():
    for name in attacked(PROFILES["full"]): assert isinstance(attacks_on(name), dict)
    assert "known halves" in attacks_on("le") and "known halves" not in attacks_on("le-each") and "code book" in attacks_on("ecb") and "code book" not in attacks_on("ecb-each")

def test_rows_and_sanity():
    diagnose = lambda pictures: pictures.mean((1, 2))
    plain, best, whose = attack_view(as_seen("plain", PICTURES.astype("float32") / 255), SMALL, diagnose=diagnose, **COMMON)
    noise, guess, _ = attack_view(as_seen("cbc", np.random.default_rng(0).random(PICTURES.shape).astype("float32")), SMALL, diagnose=diagnose, **COMMON)
    table = pd.DataFrame(plain + noise)
    assert insane(table).empty and best.shape == guess.shape == (3, SIDE, SIDE) and whose in ("learned", "inpainting") and np.allclose(guess, as_seen("cbc", PICTURES / np.float32(255)).mean)
    assert (table.ssim_low <= table.ssim).all() and (table.ssim <= table.ssim_high).all() and (table.psnr <= 60).all() and set(table.n) == {20}
    learned_noise = table.query("view == 'cbc' and attack == 'learned'").iloc[0]
    assert learned_noise.auc == .5 and not learned_noise.beats_mean and learned_noise.auc_original == table.iloc[0].auc_original
    assert len(insane(table.assign(ssim=.5))) == 2 and (table.query("view == 'cbc' and attack == @UNGATED").beats_mean.eq(False)).sum() == 1
    assert len(insane(table.assign(beats_mean=(table.beats_mean | (table.attack == UNGATED))))) == 1

def test_known_pictures_are_measured_against_the_mean_of_all():
    rows, _, whose = attack_view(seen_by("le"), Sizes(40, 20, 3, 2, (1, 2), 6), **COMMON)
    assert len({round(row["ssim_mean_picture"], 9) for row in rows}) == 1 and whose == max(rows, key=lambda row: row["gain"])["attack"]
    assert all(row["gain"] == pytest.approx(row["ssim"] - row["ssim_mean_picture"]) for row in rows)

def test_a_guess_that_is_the_same_for_everybody_beats_nothing():
    "More like the pictures than the mean picture, whatever was seen; and a picture of somebody else."
    o = as_seen("plain", PICTURES.astype("float32") / 255); score = lambda found, **more: scored(o, "x", Reconstruction(found, "why"), diagnose=None, mean=np.zeros((SIDE, SIDE)), **COMMON, **more)
    guess, other, exact = (score(found) for found in (np.broadcast_to(o.truth.mean(0), o.truth.shape), o.truth[of_another(COMMON["patients"])[0]], o.truth))
    assert guess["gain_low"] > 0 < exact["gain_low"] and [row["beats_mean"] for row in (guess, other, exact)] == [False, False, True]
    assert guess["gain_other"] == guess["gain_other_low"] == guess["gain_other_high"] == 0 and exact["gain_other_low"] > 0 > other["gain_other_low"]
    assert guess["note"] == f"why; {SAME}" and exact["note"] == "why" and score(o.truth, level=.999)["gain_low"] == exact["gain_low"] # the row's intervals stay

@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2 ** 31))
def test_what_beats_the_mean_is_what_reads(share, seed):
    o = as_seen("plain", PICTURES.astype("float32") / 255); found = (1 - share) * o.mean + share * np.random.default_rng(seed).permutation(o.truth[:4]).repeat(5, 0) + .02 * (o.truth - o.mean)
    row = scored(o, "x", Reconstruction(found.astype("float32")), diagnose=None, level=.999, **COMMON)
    assert row["beats_mean"] == reads(found.astype("float32"), o.truth, o.mean, COMMON["patients"], seed=0, level=.999, resamples=10_000)

def test_no_interval_is_not_no_and_tiny_pictures_are_refused():
    o = as_seen("plain", PICTURES.astype("float32") / 255)
    assert scored(o, "exact", Reconstruction(o.truth), diagnose=None, **{**COMMON, "patients": np.zeros(20)})["beats_mean"] is None
    tiny = as_seen("plain", people(60, side=2).astype("float32") / 255, people(60, side=2))
    with pytest.raises(AttackTableError, match="2 x 2 pixels"): scored(tiny, "exact", Reconstruction(tiny.truth), diagnose=None, **COMMON)
    assert not is_blank(plot_reason("not attacked"))

def test_one_class_and_bad_reconstructions():
    o = as_seen("plain", PICTURES.astype("float32") / 255)
    row = scored(o, "exact", Reconstruction(o.truth), diagnose=lambda p: p.mean((1, 2)), **{**COMMON, "labels": np.zeros(20)})
    assert row["auc"] is None and row["auc_low"] is None and row["prevalence"] == 0
    for wrong in (o.truth[:3], o.truth * np.nan):
        with pytest.raises(AttackTableError): scored(o, "wrong", Reconstruction(wrong), diagnose=None, **COMMON)

def test_key_reuse_grows_and_the_control_does_not():
    common = {"patients": np.arange(20), "seed": 0, "resamples": 100}
    one, each = (pd.DataFrame(key_reuse(seen_by("ele", e), SMALL, **common)) for e in (False, True))
    assert one.known.tolist() == [1, 2, 5, 40] and one.ssim.iloc[-1] > .95 > one.ssim.iloc[0] and each.ssim.max() < .5 and set(one.n) == {6}
    assert key_reuse(as_seen("cbc", np.zeros(PICTURES.shape, "float32")), SMALL, **common) == []
    assert one_each(np.array(["a", "a", "b", "a", "c"])).tolist() == [0, 2, 4, 1, 3]
    figure = plot_key_reuse(pd.concat([one, each]).assign(dataset="toy")); assert not is_blank(figure)
    with pytest.raises(PlotError): plot_key_reuse(one)

@pytest.mark.parametrize("views", [1, 6, 7, 15])
def test_gallery_of_any_number_of_views(views):
    picture = PICTURES[0] / 255; shown = {f"view {k}": (np.pad(picture, ((0, 8), (0, 0))), np.ones((40, SIDE), bool), picture, "learned") for k in range(views)} # larger, as NeuraCrypt's
    figure = plot_gallery(picture, picture, shown)
    assert len(figure.axes) == 2 * (views + 1) and not is_blank(figure) and gallery_numbers(picture, shown)["ssim"].eq(1).all()
    with pytest.raises(PlotError): plot_gallery(picture, picture, {})

"""A generator's metrics: right by independent formulas, and meters of what they claim."""

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from facekit.adversary.metrics.features import FaceFeatures, load_features
from facekit.adversary.metrics.fid import fid
from facekit.adversary.metrics.inception import FILE, InceptionFeatures
from facekit.adversary.metrics.kid import kid
from facekit.adversary.metrics.memorisation import memorisation, thumbnails, views
from facekit.adversary.metrics.perceptual import perceptual
from facekit.adversary.metrics.prdc import prdc
from facekit.adversary.metrics.psnr import psnr
from facekit.adversary.metrics.ssim import coarse_ssim, ssim
from facekit.core.errors import FacekitError

Array = NDArray[np.float64]

PEOPLE, MOMENTS, SIDE = 8, 6, 64


def cloud(count: int, width: int = 6, *, at: float = 0.0, spread: float = 1.0, seed: int = 0):
    """Points of a Gaussian."""
    random = torch.Generator().manual_seed(seed)
    return at + spread * torch.randn(count, width, generator=random, dtype=torch.float64)


# By independent formulas ------------------------------------------------------------------------


def kid_of(x: Array, y: Array) -> float:
    """Gretton's unbiased estimate by scikit-learn's kernel."""
    from sklearn.metrics.pairwise import polynomial_kernel

    def kernel(a: Array, b: Array) -> Array:
        return np.asarray(polynomial_kernel(a, b, degree=3, gamma=1 / a.shape[1], coef0=1))

    def among(a: Array) -> float:
        off = ~np.eye(len(a), dtype=bool)
        return float(kernel(a, a)[off].mean())

    return among(x) + among(y) - 2 * float(kernel(x, y).mean())


def test_kid_is_the_unbiased_estimate_and_its_interval_the_jackknifes() -> None:
    x, y = cloud(23), cloud(17, at=0.4, seed=1)
    found = kid(x, y)
    a, b = x.numpy(), y.numpy()
    assert found.value == pytest.approx(kid_of(a, b), rel=1e-9)
    without_a = [kid_of(np.delete(a, i, 0), b) for i in range(len(a))]
    without_b = [kid_of(a, np.delete(b, i, 0)) for i in range(len(b))]
    variance = 22 * np.var(without_a) + 16 * np.var(without_b)
    assert found.high - found.value == pytest.approx(1.96 * math.sqrt(variance), rel=1e-6)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    narrow = kid(x.float(), y.float())
    assert narrow.value == pytest.approx(found.value, abs=1e-5)


def test_kid_over_blocks_of_rows_is_the_kid_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(23), cloud(17, at=0.4, seed=1)
    whole = kid(x, y), prdc(x, y), fid(x, y)
    monkeypatch.setattr("facekit.adversary.metrics.kid._ROWS", 5)
    monkeypatch.setattr("facekit.adversary.metrics.prdc._ROWS", 5)
    parts = kid(x, y), prdc(x, y), fid(x, y)
    assert parts[0] == pytest.approx(whole[0])
    assert parts[1:] == whole[1:]


def test_kid_of_one_source_is_zero_on_average_and_its_interval_covers_it() -> None:
    found = [kid(cloud(30, seed=2 * i), cloud(20, seed=2 * i + 1)) for i in range(200)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert min(values) < 0
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.93


@given(seed=st.integers(0, 1000), apart=st.floats(0, 2))
@settings(max_examples=20, deadline=None)
def test_distances_do_not_mind_order_and_sides(seed: int, apart: float) -> None:
    x, y = cloud(12, seed=seed), cloud(12, at=apart, seed=seed + 1)
    shuffled = x[torch.randperm(12, generator=torch.Generator().manual_seed(seed))]
    assert kid(x, y) == pytest.approx(kid(y, x), abs=1e-9)
    assert kid(x, y) == pytest.approx(kid(shuffled, y), abs=1e-9)
    assert fid(x, y) == pytest.approx(fid(y, x), abs=1e-6)
    assert fid(x, y) == pytest.approx(fid(shuffled, y), abs=1e-6)
    assert fid(x, shuffled) == pytest.approx(0, abs=1e-6)
    there, back = prdc(x, y, 3), prdc(y, x, 3)
    assert (there.precision, there.recall) == (back.recall, back.precision)
    assert prdc(shuffled, y, 3) == pytest.approx(there)


@pytest.mark.parametrize("count", [40, 4])
def test_fid_is_the_formula_with_scipys_root(count: int) -> None:
    """With 4 samples of 6 numbers the covariances are singular."""
    from scipy.linalg import sqrtm

    x, y = cloud(count), cloud(count + 1, at=0.5, spread=2, seed=1)
    a, b = (np.cov(one.numpy(), rowvar=False) for one in (x, y))
    # A little on the diagonal, without which scipy's root of singular matrices warns.
    little = 1e-9 * np.eye(6)
    root = np.real(sqrtm((a + little) @ (b + little)))
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(a + b - 2 * root)
    assert fid(x, y) == pytest.approx(expected, rel=1e-3)


def test_fid_of_two_known_gaussians() -> None:
    """Along one axis it is (μ₁ - μ₂)² + (σ₁ - σ₂)²."""
    x = torch.tensor([[-1.0], [0.0], [1.0]])  # mean 0, deviation 1
    assert fid(x, 3 * x + 2) == pytest.approx(2**2 + 2**2)
    assert fid(x, x) == pytest.approx(0, abs=1e-6)


def prdc_of(real: Array, fake: Array, k: int) -> tuple[float, float, float, float]:
    """Naeem et al.'s equations, word by word."""

    def distance(a: Array, b: Array) -> float:
        return float(np.linalg.norm(a - b))

    def reach(points: Array, i: int) -> float:
        return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    n, m = len(real), len(fake)
    reals, fakes = [reach(real, i) for i in range(n)], [reach(fake, j) for j in range(m)]
    between = [[distance(real[i], fake[j]) for j in range(m)] for i in range(n)]
    inside = [[between[i][j] < reals[i] for j in range(m)] for i in range(n)]
    return (
        sum(any(inside[i][j] for i in range(n)) for j in range(m)) / m,
        sum(any(between[i][j] < fakes[j] for j in range(m)) for i in range(n)) / n,
        sum(inside[i][j] for i in range(n) for j in range(m)) / (k * m),
        sum(any(inside[i]) for i in range(n)) / n,
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_precision_recall_density_and_coverage_are_their_equations(k: int, spread: float) -> None:
    real, fake = cloud(25, 3), cloud(19, 3, at=0.3, spread=spread, seed=1)
    found = prdc(real, fake, k)
    assert tuple(found) == pytest.approx(prdc_of(real.numpy(), fake.numpy(), k), abs=1e-6)


def test_a_generator_of_one_picture_is_precise_and_recalls_nothing() -> None:
    real = cloud(50)
    fake = real[:1].repeat(50, 1)
    found = prdc(real, fake)
    assert found.precision == 1 and found.recall < 0.05 and found.coverage < 0.3
    apart = prdc(real, real + 100)
    assert apart == (0, 0, 0, 0)


def pictures(count: int = 2, height: int = 24, width: int = 31, seed: int = 0) -> Tensor:
    """Smooth noise, as pictures have it, in [-1, 1]."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=random) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def test_ssim_and_psnr_are_scikit_images() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    first = pictures()
    random = torch.Generator().manual_seed(1)
    second = (first + 0.2 * torch.randn(first.shape, generator=random)).clamp(-1, 1)
    similar, ratio = ssim(first, second), psnr(first, second)
    for i in range(len(first)):
        a, b = (x[i].permute(1, 2, 0).double().numpy() for x in (first, second))
        expected = structural_similarity(
            *(a, b),
            data_range=2,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert similar[i].item() == pytest.approx(expected, abs=1e-4)
        expected = peak_signal_noise_ratio(a, b, data_range=2)
        assert ratio[i].item() == pytest.approx(expected, abs=1e-3)
    assert ssim(first, first).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert psnr(first, first).tolist() == [math.inf] * 2


def test_coarse_ssim_is_ssims_formula_in_windows_of_eight() -> None:
    first, second = pictures(1, 16, 16), pictures(1, 16, 16, seed=1)
    found = coarse_ssim(first, second)
    assert found.shape == (1, 1, 3, 3)
    x, y = (x[0, :, 4:12, 8:16].flatten(1).double().numpy() for x in (first, second))
    expected = []
    for a, b in zip(x, y, strict=True):
        (va, ab), (_, vb) = np.cov(a, b, bias=True)
        top = (2 * a.mean() * b.mean() + 0.02**2) * (2 * ab + 0.06**2)
        expected.append(top / (a.mean() ** 2 + b.mean() ** 2 + 0.02**2) / (va + vb + 0.06**2))
    assert found[0, 0, 1, 2].item() == pytest.approx(np.mean(expected), abs=1e-4)


# Faces --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def features() -> FaceFeatures:
    return load_features(torch.device("cpu"))


@lru_cache(maxsize=1)
def studio() -> NDArray[np.uint8]:
    """People's faces in several moments each, uint8 (PEOPLE, MOMENTS, 64, 64, 3)."""
    from facekit.studio.performance import Performance, performance_seed
    from facekit.studio.person import Person, person_seed
    from facekit.studio.render import render

    return np.stack(
        [
            [
                render(person, Performance.sample(performance_seed(8, i, j)), SIDE).pixels
                for j in range(MOMENTS)
            ]
            for i in range(PEOPLE)
            for person in [Person.sample(person_seed(8, i))]
        ]
    )


def images_of(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (…, S, S, 3) as images (B, 3, S, S)."""
    flat = torch.from_numpy(np.ascontiguousarray(pixels.reshape(-1, *pixels.shape[-3:])))
    return flat.permute(0, 3, 1, 2).float() / 127.5 - 1


def each(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Tensor:
    """Every face, changed."""
    flat = studio().reshape(-1, SIDE, SIDE, 3)
    return images_of(np.stack([change(picture) for picture in flat]))


def noisy(strength: float) -> Tensor:
    random = torch.Generator().manual_seed(0)
    faces = images_of(studio())
    return (faces + strength * torch.randn(faces.shape, generator=random)).clamp(-1, 1)


def blurred(sigma: float) -> Tensor:
    return each(lambda picture: cv2.GaussianBlur(picture, (0, 0), sigma))


def compressed(quality: int) -> Tensor:
    def through_jpeg(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(data, cv2.IMREAD_COLOR)

    return each(through_jpeg)


@pytest.fixture(scope="module")
def of_faces(features: FaceFeatures) -> Tensor:
    return features(images_of(studio()))


@pytest.fixture(scope="module")
def of_mirrored(features: FaceFeatures) -> Tensor:
    """Stands for other pictures from the same source."""
    return features(images_of(studio()).flip(3))


@pytest.mark.parametrize(
    ("change", "strengths"),
    [(noisy, (0.03, 0.06, 0.2)), (blurred, (0.5, 0.8, 1.6)), (compressed, (80, 50, 15))],
)
def test_kid_and_fid_rise_and_density_and_precision_fall_as_pictures_get_worse(
    features: FaceFeatures,
    of_faces: Tensor,
    of_mirrored: Tensor,
    change: Callable[[float], Tensor],
    strengths: tuple[float, ...],
) -> None:
    worse = [of_mirrored] + [features(change(strength).flip(3)) for strength in strengths]
    assert rises([kid(of_faces, found).value for found in worse])
    assert rises([fid(of_faces, found) for found in worse])
    shares = [prdc(of_faces, found) for found in worse]
    assert rises([-found.density for found in shares[1:]])
    assert shares[-1].density < shares[0].density
    assert shares[-1].precision < shares[0].precision


def test_kid_and_fid_rise_and_coverage_falls_as_people_are_left_out(
    of_faces: Tensor, of_mirrored: Tensor
) -> None:
    people = of_mirrored.view(PEOPLE, MOMENTS, -1)
    fewer = [people[:count].flatten(0, 1) for count in (PEOPLE, 4, 2, 1)]
    assert rises([kid(of_faces, found).value for found in fewer])
    assert rises([fid(of_faces, found) for found in fewer])
    assert rises([-prdc(of_faces, found).coverage for found in fewer])


def test_kid_and_fid_rise_and_recall_and_coverage_fall_as_others_are_drawn_again_instead(
    of_faces: Tensor, of_mirrored: Tensor
) -> None:
    people = of_mirrored.view(PEOPLE, MOMENTS, -1)
    fewer = [people[:count].flatten(0, 1).repeat(PEOPLE // count, 1) for count in (PEOPLE, 4, 2, 1)]
    assert rises([kid(of_faces, found).value for found in fewer])
    assert rises([fid(of_faces, found) for found in fewer])
    shares = [prdc(of_faces, found) for found in fewer]
    assert rises([-found.recall for found in shares])
    assert rises([-found.coverage for found in shares])
    # Balls of what is there more than k times have no extent.
    assert shares[-1].recall == 0


def rises(values: list[float]) -> bool:
    """Whether each value is greater than the one before."""
    return all(a < b for a, b in pairwise(values))


def test_the_perceptual_distance_rises_with_noise_blur_and_strangers(
    features: FaceFeatures,
) -> None:
    faces = images_of(studio()[:4, :2])
    count = len(faces)
    assert perceptual(features, faces, faces).tolist() == [0] * count
    there, back = (perceptual(features, *pair) for pair in ((faces, -faces), (-faces, faces)))
    assert torch.allclose(there, back) and there.shape == (count,)

    def mean(other: Tensor) -> float:
        return float(perceptual(features, faces, other[:count]).mean())

    kept = [i * MOMENTS + j for i in range(4) for j in range(2)]
    assert rises([mean(noisy(s)[kept]) for s in (0.02, 0.06, 0.2)])
    assert rises([mean(blurred(s)[kept]) for s in (0.5, 0.8, 1.6)])
    strangers = mean(images_of(studio()[4:8, :2]))
    assert mean(faces.roll(1, 3)) < strangers and mean(noisy(0.06)[kept]) < strangers
    faces = faces[:1].clone().requires_grad_()
    perceptual(features, faces, noisy(0.1)[:1]).sum().backward()
    assert faces.grad is not None and faces.grad.abs().sum() > 0


def test_features_of_a_picture_are_its_own_and_stay_as_they_are(features: FaceFeatures) -> None:
    faces = images_of(studio()[:3, :2])
    whole = features(faces)
    assert whole.dtype == torch.float32 and not whole.requires_grad
    assert torch.allclose(features(faces[2:3]), whole[2:3], atol=1e-4)
    assert features(faces[:0]).shape == (0, whole.shape[1])
    assert torch.equal(load_features(torch.device("cpu"))(faces), whole)
    assert "not Inception" in features.name and len(features.sha256) == 64
    # Each of the three parts has the same weight: its mean square is 1.
    assert whole.square().mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("side", [32, 96, 128, 150])
def test_features_take_images_of_any_size(features: FaceFeatures, side: int) -> None:
    faces = images_of(studio()[:3, :2])
    other = torch.nn.functional.interpolate(faces, (side, side), mode="area")
    found = features(other)
    # Of other sizes, they are nearer to their own picture than to others.
    assert torch.cdist(found, features(faces)).argmin(1).tolist() == list(range(6))


def test_inception_asks_for_its_file_and_its_package(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with pytest.raises(FacekitError, match=r"no such file; it can be had from https://github"):
        InceptionFeatures(torch.device("cpu"), path)
    path.write_bytes(b"\x80\x04not weights")
    with pytest.raises(FacekitError, match="not readable as weights of Inception"):
        InceptionFeatures(torch.device("cpu"), path)
    torch.save({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(FacekitError, match=r"torch-fidelity is not installed|weights of another"):
        InceptionFeatures(torch.device("cpu"), path)


# Copies -------------------------------------------------------------------------------------------


def test_planted_copies_are_found_and_held_out_faces_are_none() -> None:
    seen, new = studio()[:4], studio()[4:]
    training, unseen = images_of(seen), images_of(new)
    honest, held_out = unseen[:4], unseen[4:]
    rows = [3, 8, 13, 18, 23]
    copies = training[rows].clone()
    copies[1] = copies[1].flip(2)
    copies[2] = copies[2].roll((3, -2), (1, 2))
    _, data = cv2.imencode(".jpg", seen.reshape(-1, SIDE, SIDE, 3)[rows[3]], [1, 40])
    copies[3] = images_of(cv2.imdecode(data, cv2.IMREAD_COLOR))[0]
    copies[4] = (copies[4] + 0.05 * torch.randn(copies[4].shape)).clamp(-1, 1).flip(2)
    found = memorisation(views(torch.cat([honest, copies])), thumbnails(training), views(held_out))
    assert sorted(found.copies.tolist()) == [len(honest) + i for i in range(5)]
    assert found.nearest[len(honest) :].tolist() == rows
    assert found.mirrored[len(honest) :].tolist() == [False, True, False, False, True]
    ordered = found.distance[found.copies]
    assert torch.equal(ordered, ordered.sort().values)
    assert not len(memorisation(views(honest), thumbnails(training), views(held_out)).copies)


def test_thumbnails_do_not_mind_light_contrast_and_size() -> None:
    faces = images_of(studio()[:1, :2])
    same = thumbnails(faces)
    assert torch.allclose(thumbnails(0.5 * faces + 0.2), same, atol=1e-5)
    twice = torch.nn.functional.interpolate(faces, scale_factor=2, mode="nearest")
    assert torch.allclose(thumbnails(twice), same, atol=0.05)
    moved = views(faces.roll((2, -3), (2, 3)))
    assert moved.shape == (162, 2, 192)
    assert torch.allclose(views(faces)[40], same) and torch.allclose(
        views(faces)[121], thumbnails(faces.flip(3))
    )
    assert ((moved - same).norm(dim=2).argmin(0) == 9 * (4 + 2) + 4 - 3).all()


def test_a_set_of_honest_samples_has_a_copy_as_rarely_as_stated() -> None:
    alarms = 0
    for trial in range(200):
        points = cloud(340, 12, seed=trial)
        training, held_out, samples = points[:200], points[200:300], points[300:]
        found = memorisation(samples[None], training, held_out[None])
        alarms += bool(len(found.copies))
    assert alarms <= 18  # of 10 expected; more has a chance of 1%


def test_distances_of_copies_are_exact() -> None:
    """Far from the origin, products would lose a distance of a ten thousandth."""
    training = cloud(100, 12).float() + 50
    samples = training[:3] + torch.tensor([0.0, 1e-4, 1e-2])[:, None]
    held_out = cloud(50, 12, seed=1).float() + 50
    found = memorisation(samples[None], training, held_out[None])
    expected = [0, *(samples - training[:3]).norm(dim=1)[1:].tolist()]
    assert found.distance.tolist() == pytest.approx(expected, rel=1e-4)
    assert found.copies.tolist() == [0, 1, 2]


# Bad input ----------------------------------------------------------------------------------------


def test_too_few_samples_are_an_error_that_says_how_many() -> None:
    one, many = cloud(1), cloud(30)
    with pytest.raises(FacekitError, match=r"fake: 1 samples; this metric needs at least 3"):
        kid(many, one)
    with pytest.raises(FacekitError, match=r"real: 1 samples; this metric needs at least 2"):
        fid(one, many)
    with pytest.raises(FacekitError, match=r"fake: 5 samples; this metric needs at least 6"):
        prdc(many, many[:5], 5)
    with pytest.raises(FacekitError, match=r"held-out: 19 samples; this metric needs at least 20"):
        memorisation(many[None], many, many[:19][None])
    with pytest.raises(FacekitError, match=r"samples: 0 samples"):
        memorisation(many[:0][None], many, many[None])


@pytest.mark.parametrize("metric", [kid, fid, prdc])
def test_features_that_cannot_be_compared_are_errors(
    metric: Callable[[Tensor, Tensor], object],
) -> None:
    good, bad = cloud(30), cloud(30)
    bad[3, 2], bad[7] = math.nan, math.inf
    with pytest.raises(FacekitError, match="fake: the features of 2 of 30 samples are not finite"):
        metric(good, bad)
    with pytest.raises(FacekitError, match="fake: features of 5 numbers, where the others have 6"):
        metric(good, cloud(30, 5))
    with pytest.raises(
        FacekitError, match=r"real: features are torch.int64 \(30, 6\); give floats"
    ):
        metric(good.long(), good)
    with pytest.raises(FacekitError, match=r"real: features are torch.float64 \(6,\)"):
        metric(good[0], good)


def test_copies_need_held_out_pictures_that_are_held_out() -> None:
    training = cloud(60)
    ways = training[:30][None]
    with pytest.raises(FacekitError, match="held-out: 30 of 30 pictures are among the training"):
        memorisation(ways, training, ways)
    with pytest.raises(ValueError, match="as many views"):
        memorisation(training, training, ways)
    with pytest.raises(ValueError, match="chance"):
        memorisation(ways, training, cloud(30, seed=1)[None], false_alarm=0)
    with pytest.raises(ValueError, match="at least 1"):
        prdc(training, training, 0)


def test_images_of_another_shape_or_range_are_errors(features: FaceFeatures) -> None:
    good = torch.zeros(2, 3, 32, 32)
    wrong = {
        r"torch.uint8 \(2, 3, 32, 32\); give images as floats": good.byte(),
        r"\(2, 32, 32, 3\)": good.permute(0, 2, 3, 1),
        "values from 0 to 255; images are finite, in": good
        + torch.tensor([0, 255])[:, None, None, None],
        "values from nan": good + math.nan,
        "images of 16 × 16 pixels; at least 32 × 32": good[..., :16, :16],
    }
    for words, images in wrong.items():
        with pytest.raises(FacekitError, match=words):
            features(images)
        with pytest.raises(FacekitError, match=words):
            perceptual(features, images, images)
    for metric in (ssim, psnr):
        with pytest.raises(FacekitError, match=r"images of shapes \(2, 3, 32, 32\) and \(2, 3, 32"):
            metric(good, good[..., :16])
        with pytest.raises(FacekitError, match="second: values from"):
            metric(good, good + math.nan)
    with pytest.raises(FacekitError, match="images of 8 × 8 pixels; at least 11 × 11"):
        ssim(good[..., :8, :8], good[..., :8, :8])

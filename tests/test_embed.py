"""Identity: every network's conduct, whose faces the bundled one tells apart, and its lesson."""

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from facekit.core import weights
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.datasets.studio import StudioFaces
from facekit.faces import embed
from facekit.faces.align import align_faces
from facekit.faces.embed import Embedder, load_embedder
from facekit.faces.embedders import compact, inception_resnet
from facekit.faces.verification import Pairs, found_first
from facekit.media.images import write_image
from facekit.studio import teach
from facekit.studio.lessons import identity as lesson
from facekit.types import Face, Pixels

CPU = torch.device("cpu")
PEOPLE, FRAMES = 6, 3


# --- every network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of InceptionResnetV1, as its files have them: with a classifier."""
    from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1

    torch.manual_seed(0)
    network = InceptionResnetV1(classify=True, num_classes=3)
    path = tmp_path_factory.mktemp("inception") / "random.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module", params=embed.names())
def embedder(request: pytest.FixtureRequest, inception_weights: Path) -> Embedder:
    """Each network: with the weights that it brings, or random ones for one that brings none."""
    own = {"inception_resnet": inception_weights}
    return load_embedder(CPU, request.param, weights=own.get(request.param))


def crops_for(embedder: Embedder, count: int = 3) -> Pixels:
    shape = (count, embedder.size, embedder.size, 3)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def test_vectors_have_length_one_and_a_fixed_width(embedder: Embedder) -> None:
    vectors = embedder.embed(crops_for(embedder))
    assert vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == 3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed(crops_for(embedder, 0)).shape == (0, vectors.shape[1])
    assert embedder.licence


def test_a_vector_is_of_its_crop_alone_and_always_the_same(embedder: Embedder) -> None:
    crops = crops_for(embedder)
    vectors = embedder.embed(crops)
    assert embedder.embed(crops).tobytes() == vectors.tobytes()
    single = np.concatenate([embedder.embed(crop[None]) for crop in crops])
    np.testing.assert_allclose(single, vectors, atol=2e-5)
    # Neither the batch's own memory nor its order matters.
    np.testing.assert_allclose(embedder.embed(crops[::-1])[::-1], vectors, atol=2e-5)


def test_crops_of_another_kind_are_refused(embedder: Embedder) -> None:
    crops = crops_for(embedder)
    for wrong in (crops[0], crops[:, 1:], crops[..., :1], crops.astype(np.float32)):
        with pytest.raises(FacekitError, match="this identity network takes uint8"):
            embedder.embed(wrong)


def test_an_unknown_network_is_named_with_those_that_there_are() -> None:
    with pytest.raises(FacekitError, match="unknown embedder 'compakt'; did you mean 'compact'"):
        load_embedder(CPU, "compakt")


# --- the compact network ----------------------------------------------------------------------


def test_bundled_weights_are_small_and_their_licence_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, card = weights.find(compact.WEIGHTS, "identity")
    assert path.stat().st_size <= 6e6
    assert card["licence"] == "research use only"
    embed._tell.cache_clear()
    with caplog.at_level(logging.INFO, "facekit"):
        loaded = load_embedder(CPU)
        load_embedder(CPU)
    assert loaded.licence == card["licence"]
    assert caplog.text.count("research use only") == 1


def test_the_config_is_that_of_the_bundled_weights() -> None:
    _, card = weights.find(compact.WEIGHTS, "identity")
    name, config = teach.read_config("lessons/identity")
    assert name == "identity" and config.model_dump(mode="json") == card["config"]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other, text = tmp_path / "other.safetensors", tmp_path / "text.safetensors"
    save_file({"a": torch.zeros(3)}, other)
    text.write_text("no weights")
    with pytest.raises(FacekitError, match=r"other\.safetensors: not weights of the compact"):
        load_embedder(CPU, weights=other)
    with pytest.raises(FacekitError, match=r"text\.safetensors: not readable"):
        load_embedder(CPU, weights=text)
    with pytest.raises(FacekitError, match=r"none\.safetensors: not readable"):
        load_embedder(CPU, weights=tmp_path / "none.safetensors")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Pictures of people whom the bundled weights never saw, and of whom lessons are taught."""
    # Filling a cache sets each person up only once.
    cache = tmp_path_factory.mktemp("cache")
    studio = StudioFaces(people=PEOPLE, frames=FRAMES, size=160, seed=77, cache=cache)
    return [studio[i] for i in range(len(studio))]


def pixels_of(item: dict[str, Tensor]) -> Pixels:
    return np.ascontiguousarray(((item["image"] + 1) * 127.5).round().byte().permute(1, 2, 0))


def crop_of(item: dict[str, Tensor], template: str, size: int) -> Pixels:
    face = Face(np.zeros(4, np.float32), item["points"].numpy(), 1.0)
    (aligned,) = align_faces(pixels_of(item), [face], template=template, size=size, device=CPU)
    return aligned.pixels


def test_it_tells_people_apart_whom_it_never_saw(items: list[dict[str, Tensor]]) -> None:
    network = load_embedder(CPU)
    crops = np.stack([crop_of(item, network.template, network.size) for item in items])
    whose = np.arange(len(items)) // FRAMES
    i, j = np.triu_indices(len(items), 1)

    def auc(vectors: np.ndarray[Any, Any]) -> float:
        return float(roc_auc_score(whose[i] == whose[j], (vectors @ vectors.T)[i, j]))

    # The floor: the mean colour of the middle of the face.
    third = network.size // 3
    colours = crops[:, third:-third, third:-third].reshape(len(crops), -1, 3).mean(1)
    colours = colours - colours.mean(0)
    found, floor = (
        auc(network.embed(crops)),
        auc(colours / np.linalg.norm(colours, axis=1)[:, None]),
    )
    assert found > 0.97 and found > floor + 0.05


def test_a_mirrored_face_is_the_same_person(items: list[dict[str, Tensor]]) -> None:
    network = load_embedder(CPU)
    crops = np.stack([crop_of(item, network.template, network.size) for item in items[::FRAMES]])
    mirrored = network.embed(crops[:, :, ::-1])
    np.testing.assert_allclose(mirrored, network.embed(crops), atol=2e-5)


@given(st.permutations(range(5)))
def test_people_are_found_where_they_are(order: list[int]) -> None:
    gallery = np.eye(5, dtype=np.float32)
    probes = gallery[list(order)]
    assert found_first(gallery, probes).tolist() == [k == person for k, person in enumerate(order)]
    pairs = Pairs.of(np.concatenate([gallery, gallery]), np.tile(np.arange(5), 2))
    assert pairs is not None and pairs.figures(np.ones(5, np.int64))[0] == 1


# --- InceptionResnetV1 ------------------------------------------------------------------------


def test_the_wrapped_network_gives_what_the_librarys_own_does(inception_weights: Path) -> None:
    from facenet_pytorch import InceptionResnetV1, fixed_image_standardization

    crops = crops_for(load_embedder(CPU, "inception_resnet", weights=inception_weights), 2)
    library = InceptionResnetV1(classify=True, num_classes=3)
    library.load_state_dict(torch.load(inception_weights, weights_only=True))
    library.classify = False
    with torch.inference_mode():
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        expected = library.eval()(fixed_image_standardization(images)).numpy()
    network = load_embedder(CPU, "inception_resnet", weights=inception_weights)
    np.testing.assert_allclose(network.embed(crops), expected, atol=1e-5)


def test_its_weights_may_be_safetensors_and_their_terms_are_said(
    tmp_path: Path, inception_weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "random.safetensors"
    save_file(torch.load(inception_weights, weights_only=True), path)
    embed._tell.cache_clear()
    with caplog.at_level(logging.INFO, "facekit"):
        load_embedder(CPU, "inception_resnet", weights=path)
    assert "research only" in caplog.text


class Harmful:
    """Unpickled freely, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.path.write_text, ("harm",))


def test_its_files_are_never_unpickled_freely(tmp_path: Path) -> None:
    path, harm = tmp_path / "harmful.pt", tmp_path / "harm"
    torch.save({"last_bn.weight": Harmful(harm)}, path)
    with pytest.raises(FacekitError, match=r"harmful\.pt: not readable as weights"):
        load_embedder(CPU, "inception_resnet", weights=path)
    path.write_bytes(pickle.dumps(Harmful(harm), protocol=2))
    with pytest.raises(FacekitError, match=r"harmful\.pt: not readable as weights"):
        load_embedder(CPU, "inception_resnet", weights=path)
    assert not harm.exists()


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    def refused(path: Path | None, match: str) -> None:
        with pytest.raises(FacekitError, match=match):
            load_embedder(CPU, "inception_resnet", weights=path)

    refused(None, "comes without weights: give a .safetensors or .pt file, or one of vggface2")
    refused(tmp_path / "none.pt", r"none\.pt: no such file")
    refused(tmp_path / "none.safetensors", r"none\.safetensors: no such file")
    empty, numbers, other = tmp_path / "empty.pt", tmp_path / "numbers.pt", tmp_path / "other.pt"
    empty.touch()
    torch.save({"a": 1}, numbers)
    torch.save({"a": torch.zeros(1)}, other)
    refused(empty, r"empty\.pt: not readable as weights")
    refused(numbers, "more than the tensors of a network")
    refused(other, "not weights of facenet-pytorch's InceptionResnetV1")


def test_the_librarys_weights_are_downloaded_once_and_only_when_asked_for(
    tmp_path: Path, inception_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked = []

    def download(url: str, path: str, progress: bool) -> None:
        asked.append(url)
        if len(asked) == 1:
            raise URLError("no network")
        Path(path).write_bytes(inception_weights.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(FacekitError, match=r"vggface2: cannot be downloaded from .*no network"):
        load_embedder(CPU, "inception_resnet", weights=Path("vggface2"))
    for _ in range(2):
        load_embedder(CPU, "inception_resnet", weights=Path("vggface2"))
    assert asked == [inception_resnet.DOWNLOADS["vggface2"]] * 2


# --- the lesson -------------------------------------------------------------------------------


@pytest.fixture
def config() -> lesson.Config:
    return lesson.Config(
        people=PEOPLE,
        held_out=2,
        frames=FRAMES,
        size=192,
        data_seed=77,
        held_out_folders=2,
        steps=4,
        batch=8,
        warm_up=1,
        checkpoint_every=2,
    )


@pytest.fixture(scope="module")
def photos(items: list[dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of three people, and one whose only picture shows nobody."""
    folder = tmp_path_factory.mktemp("photos")
    for person in range(3):
        for frame in range(FRAMES):
            item = items[person * FRAMES + frame]
            write_image(folder / f"person {person + 1}" / f"{frame}.png", pixels_of(item))
    write_image(folder / "person 0" / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    return folder


def taught(
    config: lesson.Config, items: Any, out: Path, data: Path | None, stop: int = 0
) -> dict[str, Tensor]:
    """A run's weights; with ``stop``, broken off after so many steps, and gone on with."""
    fabric = setup("cpu", threads=1)
    run = teach.start("identity", config, data, out, fabric, seed=3)
    if stop:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "save", breaking_after(stop))
            with pytest.raises(KeyboardInterrupt):
                lesson.teach(config, run, fabric, items, data)
        run = teach.start("identity", config, data, out, fabric, seed=3)
    lesson.teach(config, run, fabric, items, data)
    return lesson.weights(run)


def breaking_after(stop: int) -> Any:
    save = Run.save

    def broken(run: Run, step: int, state: dict[str, Any]) -> None:
        save(run, step, state)
        if step == stop:
            raise KeyboardInterrupt

    return broken


def test_a_lesson_broken_off_goes_on_to_the_same_bits(
    config: lesson.Config,
    items: list[dict[str, Tensor]],
    photos: Path,
    tmp_path: Path,
) -> None:
    whole = taught(config, items, tmp_path / "whole", photos)
    parts = taught(config, items, tmp_path / "parts", photos, stop=2)
    assert whole.keys() == parts.keys() == compact.CompactNet().state_dict().keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    run = Run(tmp_path / "parts")
    run.note(minutes=0.1, device="cpu, 2 threads")
    path = teach.bundle("identity", config, photos, run, "facekit studio teach")
    card = weights.find(path.parent, "identity")[1]
    assert card["licence"] == "research use only"
    assert card["figures"].keys() == {"step", "auc_studio", "auc_photos"}
    assert load_file(path).keys() == whole.keys()
    vectors = load_embedder(CPU, weights=path).embed(np.zeros((1, 96, 96, 3), np.uint8))
    assert np.isfinite(vectors).all()


def test_people_held_out_are_not_learned_from(config: lesson.Config) -> None:
    whose = np.array([*range(PEOPLE), *range(PEOPLE, PEOPLE + 5)])
    learned, held_out = lesson._split(config, whose)
    assert held_out[0] == [4, 5] and learned[0] == [0, 1, 2, 3]
    assert len(held_out[1]) == 2 and sorted(learned[1] + held_out[1]) == [6, 7, 8, 9, 10]
    with pytest.raises(FacekitError, match="held_out_folders is 2 of 2 people in the folder"):
        lesson._split(config, whose[:-3])


def test_a_folder_without_people_is_refused(
    config: lesson.Config, items: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    write_image(folder / "nobody" / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(FacekitError, match="fewer than two people"):
        taught(config, items, tmp_path / "run", folder)


class Still:
    """Chance that changes nothing."""

    def normal(self, mean: float, deviation: float, size: int = 1) -> Any:
        return np.full(size, mean) if size > 1 else mean

    def random(self) -> float:
        return 0.99

    def uniform(self, low: float, high: float) -> float:
        return 1.0

    def choice(self, options: list[int]) -> int:
        return 1


def test_lesson_and_use_see_the_same_crop(items: list[dict[str, Tensor]]) -> None:
    item = items[0]
    kept = lesson._kept(item["image"], item["points"].numpy())
    in_use = crop_of(item, compact.TEMPLATE, compact.SIZE).astype(float)
    for crop in (lesson._plain(kept), lesson.augment(kept, Still())):  # type: ignore[arg-type]
        assert np.abs(crop - in_use).mean() < 2.5
        # Not off by as little as half a pixel: moved by one, it agrees much less.
        assert np.abs(crop[:, 1:] - in_use[:, :-1]).mean() > 2 * np.abs(crop - in_use).mean()


@given(seed=st.integers(0, 10_000))
def test_augmented_crops_are_a_function_of_their_chance(seed: int) -> None:
    kept = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    first, second = (lesson.augment(kept, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)

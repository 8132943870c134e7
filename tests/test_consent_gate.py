"""Real people at the gate: no photo without everyone's consent, no run after a revocation."""

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner

from facekit import generators
from facekit.cli import cli
from facekit.commands import generator_convert as command
from facekit.commands.generator import strip_writer
from facekit.core import checkpoint, config, device, files
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.datasets.crowd import Crowd
from facekit.generators import GatedRun, _gate
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.provenance import ledger as ledgers
from facekit.provenance.consent import Attester, Record
from facekit.provenance.ledger import Ledger
from facekit.provenance.manifest import verify
from facekit.studio.clip import render_folder
from facekit.types import Frame, Item, read_manifest, write_manifest
from facekit.watermark import Kind

# Whatever draws no faces is handed nothing at all: tests/test_points.py.
PLUGINS = [name for name in generators.names() if name not in _gate.DRAW_NO_FACES]
EVERYTHING = ("train", "generate", "publish")
TINY = ["size=32", "width=4", "code=8", "steps=6", "batch=4", "checkpoint_every=2", "warm_up=2"]
TINY += ["least_photos=2"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of its own for each test."""
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def nothing_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written are not waited for; those that grow are test_generators'."""
    monkeypatch.setattr(_gate, "SETTLED", 0.0)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio") / "people"
    render_folder(folder, people=2, frames=2, size=192, seed=4)
    return folder


@pytest.fixture(scope="session")
def photos(studio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "album"
    face = skimage.data.astronaut()[:300, 80:380]
    for i, turn in enumerate((0, 4)):
        write_image(folder / f"ann-{i}.png", np.roll(face, turn, 1))
        shutil.copy(studio / "person-0000" / f"{i:04d}.png", folder / f"ben-{i}.png")
    return folder


@pytest.fixture
def album(photos: Path, tmp_path: Path) -> Path:
    """Photos of ann, a real person, and of ben, whom no certificate calls synthetic here."""
    return Path(shutil.copytree(photos, tmp_path / "album"))


@pytest.fixture
def together(studio: Path, tmp_path: Path) -> Path:
    """A photo of ann and ben."""
    ann = skimage.data.astronaut()[:300, 80:380]
    ben = cv2.resize(cv2.imread(str(studio / "person-0000" / "0000.png"))[..., ::-1], (240, 240))
    picture = np.zeros((300, 540, 3), np.uint8)
    picture[:, :300], picture[:240, 300:] = ann, ben
    write_image(tmp_path / "together" / "party.png", picture)
    return tmp_path / "together" / "party.png"


@pytest.fixture(scope="session")
def fabric() -> Any:
    return device.setup("cpu", threads=1)


def grant(
    who: str,
    *paths: Path,
    seen: tuple[str, ...] = (),
    scope: tuple[str, ...] = EVERYTHING,
    days: float = 30,
) -> Record:
    """A record of ``who`` for files that show ``who``, and ``seen`` besides."""
    return Ledger().grant(
        subjects=[who],
        photos={files.sha256(path): [who, *seen] for path in paths},
        scope=scope,
        purpose="to test the gate",
        expires=datetime.now(UTC) + timedelta(days=days),
        adult=True,
        evidence=hashlib.sha256(b"a signed form").hexdigest(),
    )


def grant_album(album: Path, **words: Any) -> list[str]:
    return sorted(grant(who, *album.glob(f"{who}-*"), **words).id for who in ("ann", "ben"))


def revoke_elsewhere(id: str) -> None:
    """Another process takes the consent back."""
    code = f"from facekit.provenance.ledger import Ledger; Ledger().revoke({id!r}, 'she asked')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def start(plugin: str, data: Path, out: Path, *consent: str) -> generators.GatedRun:
    settings = generators.load(plugin).Config()
    fabric = device.setup("cpu", threads=1)
    return generators.start(plugin, settings, data, out, fabric, consent=consent)


# Training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", PLUGINS)
def test_covered_photos_are_learned_from_and_the_run_records_it(
    plugin: str, album: Path, tmp_path: Path
) -> None:
    ids = grant_album(album)
    run = start(plugin, album, tmp_path / "run", *reversed(ids))
    assert run.facts["consent"] == ids
    assert [(item.path, item.subject) for item in run.items] == [
        (f"{who}-{i}.png", who) for who in ("ann", "ben") for i in (0, 1)
    ]
    for id in ids:
        (use,) = Ledger().affected(id)
        assert (use.what, use.path, use.ids) == ("run", run.folder, tuple(ids))
    run.save(1, {"weight": torch.zeros(2)})
    notes = checkpoint.notes(run.checkpoints()[0])
    assert json.loads(notes["consent"]) == ids
    assert notes["ledger"] == Ledger().head() == run.facts["ledger"]
    opened = generators.open_run(run.folder)
    assert opened.permit.records == tuple(ids)
    again = start(plugin, album, tmp_path / "run", *ids)
    assert again.facts == run.facts
    assert len(Ledger().affected(ids[0])) == 1


@pytest.mark.parametrize("plugin", PLUGINS)
def test_one_photo_without_consent_stops_all(plugin: str, album: Path, tmp_path: Path) -> None:
    ids = grant_album(album)
    write_image(album / "ann-2.png", skimage.data.astronaut()[:299, 80:380])
    with pytest.raises(FacekitError, match=r"ann-2\.png.*covers this file"):
        start(plugin, album, tmp_path / "run", *ids)
    (album / "ann-2.png").unlink()
    with pytest.raises(FacekitError, match=r"ben-0\.png.*covers this file"):
        start(plugin, album, tmp_path / "run", next(id for id in ids if _about(id) == "ann"))
    with pytest.raises(FacekitError, match="no consent record 'c-000000000000'"):
        start(plugin, album, tmp_path / "run", "c-000000000000")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_studio_certificate_beside_real_photos_is_refused(
    plugin: str, studio: Path, album: Path, tmp_path: Path
) -> None:
    ids = grant_album(album)
    mixed = Path(shutil.copytree(studio, tmp_path / "mixed"))
    shutil.copy(album / "ann-0.png", mixed)
    shutil.copytree(studio, album / "deep" / "down")
    for data in (mixed, album, studio):
        with pytest.raises(FacekitError, match="certificate beside real photos"):
            start(plugin, data, tmp_path / "run", *ids)
    with pytest.raises(FacekitError, match="not listed in the certificate"):
        start(plugin, mixed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_consent_to_something_else_is_none(plugin: str, album: Path, tmp_path: Path) -> None:
    ids = grant_album(album, scope=("generate", "publish"))
    with pytest.raises(FacekitError, match="not to 'train'"):
        start(plugin, album, tmp_path / "run", *ids)
    ids = grant_album(album, scope=("train",))
    run = start(plugin, album, tmp_path / "run", *ids)
    run.save(1, {})
    assert strip_writer(run) is None
    with pytest.raises(FacekitError, match=r"cannot be used.*not to 'generate'"):
        generators.open_run(run.folder)


def test_nobody_in_a_photo_is_overlooked(album: Path, together: Path, tmp_path: Path) -> None:
    ids = grant_album(album)
    ann = grant("ann", together).id
    shutil.copy(together, album)
    with pytest.raises(FacekitError, match=r"party\.png: shows 2 people.*name 1 person") as caught:
        start("face_swap", album, tmp_path / "run", *ids, ann)
    said = str(caught.value)
    assert "face of" in said and "cut or blur" in said and "\n" not in said
    Ledger().revoke(ann, "ben is in it too", mistaken=True)
    both = [grant("ann", together, seen=("ben",)).id]
    with pytest.raises(FacekitError, match=r"party\.png: shows ben"):
        start("face_swap", album, tmp_path / "run", *ids, *both)
    both.append(grant("ben", together, seen=("ann",)).id)
    with pytest.raises(FacekitError, match=r"party\.png.*folder of that name"):
        start("face_swap", album, tmp_path / "run", *ids, *both)
    assert not (tmp_path / "run").exists()
    (album / "ann").mkdir()
    (album / "party.png").rename(album / "ann" / "party.png")
    run = start("face_swap", album, tmp_path / "run", *ids, *both)
    assert {i.path: i.subject for i in run.items}["ann/party.png"] == "ann"


def test_whoever_is_blurred_out_needs_no_consent(
    album: Path, together: Path, tmp_path: Path
) -> None:
    ids = grant_album(album)
    picture = read_image(together)
    picture[:, 300:] = cv2.GaussianBlur(picture[:, 300:], (0, 0), 20)
    write_image(album / "alone.png", picture)
    alone = grant("ann", album / "alone.png").id
    run = start("face_swap", album, tmp_path / "run", *ids, alone)
    assert {item.path: item.subject for item in run.items}["alone.png"] == "ann"


def test_with_a_manifest_its_pictures_alone_are_used(album: Path, tmp_path: Path) -> None:
    ids = grant_album(album)
    write_image(album / "mask.png", skimage.data.astronaut())
    names = ("ann-0.png", "ben-0.png")
    rows = [Item(path=name, sha256=files.sha256(album / name)) for name in names]
    write_manifest(album, rows)
    run = start("face_swap", album, tmp_path / "run", *ids)
    assert [(item.path, item.subject) for item in run.items] == [
        *zip(names, ("ann", "ben"), strict=True)
    ]
    write_image(album / "ann-0.png", skimage.data.astronaut())
    with pytest.raises(FacekitError, match="differs from the manifest"):
        start("face_swap", album, tmp_path / "other", *ids)


@pytest.mark.parametrize("name", ["absent", "a.png", "empty"])
def test_what_is_no_folder_of_photos_is_said(name: str, album: Path, tmp_path: Path) -> None:
    ids = grant_album(album)
    write_image(tmp_path / "a.png", skimage.data.astronaut())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FacekitError, match=r"not a folder|no pictures"):
        start("face_swap", tmp_path / name, tmp_path / "run", *ids)


def test_photos_that_are_swapped_before_they_are_read_are_not_learned_from(
    album: Path, tmp_path: Path, fabric: Any
) -> None:
    run = start("face_swap", album, tmp_path / "run", *grant_album(album))
    write_image(album / "ben-1.png", skimage.data.astronaut()[:301, 80:380])
    module = generators.load("face_swap")
    with pytest.raises(FacekitError, match=r"ben-1\.png: was changed while it was used"):
        module.train(module.Config(steps=1), album, run, fabric)
    assert not run.checkpoints() and not run.metrics()


def test_a_record_that_covers_nobody_is_refused(album: Path, tmp_path: Path) -> None:
    """The run would be said to be made under it, and be listed as affected by it."""
    ids = grant_album(album)
    write_image(tmp_path / "else.png", skimage.data.astronaut())
    idle = grant("cara", tmp_path / "else.png").id
    with pytest.raises(FacekitError, match=rf"{idle}: covers nobody in the files.*leave it out"):
        start("face_swap", album, tmp_path / "run", *ids, idle)
    assert not (tmp_path / "run").exists()


# Revocation, expiry, tampering ----------------------------------------------------------------


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_revocation_ends_training_resuming_and_use(
    plugin: str, album: Path, tmp_path: Path
) -> None:
    ids = grant_album(album)
    run = start(plugin, album, tmp_path / "run", *ids)
    run.save(1, {})
    revoke_elsewhere(ids[0])
    with pytest.raises(FacekitError, match=r"training stopped.*revoked.*she asked"):
        run.save(2, {})
    assert [path.name for path in run.checkpoints()] == ["step-00000001.safetensors"]
    with pytest.raises(FacekitError, match="revoked"):
        start(plugin, album, run.folder, *ids)
    with pytest.raises(FacekitError, match=r"cannot be used.*revoked"):
        generators.open_run(run.folder)
    assert [use.path for use in Ledger().affected(ids[0])] == [run.folder]


@pytest.mark.parametrize("plugin", PLUGINS)
def test_consent_that_expires_ends_the_same_way(
    plugin: str, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = grant_album(album)
    run = start(plugin, album, tmp_path / "run", *ids)
    run.save(1, {})
    later = datetime.now(UTC) + timedelta(days=31)
    monkeypatch.setattr(ledgers, "utc", lambda now=None: now or later)
    with pytest.raises(FacekitError, match=r"training stopped.*expired"):
        run.save(2, {})
    with pytest.raises(FacekitError, match=r"cannot be used.*expired"):
        generators.open_run(run.folder)


def test_run_json_cannot_simply_be_edited(album: Path, studio: Path, tmp_path: Path) -> None:
    ids = grant_album(album)
    run = start("face_swap", album, tmp_path / "run", *ids)
    run.save(1, {})
    clean = start("face_swap", studio, tmp_path / "clean")
    clean.save(1, {})
    for other in (clean.facts["consent"], ids[:1], [*ids, "c-000000000000"]):
        facts = files.read_json(run.folder / "run.json") | {"consent": other}
        files.write_json(run.folder / "run.json", facts)
        with pytest.raises(FacekitError, match=r"under other consent than run\.json says"):
            generators.open_run(run.folder)
    for other in (7, [], {}, [3], [ids]):
        files.write_json(run.folder / "run.json", facts | {"consent": other})
        with pytest.raises(FacekitError, match=r"'consent' is|no certificate"):
            generators.open_run(run.folder)
    # Nor can weights be put into another run's folder, be it before that run is begun.
    shutil.copy(run.checkpoints()[0], clean.folder)
    with pytest.raises(FacekitError, match="under other consent"):
        generators.open_run(clean.folder)
    with pytest.raises(FacekitError, match="under other consent"):
        start("face_swap", studio, clean.folder)
    (run.folder / "run.json").unlink()
    with pytest.raises(FacekitError, match="under other consent"):
        start("face_swap", studio, run.folder)


def test_a_checkpoint_that_says_nothing_is_not_used(studio: Path, tmp_path: Path) -> None:
    run = start("face_swap", studio, tmp_path / "run")
    Run(run.folder).save(1, {})
    for use in (generators.open_run, lambda folder: start("face_swap", studio, folder)):
        with pytest.raises(FacekitError, match="does not say under whose consent"):
            use(run.folder)


def test_other_consent_is_another_run(album: Path, tmp_path: Path) -> None:
    run = start("face_swap", album, tmp_path / "run", *grant_album(album))
    with pytest.raises(FacekitError, match="holds a run under other consent"):
        start("face_swap", album, tmp_path / "run", *grant_album(album))
    assert Run(run.folder).facts == run.facts


def test_a_ledger_put_back_to_an_older_one_is_noticed(
    album: Path, tmp_path: Path, home: Path
) -> None:
    ids = grant_album(album)
    shutil.copytree(home / "consent", tmp_path / "older")
    third = grant("ann", *album.glob("ann-*")).id
    run = start("face_swap", album, tmp_path / "run", *ids)
    run.save(1, {})
    Ledger().revoke(third, "not needed")
    generators.open_run(run.folder)
    shutil.rmtree(home / "consent")
    shutil.copytree(tmp_path / "older", home / "consent")
    with pytest.raises(FacekitError, match=r"rolled back|replaced"):
        generators.open_run(run.folder)
    shutil.rmtree(home / "consent")
    with pytest.raises(FacekitError):
        generators.open_run(run.folder)


def test_a_revocation_that_is_rolled_back_does_not_open_a_studio_run(
    studio: Path, album: Path, tmp_path: Path, home: Path, fabric: Any, tinted: "Tinter"
) -> None:
    """Such a run knows no ledger; what was revoked is noticed by what the ledger's uses repeat."""
    run = GatedRun.start(
        tmp_path / "run",
        plugin="tinter",
        config=config.Config(),
        seed=0,
        data_hash=files.sha256(studio / "manifest.jsonl"),
        threads=1,
        precision="32-true",
    )
    run.admit(generators.Permit(certificate=generators.certified(studio)))
    id = grant("ann", album / "ann-0.png").id
    names = ("records.jsonl", "records.head")
    before = {name: (home / "consent" / name).read_bytes() for name in names}
    run_generator(run.folder, album / "ann-0.png", tmp_path / "first.png", fabric, id)
    Ledger().revoke(id, "she asked")
    for name, content in before.items():
        (home / "consent" / name).write_bytes(content)
    with pytest.raises(FacekitError, match=r"rolled back|older|put back"):
        run_generator(run.folder, album / "ann-0.png", tmp_path / "second.png", fabric, id)
    assert not (tmp_path / "second.png").exists()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_weights_of_a_person_are_not_bundled(
    plugin: str, album: Path, studio: Path, tmp_path: Path
) -> None:
    runs = [
        start(plugin, album, tmp_path / "real", *grant_album(album)),
        start(plugin, studio, tmp_path / "studio"),
    ]
    for run in runs:
        run.save(1, {"net": {}})
        with pytest.raises(FacekitError, match="not bundled"):
            generators.bundle(Run(run.folder), tmp_path / "out", "us")
        files.write_json(run.folder / "run.json", run.identity())
        with pytest.raises(FacekitError, match="not bundled"):
            generators.bundle(Run(run.folder), tmp_path / "out", "us")
    assert not (tmp_path / "out").exists()


# Running --------------------------------------------------------------------------------------


class Tinter:
    """A generator that inverts pictures; ``during`` is called for each."""

    KIND = Kind.COMPOSITE

    def __init__(self) -> None:
        self.during: Callable[[int], None] = lambda index: None

    def generate(self, run: Run, frames: Any, fabric: Any, **words: Any) -> Iterator[Frame]:
        for frame in frames:
            self.during(frame.index)
            yield Frame(255 - frame.pixels, frame.time, frame.index)


@pytest.fixture
def tinter(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tinter, Path, list[str]]:
    """A run on ann and ben; its ids."""
    ids = grant_album(album)
    run = start("face_swap", album, tmp_path / "tint", *ids)
    run.save(1, {})
    plugin = Tinter()
    monkeypatch.setattr("facekit.generators.load", lambda name: plugin)
    return plugin, run.folder, ids


@pytest.fixture
def tinted(monkeypatch: pytest.MonkeyPatch) -> Tinter:
    """The same generator for any run."""
    plugin = Tinter()
    monkeypatch.setattr("facekit.generators.load", lambda name: plugin)
    return plugin


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ann, who is moved about for a second."""
    face = skimage.data.astronaut()[:300, 80:380]
    frames = [Frame(np.roll(face, i, 1), i / 10, i) for i in range(10)]
    write_video(tmp_path / "ann.mp4", frames, rate=10)
    return tmp_path / "ann.mp4"


def run_generator(run: Path, given: Path, out: Path, fabric: Any, *consent: str) -> Any:
    return command.convert_file(run, str(given), out, fabric, source="ann", consent=consent)


def test_a_real_photo_is_changed_under_consent_and_says_so(
    tinter: tuple[Tinter, Path, list[str]], tmp_path: Path, fabric: Any
) -> None:
    photo = tmp_path / "cara.png"
    write_image(photo, skimage.data.astronaut()[:310, 70:380])
    out = tmp_path / "out.png"
    with pytest.raises(FacekitError, match=r"with --consent ID"):
        run_generator(tinter[1], photo, out, fabric)
    with pytest.raises(FacekitError, match=r"cara\.png.*covers this file"):
        run_generator(tinter[1], photo, out, fabric, *tinter[2])
    cara = grant("cara", photo, scope=("generate",))
    with pytest.raises(FacekitError, match=rf"{tinter[2][0]}: covers nobody in .*cara\.png"):
        run_generator(tinter[1], photo, out, fabric, cara.id, tinter[2][0])
    made = run_generator(tinter[1], photo, out, fabric, cara.id).exported
    ids = sorted([*tinter[2], cara.id])
    claims = verify(out).claims
    assert sorted(claims["consent"]) == sorted(hashlib.sha256(i.encode()).hexdigest() for i in ids)
    facts = claims["facts"]
    assert facts["origin"] == "consent" and facts["certificates"] == []
    assert facts["publish"] is False and "ann" not in json.dumps(facts)
    run = generators.open_run(tinter[1])
    assert facts["run"] == run.id == run.facts["id"]
    assert made.reading.payload.id == int(run.id[2:], 16)
    for id in ids:
        assert [use.path for use in Ledger().affected(id) if use.what == "file"] == [out]


def test_one_record_alone_is_named_by_the_mark(
    album: Path, tmp_path: Path, fabric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = Ledger().grant(
        subjects=["ann", "ben"],
        photos={files.sha256(path): [path.name[:3]] for path in album.iterdir()},
        scope=EVERYTHING,
        purpose="research",
        expires=datetime.now(UTC) + timedelta(days=30),
        adult=True,
        attester=Attester.DATASET,
        licence="CC BY 4.0",
        doi="10.5281/zenodo.1234567",
    )
    run = start("face_swap", album, tmp_path / "run", everyone.id)
    monkeypatch.setattr("facekit.generators.load", lambda name: Tinter())
    made = run_generator(run.folder, album / "ben-0.png", tmp_path / "o.png", fabric, everyone.id)
    assert generators.mark_id(run) == everyone.mark_id
    reading = made.exported.reading
    assert reading.payload is None or reading.payload.id == everyone.mark_id
    assert made.exported.provenance.claims["facts"]["publish"] is True


def test_everyone_in_the_input_must_consent(
    tinter: tuple[Tinter, Path, list[str]],
    together: Path,
    studio: Path,
    tmp_path: Path,
    fabric: Any,
) -> None:
    out = tmp_path / "out.png"
    dora = grant("dora", together).id
    with pytest.raises(FacekitError, match="shows 2 people"):
        run_generator(tinter[1], together, out, fabric, dora)
    beside = Path(shutil.copytree(studio, tmp_path / "mixed")) / "party.png"
    shutil.copy(together, beside)
    with pytest.raises(FacekitError, match="certificate beside real photos"):
        run_generator(tinter[1], beside, out, fabric, dora)
    train_only = grant("dora", together, seen=("emil",), scope=("train",)).id
    with pytest.raises(FacekitError, match="not to 'generate'"):
        run_generator(tinter[1], together, out, fabric, train_only)
    assert not out.exists()


def test_studio_and_real_people_meet_in_a_conversion_only(
    tinter: tuple[Tinter, Path, list[str]], studio: Path, tmp_path: Path, fabric: Any
) -> None:
    out = tmp_path / "out.png"
    run_generator(tinter[1], studio / "person-0001" / "0000.png", out, fabric)
    facts = verify(out).claims["facts"]
    assert facts["origin"] == "consent" and len(facts["certificates"]) == 1


def test_photos_and_what_moves_them_are_covered_together(
    album: Path, studio: Path, fabric: Any
) -> None:
    ids = grant_album(album)
    ann, ben = (next(id for id in ids if _about(id) == who) for who in ("ann", "ben"))
    photos, driver = [album / "ann-0.png", album / "ann-1.png"], album / "ben-0.png"
    (both,) = generators.admit_together([photos, [driver]], ids, fabric.device)
    assert both.records == tuple(ids) and set(both.files) == {*photos, driver}
    nobody = studio / "person-0001" / "0000.png"
    synthetic, real = generators.admit_together([photos, [nobody]], [ann], fabric.device)
    assert synthetic.certificate and not synthetic.records and set(synthetic.files) == {nobody}
    assert real.records == (ann,) and set(real.files) == set(photos)
    with pytest.raises(FacekitError, match=r"ben-0\.png.*covers this file"):
        generators.admit_together([photos, [driver]], [ann], fabric.device)
    with pytest.raises(FacekitError, match=f"{ben}: covers nobody in"):
        generators.admit_together([photos], ids, fabric.device)
    with pytest.raises(FacekitError, match="all files given are the studio's"):
        generators.admit_together([[nobody]], [ann], fabric.device)
    with pytest.raises(FacekitError, match="consent record of everyone"):
        generators.admit_together([photos, [nobody]], (), fabric.device)


def test_a_video_of_two_people_needs_both(
    tinter: tuple[Tinter, Path, list[str]], studio: Path, tmp_path: Path, fabric: Any
) -> None:
    ann = cv2.resize(skimage.data.astronaut()[:300, 80:380], (192, 192))
    ben = read_image(studio / "person-0000" / "0000.png")
    shots = [ann] * 8 + [ben] * 8
    video, out = tmp_path / "both.mp4", tmp_path / "out.mp4"
    write_video(video, [Frame(shot, i / 25, i) for i, shot in enumerate(shots)], rate=25)
    id = grant("ann", video).id
    with pytest.raises(
        FacekitError, match=r"shows 2 people \(0\.0 s: a face.*cut the video"
    ) as caught:
        run_generator(tinter[1], video, out, fabric, id)
    assert "0.3 s: a face" in str(caught.value)
    ids = [grant(who, video, seen=("ann", "ben")).id for who in ("ann", "ben")]
    run_generator(tinter[1], video, out, fabric, *ids)
    assert len(verify(out).claims["consent"]) == 4


def test_a_video_is_changed_under_consent(
    tinter: tuple[Tinter, Path, list[str]], video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    id = grant("ann", video, scope=("generate",)).id
    code, said = call(
        *("run", tinter[1], "--input", video, "--consent", id, "--out", out, "--source", "ann")
    )
    assert code == 0 and "not everyone shown has consented to 'publish'" in said
    assert len(verify(out).claims["consent"]) == 3
    assert {use.what for use in Ledger().affected(id)} == {"file"}


@pytest.mark.parametrize("when", ["before it is read", "while frames are made"])
def test_a_video_that_is_swapped_after_it_was_let_pass_is_not_used(
    when: str,
    tinter: tuple[Tinter, Path, list[str]],
    video: Path,
    tmp_path: Path,
    fabric: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, out = tmp_path / "other.mp4", tmp_path / "out.mp4"
    frames = [Frame(np.full((300, 300, 3), 9 * i, np.uint8), i / 10, i) for i in range(10)]
    write_video(other, frames, rate=10)
    id = grant("ann", video).id
    admit = generators.admit_file

    def admit_then_swap(*words: Any) -> generators.Permit:
        permit = admit(*words)
        other.replace(video)
        return permit

    if when == "before it is read":
        monkeypatch.setattr(generators, "admit_file", admit_then_swap)
    else:
        tinter[0].during = lambda index: index == 5 and other.replace(video)
    with pytest.raises(FacekitError, match=r"ann\.mp4 was changed while it was used"):
        run_generator(tinter[1], video, out, fabric, id)
    assert not out.exists()
    assert all(use.what != "file" for use in Ledger().affected(id))


@pytest.mark.parametrize("whose", ["source", "target"])
def test_a_revocation_meanwhile_leaves_no_file(
    whose: str,
    tinter: tuple[Tinter, Path, list[str]],
    video: Path,
    tmp_path: Path,
    fabric: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin, run, ids = tinter
    out = tmp_path / "out" / "swap.mp4"
    id = grant("ann", video).id
    monkeypatch.setattr(_gate, "CHECK_EVERY", 0.0)
    seen = []

    def during(index: int) -> None:
        seen.append(index)
        if index == 3:
            revoke_elsewhere(id if whose == "target" else ids[1])

    plugin.during = during
    with pytest.raises(FacekitError, match=r"revoked.*she asked"):
        run_generator(run, video, out, fabric, id)
    assert max(seen) == 3
    assert not list(out.parent.iterdir())
    assert all(use.what != "file" for use in Ledger().affected(id))


def test_consent_is_asked_for_every_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = itertools.count(0.0, 0.3)
    now = 0.0

    class Counting(generators.Permit):
        def check(self, scope: str) -> None:
            assert scope == "generate"
            asked.append(now)

    monkeypatch.setattr(_gate.time, "monotonic", lambda: now)
    for _ in _gate.watched(range(20), [Counting()]):
        now = next(clock)
    assert asked[0] == 0.0 and len(asked) == 1 + 4 + 1
    assert asked[-1] == now


def test_nothing_is_permitted_by_nothing() -> None:
    with pytest.raises(FacekitError, match="neither"):
        generators.Permit().check("generate")


# Who is seen ----------------------------------------------------------------------------------


def test_people_are_counted_in_pictures_and_through_a_video(
    together: Path, studio: Path, tmp_path: Path
) -> None:
    crowd = Crowd(torch.device("cpu"))
    sights = crowd.people_in(together)
    assert len(sights) == 2 and sights[0].x < 300 < sights[1].x and sights[0].time is None
    ann = cv2.resize(skimage.data.astronaut()[:300, 80:380], (192, 192))
    ben = cv2.imread(str(studio / "person-0000" / "0000.png"))[..., ::-1]
    shots = [ann] * 10 + [ben] * 10 + [ann] * 10
    frames = [Frame(np.roll(shot, i % 3, 1), i / 25, i) for i, shot in enumerate(shots)]
    write_video(tmp_path / "cut.mp4", frames, rate=25)
    first, second = crowd.people_in(tmp_path / "cut.mp4")
    assert first.time == 0 and second.time == pytest.approx(0.4, abs=0.05)
    assert "0.4 s: a face of" in str(second)
    write_image(tmp_path / "none.png", skimage.data.coffee())
    assert crowd.people_in(tmp_path / "none.png") == []


# The command line -----------------------------------------------------------------------------


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["-q", "generator", *map(str, words)])
    if isinstance(result.exception, FacekitError):
        return 1, str(result.exception)
    assert result.exception is None, result.output
    return result.exit_code, result.stdout


@pytest.mark.slow
def test_real_people_from_photos_to_a_swap_that_is_then_refused(
    album: Path, tmp_path: Path
) -> None:
    ids = grant_album(album)
    consent = [word for id in ids for word in ("--consent", id)]
    run, out = tmp_path / "run", tmp_path / "swap.png"
    settings = [
        word for one in [*TINY, "pretrained=''", "strip_every=4"] for word in ("--set", one)
    ]
    train = ["train", "generators/face_swap", "--data", album, *settings, "--threads", 1]
    code, said = call(*train, "--out", run)
    assert code == 1 and "facekit consent grant" in said and not run.exists()
    code, said = call(*train, "--out", run, *consent, "--json")
    assert code == 0 and json.loads(said)["consent"] == ids
    assert json.loads(said)["people"] == ["ann", "ben"]
    kept = [checkpoint.notes(path) for path in run.rglob("*.safetensors")]
    assert len(kept) == 2 and all(json.loads(notes["consent"]) == ids for notes in kept)
    strips = sorted((run / "strips").iterdir())
    assert len(strips) == 2 and len(verify(strips[0]).claims["consent"]) == 2
    photo = album / "ben-1.png"
    swap = ["run", run, "--input", photo, "--out", out, "--source", "ann", "--target", "ben"]
    ben = consent[2 * [_about(id) for id in ids].index("ben") :][:2]
    assert call(*swap, *ben) == (
        0,
        f"{out}: ann shown in 1 of 1 frames, marked as composite, manifest signed\n",
    )
    assert {use.path for use in Ledger().affected(ids[0])} == {run, *strips, out}
    out.unlink()
    revoke_elsewhere(ids[1])
    for words in (swap, [*train, "--out", run], [*train, "--out", tmp_path / "other"]):
        code, said = call(*words, *(ben if words is swap else consent))
        assert code == 1 and "revoked" in said and "\n" not in said
    assert not out.exists() and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_training_stops_at_the_next_checkpoint_after_a_revocation(
    album: Path, tmp_path: Path, fabric: Any
) -> None:
    ids = grant_album(album)
    module = generators.load("face_swap")
    values = dict(setting.split("=") for setting in TINY)
    settings = config.validate(
        {name: int(value) for name, value in values.items()} | {"strip_every": 3}, module.Config, ""
    )
    run = generators.start("face_swap", settings, album, tmp_path / "run", fabric, consent=ids)
    with pytest.raises(FacekitError, match="nothing is kept of step 4"):
        module.train(settings, album, run, fabric, show=lambda *_: revoke_elsewhere(ids[0]))
    assert [path.name for path in run.checkpoints()] == ["step-00000002.safetensors"]


def _about(id: str) -> str:
    return Ledger().find(id).subjects[0]


def test_the_album_is_made_of_people_whom_no_certificate_covers(album: Path, studio: Path) -> None:
    assert len(list(album.iterdir())) == 4 and len(read_manifest(studio)) == 4
    with pytest.raises(FacekitError, match="no certificate"):
        generators.certified(album)

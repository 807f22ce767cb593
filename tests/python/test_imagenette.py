"""The ImageNette report: synthetic images, training and resuming, what folding keeps, the pages, and a sentence for each error."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import resource
import urllib.error
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torchvision.datasets import Imagenette

import imagenette as command
import measuring
from files import Error, written_beside
from nette import data, networks, report, synthetic, tables, training
from nette.progress import Log

SIZE = 32
IMAGES = 16  # for training, of each class
OPTIONS = ["--model", "resnet18", "--synthetic", str(IMAGES), "--size", str(SIZE), "--batch", "16", "--epochs", "3"]

# The images are loaded in processes of their own, and forking a process that has threads is deprecated from Python 3.12 on.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def with_gradients(without_gradients):
    with torch.enable_grad():
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """The folder of a whole run of the command; compiling for the other runtimes would take most of its time."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch, torch.enable_grad():
        patch.setattr(measuring, "latency", functools.partial(measuring.latency, variants=tuple(measuring.TORCHSCRIPT)))
        assert command.main([*OPTIONS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def results(out) -> dict:
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def images(out) -> data.ImageSet:
    return data.synthesized(out, SIZE, IMAGES, seed=0)


def fails(capsys, code: int, *arguments: object) -> str:
    """Runs the command, which has to fail with that exit code, and returns its sentence."""
    try:
        returned = command.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        returned = stop.code
    error = capsys.readouterr().err
    assert (returned, "Traceback" in error) == (code, False)
    (sentence,) = error.splitlines()
    return sentence


# ---- the synthetic images


def test_torchvision_reads_the_synthetic_images(images):
    for split, count in (("train", IMAGES), ("val", IMAGES // 2)):
        read = Imagenette(str(images.root), split=split, size="160px")
        assert read.wnids == list(synthetic.SHAPES) == list(Imagenette._WNID_TO_CLASS)
        assert len(read) == 10 * count
    picture, label = read[0]
    assert (picture.mode, min(picture.size), label) == ("RGB", 160, 0)


def test_synthetic_images_are_jpeg_files_of_many_sizes(images):
    kinds = set()
    for path in images.root.rglob("*.JPEG"):
        with Image.open(path) as picture:
            kinds.add((picture.format, *picture.size))
    assert {kind[0] for kind in kinds} == {"JPEG"} and len(kinds) > 20


@pytest.mark.parametrize("archive", data.ARCHIVES, ids=lambda archive: archive.size)
def test_every_archive_has_its_synthetic_counterpart(archive, tmp_path):
    size = {"160px": 128, "320px": 224, "full": 400}[archive.size]
    images = data.synthesized(tmp_path, size, 1, seed=0)
    assert images.archive == archive
    assert len(Imagenette(str(images.root), split="val", size=archive.size)) == 10


def test_a_seed_gives_the_same_images(images, tmp_path):
    again = data.synthesized(tmp_path, SIZE, 2, seed=0)
    for path in again.root.rglob("train/*/*.JPEG"):
        assert path.read_bytes() == (images.root / path.relative_to(again.root)).read_bytes()
    other = data.synthesized(tmp_path, SIZE, 2, seed=1)
    assert {path.read_bytes() for path in other.root.rglob("*.JPEG")}.isdisjoint(
        path.read_bytes() for path in again.root.rglob("*.JPEG")
    )


def test_the_classes_can_be_told_apart(results):
    (model,) = results["models"]
    assert model["epochs"][-1]["accuracy"] > 0.3  # 0.1 by chance, with a deviation of 0.034 on 80 images


# ---- batches


def test_batches_do_not_depend_on_the_number_of_processes(images, monkeypatch):
    first = []
    for workers in (1, 2):
        monkeypatch.setattr(data.os, "sched_getaffinity", lambda _, workers=workers: range(workers))
        torch.manual_seed(3)
        first.append(next(iter(data.training_batches(images, SIZE, 16))))
    assert all(torch.equal(one, other) for one, other in zip(*first))


def test_a_subset_for_validation_has_every_class(images):
    batches = data.validation_batches(images, SIZE, 16, limit=30)
    assert torch.cat([labels for _, labels in batches]).bincount().tolist() == [3] * 10


@pytest.mark.parametrize("size, archive", [(128, "160px"), (140, "160px"), (141, "320px"), (224, "320px"), (299, "full")])
def test_the_archive_suits_the_size(size, archive):
    assert data.suitable_archive(size).size == archive


@pytest.mark.parametrize("size, found", [(128, "320px"), (224, "320px"), (400, "full")])
def test_a_copy_that_is_there_is_used(size, found, tmp_path):
    for folder in ("imagenette2", "imagenette2-320"):
        (tmp_path / folder).mkdir()
    assert data.existing(tmp_path, size).archive.size == found


def test_synthetic_images_are_never_taken_for_imagenette(images):
    assert data.existing(images.root, SIZE) == images
    assert images.description().startswith("synthetic images")


# ---- training


class Small(nn.Sequential):
    """With dropout, so that training draws random numbers of its own."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class Lines(Log):
    """Keeps what is said, and stops the run behind a line that contains ``stop``."""

    def __init__(self, stop: str | None = None):
        super().__init__(Console(quiet=True))
        self.lines: list[str] = []
        self._stop = stop

    def line(self, text: str) -> None:
        self.lines.append(text)
        if self._stop and self._stop in text:
            raise KeyboardInterrupt


def train_small(images: data.ImageSet, checkpoint: Path, log: Log, **changed: object) -> training.Training:
    settings = {"epochs": 3, "size": SIZE, "batch": 32, "learning_rate": 0.01, "seed": 5, "device": "cpu", **changed}
    torch.manual_seed(settings["seed"])
    batches = data.training_batches(images, SIZE, settings["batch"])
    trained = training.Training(Small(), training.Settings("small", images.description(), **settings), len(batches))
    training.train(trained, batches, data.validation_batches(images, SIZE, 32), checkpoint, log)
    return trained


@pytest.fixture(scope="module")
def small(images, tmp_path_factory) -> tuple[training.Training, Path]:
    """A small network, trained without interruption, and its checkpoint."""
    checkpoint = tmp_path_factory.mktemp("small") / "small.checkpoint.pt"
    with torch.enable_grad():
        return train_small(images, checkpoint, Lines()), checkpoint


def test_a_resumed_run_ends_like_one_without_interruption(images, small, tmp_path):
    whole, _ = small
    checkpoint = tmp_path / "small.checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train_small(images, checkpoint, Lines(stop="epoch 1 of 3"))
    log = Lines()
    resumed = train_small(images, checkpoint, log)
    assert log.lines[0] == f"small: 1 of 3 epochs are in {checkpoint}" and len(log.lines) == 3
    assert [(epoch.step_losses, epoch.validation_loss, epoch.accuracy) for epoch in resumed.epochs] == [
        (epoch.step_losses, epoch.validation_loss, epoch.accuracy) for epoch in whole.epochs
    ]
    assert all(
        torch.equal(one, other) for one, other in zip(resumed.model.state_dict().values(), whole.model.state_dict().values())
    )
    assert not resumed.model.training


def test_finished_training_is_not_repeated(images, small):
    whole, checkpoint = small
    before = checkpoint.stat().st_mtime_ns
    log = Lines()
    again = train_small(images, checkpoint, log)
    assert log.lines == [f"small: 3 of 3 epochs are in {checkpoint}"]
    assert again.epochs == whole.epochs
    assert checkpoint.stat().st_mtime_ns == before


@pytest.mark.parametrize("changed", [{"epochs": 4}, {"seed": 6}, {"learning_rate": 0.02}, {"batch": 16}])
def test_a_checkpoint_of_other_settings_is_refused(images, small, changed):
    (name, value), old = next(iter(changed.items())), getattr(small[0].settings, next(iter(changed)))
    with pytest.raises(
        Error, match=rf"small.checkpoint.pt was trained with {name} = {old}, not {value}; choose another --out, or delete it"
    ):
        train_small(images, small[1], Lines(), **changed)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "weights"])
def test_what_is_no_checkpoint_is_refused(images, content, tmp_path):
    checkpoint = tmp_path / "small.checkpoint.pt"
    if content is None:
        torch.save(Small().state_dict(), checkpoint)
    else:
        checkpoint.write_bytes(content)
    with pytest.raises(Error, match=r"small.checkpoint.pt is no checkpoint that can be read; delete it to train again$"):
        train_small(images, checkpoint, Lines())


def test_a_loss_that_is_not_finite_is_an_error(images, tmp_path):
    with pytest.raises(Error, match="the loss of small became infinite in epoch 1; lower --learning-rate"):
        train_small(images, tmp_path / "small.checkpoint.pt", Lines(), learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond a kilobyte."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_checkpoint(small):
    whole, checkpoint = small
    before = checkpoint.read_bytes()
    with (
        full_disk(),
        pytest.raises(Error, match=r"small.checkpoint.pt could not be written: .+; free some space or choose another folder$"),
    ):
        whole.save(checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


# ---- what folding keeps


def test_folding_keeps_loss_and_accuracy(results):
    (model,) = results["models"]
    single, double = model["validation"]
    assert (single["dtype"], single["images"], double["dtype"]) == ("float32", 10 * IMAGES // 2, "float64")
    for comparison, error in ((single, 1e-5), (double, 1e-12)):
        assert comparison["folded"]["accuracy"] == comparison["original"]["accuracy"]
        assert comparison["folded"]["loss"] == pytest.approx(comparison["original"]["loss"], rel=error)
        assert comparison["predictions_that_differ"] == 0
        assert comparison["largest_difference"] < error
    assert single["original"]["accuracy"] == model["epochs"][-1]["accuracy"]
    assert command.inexact(results) is None


def test_every_norm_is_folded(results):
    (model,) = results["models"]
    assert (len(model["fold"]["folded"]), model["fold"]["kept"]) == (20, [])
    contents = {row["variant"]: row for row in model["contents"]}
    assert (contents["original"]["batch_norms_run"], contents["bnfold.fold"]["batch_norms_run"]) == (20, 0)
    assert model["fold"]["parameters_before"] - model["fold"]["parameters_after"] == 4800


def test_an_inexact_fold_is_told(results):
    results["models"][0]["validation"][1]["largest_difference"] = 1e-3
    sentence = "folding changed the logits of resnet18 in float64 by 1.0e-03 of the largest one, where 1e-10 is the tolerance"
    assert command.inexact(results) == sentence


def test_the_parameters_are_those_that_the_post_published():
    fold = command.bnfold.fold(networks.create("resnet50").eval()).report
    assert (fold.parameters_before, fold.parameters_after) == tables.PUBLISHED["resnet50"]["parameters"]


# ---- the pages


def test_the_pages_say_that_the_images_are_synthetic(out):
    for page in (out / "resnet18.html", out / "resnet18.md"):
        text = page.read_text()
        assert "These are not the photographs of ImageNette." in text
        assert "160 training and 80 validation images" in text
        assert f"bench/imagenette.py {' '.join(OPTIONS)}" in text


def test_the_html_contains_all_it_needs(out):
    text = (out / "resnet18.html").read_text()
    assert text.count("<svg") == 2 and "prefers-color-scheme: dark" in text
    assert not re.search(r"<link|<script|@import|url\((?!#)", text)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r'src="([^"]*)"', text))


def test_the_markdown_links_to_plots_that_are_there(out):
    targets = re.findall(r"\]\(([^)]+)\)", (out / "resnet18.md").read_text())
    assert sorted(targets) == ["resnet18-classes.jpg", "resnet18-latency.svg", "resnet18-training.svg"]
    assert all((out / target).stat().st_size > 1000 for target in targets)


def published(results: dict) -> dict:
    """The results as if they were of photographs and ResNet50."""
    results["data"] = {
        "synthetic": False,
        "description": "ImageNette (imagenette2-320): 9,469 training and 3,925 validation images",
    }
    results["models"][0]["name"] = "resnet50"
    results["command"] = "bench/imagenette.py --data images"
    return results


def test_published_figures_stand_beside_ours_with_their_source(results, tmp_path):
    html, markdown, *_ = report.write(published(results), None, tmp_path)
    for page in (html, markdown):
        text = page.read_text()
        assert "23,528,522 → 23,501,962" in text and "6.17 → 4.47 ms" in text
        assert "Published: a post on batch norm folding in the fastai community, on its GPU." in text
        assert "synthetic" not in text.lower()


def test_what_could_not_be_measured_says_why(results, tmp_path):
    results["models"][0]["latency"][1].update(
        unavailable="no engine for a | b", median_ms=None, low_ms=None, high_ms=None, ratio=None
    )
    html, markdown, *_ = report.write(results, None, tmp_path)
    assert '<td class="sentence" colspan="3">no engine for a | b</td>' in html.read_text()
    assert r"| torch.jit.freeze | no engine for a \| b | | |" in markdown.read_text()


def test_several_networks_are_one_report(results, tmp_path):
    results["models"].append({**results["models"][0], "name": "resnet50"})
    html, markdown, *rest = report.write(results, None, tmp_path)
    assert (html.name, markdown.name) == ("resnet18-resnet50.html", "resnet18-resnet50.md")
    assert markdown.read_text().count("### Latency") == 2
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (html, markdown, *rest)}


# ---- what goes wrong


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            ["--model", "resnet5"],
            "torchvision has no classification network 'resnet5'; close to it are resnet50",
        ),
        (["--model", "squeezenet1_1"], "squeezenet1_1 has no batch norm to fold; choose another network"),
        (["--model", "vgg16_bn", "--size", "16"], "vgg16_bn does not take images of 16 × 16: "),
        (["--batch", "1"], "--batch must be at least 2: a batch norm can't train on one image"),
        (["--epochs", "0"], "argument --epochs: '0' is no whole number above 0"),
        (["--learning-rate", "nan"], "argument --learning-rate: 'nan' is no number above 0"),
        (["--seed", "-1"], "argument --seed: '-1' is no whole number from 0 to 2^63 - 1"),
        (["--download"], "--download needs --data DIR, the folder to download into"),
        (["--data", "there"], "argument --data: not allowed with argument --synthetic"),
    ],
)
def test_wrong_usage_is_a_sentence(options, sentence, capsys):
    assert fails(capsys, 2, "--synthetic", 1, *options).startswith(f"imagenette: {sentence}")


def test_images_have_to_be_chosen(capsys):
    assert (
        fails(capsys, 2, "--model", "resnet18")
        == "imagenette: one of the arguments --data --synthetic is required; --help lists the options"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_a_sentence(capsys):
    sentence = "imagenette: --device cuda: torch finds no GPU; leave the option out to run on the CPU; --help lists the options"
    assert fails(capsys, 2, "--synthetic", 1, "--device", "cuda") == sentence


def test_missing_images_are_a_sentence(capsys, tmp_path):
    sentence = fails(capsys, 1, "--data", tmp_path / "none", "--out", tmp_path / "out")
    folders = "imagenette2-160, imagenette2-320, imagenette2"
    assert sentence == (
        f"imagenette: {tmp_path}/none contains none of {folders}; give the folder that contains one of them, or add --download"
    )


def test_incomplete_images_are_a_sentence(capsys, tmp_path):
    (tmp_path / "imagenette2-320" / "train" / "n01440764").mkdir(parents=True)
    sentence = fails(capsys, 1, "--model", "resnet18", "--data", tmp_path, "--out", tmp_path / "out")
    assert sentence.startswith(f"imagenette: {tmp_path}/imagenette2-320 is no complete copy of ImageNette: ")


def test_a_broken_image_is_a_sentence(capsys, tmp_path):
    images = data.synthesized(tmp_path, SIZE, 2, seed=0)
    broken = images.root / "imagenette2-160" / "train" / "n03028079" / "n03028079_00001.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    options = ["--model", "resnet18", "--data", images.root, "--size", SIZE, "--batch", 4]
    sentence = fails(capsys, 1, *options, "--out", tmp_path / "out")
    assert sentence.startswith(f"imagenette: {broken} can't be read as an image: ")


def test_fewer_images_than_a_batch_are_a_sentence(capsys, tmp_path):
    sentence = fails(capsys, 1, "--model", "resnet18", "--synthetic", 1, "--size", SIZE, "--out", tmp_path)
    assert sentence == "imagenette: a batch of 64 is more than the 10 training images; lower --batch"


def test_a_folder_that_is_a_file_is_a_sentence(capsys, tmp_path):
    (tmp_path / "out").touch()
    sentence = fails(capsys, 1, "--synthetic", 1, "--out", tmp_path / "out")
    assert sentence == f"imagenette: {tmp_path}/out can't be written into: File exists; choose another --out"


def test_a_full_disk_leaves_no_synthetic_images(tmp_path):
    with full_disk(), pytest.raises(Error, match="could not be written: File too large; free some space"):
        data.synthesized(tmp_path, SIZE, 1, seed=0)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or "partial" in path.name] == []


def test_a_download_that_fails_is_a_sentence_and_leaves_nothing(monkeypatch, tmp_path):
    def offline(root: str, **_: object) -> None:
        Path(root, "imagenette2-320.tgz").touch()
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(data, "Imagenette", offline)
    with pytest.raises(
        Error, match="could not be downloaded to .+ no route to host.+; unpack a copy there and leave out --download$"
    ):
        data.downloaded(tmp_path, 224)
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_there_when_it_is_whole(monkeypatch, tmp_path):
    def online(root: str, size: str, download: bool) -> None:
        assert (size, download, list(tmp_path.glob("imagenette*"))) == ("320px", True, [])
        Path(root, "imagenette2-320").mkdir()

    monkeypatch.setattr(data, "Imagenette", online)
    assert data.downloaded(tmp_path, 224).root == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["imagenette2-320"]


def test_what_fails_while_it_is_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with pytest.raises(Error, match="report.md could not be written: no; free"), written_beside(path) as partial:
        partial.write_text("half")
        raise OSError("no")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("report.md", "old")]

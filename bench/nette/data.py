"""ImageNette, or the synthetic images in its place, as batches for training and validation."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from files import Error
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset
from torchvision.datasets import Imagenette
from torchvision.transforms import v2
from torchvision.utils import make_grid

from . import synthetic

CLASSES = 10
MOST_WORKERS = 8

# Of ImageNet, of which ImageNette is a part.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Archive(NamedTuple):
    """One of the three in which ImageNette is published."""

    size: str  # as torchvision calls it
    folder: str
    shorter_side: int | None  # of every image, in pixels; None: as photographed


ARCHIVES = (
    Archive("160px", "imagenette2-160", 160),
    Archive("320px", "imagenette2-320", 320),
    Archive("full", "imagenette2", None),
)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A training and a validation set on the disk."""

    root: Path  #: the folder that contains that of the archive
    archive: Archive
    synthetic: bool

    def images(self, split: str, transform: v2.Transform | None = None) -> Imagenette:
        """The images of "train" or "val", with their class numbers. Raises Error where the copy is not complete."""
        folder = self.root / self.archive.folder
        try:
            images = Imagenette(str(self.root), split=split, size=self.archive.size, transform=transform, loader=_load_image)
        except (OSError, RuntimeError, KeyError) as error:
            raise Error(
                f"{folder} is no complete copy of ImageNette: {error}; delete it and unpack or download it again"
            ) from error
        if len(images.wnids) != CLASSES:
            raise Error(f"{folder}/{split} has {len(images.wnids)} classes instead of {CLASSES}; unpack or download it again")
        return images

    def description(self) -> str:
        """What the images are and how many, in a few words. Raises Error."""
        training, validation = (len(self.images(split)) for split in ("train", "val"))
        kind = "synthetic images in the layout of ImageNette" if self.synthetic else "ImageNette"
        return f"{kind} ({self.archive.folder}): {training:,} training and {validation:,} validation images"


def existing(root: Path, image_size: int) -> ImageSet:
    """The copy of ImageNette in a folder: the archive that suits images of that many pixels, or the next best. Raises Error."""
    suitable = ARCHIVES.index(suitable_archive(image_size))
    for archive in (*ARCHIVES[suitable:], *reversed(ARCHIVES[:suitable])):
        if (root / archive.folder).is_dir():
            return ImageSet(root, archive, synthetic=(root / archive.folder / synthetic.MARKER).exists())
    folders = ", ".join(archive.folder for archive in ARCHIVES)
    raise Error(f"{root} contains none of {folders}; give the folder that contains one of them, or add --download")


def downloaded(root: Path, image_size: int) -> ImageSet:
    """The archive that suits images of that many pixels, downloaded into a folder unless it is there. Raises Error."""
    archive = suitable_archive(image_size)
    target = root / archive.folder
    if not target.is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
                Imagenette(partial, size=archive.size, download=True)
                Path(partial, archive.folder).replace(target)
        except (OSError, RuntimeError) as error:
            raise Error(
                f"ImageNette could not be downloaded to {root}: {error}; unpack a copy there and leave out --download"
            ) from error
    return ImageSet(root, archive, synthetic=False)


def synthesized(root: Path, image_size: int, images_per_class: int, seed: int) -> ImageSet:
    """Synthetic images in place of the archive that suits images of that many pixels, half as many for validation as for training.

    They are made unless they are there. Raises Error.
    """
    archive = suitable_archive(image_size)
    folder = root / f"synthetic-{images_per_class}-{seed}"
    if not (folder / archive.folder).is_dir():
        counts = {"train": images_per_class, "val": -(-images_per_class // 2)}
        synthetic.write(folder / archive.folder, archive.shorter_side, counts, seed)
    return ImageSet(folder, archive, synthetic=True)


def suitable_archive(image_size: int) -> Archive:
    """The smallest archive whose images need not be enlarged for validation."""
    return next(archive for archive in ARCHIVES if (archive.shorter_side or math.inf) >= _resized(image_size))


def training_batches(images: ImageSet, image_size: int, batch: int) -> DataLoader:
    """Shuffled batches of images, [batch, 3, image_size, image_size], with class numbers: random crops of 35 to 100 %, and flips.

    The last images of an epoch that make no whole batch are left out. Raises Error where there is no whole batch.
    """
    augmentation = v2.Compose([v2.RandomResizedCrop(image_size, scale=(0.35, 1.0)), v2.RandomHorizontalFlip(), _to_tensor()])
    training = images.images("train", augmentation)
    if len(training) < batch:
        raise Error(f"a batch of {batch} is more than the {len(training)} training images; lower --batch")
    return _loader(_Augmented(training), batch, sampler=_ShuffledWithSeeds(training), drop_last=True)


def validation_batches(images: ImageSet, image_size: int, batch: int, limit: int | None = None) -> DataLoader:
    """Batches of the validation images, [batch, 3, image_size, image_size], with class numbers: their middle at 7/8 of the size.

    ``limit``: only so many of them, evenly spaced.
    """
    middle = v2.Compose([v2.Resize(_resized(image_size)), v2.CenterCrop(image_size), _to_tensor()])
    validation: Dataset = images.images("val", middle)
    if limit is not None and limit < len(validation):
        # They are in the order of their classes: the first ones would all be of one class.
        validation = Subset(validation, [number * len(validation) // limit for number in range(limit)])
    return _loader(validation, batch)


def one_of_each_class(images: ImageSet, side: int) -> Image.Image:
    """The middle of the first validation image of each class, side by side in two rows."""
    middle = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])
    classes = sorted((images.root / images.archive.folder / "val").iterdir())
    first = [middle(_load_image(str(min(folder.iterdir())))) for folder in classes]
    return v2.functional.to_pil_image(make_grid(torch.stack(first), nrow=CLASSES // 2, padding=0))


def _resized(image_size: int) -> int:
    return round(image_size * 8 / 7)


def _to_tensor() -> v2.Transform:
    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)])


class _ShuffledWithSeeds(RandomSampler):
    """Every image once, each with a seed for its augmentation, so that the number of workers changes nothing."""

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        seeds = torch.randint(2**62, (len(self),)).tolist()
        yield from zip(super().__iter__(), seeds)


class _Augmented(Dataset):
    def __init__(self, images: Imagenette):
        self._images = images

    def __getitem__(self, chosen: tuple[int, int]) -> tuple[torch.Tensor, int]:
        number, seed = chosen
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._images[number]


def _loader(images: Dataset, batch: int, **options: Any) -> DataLoader:
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return DataLoader(images, batch, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)


def _load_image(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise Error(f"{path} can't be read as an image: {error}; unpack or download ImageNette again") from error

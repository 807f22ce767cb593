"""Trains a network from random weights, with a checkpoint after every epoch from which the same command goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pickle
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from files import Error, written_beside
from torch.nn import functional
from torch.utils.data import DataLoader

from .networks import logits_of
from .progress import Log
from .validation import predict, score

WEIGHT_DECAY = 0.01


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that decides which weights come out. A checkpoint belongs to one of these."""

    model: str
    data: str
    epochs: int
    size: int  #: of the images, in pixels
    batch: int
    learning_rate: float  #: the highest of the schedule
    seed: int
    device: str  #: "cpu" or "cuda"


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch of training came to."""

    number: int  #: from 1
    step_losses: list[float]  #: of the training batches
    validation_loss: float
    accuracy: float  #: the share of the validation images
    seconds: float


class Training:
    """A network, what trains it, and the epochs so far."""

    def __init__(self, model: torch.nn.Module, settings: Settings, steps_per_epoch: int):
        self.settings = settings
        self.epochs: list[Epoch] = []
        self.model = model.to(settings.device)
        self.optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.learning_rate, total_steps=settings.epochs * steps_per_epoch
        )
        # Half the bits of a float are enough for the products of training on a GPU; its gradients are scaled to fit into them.
        self.mixed_precision = settings.device == "cuda"
        self.scaler = torch.amp.GradScaler(settings.device, enabled=self.mixed_precision)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Trains on a batch and returns its loss."""
        images, labels = images.to(self.settings.device, non_blocking=True), labels.to(self.settings.device, non_blocking=True)
        with torch.autocast(self.settings.device, torch.float16, enabled=self.mixed_precision):
            loss = functional.cross_entropy(logits_of(self.model(images)), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            # The scaler leaves out the first steps of the optimizer, until the gradients fit.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.* before .*optimizer.step")
            self.schedule.step()
        return loss.detach()

    def epoch(self, training: DataLoader, validation: DataLoader, log: Log) -> Epoch:
        """Trains on every batch once, then validates. Raises Error where the loss is not finite."""
        number, start = len(self.epochs) + 1, time.monotonic()
        title = f"{self.settings.model}, epoch {number} of {self.settings.epochs}"
        self.model.train()
        losses = torch.stack([self.step(*batch) for batch in log.track(training, f"{title}: training")]).tolist()
        if not all(map(math.isfinite, losses)):
            raise Error(f"the loss of {self.settings.model} became infinite in epoch {number}; lower --learning-rate")
        self.model.eval()
        (logits,), labels = predict([self.model], log.track(validation, f"{title}: validation"))
        reached = score(logits, labels)
        return Epoch(number, losses, reached.loss, reached.accuracy, time.monotonic() - start)

    def save(self, path: Path) -> None:
        """Writes a checkpoint. Raises Error; what was at the path before is untouched then."""
        content = {
            "settings": dataclasses.asdict(self.settings),
            "epochs": [dataclasses.asdict(epoch) for epoch in self.epochs],
            "random": torch.get_rng_state(),
            "random_on_gpu": torch.cuda.get_rng_state_all() if self.mixed_precision else [],
            **{name: part.state_dict() for name, part in self._parts().items()},
        }
        with written_beside(path) as partial:
            torch.save(content, partial)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint. Raises Error where it can't be read, or was written with other settings."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            settings, epochs = content["settings"], content["epochs"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise Error(f"{path} is no checkpoint that can be read; delete it to train again") from error
        for name, value in dataclasses.asdict(self.settings).items():
            if settings.get(name) != value:
                trained_with = f"{name} = {settings.get(name)}, not {value}"
                raise Error(f"{path} was trained with {trained_with}; choose another --out, or delete it to train again")
        self.epochs = [Epoch(**epoch) for epoch in epochs]
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        torch.set_rng_state(content["random"])
        if self.mixed_precision:
            torch.cuda.set_rng_state_all(content["random_on_gpu"])

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}


def train(training: Training, batches: DataLoader, validation: DataLoader, checkpoint: Path, log: Log) -> None:
    """Trains to the last epoch, from the checkpoint where there is one. Raises Error."""
    name, epochs = training.settings.model, training.settings.epochs
    if checkpoint.exists():
        training.load(checkpoint)
        log.line(f"{name}: {len(training.epochs)} of {epochs} epochs are in {checkpoint}")
    with _deterministic():
        while len(training.epochs) < epochs:
            epoch = training.epoch(batches, validation, log)
            training.epochs.append(epoch)
            training.save(checkpoint)
            losses = f"training loss {statistics.fmean(epoch.step_losses):.4f}, validation loss {epoch.validation_loss:.4f}"
            log.line(f"{name}, epoch {epoch.number} of {epochs}: {losses}, accuracy {epoch.accuracy:.2%}, {epoch.seconds:.0f} s")
    training.model.eval()


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """The algorithms that give the same result in every run, where there are such."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)

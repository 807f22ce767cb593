"""Loss and accuracy of networks on the validation images, and how much two networks differ on them."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterable

import torch
from torch.nn import functional

from .networks import logits_of

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a network reaches on the validation images."""

    loss: float  #: mean cross entropy, computed in double precision from the logits
    accuracy: float  #: the share of images whose own class has the largest logit


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The original and the folded network on the same images."""

    dtype: str  #: "float32" or "float64"
    images: int
    original: Score
    folded: Score
    predictions_that_differ: int
    largest_difference: float  #: max |original - folded| / max |original| over the logits of all images


def script(model: torch.nn.Module, dtype: torch.dtype) -> torch.jit.ScriptModule:
    """A copy of the network as a TorchScript module, in eval mode and of that dtype."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
        return torch.jit.script(copy.deepcopy(model).eval().to(dtype))


def predict(models: list[torch.nn.Module], batches: Batches) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The logits of each network, [N, classes], and the class numbers, [N], on the CPU. The networks share device and dtype.

    Networks are in eval mode. On a GPU, TF32 is off: it would round products to ten bits before and after folding alike.
    """
    like = next(models[0].parameters())
    logits: list[list[torch.Tensor]] = [[] for _ in models]
    labels = []
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for images, classes in batches:
            images = images.to(like)
            for model, outputs in zip(models, logits):
                outputs.append(logits_of(model(images)).cpu())
            labels.append(classes)
    return [torch.cat(outputs) for outputs in logits], torch.cat(labels)


def score(logits: torch.Tensor, labels: torch.Tensor) -> Score:
    """Loss and accuracy of logits, [N, classes], for class numbers, [N]."""
    loss = functional.cross_entropy(logits.double(), labels)
    return Score(loss.item(), (logits.argmax(1) == labels).double().mean().item())


def compare(original: torch.jit.ScriptModule, folded: torch.jit.ScriptModule, batches: Batches) -> Comparison:
    """Runs both networks on every batch."""
    (before, after), labels = predict([original, folded], batches)
    difference = (before.double() - after.double()).abs().max() / before.double().abs().max()
    return Comparison(
        dtype=str(before.dtype).removeprefix("torch."),
        images=len(labels),
        original=score(before, labels),
        folded=score(after, labels),
        predictions_that_differ=int((before.argmax(1) != after.argmax(1)).sum()),
        largest_difference=difference.item(),
    )

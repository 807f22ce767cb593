"""pnnx, which reads TorchScript, and ncnn, which runs what it writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs

CONSUMER = Consumer("pnnx and ncnn", "pnnx", "ncnn")


def last_sentence(printed: str) -> str:
    """The last line that is no frame of a stack."""
    said = [line for line in printed.splitlines() if line.strip() and not line.lstrip().startswith("frame #")]
    return said[-1] if said else "nothing"


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import ncnn
    import pnnx

    model = folder / "model.pt"
    model.write_bytes(path.read_bytes())
    sizes = ",".join("[" + ",".join(map(str, value.shape)) + "]f32" for value in inputs)
    done = subprocess.run([pnnx.EXEC_PATH, str(model), f"inputshape={sizes}", "fp16=0"], capture_output=True, text=True, cwd=folder)
    graph = folder / "model.ncnn.param"
    if done.returncode != 0 or not graph.exists():
        raise RuntimeError(f"pnnx ends with {done.returncode} behind: {last_sentence(done.stdout + done.stderr)}")
    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(str(graph)) != 0 or net.load_model(str(graph.with_suffix(".bin"))) != 0:
        unknown = [line.split()[0] for line in graph.read_text().splitlines() if line.startswith(("aten::", "prim::", "pnnx.", "Tensor."))]
        raise RuntimeError(f"ncnn does not load it: {', '.join(sorted(set(unknown))) or 'no reason given'}")
    norms = sum(line.startswith("BatchNorm ") for line in graph.read_text().splitlines())

    arrays = [value[0].contiguous().numpy() for value in inputs]  # a Mat refers to their memory

    def run() -> torch.Tensor:
        extractor = net.create_extractor()
        for index, array in enumerate(arrays):
            extractor.input(f"in{index}", ncnn.Mat(array))
        code, output = extractor.extract("out0")
        if code != 0:
            raise RuntimeError(f"ncnn ends with {code}")
        return torch.from_numpy(output.numpy().copy())[None]

    return Converted(norms, run)

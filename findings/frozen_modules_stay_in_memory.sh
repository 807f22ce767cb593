#!/usr/bin/env bash
# One would have guessed that a frozen module is freed with its weights when nobody holds it any more, as a scripted one is.
# Freezing makes constants of the weights in the code of a new class, and that class belongs to what compiled the module: for all that Python scripts
# or traces one unit, which lives as long as the process. So each freeze of such a module holds all of its weights for ever.
# What torch.jit.load read has a unit of its own, and goes.
# A user of a folding tool meets it where models are scripted, folded, frozen and measured in a loop, or in a server: memory grows by a network
# for each. Save the scripted module and freeze what was loaded from the file.
# Seen with torch 2.15.0 and weights of 64 MB: five frozen modules that are gone hold 320 MB, five that were loaded first hold none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
cat > "$folder/memory.py" <<'PYTHON'
import gc
import io

import torch
from torch import nn

WEIGHT = 64  # MB


def resident() -> float:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def scripted() -> torch.jit.ScriptModule:
    return torch.jit.script(nn.Sequential(nn.Linear(4000, 4000), nn.ReLU()).eval())


def loaded() -> torch.jit.ScriptModule:
    file = io.BytesIO()
    torch.jit.save(scripted(), file)
    file.seek(0)
    return torch.jit.load(file)


def held_by_five(make) -> int:
    make()
    gc.collect()
    before = resident()
    for _ in range(5):
        make()
        gc.collect()
    return round((resident() - before) / WEIGHT)


print("torch", torch.__version__)
held = {
    "scripted": held_by_five(scripted),
    "loaded and frozen": held_by_five(lambda: torch.jit.freeze(loaded())),
    "scripted and frozen": held_by_five(lambda: torch.jit.freeze(scripted())),
}
for made, weights in held.items():
    print(f"five modules that are gone, {made}: the weights of {weights} are still in memory")
assert held == {"scripted": 0, "loaded and frozen": 0, "scripted and frozen": 5}, held
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/memory.py"

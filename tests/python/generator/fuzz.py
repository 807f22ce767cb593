"""Makes and checks random models, each in a worker process; fuzz.py --help lists the options."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Optional

import hypothesis
import hypothesis.configuration
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from .check import check
from .control import SUBJECTS
from .program import Program
from .run import Run, Unsuitable
from .statistics import Statistics
from .strategy import programs, runs

# Hypothesis starts anew with each batch: from its eleventh example on it would vary those that it has. A failure is found again by the seed
# of its batch.
BATCH = 10
# What TorchScript compiled is never freed.
BATCHES_PER_PROCESS = 20

PASTE = """
# To see it again: save this as FILE.py, then PYTHONPATH=python_bindings:tests/python .venv/bin/python FILE.py
if __name__ == "__main__":
    from generator.check import check
    from generator.run import Run

    print(check(open(__file__).read(), {run}).report)
"""


class Failure(Exception):
    """A property that does not hold, with the smallest module that shows it."""


def pasteable(program: Program, run: Run) -> str:
    return program.source() + "\n" + PASTE.format(run=run)


def batch(seed: int, count: int, folder: Path, exported: bool) -> Statistics:
    """Checks ``count`` models; raises Failure with the smallest module that fails."""
    torch.set_num_threads(1)
    hypothesis.configuration.set_hypothesis_home_dir(folder)
    statistics = Statistics()
    subject = SUBJECTS[seed % len(SUBJECTS)]
    # What is left where a process dies, while the first model runs that fails or one that is made smaller.
    running, failed = (folder / f"{stem}-{os.getpid()}.py" for stem in ("running", "failed"))

    @hypothesis.seed(seed)
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink], print_blob=False,
    )  # fmt: skip
    @hypothesis.given(st.data())
    def every_model(data: st.DataObject) -> None:
        program = data.draw(programs(subject))
        run = data.draw(runs(program, exported))
        running.write_text(pasteable(program, run))
        try:
            statistics.add(check(program.source(), run), run, pasteable(program, run))
        except Unsuitable as cause:
            statistics.discard(cause)
        except Exception as error:
            text = f"{pasteable(program, run)}\n{type(error).__name__}: {error}"
            failed.write_text(text)
            raise Failure(text) from error

    try:
        every_model()
    except hypothesis.errors.FlakyFailure as flaky:
        raise Failure(f"{flaky.exceptions[0]}\n(not each time)") from None
    running.unlink(missing_ok=True)
    return statistics


def fuzz(count: int, seed: int, processes: int = 1, progress: bool = False, exported: bool = False) -> Statistics:
    """Checks ``count`` models, scripted and traced or exported, in batches, the first of which has the seed. Raises Failure for the first one that fails."""
    sizes = {seed + number: min(BATCH, count - first) for number, first in enumerate(range(0, count, BATCH))}
    seeds = list(sizes)
    total = Statistics()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for first in range(0, len(seeds), BATCHES_PER_PROCESS * processes):
            some = seeds[first : first + BATCHES_PER_PROCESS * processes]
            total += _in_workers({seed: sizes[seed] for seed in some}, processes, Path(folder), exported)
            if progress:
                print(f"{total.examples} of {count} models", file=sys.stderr)
    return total


def _in_workers(sizes: dict[int, int], processes: int, folder: Path, exported: bool) -> Statistics:
    """The batches of these seeds. A worker sees the same modules whatever this process imported: Hypothesis takes numbers from them."""
    total = Statistics()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        futures = {pool.submit(batch, seed, count, folder, exported): seed for seed, count in sizes.items()}
        try:
            for future in as_completed(futures):
                total += future.result()
        except BrokenProcessPool as error:
            left = [path.read_text() for stem in ("failed", "running") for path in folder.glob(f"{stem}-*.py")]
            raise Failure("\n\nthe process died, and left\n".join(["", *left])) from error
        except Failure as failure:
            option = " --exported" if exported else ""
            raise Failure(f"{failure}\nagain: scripts/fuzz.sh --seed {futures[future]} {BATCH}{option}") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def main(arguments: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="fuzz.sh", description=__doc__)
    parser.add_argument("count", type=int, help="how many models")
    parser.add_argument("--seed", type=int, help="that of the first batch of %d; random where it is not given" % BATCH)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--exported", action="store_true", help="programs of torch.export in place of TorchScript modules")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seeds from {seed} on", flush=True)
    try:
        print(fuzz(options.count, seed, options.processes, progress=True, exported=options.exported))
    except Failure as failure:
        print(failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

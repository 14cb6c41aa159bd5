"""Overhead of samplers in addition to their network calls, and growth of their memory.

    python -m benchmarks.samplers

The overhead is the time per network call of a run with a score of negligible cost, relative to a
call of the study's smallest network (depth 1, 128 channels) on the same batch. The memory is the
peak of the process after runs of 50 and of 500 steps.
"""

import resource
import statistics
import time

import torch

from configs import base
from models import create_model
from operators import BatchGenerator, LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.ct import few_view_angles
from operators.masks import make_mask
from samplers import SAMPLERS
from sde import VESDE, score_function

SIZE, BATCH, STEPS = 320, 4, 20
CALLS = {"predictor_corrector": 2 * STEPS, "annealed_langevin": 3 * STEPS}


def seconds_a_call(name: str, operator: LinearOperator, y: torch.Tensor) -> float:
    """Median time per network call of a sampler with a score of negligible cost."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        run(name, operator, y, STEPS)
        times.append((time.perf_counter() - begin) / CALLS[name])
    return statistics.median(times)


def run(name: str, operator: LinearOperator, y: torch.Tensor, num_steps: int) -> None:
    """Run a sampler with a cheap score of the norm of a network's, |s| = sqrt(n) / sigma."""
    options = {"start_sigma": 1e9} if name == "annealed_langevin" else {}
    SAMPLERS[name](
        lambda x, sigma: -x.sign() / sigma[0],
        VESDE(),
        operator,
        y,
        rng=BatchGenerator(range(len(y))),
        num_steps=num_steps,
        **options,
    )


def network_seconds(x: torch.Tensor) -> float:
    """Time in seconds of one call of the study's smallest network."""
    net = create_model(base.get_config("1")).eval().to(memory_format=torch.channels_last)
    score, sigma = score_function(net), torch.ones(len(x))
    score(x[:1, :, :64, :64], sigma[:1])
    begin = time.perf_counter()
    score(x, sigma)
    return time.perf_counter() - begin


def main() -> None:
    """Print overheads and peak memory."""
    torch.manual_seed(0)
    x = torch.rand(BATCH, 1, SIZE, SIZE)
    mask = make_mask("gaussian1d", (SIZE, SIZE), seed=42, acceleration=4, center_fraction=0.04)
    operators = {
        "MRI": SingleCoilMRI(mask),
        "CT 30 views": ParallelBeamCT(SIZE, few_view_angles(30)),
    }
    with torch.inference_mode():
        for num_steps in (50, 500):
            run("predictor_corrector", operators["MRI"], operators["MRI"].forward(x), num_steps)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"peak memory after a run of {num_steps} steps: {peak:.0f} MB", flush=True)
        network = network_seconds(x)
        print(f"{SIZE} x {SIZE}, batch {BATCH}, CPU, {torch.get_num_threads()} threads")
        print(f"one network call (depth 1, 128 channels): {network:.2f} s")
        for name in CALLS:
            for what, operator in operators.items():
                y = operator.forward(x)
                overhead = seconds_a_call(name, operator, y)
                print(
                    f"{name}, {what}: {1e3 * overhead:.1f} ms a call beside the network, "
                    f"{overhead / (overhead + network):.3%} of the time (at most 5 %)",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Speed of training, as ratios: ``python -m benchmarks.training``.

On the CPU, for the network of depth 1 at its full width on `SIDE` x `SIDE` pixels:

- steps per second relative to a plain loop over the same network: float32, contiguous, eager,
  default Adam (rows with one option changed at a time, then with those that training uses);
- the forward pass relative to its convolutions alone, on inputs of the same shapes.

With a CUDA device, for the priors that training_scripts/gpu.sh trains, at their crops and batch
sizes, then for depth 1 and 4_attention on 320 x 320: steps per second relative to the plain loop,
achieved TFLOP/s, also as a fraction of a measured bfloat16 matrix product, and peak memory.

Times are medians of interleaved repetitions, so that other work on the machine affects all alike.
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from benchmarks.timing import times_in_turns
from configs import base, natural_base, natural_small
from models import create_model
from models.ema import create_ema
from models.flops import count_flops
from sde import score_matching_loss

SIDE, BATCH = 64, 2  # on the CPU
GPU_SIDE, GPU_BATCH = 320, 4
LEAST_SPEEDUP, LEAST_SPEEDUP_GPU, MOST_OVERHEAD = 1.25, 2.5, 1.5


def medians(calls: list[Callable[[], object]], device: str, repeats: int) -> list[float]:
    """Median time in seconds of each call, taken in turns."""
    return [statistics.median(taken) for taken in times_in_turns(calls, device, repeats)]


def network(size: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(base.get_config(size))


def training_step(
    net: nn.Module,
    images: Tensor,
    *,
    low_precision: bool = False,
    channels_last: bool = False,
    fused: bool = True,
    compiled: bool = False,
) -> Callable[[], None]:
    """Function that makes one step of train.py's loop on a copy of the network, without data."""
    net = copy.deepcopy(net).to(images.device)
    if channels_last:
        net.to(memory_format=torch.channels_last)
    ema = create_ema(net, 0.999)
    adam = torch.optim.Adam(net.parameters(), lr=2e-4, fused=fused)
    fast = torch.compile(net, fullgraph=True) if compiled else net
    kind = images.device.type
    sigma = torch.logspace(-2, 2, len(images), device=images.device)
    noise = torch.randn_like(images)

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=low_precision):
            return fast(x, sigma)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        score_matching_loss(predict, images, sigma, noise).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        ema.update_parameters(net)

    return step


def forward_and_convolutions(net: nn.Module, x: Tensor) -> tuple[Callable, Callable]:
    """Functions of the forward pass without gradients, and of its convolutions alone."""
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda m, given, _: seen.append((m, torch.randn_like(given[0]))))
        for m in layers
    ]
    sigma = torch.ones(len(x), device=x.device)
    with torch.no_grad():
        net(x, sigma)
    for hook in hooks:
        hook.remove()

    @torch.no_grad()
    def forward() -> None:
        net(x, sigma)

    @torch.no_grad()
    def convolutions() -> None:
        for layer, given in seen:
            layer(given)

    return forward, convolutions


def row(name: str, ratio: float, bound: str = "") -> None:
    print(f"{name:<66} {ratio:6.2f}{f'  ({bound})' if bound else ''}", flush=True)


def on_cpu(repeats: int, compiled: bool) -> None:
    x = torch.rand(BATCH, 1, SIDE, SIDE)
    net = network("1")
    print(f"CPU, {torch.get_num_threads()} threads; depth 1, {BATCH} x {SIDE} x {SIDE}")
    pairs = [
        forward_and_convolutions(net, x),
        forward_and_convolutions(copy.deepcopy(net).to(memory_format=torch.channels_last), x),
    ]
    times = medians([call for pair in pairs for call in pair], "cpu", 2 * repeats)
    bound = f"at most {MOST_OVERHEAD}"
    row("float32 forward / its convolutions alone", times[0] / times[1], bound)
    row("    the same, channels last", times[2] / times[3])

    options = {
        "fused Adam": {},
        "channels last": {"channels_last": True},
        "bfloat16 (training with precision=bfloat16)": {"low_precision": True},
        "bfloat16, channels last": {"low_precision": True, "channels_last": True},
    }
    if compiled:
        options["torch.compile"] = {"compiled": True}
        options["bfloat16, torch.compile"] = {"low_precision": True, "compiled": True}
    calls = [training_step(net, x, fused=False)]
    calls += [training_step(net, x, **choice) for choice in options.values()]
    plain, *others = medians(calls, "cpu", repeats)
    print(f"plain float32 contiguous eager loop: {1 / plain:.2f} steps/s; times as fast are")
    for name, seconds in zip(options, others, strict=True):
        bound = f"at least {LEAST_SPEEDUP}" if "precision=" in name else ""
        row(f"    {name}", plain / seconds, bound)


def flops_of(config: ConfigDict, side: int) -> float:
    """Number of floating-point operations of a training step per image, forward and backward."""
    return count_flops(config, side, backward=True)


def on_gpu(repeats: int) -> None:
    device = "cuda"
    print(torch.cuda.get_device_name())
    torch.backends.cudnn.benchmark = True
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    (seconds,) = medians([lambda: a @ a], device, 5 * repeats)
    peak = 2 * 8192**3 / seconds
    print(f"bfloat16 matrix product 8192: {peak / 1e12:.0f} TFLOP/s", flush=True)
    for name, config, batch, side in (
        ("natural_small", natural_small.get_config(), 64, 80),
        ("natural_base", natural_base.get_config(), 32, 128),
        ("depth 1", base.get_config("1"), GPU_BATCH, GPU_SIDE),
        ("4_attention", base.get_config("4_attention"), GPU_BATCH, GPU_SIDE),
    ):
        torch.manual_seed(0)
        net, x = create_model(config), torch.rand(batch, 1, side, side, device=device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        (plain,) = medians([training_step(net, x, fused=False)], device, repeats)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        fast = {"low_precision": True, "channels_last": True}
        (eager,) = medians([training_step(net, x, **fast)], device, repeats)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        (ours,) = medians([training_step(net, x, **fast, compiled=True)], device, repeats)
        taken = time.perf_counter() - begin
        achieved = batch * flops_of(config, side) / ours
        row(
            f"{name}, {batch} x {side} x {side}: steps/s against the plain loop",
            plain / ours,
            f"at least {LEAST_SPEEDUP_GPU}",
        )
        print(
            f"    {1 / ours:.1f} steps/s ({1 / eager:.1f} without torch.compile, which took "
            f"{taken:.0f} s), {achieved / 1e12:.0f} TFLOP/s, {achieved / peak:.0%} of the "
            f"product's, peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB",
            flush=True,
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="rows with torch.compile on the CPU")
    parser.add_argument("--gpu", action="store_true", help="the GPU's rows only")
    arguments = parser.parse_args(argv)
    print(f"PyTorch {torch.__version__}, {platform.machine()}")
    if not arguments.gpu:
        on_cpu(arguments.repeats, arguments.compile)
    if torch.cuda.is_available():
        on_gpu(arguments.repeats)
    else:
        print("no CUDA device: the GPU's rows are left out")


if __name__ == "__main__":
    main()

"""How the networks of other code bases become priors: levels, pixel range and prediction."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.foreign.precondition import VPPrecond
from sde import VESDE, VPSDE, Prior, SubVPSDE, View, score_function
from sde.view import (
    SIGMA_DATA,
    Schedule,
    edm_schedule,
    flow_schedule,
    ladder_levels,
    ladder_schedule,
    ve_schedule,
    vp_schedule,
)
from sde.vp import WIDTH

CENTRED, UNIT = (-1.0, 1.0), (0.0, 1.0)  # pixel ranges: values of black and of white
COMMON = ("pixel_range", "sigma_min", "sigma_max", "symmetric")
# keywords that tell levels and pixels, not the network
SETTINGS = {
    "score_sde": (*COMMON, "sde", "beta_min", "beta_max"),
    "ncsnv2": COMMON,
    "guided_diffusion": (
        *COMMON, "noise_schedule", "diffusion_steps", "rescale_timesteps", "predict_xstart"
    ),
    "edm": COMMON,
    "diffusers": (*COMMON, "scheduler"),
}  # fmt: skip
EDM_RANGES = {"EDMPrecond": (0.002, 80.0), "VEPrecond": (0.02, 100.0)}  # those of sampling there


def prior(
    format: str,
    module: nn.Module,
    *,
    keywords: Mapping | None = None,
    pixel_range: tuple[float, float] | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    symmetric: bool = False,
) -> Prior:
    """The prior that a network of another code base stands for; ``score, sde = prior(...)``.

    Its score takes images ``(B, 1, H, W)`` of any sides in [0, 1], and complex ones. Of a network
    of two channels these are the real and the imaginary part, and real images are an error; one of
    one channel treats the parts of complex images as images of their own; one of three shows grey
    images in all three, and the mean of its answers counts (the noise of the three is then the
    same, so this is an approximation).

    Args:
        format: a key of `models.foreign.FORMATS`.
        module: what `models.foreign.build` returns.
        keywords: of the network and its levels; those given to `build` unless given here.
        pixel_range: values of black and white in the network's own range; by default what the
            code base trains with, and (0, 1) for two channels: parts of images up to magnitude 1.
        sigma_min: smallest noise level that it knows, in the unit of its own range; by default
            that of the format.
        sigma_max: largest.
        symmetric: whether turned and mirrored images are as likely to it (`sde.Prior`).

    Raises:
        ValueError: an unknown format or unfit settings, or levels that no default can be given for.
    """
    given = {"pixel_range": pixel_range, "sigma_min": sigma_min, "sigma_max": sigma_max}
    given = {name: value for name, value in given.items() if value is not None}
    settings = {**(getattr(module, "keywords", {}) if keywords is None else keywords), **given}
    seen, sde = view(format, module, settings)
    symmetric = symmetric or bool(settings.get("symmetric"))
    score = score_function(seen, stride=seen.stride, symmetric=symmetric)
    score.device = next((p.device for p in module.parameters()), None)
    return Prior(score, sde)


def view(format: str, module: nn.Module, settings: Mapping) -> tuple[View, VESDE]:
    """The score on images in [0, 1] of a network of `build`, and the levels that it knows.

    Args:
        format: a key of `models.foreign.FORMATS`.
        module: the network.
        settings: keywords, of which those in `SETTINGS` matter.

    Raises:
        ValueError: as `prior`.
    """
    if format not in VIEWS:
        raise ValueError(f"expected a format out of {', '.join(VIEWS)}, got {format!r}")
    net, schedule, predicts, pixels, (first, last) = VIEWS[format](module, settings)
    if getattr(module, "num_channels", 1) == 2:
        pixels = UNIT
    low, high = _pair(settings.get("pixel_range", pixels))
    levels = [settings.get("sigma_min", first), settings.get("sigma_max", last)]
    if None in levels:
        raise ValueError(
            f"expected sigma_min and sigma_max of a network of format {format}, the noise levels "
            "that it was trained for, got none; give them among its keywords"
        )
    seen = View(net, schedule, predicts, low=low, high=high)
    return seen, VESDE(*(float(level) / (high - low) for level in levels))


def _pair(values: object) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"expected pixel_range as two numbers, got {values!r}") from None
    return low, high


# what a format's function returns: network, schedule, prediction, pixel range, range of levels
Seen = tuple[nn.Module, Schedule, str, tuple[float, float], tuple[float | None, float | None]]


def _score_sde(module: nn.Module, settings: Mapping) -> Seen:
    if module.conditioning == "sigma":
        return module, ve_schedule(), "score", UNIT, (None, None)
    kinds = {"vp": VPSDE, "subvp": SubVPSDE}
    kind = settings.get("sde", "vp")
    if kind not in kinds:
        raise ValueError(f"expected sde out of {', '.join(kinds)}, got {kind!r}")
    betas = {name: settings[name] for name in ("beta_min", "beta_max") if name in settings}
    sde = kinds[kind](**betas)
    pixels = CENTRED if module.centred else UNIT
    # `sigma_min` and `sigma_max` of the original's config are those of its VE-SDE
    return module, vp_schedule(sde), "noise", pixels, _own(sde)


def _own(sde: VPSDE) -> tuple[float, float]:
    """Sampled levels of a VP-SDE in the unit of [-1, 1]."""
    return WIDTH * sde.ve.sigma_min, WIDTH * sde.ve.sigma_max


class Scaled(nn.Module):
    """Minus the noise in standard deviations from a score at one of a ladder of levels."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.num_channels, self.stride = net, net.num_channels, net.stride

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``(B, C, H, W)`` and levels ``(B,)``, of which the nearest of the ladder is shown."""
        ladder = self.net.sigmas
        labels = (sigma[:, None].log() - ladder.log()).abs().argmin(1)  # (B,)
        return self.net(x, labels) * ladder[labels][:, None, None, None]


def _ncsnv2(module: nn.Module, settings: Mapping) -> Seen:
    # the network sees x alone: its score is f(x) / sigma, so any level between two is known, too
    pixels = CENTRED if module.rescaled else UNIT
    levels = float(module.sigmas.min()), float(module.sigmas.max())
    return Scaled(module), ve_schedule(), "minus_noise", pixels, levels


class FirstChannels(nn.Module):
    """The prediction of a network that also tells its variance."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.num_channels, self.stride = net, net.num_channels, net.stride

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H, W)``."""
        return self.net(x, label)[:, : x.shape[1]]


def _guided_diffusion(module: nn.Module, settings: Mapping) -> Seen:
    steps = int(settings.get("diffusion_steps", 1000))
    name = settings.get("noise_schedule", "linear")
    if name == "linear":  # that of 1000 steps, for any number of them
        betas = torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)
    elif name == "cosine":
        betas = _cosine_betas(steps)
    else:
        raise ValueError(f"expected noise_schedule out of linear, cosine, got {name!r}")
    squares = torch.cumprod(1 - betas, 0)
    scale, index = ladder_schedule(squares)
    unit = 1000 / steps if settings.get("rescale_timesteps") else 1.0
    schedule = Schedule(scale, lambda sigma: unit * index(sigma))
    predicts = "x0" if settings.get("predict_xstart") else "noise"
    return FirstChannels(module), schedule, predicts, CENTRED, _ends(squares)


def _cosine_betas(steps: int) -> Tensor:
    """Betas of Nichol & Dhariwal (ICML 2021), equation 17, at most 0.999."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    bar = torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square()
    return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)


def _ends(squares: Tensor) -> tuple[float, float]:
    levels = ladder_levels(squares)
    return float(levels[0]), float(levels[-1])


def _edm(module: nn.Module, settings: Mapping) -> Seen:
    levels = EDM_RANGES.get(type(module).__name__)
    if isinstance(module, VPPrecond):
        levels = _own(VPSDE(module.beta_min, module.beta_min + module.beta_d))
    return module, ve_schedule(), "x0", CENTRED, levels or (None, None)


PREDICTIONS = {"epsilon": "noise", "sample": "x0", "v_prediction": "v"}


def _diffusers(module: nn.Module, settings: Mapping) -> Seen:
    scheduler = settings.get("scheduler")
    if not scheduler:
        raise ValueError("expected the keyword scheduler, the content of scheduler_config.json")
    name = scheduler.get("_class_name", "")
    steps = int(scheduler.get("num_train_timesteps", 1000))
    if name == "ScoreSdeVeScheduler":
        levels = scheduler.get("sigma_min"), scheduler.get("sigma_max")
        return module, ve_schedule(), "score", UNIT, levels
    if name.startswith("FlowMatch"):
        # its `shift` tells which levels are sampled, not what the network takes
        return module, flow_schedule(steps), "velocity", CENTRED, (0.002, steps - 1.0)
    prediction = scheduler.get("prediction_type", "epsilon")
    if name.startswith("EDM"):
        if scheduler.get("sigma_data", SIGMA_DATA) != SIGMA_DATA or prediction != "epsilon":
            raise ValueError(f"expected sigma_data={SIGMA_DATA}, prediction epsilon of {name}")
        levels = scheduler.get("sigma_min"), scheduler.get("sigma_max")
        return module, edm_schedule(), "edm", CENTRED, levels
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"expected prediction_type out of {', '.join(PREDICTIONS)}, got {prediction!r}"
        )
    squares = torch.cumprod(1 - _betas(scheduler, steps), 0)
    return module, ladder_schedule(squares), PREDICTIONS[prediction], CENTRED, _ends(squares)


def _betas(scheduler: Mapping, steps: int) -> Tensor:
    """Betas of a DDPM-like scheduler's config: ``(steps,)``, float64."""
    if scheduler.get("trained_betas") is not None:
        return torch.tensor(scheduler["trained_betas"], dtype=torch.float64)
    first, last = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    kind = scheduler.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(first, last, steps, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        return _cosine_betas(steps)
    raise ValueError(
        f"expected beta_schedule out of linear, scaled_linear, squaredcos_cap_v2, got {kind!r}"
    )


VIEWS = {
    "score_sde": _score_sde,
    "ncsnv2": _ncsnv2,
    "guided_diffusion": _guided_diffusion,
    "edm": _edm,
    "diffusers": _diffusers,
}

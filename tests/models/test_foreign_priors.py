"""Priors of other code bases: levels, pixel range, prediction, files, what the commands do."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import train
from configs import load_config
from evaluation import evaluate as evaluation
from evaluation import sample as sampling
from evaluation.own.folder import reconstruct_file
from evaluation.results.folder import read_rows
from models import checkpoint
from models.foreign import build, files, prior
from models.foreign.precondition import EDMPrecond, VEPrecond, VPPrecond
from models.original import original_names
from operators.batch import expand
from sde import Prior
from tests.conftest import PATIENCE, ROOT
from tests.models.test_foreign import TINY_DDPMPP, NCSNpp, tiny

MINUTE = 400  # training steps


pytestmark = pytest.mark.usefixtures("one_thread")


def images(channels=1, sides=(16, 16)):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, channels, *sides, generator=generator)


def assert_near(found, expected, part=1e-3):
    """Each sample, to a part of its norm: random networks amplify rounding."""
    error = (found - expected).flatten(1).norm(dim=1)
    assert (error <= part * expected.flatten(1).norm(dim=1)).all(), (error, expected.norm())


# ---- the formulas of each code base


def test_guided_diffusion_is_ddpm_with_a_linear_ladder():
    net = build("guided_diffusion", *tiny("guided_diffusion"))
    score, sde = prior("guided_diffusion", net)
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    levels = np.sqrt((1 - alphas) / alphas)
    assert sde.sigma_min == pytest.approx(levels[0] / 2)  # images in [-1, 1]
    assert sde.sigma_max == pytest.approx(levels[-1] / 2)
    for step in (0, 400, 999):
        x, sigma = images(), torch.full((2,), levels[step] / 2, dtype=torch.float32)
        noisy = np.sqrt(alphas[step]) * (2 * x - 1)
        noise = net(noisy.float(), torch.full((2,), float(step)))[:, :1]  # the rest is variance
        assert_near(score(x, sigma), -noise / expand(sigma, x), 2e-3)
        other = net(noisy.float(), torch.full((2,), float(step) / 2 + 9))[:, :1]
        assert (other - noise).abs().max() > 0.01  # so a wrong label would be seen


def test_guided_diffusion_has_other_ladders():
    keywords, state = tiny("guided_diffusion")
    cosine = prior("guided_diffusion", build("guided_diffusion", keywords, state),
                   keywords={"noise_schedule": "cosine", "diffusion_steps": 100})  # fmt: skip
    bar = np.cos((np.linspace(0, 1, 101) + 0.008) / 1.008 * np.pi / 2) ** 2
    first = bar[1] / bar[0]
    assert cosine.sde.sigma_min == pytest.approx(np.sqrt((1 - first) / first) / 2)
    linear = prior("guided_diffusion", build("guided_diffusion", keywords, state),
                   keywords={"diffusion_steps": 100})  # fmt: skip
    last = np.prod(1 - np.linspace(0.001, 0.2, 100))  # ten times the betas for a tenth of the steps
    assert linear.sde.sigma_max == pytest.approx(np.sqrt((1 - last) / last) / 2)
    x, sigma = images(), torch.full((2,), 0.5)
    plain, rescaled = (
        prior("guided_diffusion", build("guided_diffusion", keywords, state),
              keywords={"diffusion_steps": 100, "rescale_timesteps": on}).score(x, sigma)
        for on in (False, True)
    )  # fmt: skip
    assert (plain - rescaled).norm() > 1e-3 * plain.norm()
    with pytest.raises(ValueError, match="noise_schedule out of linear, cosine"):
        prior("guided_diffusion", build("guided_diffusion", keywords, state),
              keywords={"noise_schedule": "sigmoid"})  # fmt: skip


def test_score_sde_predicts_noise_of_its_vp_and_sub_vp_sde():
    net = build("score_sde", *tiny("score_sde"))
    for kind in ("vp", "subvp"):
        score, sde = prior("score_sde", net, keywords={"sde": kind, "beta_max": 10.0})
        t = torch.tensor([0.3, 0.9])
        scale = torch.exp(-(0.1 * t + 9.9 * t**2 / 2) / 2)
        std = 1 - scale**2 if kind == "subvp" else torch.sqrt(1 - scale**2)
        x, sigma = images(), std / scale / 2
        noise = net(expand(scale, x := images()) * (2 * x - 1), 999 * t)
        assert_near(score(x, sigma), -noise / expand(sigma, x))
        assert sde.sigma_max == pytest.approx(np.exp(5.05 / 2) / 2, rel=0.01)
    with pytest.raises(ValueError, match="expected sde out of vp, subvp"):
        prior("score_sde", net, keywords={"sde": "ve"})


def test_edm_is_a_denoiser_in_its_own_range():
    net = build("edm", *tiny("edm"))
    score, sde = prior("edm", net)
    assert (sde.sigma_min, sde.sigma_max) == (0.001, 40.0)  # half of EDM's, for [0, 1]
    x, sigma = images(), torch.tensor([0.1, 2.0])
    denoised = (net(2 * x - 1, 2 * sigma) + 1) / 2
    expected = (denoised - x) / expand(sigma, x) ** 2
    assert_near(score(x, sigma), expected)
    score, sde = prior("edm", net, pixel_range=(0, 4), sigma_min=0.1, sigma_max=8.0)
    assert (sde.sigma_min, sde.sigma_max) == (0.025, 2.0)
    expected = (net(4 * x, 4 * sigma) / 4 - x) / expand(sigma, x) ** 2
    assert_near(score(x, sigma), expected)


class Recorded(nn.Module):
    """A network that keeps its input, in place of F."""

    num_channels, stride = 1, 1

    def forward(self, x, label):
        self.seen = x, label
        return x.cos()


def test_edm_is_the_preconditioning_of_its_paper():
    """Karras et al. 2022, table 1, its three columns; VP with betas of its own."""
    x, sigma = images(), torch.tensor([0.3, 4.0])
    s, f = expand(sigma, x), Recorded()
    total = s**2 + 0.7**2
    found = EDMPrecond(f, sigma_data=0.7)(x, sigma)
    inner = (x / total.sqrt()).cos()
    assert_near(found, 0.7**2 / total * x + s * 0.7 / total.sqrt() * inner, 1e-6)
    torch.testing.assert_close(f.seen[1], sigma.log() / 4)
    assert_near(VEPrecond(f)(x, sigma), x + s * x.cos(), 1e-6)
    torch.testing.assert_close(f.seen[1], (0.5 * sigma).log())
    net = VPPrecond(f, beta_d=9.0, beta_min=0.2, M=500)
    assert_near(net(x, sigma), x - s * (x / torch.sqrt(1 + s**2)).cos(), 1e-6)
    t = f.seen[1] / 499
    torch.testing.assert_close(torch.expm1(9.0 * t**2 / 2 + 0.2 * t).sqrt(), sigma)
    last = np.sqrt(np.expm1(9.0 / 2 + 0.2))
    assert prior("edm", net).sde.sigma_max == pytest.approx(last / 2)


def test_a_langevin_prior_takes_complex_images_as_they_are():
    net = build("ncsnv2", *tiny("ncsnv2"))
    score, sde = prior("ncsnv2", net)
    assert score.joint
    assert (sde.sigma_min, sde.sigma_max) == (pytest.approx(0.1), 10.0)
    parts = images(2)
    x = torch.complex(parts[:, :1], parts[:, 1:])
    at_level = net(parts, torch.tensor([2, 1]))  # its own score at levels 0.1 and 1
    found = score(x, torch.tensor([0.1, 1.0]))
    torch.testing.assert_close(torch.cat([found.real, found.imag], 1), at_level)
    between = score(x, torch.tensor([0.2, 0.7]))  # the network does not see the level
    expected = at_level * torch.tensor([0.5, 1 / 0.7])[:, None, None, None]
    torch.testing.assert_close(torch.cat([between.real, between.imag], 1), expected)
    with pytest.raises(ValueError, match="take a prior of one channel"):
        score(x.real, torch.ones(2))


def test_a_prior_of_one_channel_takes_complex_images_part_by_part_and_any_size():
    score, _ = prior("edm", build("edm", *tiny("edm")))
    parts = images(2, (15, 17))
    x, sigma = torch.complex(parts[:, :1], parts[:, 1:]), torch.tensor([0.1, 2.0])
    assert not score.joint
    assert_near(score(x, sigma).imag, score(x.imag, sigma))


def test_a_colour_prior_sees_grey_images():
    keywords, state = tiny("edm")
    state = dict(state)
    first, last = "enc.16x16_conv.weight", "dec.16x16_aux_conv."
    state[first] = state[first].repeat(1, 3, 1, 1) * torch.tensor([1.0, 2, 3])[:, None, None]
    state[f"{last}weight"] = state[f"{last}weight"].repeat(3, 1, 1, 1)
    state[f"{last}bias"] = torch.tensor([1.0, 2.0, 3.0])
    net = build("edm", keywords, state)
    score, _ = prior("edm", net)
    x, sigma = images(), torch.tensor([0.1, 2.0])
    denoised = (net((2 * x - 1).repeat(1, 3, 1, 1), 2 * sigma).mean(1, keepdim=True) + 1) / 2
    expected = (denoised - x) / expand(sigma, x) ** 2
    assert_near(score(x, sigma), expected)


def test_unfit_settings_are_errors():
    net = build("edm", *tiny("edm"))
    with pytest.raises(ValueError, match="expected a format out of"):
        prior("edm2", net)
    with pytest.raises(ValueError, match="expected pixel_range as two numbers"):
        prior("edm", net, pixel_range=(0,))
    with pytest.raises(ValueError, match="expected a pixel range low < high"):
        prior("edm", net, pixel_range=(1, 0))
    ve = build("score_sde", *ve_ncsnpp())
    with pytest.raises(ValueError, match="expected sigma_min and sigma_max"):
        prior("score_sde", ve)
    assert prior("score_sde", ve, sigma_min=0.01, sigma_max=50).sde.sigma_max == 50


def ve_ncsnpp():
    """Keywords and weights of a VE network with its own names."""
    net = NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attention=True, fourier_scale=16.0)
    ours = net.state_dict()
    state = {name: ours[path] for name, (path, _) in original_names(net).items()}
    nin = {name: w[..., 0, 0].T for name, w in state.items() if ".NIN_" in name and w.ndim > 1}
    return {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1}, state | nin


# ---- files


def write(path, format_):
    """A file as the code base writes it, with averages that differ from the weights."""
    keywords, state = tiny(format_)
    other = {name: value + 1 for name, value in state.items()}
    if format_ == "score_sde":
        names = [name for name in original_names(NCSNpp(**TINY_DDPMPP)) if name in state]
        average = {"decay": 0.999, "num_updates": 3, "shadow_params": [state[n] for n in names]}
        other = {f"module.{name}": value for name, value in other.items()}
        payload = {"model": other | {"sigmas": torch.ones(4)}, "ema": average, "step": 3}
    elif format_ == "ncsnv2":
        trained = {name: value for name, value in state.items() if name != "sigmas"}
        other = {f"module.{n}": v for n, v in (other | {"sigmas": state["sigmas"]}).items()}
        payload = [other, {"param_groups": []}, 1, 7, trained]
    elif format_ == "edm":
        payload = {"keywords": keywords, "state": {f"model.{n}": v for n, v in state.items()}}
    else:
        payload = state
    torch.save(payload, path)
    if format_ != "edm":
        path.with_suffix(".json").write_text(json.dumps(keywords))
    return keywords, state


@pytest.mark.parametrize("format_", ["score_sde", "ncsnv2", "guided_diffusion", "edm"])
def test_files_give_averaged_weights_imported_or_directly(tmp_path, format_, capsys):
    path, out = tmp_path / "theirs.pth", tmp_path / "ours.pt"
    keywords, state = write(path, format_)
    expected = prior(format_, build(format_, keywords, state))
    checkpoint._main(["import", str(path), str(out), f"--format={format_}"])
    assert "wrote" in capsys.readouterr().out
    channels = 2 if expected.score.joint else 1
    x, sigma = images(channels), torch.tensor([0.2, 3.0])
    for found in (
        checkpoint.load_prior(out, "cpu"),
        checkpoint.load_prior(path, "cpu", format=format_),
    ):
        assert found.sde == expected.sde
        assert found.score.joint == expected.score.joint
        assert_near(found.score(x, sigma), expected.score(x, sigma))
    line = checkpoint.describe(path, format_)
    assert line == checkpoint.describe(out).replace("ours.pt", "theirs.pth")
    assert f"noise levels {expected.sde.sigma_min:.3g}" in line


def test_keywords_may_be_given_and_go_before_those_beside_the_file(tmp_path):
    path, out = tmp_path / "theirs.pt", tmp_path / "ours.pt"
    keywords, state = tiny("edm")
    torch.save(state, path)
    (tmp_path / "theirs.json").write_text(json.dumps({**keywords, "sigma_max": 10}))
    arguments = ["import", str(path), str(out), "--format=edm"]
    checkpoint._main(arguments)
    assert checkpoint.load_prior(out, "cpu").sde.sigma_max == 5.0
    checkpoint._main([*arguments, '--keywords={"sigma_max": 30, "pixel_range": [0, 1]}'])
    assert checkpoint.load_prior(out, "cpu").sde.sigma_max == 30.0
    with pytest.raises(SystemExit, match=r"theirs\.pt: .*are the keywords the right ones"):
        checkpoint._main([*arguments, '--keywords={"num_blocks": 2}'])
    with pytest.raises(SystemExit, match="expected keywords as JSON"):
        checkpoint._main([*arguments, "--keywords=nowhere.json"])
    with pytest.raises(SystemExit, match="--config is for score_sde"):
        checkpoint._main([*arguments, "--config=configs/demo.py"])


class Danger:
    def __reduce__(self):
        return (sys.exit, (1,))


def test_pickles_are_refused_and_other_files_named(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"ema": Danger()}))
    with pytest.raises(checkpoint.CheckpointError, match="pickled objects, which are refused"):
        checkpoint.load_prior(path, "cpu", format="edm")
    torch.save({"a": 1}, path)
    with pytest.raises(checkpoint.CheckpointError, match="expected a state dict of format edm"):
        checkpoint.load_prior(path, "cpu", format="edm")
    torch.save([1, 2], path)
    for format_ in ("edm", "ncsnv2", "guided_diffusion", "score_sde"):
        with pytest.raises(ValueError, match="expected a"):
            checkpoint.load_prior(path, "cpu", format=format_)
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        checkpoint.load_prior(tmp_path / "absent.pt", "cpu", format="edm")
    with pytest.raises(ValueError, match="expected a format of a prior out of score_sde"):
        checkpoint.load_prior(path, "cpu", format="edm2")


# ---- one's own Python


def own_prior(path, device):
    """The prior of a module in a file, as a user writes it."""
    weight = torch.load(path, map_location=device, weights_only=True)["weight"]
    return Prior.from_denoiser(lambda x, s: weight * x, sigma_min=0.01, sigma_max=2.0)


def not_a_prior(path, device):
    return nn.Identity()


def test_a_function_of_ones_own_gives_the_prior(tmp_path):
    path = tmp_path / "own.pt"
    torch.save({"weight": torch.tensor(0.8)}, path)
    found = checkpoint.load_prior(path, "cpu", format=f"{__name__}:own_prior")
    assert found.sde.sigma_max == 2.0
    x = images()
    torch.testing.assert_close(found.score(x, torch.ones(2)), -0.2 * x)
    assert checkpoint.describe(path, f"{__name__}:own_prior").startswith("own.pt: by ")
    for name, message in (
        ("not_a_prior", "expected a Prior, .*got Identity"),
        ("absent", "expected module:function of your own"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.load_prior(path, "cpu", format=f"{__name__}:{name}")
    with pytest.raises(ValueError, match="expected precision float32"):
        checkpoint.load_prior(path, "cpu", format=f"{__name__}:own_prior", autocast=torch.bfloat16)


# ---- the commands


def test_evaluate_and_sample_take_a_file_of_another_code_base(tmp_path):
    path = tmp_path / "edm.pt"
    write(path, "edm")
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.prior, config.prior_format = str(path), "edm"
    config.data.image_size, config.limit, config.panels = 32, 1, 0
    config.sampler.name, config.sampler.num_steps = "pnp", 2
    evaluation.evaluate(config, tmp_path / "out", "cpu")
    assert (tmp_path / "out" / "metrics.csv").read_text().count("\n") == 2

    config = load_config(str(ROOT / "configs" / "sample.py"))
    config.prior, config.prior_format, config.num_images = str(path), "edm", 1
    config.image_size, config.num_steps = 16, 2
    sampling.sample(config, tmp_path / "samples", "cpu")
    assert (tmp_path / "samples" / "samples.png").is_file()
    config.compare = 2
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        sampling.sample(config, tmp_path / "samples", "cpu")


def test_reconstruct_takes_a_file_of_another_code_base(tmp_path):
    path, kspace = tmp_path / "edm.pt", tmp_path / "in" / "kspace.npy"
    write(path, "edm")
    kspace.parent.mkdir()
    image = np.hanning(32)[:, None] * np.hanning(32)
    np.save(kspace, np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image))).astype(np.complex64))
    config = load_config(str(ROOT / "configs" / "reconstruct.py"))
    config.prior_format, config.sampler.num_steps = "edm", 2
    with pytest.raises(ValueError, match="expected the prior's file with prior_format='edm'"):
        reconstruct_file(config, kspace, tmp_path / "out", "cpu")
    config.prior, config.sampler.sigma_y = str(path), 0.05
    reconstruct_file(config, kspace, tmp_path / "out", "cpu")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["prior_format"] == "edm"


def test_a_folder_notices_other_keywords_beside_the_same_weights(tmp_path):
    path = tmp_path / "guided.pt"
    keywords, _ = write(path, "guided_diffusion")
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.prior, config.prior_format = str(path), "guided_diffusion"
    config.data.image_size, config.limit, config.panels = 32, 1, 0
    config.sampler.name, config.sampler.num_steps = "pnp", 2
    evaluation.evaluate(config, tmp_path / "out", "cpu")
    path.with_suffix(".json").write_text(json.dumps({**keywords, "diffusion_steps": 500}))
    with pytest.raises(ValueError, match="was made with another prior"):
        evaluation.evaluate(config, tmp_path / "out", "cpu")


# ---- diffusers


def diffusers_folder(folder):
    """A random UNet2DModel of diffusers with a scheduler, saved as its pipelines are."""
    reason = "diffusers is not installed (pip install score-priors[diffusers])"
    diffusers = pytest.importorskip("diffusers", reason=reason)
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
    )
    net.save_pretrained(folder / "unet")
    return net.eval(), diffusers


def test_schedulers_of_diffusers_tell_levels_and_prediction():
    x, sigma, net = images(), torch.tensor([0.3, 4.0]), Recorded()
    s, own = expand(sigma, x), expand(2 * sigma, x)

    def seen(**scheduler):
        return prior("diffusers", net, keywords={"scheduler": scheduler})

    score, sde = seen(_class_name="ScoreSdeVeScheduler", sigma_min=0.01, sigma_max=50.0)
    assert (sde.sigma_min, sde.sigma_max) == (0.01, 50.0)
    assert_near(score(x, sigma), x.cos())
    torch.testing.assert_close(net.seen[1], sigma)

    score, sde = seen(_class_name="FlowMatchEulerDiscreteScheduler", num_train_timesteps=100)
    t = own / (1 + own)
    noisy = (1 - t) * (2 * x - 1)  # of x0 + sigma z: (1 - t) x0 + t z
    x0 = noisy - t * noisy.cos()  # the network predicts z - x0
    assert_near(score(x, sigma), ((x0 + 1) / 2 - x) / s**2)
    torch.testing.assert_close(net.seen[1], 100 * t.flatten())

    score, sde = seen(_class_name="EDMEulerScheduler", sigma_min=0.002, sigma_max=80.0)
    denoised = EDMPrecond(net)(2 * x - 1, 2 * sigma)
    assert_near(score(x, sigma), ((denoised + 1) / 2 - x) / s**2)

    cosine = seen(beta_schedule="squaredcos_cap_v2", num_train_timesteps=50).sde
    guided = prior("guided_diffusion", net, keywords={"noise_schedule": "cosine",
                                                      "diffusion_steps": 50}).sde  # fmt: skip
    assert cosine == guided
    trained = seen(trained_betas=[0.1, 0.2]).sde
    assert trained.sigma_max == pytest.approx(np.sqrt(0.28 / 0.72) / 2)
    for scheduler, message in (
        ({}, "expected the keyword scheduler"),
        ({"prediction_type": "flow"}, "expected prediction_type out of epsilon"),
        ({"beta_schedule": "sigmoid"}, "expected beta_schedule out of linear"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}, "expected sigma_data=0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            seen(**scheduler)


def test_a_unet_of_diffusers_and_its_scheduler(tmp_path):
    net, diffusers = diffusers_folder(tmp_path)
    for kind in ("epsilon", "sample", "v_prediction"):
        scheduler = diffusers.DDPMScheduler(
            prediction_type=kind, beta_schedule="scaled_linear", clip_sample=False
        )
        scheduler.save_pretrained(tmp_path / "scheduler")
        score, _ = checkpoint.load_prior(tmp_path, "cpu", format="diffusers")
        step = torch.tensor(500)
        a = scheduler.alphas_cumprod[step]
        clean, noise = 2 * images() - 1, torch.randn(2, 1, 16, 16)
        noisy = scheduler.add_noise(clean, noise, step[None])
        sigma = ((1 - a) / a).sqrt().expand(2) / 2
        with torch.no_grad():
            output = net(noisy, step).sample
            x0 = scheduler.step(output, 500, noisy).pred_original_sample  # the package's own
        x = (noisy / a.sqrt() + 1) / 2
        expected = ((x0 + 1) / 2 - x) / expand(sigma, x) ** 2
        assert_near(score(x, sigma), expected)


def test_a_unet_of_diffusers_reconstructs(tmp_path):
    _, diffusers = diffusers_folder(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    checkpoint.import_foreign(tmp_path, tmp_path / "ours.pt", "diffusers")
    config = load_config(str(ROOT / "configs" / "evaluate.py"))
    config.data.image_size, config.limit, config.panels = 32, 1, 0
    config.sampler.name, config.sampler.num_steps = "pnp", 3
    for name, format_ in ((tmp_path, "diffusers"), (tmp_path / "ours.pt", "")):
        config.prior, config.prior_format = str(name), format_
        evaluation.evaluate(config, tmp_path / f"out{format_}", "cpu")
    psnr = [psnr_of(tmp_path / out) for out in ("out", "outdiffusers")]
    assert psnr[0] == pytest.approx(psnr[1], abs=1e-3)


def psnr_of(folder) -> float:
    """Mean PSNR of a results folder in dB."""
    return float(np.mean([float(row["psnr"]) for row in read_rows(folder)]))


@pytest.mark.slow
def test_a_unet_of_diffusers_trained_for_a_minute_is_worth_it(tmp_path):
    """Trained by the package's own scheduler; used by pnp from the command line."""
    net, diffusers = diffusers_folder(tmp_path)
    scheduler = diffusers.DDPMScheduler()
    scheduler.save_pretrained(tmp_path / "scheduler")
    config = load_config(str(ROOT / "configs" / "demo.py"))
    config.data.crop = 32
    stream, adam = train.create_stream(config), torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(MINUTE):
        clean = torch.stack([stream[8 * step + i] for i in range(8)]) * 2 - 1
        noise = torch.randn(clean.shape, generator=generator)
        # mostly low noise, where most of a reconstruction happens
        times = (1000 * torch.rand(8, generator=generator) ** 2).long()
        output = net(scheduler.add_noise(clean, noise, times), times).sample
        loss = (output - noise).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    net.save_pretrained(tmp_path / "unet")
    fields = {"prior": tmp_path, "prior_format": "diffusers", "data.image_size": 96, "limit": 2}
    psnr = {}
    for name in ("zero_filled", "pnp"):
        run = subprocess.run(
            [sys.executable, "-m", "evaluation.evaluate", f"--out={tmp_path / name}",
             f"--config.sampler.name={name}", "--config.sampler.num_steps=20",
             *(f"--config.{field}={value}" for field, value in fields.items())],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        psnr[name] = psnr_of(tmp_path / name)
    assert psnr["pnp"] > psnr["zero_filled"] + 0.5, psnr


def test_a_file_that_was_opened_is_not_read_again(tmp_path, monkeypatch):
    path, reads = tmp_path / "theirs.pth", []
    expected = prior("edm", build("edm", *write(path, "edm")))
    read = files.read_file
    monkeypatch.setattr(files, "read_file", lambda *args: reads.append(args) or read(*args))
    opened = checkpoint.open_prior(path, "edm")
    assert checkpoint.training_config(opened).sde.sigma_max == expected.sde.sigma_max
    assert checkpoint.describe(opened).startswith("theirs.pth: ")
    score, sde = checkpoint.load_prior(opened, "cpu")
    assert (sde.sigma_max, score.joint) == (expected.sde.sigma_max, expected.score.joint)
    assert len(reads) == 1
    config = load_config("configs/sample.py")  # of a command that needs all three
    config.prior, config.prior_format, config.image_size = str(path), "edm", 16
    config.num_images, config.num_steps = 1, 2
    sampling.sample(config, tmp_path / "out", "cpu")
    assert len(reads) == 2

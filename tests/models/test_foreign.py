"""Other people's networks: their outputs on their own weights, and what does not fit."""

import ast

import pytest
import torch
from torch.nn import functional as F

from models.foreign import build, edm, guided_diffusion, ncsnv2
from models.ncsnpp import NCSNpp
from models.original import original_names
from models.resample import downsample2, upsample2

TINY_DDPMPP = {
    "nf": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": True,
    "fourier_scale": 16.0,
    "conditioning": "time",
    "fir": False,
    "pyramid": False,
    "attention_levels": [1],
    "centred": True,
}
SETS = {
    "ncsnv2deepest_ngf8": ("ncsnv2", "labels"),
    "edm_songunet_ddpmpp": ("edm", "sigma"),
    "edm_dhariwal": ("edm", "sigma"),
    "ve_songunet_ncsnpp": ("edm", "sigma"),
    "vp_songunet_ddpmpp": ("edm", "sigma"),
    "guided_unet_nf32": ("guided_diffusion", "timesteps"),
    "score_sde_vp_ddpmpp": ("score_sde", "labels"),
    "score_sde_vp_ncsnpp": ("score_sde", "labels"),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def keywords_and_state(vectors: dict) -> tuple[dict, dict]:
    text = str(vectors["keywords"]) if "keywords" in vectors else '{"ngf": 8}'
    keywords = ast.literal_eval(text)
    if "precond" in vectors:
        keywords["precond"] = str(vectors["precond"])
    state = {
        name.removeprefix("state/"): torch.from_numpy(value)
        for name, value in vectors.items()
        if name.startswith("state/")
    }
    return keywords, state


@pytest.mark.parametrize("name", SETS)
def test_matches_the_original_network(reference, name):
    format_, conditioning = SETS[name]
    vectors = reference(name)
    net = build(format_, *keywords_and_state(vectors))
    out = net(torch.from_numpy(vectors["x"]), torch.from_numpy(vectors[conditioning]))
    expected = torch.from_numpy(vectors["out"])
    assert out.shape == expected.shape
    error = (out - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() < 1e-4  # of each sample: the noise levels differ by orders of magnitude


def tiny(format_: str) -> tuple[dict, dict]:
    """Keywords and random weights of a small network of a format, made here."""
    generator = torch.Generator().manual_seed(0)
    if format_ == "score_sde":
        keywords = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "embedding_type": "positional"}
        keywords |= {"fir": False, "progressive_input": "none", "scale_by_sigma": False}
        net = NCSNpp(**TINY_DDPMPP)
        ours = net.state_dict()
        state = {name: ours[path] for name, (path, _) in original_names(net).items()}
        nin = {name: w[..., 0, 0].T for name, w in state.items() if ".NIN_" in name and w.ndim > 1}
        return keywords, state | nin
    if format_ == "ncsnv2":
        keywords, net = {"ngf": 4}, ncsnv2.NCSNv2Deepest(ngf=4, num_channels=2, num_levels=3)
        net.sigmas = torch.tensor([10.0, 1.0, 0.1])
    elif format_ == "guided_diffusion":
        keywords = {"model_channels": 32, "in_channels": 1, "out_channels": 2, "num_res_blocks": 1}
        keywords |= {"attention_resolutions": (2,), "channel_mult": (1, 1), "image_size": 32}
        # one channel a group: without it the label would be normalised away
        keywords["use_scale_shift_norm"] = True
        own = {name: value for name, value in keywords.items() if name != "image_size"}
        net = guided_diffusion.UNet(**own)
    else:
        keywords = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "augment_dim": 9}
        net = edm.SongUNet(img_resolution=16, in_channels=1, out_channels=1, **keywords)
    state = {
        name: value if name == "sigmas" else 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in net.state_dict().items()
    }
    return keywords, state


@pytest.mark.parametrize("format_", ["score_sde", "ncsnv2", "guided_diffusion", "edm"])
def test_a_state_dict_has_to_fit_exactly(format_):
    keywords, state = tiny(format_)
    build(format_, keywords, state)
    name = next(name for name in reversed(state) if name.endswith("weight"))
    without = {key: value for key, value in state.items() if key != name}
    with pytest.raises(ValueError, match=f"missing .*{name.removeprefix('model.')}"):
        build(format_, keywords, without)
    with pytest.raises(ValueError, match=r"unexpected another.weight"):
        build(format_, keywords, {**state, "another.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"expected shape .*, got \(7,\)"):
        build(format_, keywords, {**state, name: torch.ones(7)})


@pytest.mark.parametrize("format_", ["score_sde", "ncsnv2", "guided_diffusion", "edm"])
def test_unknown_and_missing_keywords_are_named(format_):
    keywords, state = tiny(format_)
    with pytest.raises(ValueError, match=r"expected keywords .*, got wrong"):
        build(format_, {**keywords, "wrong": 1}, state)
    missing = next(iter(keywords))
    left = {key: value for key, value in keywords.items() if key != missing}
    if format_ != "edm":  # all have defaults there, with which the weights do not fit
        with pytest.raises(ValueError, match=missing):
            build(format_, left, state)
    else:
        with pytest.raises(ValueError, match="are the keywords the right ones"):
            build(format_, left, state)


def test_unknown_formats_and_kinds_list_the_known_ones():
    with pytest.raises(ValueError, match=r"expected a format out of score_sde, .*, got 'edm2'"):
        build("edm2", {}, {})
    keywords, state = tiny("edm")
    with pytest.raises(ValueError, match=r"expected precond out of EDMPrecond.*iDDPMPrecond"):
        build("edm", {**keywords, "precond": "iDDPMPrecond"}, state)
    with pytest.raises(ValueError, match="expected model_type out of SongUNet, DhariwalUNet"):
        build("edm", {**keywords, "model_type": "UNet"}, state)
    with pytest.raises(ValueError, match="expected progressive='none' or 'output_skip'"):
        build("score_sde", {**tiny("score_sde")[0], "progressive": "residual"}, {})
    with pytest.raises(ValueError, match="with 'input_skip' only"):
        build("score_sde", {**tiny("score_sde")[0], "progressive": "output_skip"}, {})


def by_names(state: dict, x, sigma):
    """NCSN++ with input_skip and output_skip, channel multipliers (1, 1), from its state dict.

    The original's modules in order: Fourier features, two dense layers, the first convolution; a
    block, one that halves, resampling, the image's convolution; a block; two blocks with attention
    between; up: two blocks, normalisation and convolution, one that doubles; two blocks,
    resampling, normalisation and convolution.
    """

    def of(index, name="", kind="weight"):
        return state[".".join(filter(None, ["all_modules", str(index), name, kind]))]

    def conv(h, index, name=""):
        weight = of(index, name)
        return F.conv2d(h, weight, of(index, name, "bias"), padding=weight.shape[-1] // 2)

    def norm(h, index, name=""):
        groups = h.shape[1] // 4
        return F.group_norm(h, groups, of(index, name), of(index, name, "bias"), eps=1e-6)

    def block(h, index, resample=lambda v: v):
        skip, h = resample(h), resample(F.silu(norm(h, index, "GroupNorm_0")))
        features = F.linear(F.silu(embedding), of(index, "Dense_0"), of(index, "Dense_0", "bias"))
        h = conv(h, index, "Conv_0") + features[..., None, None]
        h = conv(F.silu(norm(h, index, "GroupNorm_1")), index, "Conv_1")
        has_conv = f"all_modules.{index}.Conv_2.weight" in state
        return ((conv(skip, index, "Conv_2") if has_conv else skip) + h) / 2**0.5

    def attend(h, index):
        n = norm(h, index, "GroupNorm_0").flatten(2)  # (B, C, HW)
        q, k, v = (
            of(index, f"NIN_{i}", "W").T @ n + of(index, f"NIN_{i}", "b")[:, None] for i in range(3)
        )
        weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        out = of(index, "NIN_3", "W").T @ (v @ weights.transpose(1, 2))
        return (h + (out + of(index, "NIN_3", "b")[:, None]).view_as(h)) / 2**0.5

    angle = 2 * torch.pi * sigma.log()[:, None] * of(0, kind="W")
    embedding = torch.cat([angle.sin(), angle.cos()], 1)
    embedding = F.linear(embedding, of(1), of(1, kind="bias"))
    embedding = F.linear(F.silu(embedding), of(2), of(2, kind="bias"))
    image = 2 * x - 1
    skips = [conv(image, 3)]
    skips.append(block(skips[-1], 4))
    skips.append(block(skips[-1], 5, downsample2) + conv(downsample2(image), 7, "Conv_0"))
    skips.append(block(skips[-1], 8))
    h = block(attend(block(skips[-1], 9), 10), 11)
    for index in (12, 13):
        h = block(torch.cat([h, skips.pop()], 1), index)
    image = conv(F.silu(norm(h, 14)), 15)
    h = block(h, 16, upsample2)
    for index in (17, 18):
        h = block(torch.cat([h, skips.pop()], 1), index)
    image = upsample2(image) + conv(F.silu(norm(h, 20)), 21)
    return image / sigma[:, None, None, None]


def test_ncsnpp_of_images_is_the_originals():
    keywords = {"nf": 8, "ch_mult": [1, 1], "num_res_blocks": 1}
    keywords |= {"progressive": "output_skip", "progressive_input": "input_skip"}
    net = NCSNpp(**keywords_of_ours())
    torch.manual_seed(0)
    state = {}
    for name, (path, _) in original_names(net).items():
        weight = net.state_dict()[path]
        weight = weight[..., 0, 0].T if ".NIN_" in name and weight.ndim > 1 else weight
        state[name] = 0.3 * torch.randn(weight.shape)
    assert [name for name in state if name.startswith(("all_modules.6.", "all_modules.19."))] == []
    x, sigma = torch.rand(2, 1, 8, 8), torch.tensor([0.3, 5.0])
    found, expected = build("score_sde", keywords, state)(x, sigma), by_names(state, x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def keywords_of_ours() -> dict:
    """Of an `NCSNpp` of images."""
    return {"nf": 8, "ch_mult": (1, 1), "num_res_blocks": 1, "attention": True,
            "fourier_scale": 16.0, "images": True}  # fmt: skip


def test_networks_say_which_images_they_take():
    for format_ in ("score_sde", "ncsnv2", "guided_diffusion", "edm"):
        net = build(format_, *tiny(format_))
        with pytest.raises(ValueError, match="expected"):
            net(torch.zeros(1, net.num_channels, 17, 16), torch.ones(1).long())

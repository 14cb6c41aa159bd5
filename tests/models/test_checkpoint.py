"""Checkpoints: atomic, strict, nothing executed, originals imported."""

import errno
import re
import warnings

import pytest
import torch

from configs import base
from models import checkpoint, create_model
from models.original import original_names
from operators.batch import derive_seed
from tests.helpers.tiny_prior import write_prior


def small(size: str = "1"):
    config = base.get_config(size)
    config.model.nf = 8
    config.model.num_res_blocks = 1
    return config


def original_file(path, size="2", prefix="module."):
    """A checkpoint as the original code writes it, its EMA weights being twice the others."""
    config = small(size)
    torch.manual_seed(1)
    net = create_model(config)
    ours = net.state_dict()
    state = {}
    for name, (path_of_ours, convert) in original_names(net).items():
        weight = torch.randn_like(ours[path_of_ours])
        if convert.__name__ == "_matrix_to_conv":
            weight = weight[:, :, 0, 0].T.contiguous()
        state[name] = weight
    trainable = [name for name in state if not name.startswith("all_modules.0.")]
    payload = {
        "model": {prefix + name: w for name, w in state.items()} | {"sigmas": torch.ones(3)},
        "ema": {
            "decay": 0.999,
            "num_updates": 7,
            "shadow_params": [2 * state[name] for name in trainable],
        },
        "step": 11,
    }
    torch.save(payload, path)
    return config, state


@pytest.mark.parametrize("size", ["1", "4_attention"])
def test_original_checkpoint_round_trip(tmp_path, size):
    config, state = original_file(tmp_path / "original.pth", size)
    checkpoint.import_original(tmp_path / "original.pth", tmp_path / "ours.pt", config)
    payload = checkpoint.load(tmp_path / "ours.pt")
    assert payload["step"] == 11
    for name, (path, convert) in original_names(create_model(config)).items():
        expected = convert(state[name])
        assert torch.equal(payload["model"][path], expected)
        factor = 1 if path == "embedding.frequencies" else 2
        assert torch.equal(payload["ema"][path], factor * expected)


def test_load_prior_samples_with_the_averaged_weights(tmp_path):
    config, _ = original_file(tmp_path / "original.pth")
    checkpoint.import_original(tmp_path / "original.pth", tmp_path / "ours.pt", config)
    score, sde = checkpoint.load_prior(tmp_path / "ours.pt", device="cpu")
    assert (sde.sigma_min, sde.sigma_max) == (0.01, 378.0)
    net = create_model(config)
    net.load_state_dict(checkpoint.load(tmp_path / "ours.pt")["ema"])
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 2.0])
    with torch.no_grad():
        expected = net.eval()(x, sigma)
    torch.testing.assert_close(score(x, sigma), expected, rtol=1e-5, atol=1e-4)
    z = torch.complex(x, x.flip(0))
    parts = score(z, sigma)
    torch.testing.assert_close(parts.real, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(parts.imag, score(x.flip(0), sigma), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("flip", "rotate"), [(True, True), (True, False), (False, True)])
def test_a_prior_is_symmetric_only_if_trained_in_all_positions(tmp_path, flip, rotate):
    path = write_prior(tmp_path / "prior.pt")
    payload = checkpoint.load(path)
    payload["config"]["data"] |= {"flip": flip, "rotate": rotate}
    checkpoint.save(path, payload)
    score, _ = checkpoint.load_prior(path, device="cpu")
    assert score.symmetric == (flip and rotate)


def write_network(path, name="ncsnpp"):
    """A prior file with random weights, and its network."""
    config = small("3")
    if name != "ncsnpp":
        config.model = {"name": name, "nf": 8, "ch_mult": (1, 2, 2), "num_res_blocks": 1}
    torch.manual_seed(0)
    net = create_model(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    checkpoint.save(path, {"config": config.to_dict(), "ema": net.state_dict(), "step": 0})
    return net.eval().requires_grad_(False)


def test_priors_take_images_of_any_size(tmp_path):
    """Depth 3 halves twice: 50 x 70 is mirrored to 52 x 72."""
    net = write_network(tmp_path / "prior.pt")
    score, _ = checkpoint.load_prior(tmp_path / "prior.pt", "cpu")
    parts, sigma = torch.rand(2, 1, 50, 70), torch.tensor([0.2, 0.2])
    padded = torch.nn.functional.pad(parts, (0, 2, 0, 2), mode="reflect")
    with pytest.raises(ValueError, match="multiples of 4"):
        net(parts, sigma)
    expected = net(padded, sigma)[..., :50, :70]
    found = score(torch.complex(parts[:1], parts[1:]), sigma[:1])
    assert found.shape == (1, 1, 50, 70)
    torch.testing.assert_close(torch.cat([found.real, found.imag]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ncsnpp", "bias_free_unet"])
def test_sizes_that_fit_are_left_alone(tmp_path, name):
    """And all sizes where the network pads by itself."""
    net = write_network(tmp_path / "prior.pt", name).to(memory_format=torch.channels_last)
    score, _ = checkpoint.load_prior(tmp_path / "prior.pt", "cpu")
    sizes = [(16, 24), (15, 22)] if name == "bias_free_unet" else [(16, 24)]
    for size in sizes:
        x, sigma = torch.rand(2, 1, *size), torch.tensor([0.2, 3.0])
        assert torch.equal(score(x, sigma), net(x, sigma))


def test_import_command(tmp_path, capsys):
    original_file(tmp_path / "original.pth", "2")
    config = tmp_path / "config.py"
    config.write_text(
        "from configs import base\n"
        "def get_config(size='1'):\n"
        "    config = base.get_config(size)\n"
        "    config.model.nf, config.model.num_res_blocks = 8, 1\n"
        "    return config\n"
    )
    arguments = ["import", str(tmp_path / "original.pth"), str(tmp_path / "ours.pt")]
    checkpoint._main([*arguments, f"--config={config}:2"])
    assert "wrote" in capsys.readouterr().out
    checkpoint.load_prior(tmp_path / "ours.pt")
    with pytest.raises(SystemExit, match=r"error: expected an EMA list of \d+ parameters"):
        checkpoint._main([*arguments, f"--config={config}:1"])


def test_import_names_every_problem():
    net = create_model(small())
    state = {name: net.state_dict()[path] for name, (path, _) in original_names(net).items()}
    del state["all_modules.3.bias"]
    state["all_modules.99.weight"] = torch.zeros(1)
    state["all_modules.1.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match="3 problems") as error:
        checkpoint.import_state_dict(net, state)
    text = str(error.value)
    assert "missing all_modules.3.bias" in text
    assert "unexpected all_modules.99.weight" in text
    assert "all_modules.1.bias: expected shape (32,), got (7,)" in text


def test_another_architecture_is_refused(tmp_path):
    net = create_model(small("1"))
    path = tmp_path / "step_00000001.pt"
    checkpoint.save(path, {"config": small("2").to_dict(), "ema": net.state_dict()})
    with pytest.raises(checkpoint.CheckpointError, match="another architecture"):
        checkpoint.load_prior(path)


class Harmful:
    def __reduce__(self):
        return (open, ("harm", "w"))


def test_pickled_objects_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "model": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(checkpoint.CheckpointError, match="pickled objects, which are refused"):
        checkpoint.load(tmp_path / "bad.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused_and_passed_over(tmp_path, keep):
    for step in (1, 2):
        checkpoint.save(tmp_path / f"step_{step:08d}.pt", {"w": torch.randn(1000), "step": step})
    newest = tmp_path / "step_00000002.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(checkpoint.CheckpointError, match="truncated, corrupt"):
        checkpoint.load(newest)
    with pytest.warns(UserWarning, match="passed over .*step_00000002"):
        assert checkpoint.find_latest(tmp_path).name == "step_00000001.pt"


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "step_00000001.pt"
    checkpoint.save(path, {"step": 1})

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datasets.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_missing_prior_lists_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nonsense: expected a checkpoint file, a folder"):
        checkpoint.load_prior("nonsense")
    with pytest.raises(FileNotFoundError, match="in this folder"):
        checkpoint.load_prior(tmp_path)


def test_a_file_of_the_original_says_how_to_import_it(tmp_path):
    original_file(tmp_path / "original.pth")
    with pytest.raises(checkpoint.CheckpointError, match=r"models\.checkpoint import ORIGINAL"):
        checkpoint.load(tmp_path / "original.pth")


def test_derived_seeds_are_stable_and_distinct():
    # fixed values: a change would change every published number
    assert derive_seed(42, "mask", "file.h5:3") == derive_seed(42, "mask", "file.h5:3")
    seeds = {derive_seed(s, k, n) for s in range(5) for k in ("a", "b") for n in range(20)}
    assert len(seeds) == 200
    assert derive_seed(1, 23) != derive_seed(12, 3) != derive_seed(1, "23")


def test_export_keeps_what_sampling_needs(tmp_path):
    config = base.get_config("1")
    config.model.nf = 4
    config.data.root = "/somewhere"
    config.training.init = "/elsewhere/prior.pt"
    torch.manual_seed(0)
    net = create_model(config)
    net.output.weight.data.normal_()  # as after training; fresh ones are too small for float16
    payload = {"config": config.to_dict(), "model": {}, "ema": net.state_dict(), "step": 7}
    path = tmp_path / "checkpoints" / "step_00000007.pt"
    checkpoint.save(path, payload | {"optimizer": {"large": torch.zeros(1000)}})
    for flags in ([], ["--half"]):
        out = tmp_path / f"prior{len(flags)}.pt"
        checkpoint._main(["export", str(tmp_path), str(out), *flags])
        kept = checkpoint.load(out)
        assert kept.keys() == {"format", "config", "ema", "step"}
        assert kept["config"]["data"]["root"] == ""
        assert kept["config"]["training"]["init"] == "prior.pt"
        x, sigma = torch.rand(1, 1, 8, 8), torch.tensor([0.1])
        score, _ = checkpoint.load_prior(out, "cpu")
        tolerance = 2e-3 if flags else 1e-6
        with torch.no_grad():
            expected = net(x, sigma)
        assert (score(x, sigma) - expected).norm() < tolerance * expected.norm()
    assert out.stat().st_size < (tmp_path / "prior0.pt").stat().st_size
    payload["ema"] = {name: w * 1e9 for name, w in net.state_dict().items()}
    checkpoint.save(path, payload)
    with pytest.raises(ValueError, match=r"too large for float16.*without --half"):
        checkpoint.export(path, out, half=True)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (5, r"step_5.pt: an unfinished prior: step 5 of 100, and the learning rate still warms up"),
        (50, r"an unfinished prior: step 50 of 100; its training can be continued"),
        (100, ""),
        (101, ""),
    ],
)
def test_an_unfinished_prior_is_announced(tmp_path, tiny_config, step, message):
    tiny_config.training.num_steps, tiny_config.optim.warmup = 100, 20
    state = create_model(tiny_config).state_dict()
    payload = {"config": tiny_config.to_dict(), "model": state, "ema": state, "step": step}
    path = tmp_path / f"step_{step}.pt"
    checkpoint.save(path, payload)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checkpoint.load_prior(path, device="cpu")
    assert len(caught) == bool(message)
    assert not message or re.search(message, str(caught[0].message))


def test_shipped_and_imported_priors_are_finished(tmp_path):
    config, _ = original_file(tmp_path / "original.pth")
    checkpoint.import_original(tmp_path / "original.pth", tmp_path / "ours.pt", config)
    assert checkpoint.unfinished(checkpoint.load(tmp_path / "ours.pt")) == ""
    for path in checkpoint.WEIGHTS.glob("*.pt"):
        title = path.with_suffix(".md").read_text().splitlines()[0]
        expected = title.endswith("(unfinished)")
        assert bool(checkpoint.unfinished(checkpoint.load(path))) == expected


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("natural_smal", "did you mean natural_small"),
        ("Natural-Base", "did you mean natural_base"),
        ("natural_small.pth", "did you mean natural_small"),
        ("runs/knee_l", r"did you mean runs/knee_1\?"),
        ("runs/knee_1/checkpoints/step_1.pt", r"did you mean runs/knee_1/checkpoints/step_01.pt\?"),
        ("rums/knee_1", "there is no folder rums"),
        ("zzz", "prior; known: "),
    ],
)
def test_a_wrong_name_of_a_prior_is_completed(tmp_path, monkeypatch, wrong, hint):
    folder = tmp_path / "runs" / "knee_1" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step_01.pt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=hint) as caught:
        checkpoint.resolve_prior(wrong)
    assert str(caught.value).startswith(f"{wrong}: expected a checkpoint file")
    assert str(caught.value).endswith("known: " + ", ".join(checkpoint.shipped_priors()))


def test_a_folder_without_checkpoints_is_told_from_a_wrong_name(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"a readable step_.*found none; a training writes"):
        checkpoint.resolve_prior(tmp_path)


def test_a_small_network_is_said_to_be_small(tmp_path):
    small, base = (checkpoint.describe(f"natural_{size}") for size in ("small", "base"))
    assert small == (
        "natural_small.pt: a small network of 0.64 million parameters, noise levels 0.002 to 1"
    )
    assert "small" not in base
    assert "4.2 million" in base


@pytest.mark.parametrize("name", checkpoint.shipped_priors())
def test_the_model_zoo_names_each_prior_and_its_size(name):
    state = checkpoint.load(checkpoint.WEIGHTS / f"{name}.pt")["ema"]
    count = f"{sum(weight.numel() for weight in state.values()):,}".replace(",", " ")
    assert f"[{name}]({name}.md)" in (checkpoint.WEIGHTS / "README.md").read_text()
    for text in (checkpoint.WEIGHTS / "README.md", checkpoint.WEIGHTS / f"{name}.md"):
        assert count in text.read_text()
    picture = checkpoint.WEIGHTS.parent / "docs" / "images" / f"samples_{name}.png"
    assert picture.stat().st_size < 150_000

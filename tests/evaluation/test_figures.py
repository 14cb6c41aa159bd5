"""Figures: what they show against the numbers, legible text, the images behind them."""

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from configs import load_config
from datasets.prepare import prepare_dataset
from evaluation import evaluate as evaluation
from evaluation.figures import main, make_plots, panel
from evaluation.metrics import all_metrics
from evaluation.own.preview import preview
from evaluation.results.cells import read_cell, read_grid
from evaluation.show.boxes import FEWEST_FOR_A_BOX, box_or_points
from evaluation.show.cell_images import CellImages, common_keys
from evaluation.show.panels import (
    ERROR_RANGES,
    Inset,
    Values,
    draw_panels,
    error_range,
    find_inset,
    quiet_corner,
)
from evaluation.show.plots import draw_boxplots, draw_depth, draw_lambda
from evaluation.show.style import NATURAL, plain, prior_colors, shade
from tests.conftest import ROOT
from tests.helpers.grids import slices, write_results

SIZES = ("1", "2", "3", "4", "4_attention")
MASKS = ("gaussian1d_4x", "gaussian1d_8x", "gaussian2d_4x", "poisson_15x", "radial_29")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Five masks, two priors, five sizes, two samplers: PSNR is 30 + size (+ 2 for knee)."""
    root = tmp_path_factory.mktemp("mri")
    for mask, (i, size), prior, sampler in itertools.product(
        MASKS, enumerate(SIZES), ("knee", "natural"), ("pc", "jalal")
    ):
        psnr = 30 + i + 2 * (prior == "knee") - 5 * (sampler == "jalal")
        rows = slices(psnr - 1, psnr, psnr + 4) + slices(psnr, psnr + 2, volume="other.h5")
        write_results(root / "pd" / mask / f"{prior}_{size}_{sampler}", rows)
    return root


def texts(figure):
    """The texts that are drawn and their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, ticks = [], []
    for axes in figure.findobj(Axes):
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            found = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            ticks += [label for tick in found for label in (tick.label1, tick.label2)]
            inside = [tick for tick in found if min(limits) <= tick.get_loc() <= max(limits)]
            drawn += [tick.label1 for tick in inside if axes.axison]
    drawn += [text for text in figure.findobj(Text) if text not in ticks]
    drawn = [text for text in drawn if text.get_text().strip() and text.get_visible()]
    return [(text, text.get_window_extent(canvas.get_renderer())) for text in drawn]


def assert_legible(figure):
    """At least 7 points, inside of the page, nothing over anything else; 7 inches at most."""
    assert figure.get_figwidth() <= 7
    found = texts(figure)
    assert found
    for text, box in found:
        assert text.get_fontsize() >= 7, text
        assert box.x0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5, text  # noqa: PT018
        assert box.y0 >= -0.5 and box.y1 <= figure.bbox.y1 + 0.5, text  # noqa: PT018
    for (a, box_a), (b, box_b) in itertools.combinations(found, 2):
        assert not box_a.overlaps(box_b), (a, b)


def test_boxplots_show_the_slices(grid):
    cells = read_grid([grid])
    figure = draw_boxplots(cells, "psnr")
    assert_legible(figure)
    pc, jalal = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["PD, PC", "PD, Jalal"]
    for axis, shift in ((pc, 0), (jalal, -5)):
        assert not axis.patches  # five slices: points, no boxes
        # PSNRs of each cell around its p: p - 1, p, p, p + 2, p + 4
        points = [part for part in axis.collections if isinstance(part, PathCollection)]
        assert [len(part.get_offsets()) for part in points] == [5] * 50
        lines = [part for part in axis.collections if isinstance(part, LineCollection)]
        medians = sorted(line.get_segments()[0][0, 1] for line in lines)
        expected = [30 + i + 2 * knee + shift for i in range(5) for knee in (0, 1)] * len(MASKS)
        assert medians == sorted(expected)
    groups = [part for part in pc.collections if isinstance(part, PathCollection)]
    places = [part.get_offsets()[0, 0] for part in groups]
    assert np.all(np.bincount(np.round(places).astype(int)) == 10)
    assert [t.get_text() for t in jalal.get_xticklabels()][-1] == "radial 29"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["knee 1", "natural 1", "knee 2"]


@pytest.mark.parametrize("horizontal", [False, True])
def test_boxes_only_of_enough_slices(horizontal):
    values = list(np.arange(FEWEST_FOR_A_BOX) ** 2.0)
    along, across = (0, 1) if horizontal else (1, 0)
    axis = Figure().subplots()
    box_or_points(axis, values, 1, 0.5, "red", horizontal=horizontal)
    assert len(axis.patches) == 1
    assert not axis.collections
    box = axis.patches[0].get_path().vertices[:, along]
    assert (box.min(), box.max()) == pytest.approx(np.percentile(values, [25, 75]).tolist())
    axis = Figure().subplots()
    box_or_points(axis, [*values[:-2], np.inf], 1, 0.5, "red", horizontal=horizontal)
    assert not axis.patches
    points, line = axis.collections
    assert points.get_offsets()[:, along].tolist() == values[:-2]
    ends = line.get_segments()[0]
    assert ends[:, along] == pytest.approx(np.median(values[:-2]))
    assert ends[:, across] == pytest.approx([0.75, 1.25])


def test_depth_shows_means_and_the_gap(grid):
    cells = read_grid([grid])
    figure = draw_depth(cells, "psnr")
    assert_legible(figure)
    assert len(figure.axes) == 10
    first = figure.axes[0]
    knee, natural = (container.lines[0] for container in first.containers)
    assert knee.get_ydata() == pytest.approx(33 + np.arange(5))
    assert natural.get_ydata() == pytest.approx(31 + np.arange(5))
    assert to_rgb(natural.get_color()) == to_rgb(NATURAL)
    gap = first.collections[-1].get_paths()[0].vertices
    assert {(x, y) for x, y in gap.round(6)} >= {(0, 31), (0, 33), (4, 35), (4, 37)}
    assert [t.get_text() for t in first.get_xticklabels()] == ["1", "2", "3", "4", "4a"]
    assert first.get_ylabel() == "PC: PSNR (dB)"
    one_prior = draw_depth([c for c in cells if c.method.prior == "natural"], "ssim")
    assert len(one_prior.axes[0].collections) == 1  # the intervals; no gap


def test_lambda_zero_is_apart_and_labelled(tmp_path):
    weights = (0, 0.001, 0.01, 0.05, 1)
    for size, (i, weight) in itertools.product(("1", "4_attention"), enumerate(weights)):
        rows = slices(20 + i, 22 + i) + slices(21 + i, volume="b.h5")
        write_results(tmp_path / "lodopab" / "views_30" / f"ct_{size}_pc_lambda_{weight}", rows)
    figure = draw_lambda(read_grid([tmp_path]), "psnr")
    assert_legible(figure)
    (axis,) = figure.axes
    labels = {
        t.get_text(): x for t, x in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)
    }
    assert list(labels) == ["0", "0.001", "0.01", "0.1", "1"]
    lines = [container.lines[0] for container in axis.containers]
    positive, zero = lines[:2]
    assert positive.get_xdata() == pytest.approx([0.001, 0.01, 0.05, 1])
    assert positive.get_ydata() == pytest.approx([22, 23, 24, 25])
    assert zero.get_xdata() == pytest.approx([labels["0"]])
    assert zero.get_ydata() == pytest.approx([21])
    assert axis.get_xlim()[0] < labels["0"] < 0.001
    assert axis.get_xscale() == "log"
    assert len(figure.legends[0].get_texts()) == 2


def test_colors():
    colors = prior_colors(["knee", "natural", "ct"])
    assert list(colors) == ["knee", "ct", "natural"]
    assert len(set(colors.values())) == 3
    greys = [shade(NATURAL, size).sum() for size in SIZES]
    assert greys == sorted(greys, reverse=True)
    assert shade(NATURAL, "4_attention") == pytest.approx(to_rgb(NATURAL))


def test_files_and_errors(grid, tmp_path, caplog, capsys):
    write_results(tmp_path / "mri" / "pd" / "m" / "knee_1_pc", slices(30, 31))
    write_results(tmp_path / "mri" / "pd" / "m" / "knee_2_pc", slices(30))
    write_results(tmp_path / "mri" / "brain" / "m" / "knee_2_pc", slices(30))
    main(["depth", str(tmp_path / "mri"), f"--out={tmp_path / 'out'}", "--metric=ssim"])
    names = [f"depth_{data}_ssim.{end}" for data in ("brain", "pd") for end in ("pdf", "png")]
    assert [line.rsplit("/")[-1] for line in capsys.readouterr().out.splitlines()] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert "knee_2_pc: has fewer slices" in caplog.text
    with pytest.raises(ValueError, match=r"expected finished slices of methods .*_lambda_VALUE"):
        make_plots("lambda", [grid], "psnr", tmp_path)
    first = (tmp_path / "out" / "depth_pd_ssim.pdf").read_bytes()
    make_plots("depth", [tmp_path / "mri"], "ssim", tmp_path / "out")
    assert (tmp_path / "out" / "depth_pd_ssim.pdf").read_bytes() == first


def test_inset_finds_the_detail():
    rng = np.random.default_rng(0)
    image = np.full((60, 50), 0.5)
    image[35:45, 20:30] += 0.3 * rng.random((10, 10))
    assert find_inset(image) == Inset(35, 20, 10)
    assert find_inset(image.T) == Inset(20, 35, 10)
    corner = np.full((60, 50), 0.5)
    corner[50:, 40:] += 0.3 * rng.random((10, 10))
    assert find_inset(corner) == Inset(50, 40, 10)
    # detail in all corners but the upper left one, which is the inset's own
    busy = rng.random((60, 60))
    busy[:26, :26] = 0
    assert quiet_corner(busy, Inset(40, 40, 10)) == (0.0, pytest.approx(0.58))
    assert quiet_corner(busy, Inset(2, 2, 10)) != (0.0, pytest.approx(0.58))


def test_error_scale():
    flat = np.full((10, 10), 0.04)
    assert error_range([flat]) == 0.05
    assert error_range([flat, flat, 20 * flat]) == 0.05  # one bad method does not hide the others
    assert error_range([100 * flat]) == ERROR_RANGES[-1]


def axes_of_bars(figure):
    """Tick labels of the colour bars, by title."""
    inner = [axis for axis in figure.findobj(Axes) if axis.get_title().endswith(")")]
    return {a.get_title(): [text.get_text() for text in a.get_xticklabels()] for a in inner}


def test_panels_in_hounsfield_units():
    rng = np.random.default_rng(2)
    target = rng.random((40, 40))
    image = target + 0.05
    values = Values(2000.0, -1000.0, "HU")
    figure = draw_panels(target, {"TV": image}, {"TV": ""}, values=values, window=(40, 400))
    assert_legible(figure)
    shown = next(axis for axis in figure.axes if axis.get_title() == "TV")
    # -160 and 240 HU, in parts of the range from -1000 to 1000 HU
    assert shown.images[0].get_clim() == pytest.approx((0.42, 0.62))
    bars = axes_of_bars(figure)
    assert bars["images (HU)"] == ["\N{MINUS SIGN}160", "240"]
    assert bars["|reconstruction $-$ target|\n(HU)"] == ["0", "100"]
    with pytest.raises(ValueError, match="expected a window of LEVEL,WIDTH with a positive width"):
        draw_panels(target, {"TV": image}, {"TV": ""}, window=(40, 0))


def test_panels(tmp_path):
    rng = np.random.default_rng(1)
    target = rng.random((40, 40))
    names = ["zero-filled", "TV", "U-Net", "natural 1\nPC", "natural 4 + att.\nJalal"]
    images = {name: np.clip(target + 0.008 * i, 0, 1) for i, name in enumerate(names)}
    figure = draw_panels(
        target, images, dict.fromkeys(images, "26.97 dB, SSIM 0.696"), inset=Inset(3, 4, 8)
    )
    assert_legible(figure)
    # two lines of five places; each picture but the target has its error below
    axes = [axis for axis in figure.axes if axis.images]
    shown = {axis.get_title(): axis for axis in axes if axis.get_title()}
    assert list(shown) == ["target", *names]
    np.testing.assert_array_equal(shown["TV"].images[0].get_array(), images["TV"])
    errors = [a.images[0] for a in axes if a.images[0].get_cmap().name == "inferno"]
    assert len(errors) == 5
    np.testing.assert_allclose(errors[1].get_array(), np.abs(images["TV"] - target))
    assert {error.get_clim() for error in errors} == {(0, 0.02)}
    bars = axes_of_bars(figure)
    assert bars["images (part of the range)"] == ["0", "1"]
    assert bars["|reconstruction $-$ target|\n(part of the range)"] == ["0", "0.02"]
    enlarged = shown["TV"].child_axes[0].images[0]
    np.testing.assert_array_equal(enlarged.get_array(), images["TV"][3:11, 4:12])
    with pytest.raises(ValueError, match=r"expected an inset inside of \(40, 40\) pixels"):
        draw_panels(target, images, images, inset=Inset(35, 4, 8))
    with pytest.raises(ValueError, match=r"a: expected an image of \(40, 40\), got \(8, 8\)"):
        draw_panels(target, {"a": target[:8, :8]}, {"a": ""})
    panel(
        tmp_path / "panel.png",
        target=target,
        baseline=target * 1j,
        image=target,
        captions=("target", "baseline", "image"),
        title="title",
    )
    assert (tmp_path / "panel.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Zero-filled and FBP of small embedded slices."""
    root = tmp_path_factory.mktemp("results")
    folders = []
    for name, subset, operator in (("zero_filled", "brain", "mri"), ("fbp", "ct", "ct")):
        config = load_config(str(ROOT / "configs" / "evaluate.py"))
        config.sampler.name, config.data.subset, config.operator.name = name, subset, operator
        config.data.image_size, config.panels, config.limit = 64, 0, 3
        folders.append(root / subset / "measurement" / name)
        evaluation.evaluate(config, folders[-1], "cpu")
    return folders


def test_images_behind_the_results(evaluated):
    for folder in evaluated:
        cell = read_cell(folder)
        found = CellImages(cell)
        dataset = prepare_dataset(cell.config["data"], "test")
        assert found.keys == dataset.keys[:3]
        for i, key in enumerate(found.keys):
            np.testing.assert_array_equal(found.target(key), dataset[i].image[0])
            # both baselines are what `direct` gives, up to the batch size of the transforms
            np.testing.assert_allclose(found.direct(key), found.reconstruction(key), atol=1e-5)
            metrics = all_metrics(found.target(key), found.reconstruction(key))
            assert metrics == pytest.approx({name: cell.rows[key][name] for name in metrics})
    with pytest.raises(ValueError, match="expected slices that all folders have, got none in"):
        common_keys([CellImages(read_cell(folder)) for folder in evaluated])
    with pytest.raises(ValueError, match=r"nowhere: not in the data set of .*fbp; has it moved"):
        found.target("nowhere")


def test_panels_from_folders(evaluated, tmp_path, capsys):
    main(["panels", str(evaluated[0]), f"--out={tmp_path}", "--inset=10,12,16"])
    printed = capsys.readouterr().out
    assert "panels_patient09_FLAIR.h5_0.png" in printed
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(SystemExit, match=r"no slice x in all folders; there are: patient04"):
        main(["panels", str(evaluated[0]), "--key=x"])
    with pytest.raises(SystemExit):
        main(["panels", str(evaluated[0]), "--inset=1,2"])
    assert "expected ROW,COLUMN,SIDE in pixels, got '1,2'" in capsys.readouterr().err
    for wrong in ("40", "40,-400", "nan,1"):
        with pytest.raises(SystemExit):
            main(["panels", str(evaluated[0]), f"--window={wrong}"])
        assert "expected LEVEL,WIDTH" in capsys.readouterr().err
    unfinished = write_results(tmp_path / "a", slices(30))
    with pytest.raises(SystemExit, match=r"recon\.h5: not there yet; run evaluation\.evaluate"):
        main(["panels", str(unfinished)])


@pytest.mark.parametrize("name", [r"cost_$5_\x_$6", "a\nb", "\udcff", r"\$", "$$", "plain"])
def test_names_are_shown_as_they_are(tmp_path, name):
    shown = plain(name)
    text = Figure().text(0, 0, shown)
    assert text._preprocess_math(shown)[1] is False  # no mathematics
    if "$" in name:
        assert text._preprocess_math(shown)[0] == name
    look = np.zeros((8, 8))
    captions = ("a", "b", "c")
    panel(
        tmp_path / "panel.png",
        target=look,
        baseline=look,
        image=look,
        captions=captions,
        title=name,
    )
    preview(tmp_path / "preview.png", [(name, [("reconstruction", look)])])
    assert (tmp_path / "panel.png").read_bytes()[:4] == (tmp_path / "preview.png").read_bytes()[:4]

"""Tables from hand-made results: exact text, names of methods, best, missing, unfinished."""

import csv
import itertools
import shutil
import subprocess

import pytest

from evaluation.results.cells import MethodName, method_label, parse_method, read_cell, read_grid
from evaluation.show.markup import LATEX, Column, Text, escape, latex, markdown
from evaluation.tables import main, make_table
from tests.helpers.grids import slices, write_results


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("natural_1_pc", MethodName("pc", "natural", "1")),
        ("knee_4_attention_jalal", MethodName("jalal", "knee", "4_attention")),
        ("knee_4_pc", MethodName("pc", "knee", "4")),
        ("fastmri_knee_3_pnp", MethodName("pnp", "fastmri_knee", "3")),
        ("ct_2_annealed_langevin", MethodName("annealed_langevin", "ct", "2")),
        ("natural_1_pc_lambda_0.001", MethodName("pc", "natural", "1", 0.001)),
        ("natural_1_pc_lambda_0", MethodName("pc", "natural", "1", 0.0)),
        ("natural_1_pc_lambda_1e-3", MethodName("pc", "natural", "1", 0.001)),
        ("tv", MethodName("tv")),
        ("l1_wavelet", MethodName("l1_wavelet")),
        ("unet", MethodName("unet")),
        ("natural_5_pc", MethodName("natural_5_pc")),
        ("natural_1_pc_lambda_", MethodName("natural_1_pc_lambda_")),
    ],
)
def test_names_of_methods(name, method):
    assert parse_method(name) == method


def test_methods_in_words():
    assert method_label(parse_method("knee_4_attention_jalal")) == "knee 4 + att., Jalal"
    assert method_label(parse_method("natural_1_pc_lambda_0.0050")) == "natural 1, PC, λ = 0.005"
    assert method_label(parse_method("l1_wavelet")) == "L1-wavelet"
    assert method_label(parse_method("my_method")) == "my method"


@pytest.fixture
def grid(tmp_path):
    """Two masks of one data set: ties, a missing and an unfinished method, a sweep; and CT."""
    one = tmp_path / "mri" / "pd" / "gaussian1d_4x"
    write_results(one / "tv", slices(30, 32))
    write_results(one / "natural_1_pc", slices(34, 35))
    write_results(one / "natural_4_attention_pc", slices(34.004, 35.002))  # equal as shown
    write_results(one / "natural_1_jalal", slices(36))
    write_results(one / "natural_1_pc_lambda_0.5", slices(50, 50))
    two = tmp_path / "mri" / "pd" / "gaussian2d_4x"
    write_results(two / "tv", slices(20, 21), effective=7.52, operator__mask="gaussian2d")
    write_results(two / "natural_1_jalal", slices(), effective=7.52, operator__mask="gaussian2d")
    ct = tmp_path / "ct" / "lodopab" / "views_30"
    rows = slices(20, 22) + slices(25, volume="other.h5")
    more = [(*row, 0.1, "9e3") for row in rows]
    extra = ("residual", "measurement_hash")
    write_results(ct / "fbp", more, effective=None, operator__name="ct", extra=extra)
    better = [(key, psnr + 1, ssim, nmse / 2) for key, psnr, ssim, nmse in rows]
    write_results(ct / "ct_1_pc", better, effective=None, operator__name="ct")
    return tmp_path


def printed(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_study_table_as_markdown(grid, capsys):
    assert printed(capsys, "--grid", grid / "mri", "--metrics=psnr,nmse") == (
        "| Data | Measurement | Sampling | Metric | TV | natural 1, PC | natural 4 + att., PC "
        "| natural 1, Jalal |\n"
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |\n"
        "| PD | gaussian1d 4x | 4x (effective 4.00x) | PSNR (dB) | 31.00 ± 1.41 "
        r"| **34.50 ± 0.71** | **34.50 ± 0.71** | 36.00 \* |"
        "\n"
        "| PD | gaussian1d 4x | 4x (effective 4.00x) | NMSE | 0.0323 ± 0.0015 "
        r"| **0.0290 ± 0.0006** | **0.0290 ± 0.0006** | 0.0278 \* |"
        "\n"
        "| PD | gaussian2d 4x | 4x (effective 7.52x) | PSNR (dB) | **20.50 ± 0.71** "
        "| \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |\n"
        "| PD | gaussian2d 4x | 4x (effective 7.52x) | NMSE | **0.0488 ± 0.0017** "
        "| \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |\n"
        "\n"
        r"\* fewer slices than others of the row have; not compared with them"
        "\n"
    )


LATEX_TABLE = r"""\begin{tabular}{llllrrrr}
  \toprule
   &  &  &  & \multicolumn{1}{c}{Baselines} & \multicolumn{2}{c}{PC, natural prior} &"""
LATEX_TABLE += r""" \multicolumn{1}{c}{Jalal, natural prior} \\
  \cmidrule(lr){5-5} \cmidrule(lr){6-7} \cmidrule(lr){8-8}
  Data & Measurement & Sampling & Metric & TV & 1 & 4 + att. & 1 \\
  \midrule
  PD & gaussian1d 4x & 4x (effective 4.00x) & PSNR (dB) & 31.00 $\pm$ 1.41 &"""
LATEX_TABLE += r""" \textbf{34.50 $\pm$ 0.71} & \textbf{34.50 $\pm$ 0.71} & 36.00$^{*}$ \\
   &  &  & SSIM & 0.6200 $\pm$ 0.0283 &"""
LATEX_TABLE += r""" 0.6900 $\pm$ 0.0141 & \textbf{0.6901 $\pm$ 0.0141} & 0.7200$^{*}$ \\
   & gaussian2d 4x & 4x (effective 7.52x) & PSNR (dB) & \textbf{20.50 $\pm$ 0.71} &"""
LATEX_TABLE += r""" -- & -- & -- \\
   &  &  & SSIM & \textbf{0.4100 $\pm$ 0.0141} & -- & -- & -- \\
  \bottomrule
  \multicolumn{8}{l}{$^{*}$ fewer slices than others of the row have; not compared with them} \\
\end{tabular}
"""


def test_study_table_as_latex(grid, capsys):
    text = printed(capsys, "--grid", grid / "mri", "--metrics=psnr,ssim", "--format=latex")
    assert text == LATEX_TABLE


def test_latex_compiles(grid, capsys, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex (texlive-latex-base and texlive-latex-recommended)")
    flat = sorted((grid / "mri" / "pd" / "gaussian1d_4x").iterdir())
    tables = [
        printed(capsys, "--grid", grid / "mri", grid / "ct", "--format=latex", "--spread=ci"),
        printed(capsys, "--grid", grid / "ct", "--compare", "ct_1_pc", "fbp", "--format=latex"),
        make_table(flat, "latex"),
        latex([Column("".join(LATEX), number=False)], [[Text("".join(LATEX), bold=True)]]),
    ]
    (tmp_path / "tables.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + "\n\n".join(tables)
        + "\\end{document}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_study_table_as_csv_with_ct(grid, capsys):
    text = printed(capsys, "--grid", grid / "mri", grid / "ct", "--metrics=psnr", "--format=csv")
    table = {(r["measurement"], r["method"]): r for r in csv.DictReader(text.splitlines())}
    assert len(table) == 7  # the sweep and the empty folder have no line
    unfinished = table["gaussian1d_4x", "natural_1_jalal"]
    assert (unfinished["slices"], unfinished["finished"], unfinished["std"]) == ("1", "False", "")
    assert table["gaussian2d_4x", "tv"]["effective"] == "7.52"
    assert table["gaussian2d_4x", "tv"]["nominal"] == "4.0"
    ct = table["views_30", "ct_1_pc"]
    assert (ct["data"], ct["prior"], ct["size"], ct["sampler"]) == ("lodopab", "ct", "1", "pc")
    assert (ct["nominal"], ct["effective"], ct["finished"]) == ("", "", "True")
    assert float(ct["mean"]) == pytest.approx(70 / 3)
    assert float(ct["ci_low"]) < 70 / 3 < float(ct["ci_high"])


def test_intervals_instead_of_deviations(grid, capsys):
    lines = printed(capsys, "--grid", grid / "ct", "--metrics=psnr", "--spread=ci").splitlines()
    # of two volumes, with 2 slices of mean 21 and one of 25: Student's t with one degree of freedom
    # is 12.71, the standard error sqrt(2 * 2 (8/3)^2 / 9) = 1.78
    assert lines[2].endswith("| 22.33 [-0.26, 44.92] | **23.33 [0.74, 45.92]** |")
    assert "ct 30 views of 180°" in lines[2]
    lines = printed(capsys, "--grid", grid / "mri", "--metrics=psnr", "--spread=ci").splitlines()
    assert "| 31.00 | **34.50** |" in lines[2]  # one volume: no interval


def test_comparison(grid, capsys):
    arguments = ("--grid", grid / "ct", "--compare", "ct_1_pc", "fbp", "--metrics=psnr,nmse")
    lines = printed(capsys, *arguments).splitlines()
    assert lines[0] == (
        "| Data | Measurement | Sampling | Metric | slices | volumes | CT 1, PC | FBP "
        "| difference | 95 % interval | p (permutation) | p (Wilcoxon) |"
    )
    # two volumes: p is 0.5 at best, doubled for two lines
    assert lines[2] == (
        "| LoDoPaB | views 30 | ct 30 views of 180° | PSNR (dB) | 3 | 2 | 23.33 | 22.33 | +1.00 "
        "| [+1.00, +1.00] | 1.000 | 1.000 |"
    )
    minus = "\N{MINUS SIGN}"
    assert f"| 0.0226 | 0.0452 | {minus}0.0226 | [{minus}0.0444, {minus}0.0008]" in lines[3]
    table = list(csv.DictReader(printed(capsys, *arguments, "--format=csv").splitlines()))
    assert float(table[0]["difference"]) == pytest.approx(1.0)
    unpaired = printed(capsys, "--grid", grid / "mri", "--compare", "natural_1_jalal", "tv")
    assert "| 1 | 1 | 36.00 | 30.00 | +6.00 | \N{EN DASH} | 1.000 | 1.000 |" in unpaired


def test_a_comparison_of_different_measurements_is_warned_of(tmp_path, caplog):
    for name, measurement in (("tv", "aa"), ("unet", "ab")):
        rows = [(*row, measurement if i else "same") for i, row in enumerate(slices(30, 31, 32))]
        write_results(tmp_path / "pd" / "m" / name, rows, extra=("measurement_hash",))
    main(["--grid", str(tmp_path), "--compare", "tv", "unet"])
    assert "tv and unet: 2 slices were not measured alike, such as file.h5:1" in caplog.text


def test_metrics_of_volumes(grid, capsys):
    folder = grid / "ct" / "lodopab" / "views_30" / "fbp"
    (folder / "volumes.csv").write_text(
        "volume,slices,psnr,ssim,nmse\nfile.h5,2,24.0,0.5,0.1\nother.h5,1,30.0,0.7,0.1\n"
    )
    lines = printed(capsys, "--grid", grid / "ct", "--metrics=psnr", "--per=volume").splitlines()
    assert lines[2].endswith("| **27.00 ± 4.24** | \N{EN DASH} |")


def test_what_does_not_fit_is_an_error(grid, capsys, tmp_path):
    residual = printed(capsys, grid / "ct" / "lodopab" / "views_30" / "fbp")
    assert "zero_filled" in residual  # further columns do no harm
    with pytest.raises(SystemExit, match="no column 'residual'; there are: nfe, nmse, psnr, secon"):
        main(["--grid", str(grid / "ct"), "--metrics=residual"])
    with pytest.raises(SystemExit, match="no measurement has both tv and x; there are: natural_1"):
        main(["--grid", str(grid / "mri"), "--compare", "tv", "x"])
    with pytest.raises(SystemExit, match=r"expected results folders .*/DATA/MEASUREMENT/METHOD"):
        main(["--grid", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="no slice is finished yet"):
        main([str(grid / "mri" / "pd" / "gaussian2d_4x" / "natural_1_jalal")])
    for arguments, message in (
        (["--grid", str(grid), "--metrics=psnr,mse"], "unknown metric mse; known: psnr, ssim"),
        ([], "expected results folders, or --grid ROOT"),
        ([str(grid), "--compare", "a", "b"], "--compare needs --grid ROOT"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err


def test_what_is_no_results_folder_is_passed_over(grid, capsys, tmp_path):
    folder = grid / "mri" / "pd" / "gaussian1d_4x" / "tv"
    alone = printed(capsys, folder)
    unfinished = grid / "mri" / "pd" / "gaussian2d_4x" / "natural_1_jalal"
    (tmp_path / "table.md").write_text("a file")
    reconstruction = tmp_path / "scan"
    reconstruction.mkdir()
    (reconstruction / "config.json").write_text("{}")
    others = [unfinished, tmp_path / "table.md", reconstruction, tmp_path / "nowhere", grid / "mri"]
    main([str(path) for path in [*others, folder]])
    printed_now = capsys.readouterr()
    assert printed_now.out == alone
    notes = printed_now.err.splitlines()
    assert len(notes) == len(others)
    assert notes[0] == f"passed over {unfinished}: no slice is finished yet"
    assert all("not a results folder of evaluation.evaluate" in note for note in notes[1:])
    with pytest.raises(SystemExit, match=r"no finished slices:\n.*natural_1_jalal: no slice is"):
        main([str(path) for path in others])


def test_damage_is_not_passed_over(grid):
    folder = grid / "mri" / "pd" / "gaussian1d_4x" / "tv"
    (folder / "config.json").write_text("{")
    with pytest.raises(SystemExit, match=r"config\.json"):
        main([str(folder)])


def test_flat_table_names_the_prior(tmp_path):
    folder = write_results(tmp_path / "a", slices(30), prior="runs/knee_1", protocol="study")
    assert "| zero_filled (knee_1, study) | 6 | 1 | 30.00 | 0.6000 |" in make_table(
        [folder], "markdown"
    )


def test_labels_come_from_the_path(grid):
    cell = read_cell(grid / "mri" / "pd" / "gaussian1d_4x" / "natural_1_pc")
    assert (cell.data, cell.measurement, cell.method) == (
        "pd",
        "gaussian1d_4x",
        MethodName("pc", "natural", "1"),
    )
    assert cell.values("psnr") == {"file.h5:0": 34.0, "file.h5:1": 35.0}
    assert len(read_grid([grid / "mri", grid / "ct"])) == 9


def test_escaping():
    assert escape(r"a_b & 50% ~\x", LATEX) == (r"a\_b \& 50\% \textasciitilde{}\textbackslash{}x")
    columns = [Column("a|b", number=False)]
    assert markdown(columns, [[Text("x|y*")]]) == "| a\\|b |\n| --- |\n| x\\|y\\* |\n"


def test_a_missing_cell_makes_fewer_slices_of_that_metric(tmp_path, capsys):
    one = tmp_path / "mri" / "pd" / "gaussian1d_4x"
    write_results(one / "tv", slices(30, 32, 34))
    rows = slices(31, 39, 39)
    rows[0] = (rows[0][0], "", *rows[0][2:])
    write_results(one / "natural_1_pc", rows)
    psnr, ssim = printed(capsys, "--grid", tmp_path / "mri", "--metrics=psnr,ssim").splitlines()[
        2:4
    ]
    assert r"| **32.00 ± 2.00** | 39.00 ± 0.00 \* |" in psnr
    assert r"\*" not in ssim
    flat = printed(capsys, one / "tv", one / "natural_1_pc").splitlines()
    assert "39.00 ± 0.00 (2 of 3)" in flat[3]
    assert " of 3)" not in flat[2]


@pytest.mark.parametrize("start", ["[old] knee", "*new*"])
def test_latex_takes_no_row_for_an_argument(start):
    columns = [Column("data", number=False), Column("x")]
    rows = [[Text(start), Text("1")], [Text(start), Text("2")], [Text("b"), Text("3")]]
    for blocks in (False, True):
        lines = latex(columns, rows, blocks=blocks).splitlines()
        for above, line in itertools.pairwise(lines):
            if above.endswith(("\\\\", "\\midrule")):
                assert not line.strip().startswith(("[", "*"))
        assert any(line.strip().startswith("{}" + escape(start, LATEX)) for line in lines)

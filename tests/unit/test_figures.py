from __future__ import annotations

import json
import subprocess
import sys

import plotly.graph_objects as go
import pytest

from explorer.figures import layer_sigma_map, to_html

CELLS = {(1, 0.1): 0.25, (1, 0.3): None, (5, 0.3): 0.1234, (5, 0.1): float("nan")}


def test_the_map_has_layers_as_rows_sigmas_as_columns_and_blanks_for_missing_cells() -> None:
    trace = layer_sigma_map(CELLS)["data"][0]
    assert trace["y"] == ["1", "5"]
    assert trace["x"] == ["0.1", "0.3"]
    assert trace["z"] == [[0.25, None], [None, 0.1234]]
    assert trace["text"] == [["0.250", ""], ["", "0.123"]]


def test_every_cell_of_the_map_names_the_layer_and_sigma_that_a_click_runs() -> None:
    trace = layer_sigma_map(CELLS)["data"][0]
    assert trace["customdata"] == [[[1, 0.1], [1, 0.3]], [[5, 0.1], [5, 0.3]]]


def test_the_current_cell_is_outlined_even_without_a_number() -> None:
    figure = layer_sigma_map(CELLS, current=(7, 0.3))
    (shape,) = figure["layout"]["shapes"]
    assert (shape["x0"], shape["x1"], shape["y0"], shape["y1"]) == (0.5, 1.5, 1.5, 2.5)
    assert figure["data"][0]["y"] == ["1", "5", "7"]


def test_rows_and_columns_can_be_given() -> None:
    trace = layer_sigma_map(CELLS, layers=[0, 1], sigmas=[0.1])["data"][0]
    assert trace["z"] == [[None], [0.25]]


def test_numbers_beside_the_cells_widen_the_colours_and_share_a_tick_where_they_would_overlap() -> (
    None
):
    values = {(1, 0.1): 0.30, (1, 0.3): 0.20}
    others = {"b": 0.501, "a": 0.5, "c": 0.1}
    trace = layer_sigma_map(values, others=others, digits=2)["data"][0]
    assert (trace["zmin"], trace["zmax"]) == (0.1, 0.501)
    assert trace["colorbar"]["tickvals"] == [0.1, 0.2, 0.3, 0.5]
    assert trace["colorbar"]["ticktext"] == ["c", "0.20", "0.30", "a, b"]
    assert "zmin" not in layer_sigma_map(values)["data"][0]
    level = layer_sigma_map({(1, 0.1): 0.201, (1, 0.3): 0.2}, others=others, digits=3)["data"][0]
    assert level["colorbar"]["ticktext"] == ["c", "0.200", "a, b"]


def test_marked_cells_and_details_are_those_that_were_named() -> None:
    figure = layer_sigma_map(CELLS, digits=1, marked=[(5, 0.3)], details={(1, 0.1): " [0, 1]"})
    trace = figure["data"][0]
    assert trace["text"] == [["0.2", ""], ["", "≈ 0.1"]]
    assert trace["hovertext"] == [[" [0, 1]", ""], ["", ""]]


@pytest.mark.parametrize("figure", [layer_sigma_map(CELLS, current=(5, 0.3)), layer_sigma_map({})])
def test_figures_are_strict_json_that_plotly_accepts(figure: dict[str, object]) -> None:
    go.Figure(json.loads(json.dumps(figure, allow_nan=False)))


def test_a_page_of_a_figure_asks_nothing_of_the_network() -> None:
    page = to_html(layer_sigma_map(CELLS))
    assert "<script src=" not in page
    assert "Plotly.newPlot" in page


def test_a_page_of_several_figures_holds_plotly_once() -> None:
    figure = layer_sigma_map(CELLS)
    page = to_html(figure, figure, title="a < b")
    assert page.count("Plotly.newPlot(") == to_html(figure).count("Plotly.newPlot(") + 1
    assert len(page) < 1.1 * len(to_html(figure))
    assert "<title>a &lt; b</title>" in page


def test_what_is_bright_is_low_or_high() -> None:
    assert layer_sigma_map(CELLS)["data"][0]["reversescale"] is True
    assert layer_sigma_map(CELLS, low_is_better=False)["data"][0]["reversescale"] is False


def test_figures_are_built_without_importing_plotly() -> None:
    code = (
        "import sys, explorer.figures as f; f.layer_sigma_map({(1, 0.1): 0.2}); "
        "sys.exit('plotly' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

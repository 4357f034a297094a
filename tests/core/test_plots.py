"""The figures for looking at a rollout: what they show is what they were given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from project.core.plots import MARK, advantage_bars, picture_strip, question_table, reliability_diagram, token_table
from project.trajectory import Question


def pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_strip_places_every_picture_and_frames_the_marked_columns():
    levels_RC = np.array([[10, 20, 30], [40, 50, 60]])
    pictures = np.broadcast_to(levels_RC[..., None, None, None], (2, 3, 8, 8, 3)).astype(np.uint8)
    figure = picture_strip(pictures, rows=["noisy", "clean"], columns=["$0", "1", "2"], marked=[1])
    assert [int(axes.images[0].get_array().mean()) for axes in figure.axes] == levels_RC.flatten().tolist()
    framed = [n for n, axes in enumerate(figure.axes) if axes.spines["left"].get_visible()]
    assert framed == [1, 4]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["$0", "1", "2"]
    assert to_rgba(figure.axes[1].title.get_color()) == to_rgba(MARK)
    drawn = pixels(figure)
    places = {level: np.argwhere((drawn == level).all(-1)).mean(0) for level in levels_RC.flatten()}
    assert places[10][1] < places[20][1] < places[30][1] and places[10][0] < places[40][0]
    with pytest.raises(ValueError, match="1 row and 3 column labels"):
        picture_strip(pictures, rows=["noisy"], columns=["0", "1", "2"])


def test_token_table_writes_log_prob_and_entropy_under_each_token():
    figure = token_table([["a", "red"], ["two"]], [[0.0, math.log(0.5)], [-1.0]], [[0.0, 0.7], [1.5]], rows=["0", "1"])
    (axes,) = figure.axes
    assert texts(axes) == ["a\n0.00 | 0.00", "red\n-0.69 | 0.70", "two\n-1.00 | 1.50"]
    shade_GT = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shade_GT, [[1.0, 0.5], [math.exp(-1), np.nan]])
    pixels(figure)
    with pytest.raises(ValueError, match="per token"):
        token_table([["a"]], [[0.0, 0.0]], [[0.0]], rows=["0"])


def test_question_table_has_a_row_per_question_and_shows_what_is_unanswered():
    questions = [Question(text="is it red ?", tag="Attribute"), Question(text="is it clean ?", kind="quality")]
    pictures = [np.full((4, 4, 3), level, dtype=np.uint8) for level in (10, 20)]
    figure = question_table(pictures, questions, [[0.25, None], [1.0, 0.5]], titles=["0", "1"])
    *shown, table = figure.axes
    assert [int(axes.images[0].get_array().mean()) for axes in shown] == [10, 20]
    assert texts(table) == ["0.25", "1.00", "-", "0.50"]  # row by row
    labels = [label.get_text() for label in table.get_yticklabels()]
    assert labels == ["is it red ? [Attribute]", "is it clean ? [quality]"]
    # Each picture stands over its own column of the table.
    pixels(figure)
    for g, axes in enumerate(shown):
        column = table.transData.transform((g, 0))[0]
        box = axes.get_window_extent()
        assert box.x0 < column < box.x1
    with pytest.raises(ValueError, match="one confidence per question"):
        question_table(pictures, questions, [[0.25, None], [1.0]], titles=["0", "1"])


def test_advantage_bars_are_as_high_as_the_numbers():
    figure = advantage_bars([0.5, math.nan, 1.0], {"image": [-1.0, 0.0, 1.0], "text": [-2.0, 0.0, 2.0]})
    rewards, advantages = figure.axes
    assert rewards.lines[0].get_ydata()[0] == pytest.approx(0.75)  # the mean of those that have one
    assert [bar.get_height() for bar in advantages.patches] == [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in advantages.patches]
    assert centres == pytest.approx([-0.2, 0.8, 1.8, 0.2, 1.2, 2.2])
    pixels(figure)


def test_reliability_diagram_shows_bins_and_rates():
    rates = {"all": {"false yes": 0.25, "false no": None}, "Count": {"false yes": 0.5, "false no": 0.75}}
    figure = reliability_diagram(np.array([2, 0, 6]), np.array([0.1, np.nan, 0.9]), np.array([0.5, np.nan, 1.0]), rates)
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == [0.25, 0.0, 0.75], "shares of the questions"
    diagonal, truth = left.lines
    assert truth.get_xdata().tolist() == [0.1, 0.9] and truth.get_ydata().tolist() == [0.5, 1.0], "no empty bin"
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    heights = [bar.get_height() for bar in right.patches]
    np.testing.assert_allclose(heights, [0.25, 0.5, np.nan, 0.75])
    assert [label.get_text() for label in right.get_xticklabels()] == ["all", "Count"]
    pixels(figure)

from __future__ import annotations

import asyncio
import math

import pytest

from project.core.metrics import values
from project.rewards.function import FunctionReward
from project.trajectory import Prompt


def reward(name, **settings):
    return FunctionReward(f"tests.helpers.reward_functions.{name}", **settings)


def test_prompts_and_completions(trajectory):
    samples = [trajectory("abc", texts=("x" * 10,)), trajectory("ab", texts=()), trajectory("a", texts=("y", "z"))]
    output = reward("lengths", weight=0.5, text_only=True).score(samples)
    # several texts are joined by a line end
    assert output.reward_N.tolist() == pytest.approx([3.1, 2.0, 1.03])
    assert values(output.metrics) == pytest.approx({"reward/lengths": 6.13 / 3})


def test_async_with_images_and_columns(trajectory):
    samples = [
        trajectory("a", picture=255, kind="x"),
        trajectory("b", picture=51),
        trajectory("a", picture=51, kind="x"),
    ]
    expected = [1.0, math.nan, 0.2]

    def check():
        output = reward("brightness").score(samples)
        assert output.reward_N.tolist() == pytest.approx(expected, nan_ok=True)
        assert values(output.metrics) == pytest.approx({"reward/brightness": 0.6})

    check()

    async def in_a_notebook():
        check()

    asyncio.run(in_a_notebook())


def test_a_function_without_kwargs_gets_what_it_names(trajectory):
    samples = [trajectory("a", kind="x"), trajectory("b", kind="y")]
    assert reward("only_images").score(samples).reward_N.tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", "gave 1 values for 2 samples"),
        ("infinite", "return one finite number"),
        ("texts", "gave 'a' \\(str\\) for a sample: return one finite number"),
        ("vectors", r"gave a Tensor of shape \(2,\) for a sample: return one finite number"),
        ("nothing", "gave NoneType for 2 samples"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(trajectory, name, message):
    with pytest.raises(ValueError, match=message):
        reward(name).score([trajectory("a"), trajectory("b")])


@pytest.mark.parametrize(
    ("name", "value"), [("one_tensor", 0.25), ("one_array", 0.25), ("tensors", 0.25), ("truths", 1.0)]
)
def test_tensors_and_arrays_of_numbers_are_numbers(trajectory, name, value):
    assert reward(name).score([trajectory("a"), trajectory("b")]).reward_N.tolist() == [value, value]


def test_an_unknown_number_in_a_tensor_is_not_scored(trajectory):
    assert reward("unknown_tensor").score([trajectory("a")]).reward_N.isnan().all()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lengths", "is no import path: give package.module.function"),
        ("reward_function.lengths", "there is no module 'reward_function': modules are looked for"),
        ("tests.helpers.reward_functions.sub.lengths", "there is no module 'tests.helpers.reward_functions.sub'"),
        ("tests.helpers.reward_functions.length", "has no function 'length': did you mean 'lengths'"),
        ("tests.helpers.reward_functions.NUMBER", "has no function 'NUMBER'"),
    ],
)
def test_a_wrong_path_says_what_is_wrong(path, message):
    with pytest.raises(ValueError, match=message):
        FunctionReward(path)


def test_columns_are_checked_before_training():
    good, taken = (
        Prompt(id="a", text="", columns={"kind": 1}),
        Prompt(id="b", text="", columns={"images": 1}, place="f:2"),
    )
    reward("brightness").check([good])
    with pytest.raises(ValueError, match="wants 'kind', which is no column of the prompts: did you mean 'kin'"):
        reward("brightness").check([Prompt(id="a", text="", columns={"kin": 1})])
    with pytest.raises(ValueError, match="f:2: a column is named 'images'"):
        reward("lengths").check([good, taken])

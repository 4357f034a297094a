"""What every backbone inherits from `UnifiedModel`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from project.models.reading import Reading, read
from project.samplers.guidance import UNGUIDED, Guidance
from tests.helpers.backbones import NewDenseModel
from tests.helpers.policies import dense_model, tiny_bagel


@pytest.mark.parametrize("make", [dense_model, tiny_bagel])
def test_guidance_acts_on_the_flow_times_of_its_interval_alone(make):
    torch.manual_seed(0)
    model = make()
    known = read(model, [Reading(text="a red circle")] * 2, lambda room: model.functional_context(1), system="think")
    contexts, grid = known.contexts(known.main.select(known.row_N)), model.latent_grid(8, 8)
    x_RKLD = torch.randn(2, 4, grid[0] * grid[1], model.latent_size)
    sigma_K = torch.tensor([1.0, 0.9, 0.6, 0.3])
    guidance = Guidance(text=3.0, interval=(0.6, 0.9))

    def velocity(chosen, steps=slice(None)):
        with torch.no_grad():
            return model.velocity(x_RKLD[:, steps], sigma_K[steps], contexts, chosen, grid)

    everywhere = velocity(dataclasses.replace(guidance, interval=(0.0, 1.0)))
    nowhere = velocity(UNGUIDED)
    assert ((everywhere - nowhere).abs().amax((0, 2, 3)) > 1e-3).all()
    ours = velocity(guidance)
    for step, expected in enumerate((nowhere, everywhere, nowhere, nowhere)):
        torch.testing.assert_close(ours[:, step], expected[:, step], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(velocity(guidance, slice(step, step + 1))[:, 0], ours[:, step], atol=1e-5, rtol=1e-5)


def test_a_source_that_knows_one_type_gives_any():
    wide, narrow = NewDenseModel().load().state_dict(), NewDenseModel().load_as(torch.bfloat16).state_dict()
    assert all(torch.equal(narrow[name], tensor.bfloat16()) for name, tensor in wide.items())
    assert {tensor.dtype for tensor in NewDenseModel().load_as(None).state_dict().values()} == {torch.float32}

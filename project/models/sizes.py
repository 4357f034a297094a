"""The widths of a backbone that time and memory depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A stack of transformer layers with gated MLPs (gate, up, down) that reads and writes tokens and latents.

    Attributes:
        layers: how many.
        hidden: width of the residual stream.
        inner: width of the MLP.
        query, key: width of all query heads, and of all key heads, together.
        heads: query heads.
        vocabulary: tokens that logits are made for.
        latent: values of a latent token.
        autoencoder: bytes of the frozen autoencoder.
    """

    layers: int
    hidden: int
    inner: int
    query: int
    key: int
    heads: int
    vocabulary: int
    latent: int
    autoencoder: int

    @property
    def matrix_weights(self) -> int:
        """Weights that a token is multiplied with in one layer."""
        return 2 * self.hidden * (self.query + self.key) + 3 * self.hidden * self.inner

"""The parts of BAGEL's network: a mixture of two transformers that share attention, and a SigLIP tower.

Module and parameter names are upstream's, so that its checkpoints and adapters load without a key map.
`_moe_gen` is the expert of the latent tokens; everything else goes through the understanding expert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from project.models.attention import attention, bias_from_mask
from project.models.bagel.attended import Attended, rotated
from project.models.bagel.config import BagelConfig, VisionConfig
from project.models.fused import fused
from project.models.precision import autocast_off


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        on_cpu = x.is_cpu and x.dtype == self.weight.dtype == torch.float32
        if on_cpu and not torch.compiler.is_compiling():
            normed: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
            return normed
        # F.rms_norm computes in fp32 whatever it is given. Under autocast it would also be given fp32 and return it,
        # which makes two copies of a narrow `x`. A compiled norm makes none.
        if x.dtype.itemsize < torch.float32.itemsize and not torch.compiler.is_compiling():
            with autocast_off(x.device):
                return F.rms_norm(x, self.weight.shape, eps=self.eps).mul(self.weight)
        return F.rms_norm(x, self.weight.shape, eps=self.eps).to(x.dtype) * self.weight


class _RMSNorm(torch.autograd.Function):
    """The norm on a CPU, where torch makes it of five operations forward and some ten backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, factor)
        return (x * factor).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, factor = ctx.saved_tensors
        normed = x * factor
        of_weight = (gradients[0] * normed).flatten(0, -2)
        along = torch.mv(of_weight, weight).div_(x.shape[-1]).view(factor.shape)
        of_x = (gradients[0] * weight).sub_(normed.mul_(along)).mul_(factor)
        return of_x, of_weight.sum(0), None


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        # Without gradient nobody reads the parts again: less memory to go through.
        kept = torch.is_grad_enabled() or torch.compiler.is_compiling()
        inner = F.silu(gate) * up if kept else F.silu(gate, inplace=True).mul_(up)
        result: Tensor = self.down_proj(inner)
        return result


class SharedAttention(nn.Module):
    """Attention over both kinds of tokens, with projections and q/k norms of each expert."""

    def __init__(self, config: BagelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        query, key = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, query)
        self.k_proj = nn.Linear(config.hidden_size, key)
        self.v_proj = nn.Linear(config.hidden_size, key)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_size, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_size, config.rms_norm_eps)
        self.q_proj_moe_gen = nn.Linear(config.hidden_size, query)
        self.k_proj_moe_gen = nn.Linear(config.hidden_size, key)
        self.v_proj_moe_gen = nn.Linear(config.hidden_size, key)
        self.o_proj_moe_gen = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm_moe_gen = RMSNorm(config.head_size, config.rms_norm_eps)
        self.k_norm_moe_gen = RMSNorm(config.head_size, config.rms_norm_eps)

    def heads(self, und_RTH: Tensor, gen_RLH: Tensor | None, attended: Attended) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [R, heads, T, size] of both streams' tokens, turned by their positions."""
        parts = [self._project(und_RTH, "")]
        if attended.freeze_und:
            parts = [[projected.detach() for projected in parts[0]]]
        if gen_RLH is not None:
            parts.append(self._project(gen_RLH, "_moe_gen"))
        of_q, of_k, of_v = zip(*parts, strict=True)
        v = (torch.cat(of_v, dim=1) if len(of_v) > 1 else of_v[0]).transpose(1, 2)
        return rotated(of_q, attended), rotated(of_k, attended), v

    def _project(self, x_RTH: Tensor, suffix: str) -> list[Tensor]:
        heads = []
        for name in ("q", "k", "v"):
            h = getattr(self, f"{name}_proj{suffix}")(x_RTH).unflatten(-1, (-1, self.head_size))
            heads.append(h if name == "v" else getattr(self, f"{name}_norm{suffix}")(h))
        return heads

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attended: Attended, read: bool) -> list[Tensor]:
        """What the tokens see, [R_i, heads, T, size] for each context; nothing if it is not read.

        Contexts of fixed buffers take `k` and `v` in either way.
        """
        results = []
        for context, rows, bias in attended.contexts:
            keys, values = (k[rows], v[rows]) if context is None else context.extend(self.layer, k[rows], v[rows])
            if read:
                results.append(attention(q[rows], keys, values, bias))
        return results


def _turned(parts: Sequence[Tensor], tokens: slice, copied: bool) -> Tensor:
    """Some tokens, rows of the parts below one another: each [R_i, heads, T, size], together [R, T, heads, size].

    Args:
        copied: make a tensor of its own even of a single part. A compiled function would look through a view at what it
            shows, and be compiled again for whatever that may be.
    """
    turned = [part[:, :, tokens].transpose(1, 2) for part in parts]
    return torch.cat(turned) if copied or len(turned) > 1 else turned[0]


class DecoderLayer(nn.Module):
    """One layer of both experts: norm, shared attention, norm, MLP, with residuals."""

    def __init__(self, config: BagelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = SharedAttention(config, layer)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.mlp = MLP(hidden, config.intermediate_size)
        self.input_layernorm = RMSNorm(hidden, eps)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.mlp_moe_gen = MLP(hidden, config.intermediate_size)
        self.input_layernorm_moe_gen = RMSNorm(hidden, eps)
        self.post_attention_layernorm_moe_gen = RMSNorm(hidden, eps)

    def forward(
        self,
        und_RTH: Tensor,
        gen_RLH: Tensor | None,
        attended: Attended,
        read_und: bool = True,
        compiled: bool = False,
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """Both streams after the layer, and the layer's keys and values of all tokens.

        Args:
            read_und: whether anything reads the understanding stream after the layer; None comes in its place if not.
            compiled: let torch.compile fuse what is done token by token, before and after attention.
        """
        before, after = (fused(_before), fused(_after)) if compiled else (_before, _after)
        query, key, value = before(self, und_RTH, gen_RLH, attended)
        seen = self.self_attn.attend(query, key, value, attended, read=read_und or gen_RLH is not None)
        und = gen = None
        words = und_RTH.shape[1]
        if read_und:
            of_und = (self.self_attn.o_proj, self.post_attention_layernorm, self.mlp)
            und = after(und_RTH, _turned(seen, slice(words), compiled), *of_und)
            if attended.freeze_und:
                # Changes no gradient, as projections and head are cut off too; lets the layer's activations go at once.
                und = und.detach()
        if gen_RLH is not None:
            of_gen = (self.self_attn.o_proj_moe_gen, self.post_attention_layernorm_moe_gen, self.mlp_moe_gen)
            gen = after(gen_RLH, _turned(seen, slice(words, None), compiled), *of_gen)
        return und, gen, key, value


def _before(
    layer: DecoderLayer, und_RTH: Tensor, gen_RLH: Tensor | None, attended: Attended
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all tokens."""
    normed_gen = None if gen_RLH is None else layer.input_layernorm_moe_gen(gen_RLH)
    return layer.self_attn.heads(layer.input_layernorm(und_RTH), normed_gen, attended)


def _after(x_RTH: Tensor, seen_RTHC: Tensor, o_proj: nn.Module, norm: nn.Module, mlp: nn.Module) -> Tensor:
    """A stream with what attention saw added, and what its expert makes of that."""
    x_RTH = x_RTH + o_proj(seen_RTHC.flatten(2))
    result: Tensor = x_RTH + mlp(norm(x_RTH))
    return result


class TimeEmbedder(nn.Module):
    """Sinusoids of the flow time in [0, 1] (256 values: cosines, then sines; longest period 1e4), then an MLP."""

    SIZE = 256

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.SIZE, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, sigma: Tensor) -> Tensor:
        half = self.SIZE // 2
        steps = torch.arange(half, dtype=torch.float32, device=sigma.device)
        angles = sigma.float()[..., None] * torch.exp(-math.log(10_000) * steps / half)
        result: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(next(self.parameters()).dtype))
        return result


class PositionTable(nn.Module):
    """A frozen 2-D sin-cos table; index = row * side + column; first half encodes the column, second the row."""

    def __init__(self, side: int, hidden: int, scale: float = 1.0) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(scale * sincos_table(side, hidden), requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        return self.pos_embed[index]


def sincos_table(side: int, hidden: int) -> Tensor:
    """[side^2, hidden]; each half holds the sines, then the cosines of one coordinate. Returns fp32."""
    frequencies = 1 / 10_000 ** (torch.arange(hidden // 4, dtype=torch.float64) / (hidden / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = axis[None].expand(side, side, -1)
    rows = axis[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()


class Connector(nn.Module):
    """From the vision tower's width to the language model's."""

    def __init__(self, vision: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return result


class _VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_IMH: Tensor, bias_I1MM: Tensor | None) -> Tensor:
        q, k, v = (
            p(x_IMH).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        result: Tensor = self.out_proj(attention(q, k, v, bias_I1MM).transpose(1, 2).flatten(2))
        return result


class _VisionMLP(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return result


class VisionLayer(nn.Module):
    """Pre-norm transformer layer of the vision tower."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.self_attn = _VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.mlp = _VisionMLP(config)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), bias)
        result: Tensor = x + self.mlp(self.layer_norm2(x))
        return result


class _VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig, side: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Embedding(side**2, config.hidden_size)


class _VisionEncoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_layers))


class VisionTransformer(nn.Module):
    """SigLIP without its head: patches [I, M, D] to features [I, M, hidden]."""

    def __init__(self, config: VisionConfig, side: int) -> None:
        super().__init__()
        self.embeddings = _VisionEmbeddings(config, side)
        self.encoder = _VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, patches_IMD: Tensor, index_IM: Tensor, visible_IM: Tensor) -> Tensor:
        x = self.embeddings.patch_embedding(patches_IMD.to(self.embeddings.patch_embedding.weight.dtype))
        x = x + self.embeddings.position_embedding(index_IM)
        bias = None if visible_IM.all() else bias_from_mask(visible_IM[:, None, None, :])
        for layer in self.encoder.layers:
            x = layer(x, bias)
        result: Tensor = self.post_layernorm(x)
        return result


class VisionModel(nn.Module):
    """Holds the tower under upstream's name."""

    def __init__(self, config: VisionConfig, side: int) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config, side)

"""Memory and work of an update, from the sizes of a model and of what it is asked to do: pure functions.

Bytes of weights, gradients and caches follow from shapes. Activations are counted tensor by tensor, as autograd keeps
them in the layers of a stack with gated MLPs (`Sizes`); tests/planning/test_estimates.py compares them with what is
measured.
Left out: latents, masks of short texts and whatever else is below a percent; adapters' own products in the FLOPs, and
that the logits' products are slower in fp32 (one or two percent of the time).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from project.models.sizes import Sizes

FP32 = 4
"""Bytes of a value in norms, heads (weights, logits), log-probabilities and trained weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one rank does in an update. Tokens are those of one sample, delimiters included.

    Attributes:
        samples: of an update; `prompts_per_forward` * G of them are drawn together.
        group: G, samples of a prompt.
        micro_batch: samples of a backward.
        prefix, prompt, reasoning: tokens of the system prompt, of the prompt, and of the longest reasoning.
        picture: tokens of a picture that is looked at before the prompt (both encoders'); 0 for none.
        latents: L + 2, tokens of the picture that is drawn.
        evaluations, guided: of the model per picture, and how many of them are guided.
        trained, trained_guided: K, trained steps per picture, and how many of them are guided at most.
        branches: contexts that guidance reads beside the main one.
        steps_per_backward: trained steps of a backward; None = all, with the texts.
        context_gradient: the gradient of the pictures reaches the contexts.
    """

    samples: int
    prompts_per_forward: int
    group: int
    micro_batch: int
    prefix: int
    prompt: int
    reasoning: int
    picture: int
    latents: int
    evaluations: int
    guided: int
    trained: int
    trained_guided: int
    branches: int
    steps_per_backward: int | None = None
    context_gradient: bool = True

    @property
    def prompts(self) -> int:
        """Prompts that there are samples of."""
        return -(-self.samples // self.group)

    @property
    def rows(self) -> int:
        """Pictures that are drawn together."""
        return self.prompts_per_forward * self.group

    @property
    def read(self) -> int:
        """Tokens of the main context: everything before the picture."""
        return self.prefix + self.picture + self.prompt + self.reasoning

    @property
    def branch_read(self) -> list[int]:
        """Tokens of each other context: without the prompt, then without the picture."""
        return [self.prefix + self.picture, self.prefix + self.prompt][: self.branches]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Number formats and what is recomputed.

    Attributes:
        stored: bytes of a value of the residual stream and of the caches: of the loaded weights, except the heads'.
        computed: bytes of what matrix products make, except the heads'.
        autocast: products choose their format themselves; wide inputs are then copied for each of them.
        adapters: only low-rank adapters are trained.
        checkpointing: layers are recomputed in the backward pass.
    """

    stored: int
    computed: int
    autocast: bool
    adapters: bool
    checkpointing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Bytes that stay from update to update, on one rank without sharding.

    Attributes:
        largest_layer: weights of one layer, which sharding gathers for its turn.
        optimizer: state of the optimizer.
        reference: frozen copy that the KL terms compare with; 0 with adapters.
        decoding: most that the autoencoder holds at once to make one picture.
        decoded_at_once: pictures that it makes together.
    """

    frozen: int
    trained: int
    largest_layer: int
    optimizer: int
    reference: int
    autoencoder: int
    decoding: int
    decoded_at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes by what they are for. Only one of the phases holds its own at a time."""

    always: Mapping[str, float]
    phases: Mapping[str, Mapping[str, float]]

    @property
    def peaks(self) -> dict[str, float]:
        """Bytes in each phase, with what is always there."""
        fixed = sum(self.always.values())
        return {name: fixed + sum(parts.values()) for name, parts in self.phases.items()}

    @property
    def peak(self) -> float:
        return max(self.peaks.values())


def memory(
    work: Workload, sizes: Sizes, how: Arithmetic, weights: Weights, ranks: int = 1, sharded: bool = False
) -> Memory:
    """What an update holds on each of `ranks` devices.

    Args:
        sharded: weights, gradients and optimizer state are shared out over the ranks (FSDP); a rollout gathers the
            weights whole, an update gathers layer by layer. Otherwise every rank has all of them (DDP), and its
            gradients a second time in the buckets of the exchange.
    """
    share = ranks if sharded else 1
    always = {
        "frozen weights": weights.frozen / share,
        "trained weights (fp32)": weights.trained / share,
        "gradients (fp32)": weights.trained / share,
        "optimizer state": weights.optimizer / share,
        "reference of the KL": weights.reference / share,
        "autoencoder": float(weights.autoencoder),
        "buckets of the gradients": float(weights.trained if ranks > 1 and not sharded else 0),
    }
    whole = weights.frozen + weights.trained
    # Gathering takes room of its own: the shards stay beside what is gathered.
    gathered = {"gathered weights": float(whole)} if sharded else {}
    layer_gradients = weights.largest_layer * weights.trained / whole
    # A layer at work, the next one, and the buffer that it arrives in; whole gradients, and the buffer that leaves.
    layers = {"gathered layers": 3.0 * weights.largest_layer, "gradients of a layer": 2.0 * layer_gradients}
    gathered_layers = layers if sharded else {}
    caches = {"caches": float(rollout_caches(work, sizes, how))}
    narrow = {"narrow copies of weights": _narrow_copies(how, weights.trained)} if how.autocast else {}
    return Memory(
        always={name: size for name, size in always.items() if size},
        phases={
            "rollout": {**gathered, **caches, **narrow, "working set": float(rollout_working_set(work, sizes, how))},
            "decoding": {
                **gathered,
                **caches,
                **narrow,
                "pictures": float(min(work.rows, weights.decoded_at_once) * weights.decoding),
            },
            "replay": {**gathered_layers, **replay_memory(work, sizes, how, weights.trained)},
        },
    )


def rollout_caches(work: Workload, sizes: Sizes, how: Arithmetic) -> int:
    """Bytes of the preallocated keys and values, each context with room for a picture."""
    slots = [work.read + work.latents, *(read + work.latents for read in work.branch_read)]
    return 2 * sizes.layers * sizes.key * how.stored * work.rows * sum(slots)


def rollout_working_set(work: Workload, sizes: Sizes, how: Arithmetic) -> int:
    """Bytes that a denoising forward of all branches holds at its widest place: in a layer's MLP or attention."""
    tokens = work.rows * work.latents * (1 + work.branches)
    kept = tokens * 2 * sizes.key * how.computed * sizes.layers
    # The layer's input, what attention read and said, their sum, what the MLP reads and says.
    stream = tokens * 6 * sizes.hidden * how.stored
    mlp = tokens * sizes.inner * _mlp_values(how)
    longest = work.read + work.latents
    masked = work.rows > 1 and work.reasoning > 0
    repeated = 2 * (sizes.query if masked else 0) * longest * work.rows * how.computed
    bias = work.rows * work.latents * longest * (FP32 + how.computed) if masked else 0
    heads = tokens * 3 * sizes.query * how.computed
    return kept + stream + bias + max(mlp, heads + repeated)


def replay_memory(work: Workload, sizes: Sizes, how: Arithmetic, trained: int) -> dict[str, float]:
    """Bytes that the graph of a micro-batch holds when its backward pass begins, and what that pass adds.

    Where it is cut over trained steps, of the part that needs most.
    """
    if work.steps_per_backward is None:
        return _graph(work, sizes, how, trained)
    steps = min(work.steps_per_backward, work.trained)
    cut = dataclasses.replace(work, trained=steps, trained_guided=min(steps, work.trained_guided))
    if work.context_gradient:  # the texts stay until the gradient of all steps has reached them
        whole = _graph(cut, sizes, how, trained)
        return {**whole, "gradients at the contexts": whole["contexts"]}
    texts = dataclasses.replace(work, trained=0, trained_guided=0)
    parts = (_graph(texts, sizes, how, trained), _graph(cut, sizes, how, trained, texts=False))
    return max(parts, key=lambda part: sum(part.values()))


def _graph(work: Workload, sizes: Sizes, how: Arithmetic, trained: int, texts: bool = True) -> dict[str, float]:
    """Bytes of the graph of all trained steps of a micro-batch, with that of what comes before them or without."""
    samples = work.micro_batch
    read_once = work.prefix + work.picture + work.prompt
    written = read_once + samples * work.reasoning if texts else 0
    rows = samples * (work.trained + work.branches * work.trained_guided)
    pictures = rows * work.latents
    slots = samples * work.trained * (work.read + work.latents)
    slots += sum(samples * work.trained_guided * (read + work.latents) for read in work.branch_read)
    masked = samples > 1 and work.reasoning > 0
    # A text's mask is causal, so its keys are always repeated.
    looked_at = read_once + samples * (work.read if work.reasoning else 0)
    text_layer = layer_bytes(written, looked_at, sizes, how, repeated=True) if texts else 0
    picture_layer = layer_bytes(pictures, slots, sizes, how, repeated=masked)
    if masked:
        picture_layer += samples * work.trained * work.latents * (work.read + work.latents) * how.computed
    if how.checkpointing:
        per_token = sizes.hidden * how.stored
        kept = (written + pictures) * per_token * sizes.layers
        again = max(text_layer, picture_layer)
        keys = pictures * 2 * sizes.key * how.computed * sizes.layers
    else:
        kept, again, keys = (text_layer + picture_layer) * sizes.layers, 0, 0
    contexts = samples * (work.read + sum(work.branch_read)) * 2 * sizes.key * how.computed * sizes.layers
    at_once = max(written, pictures) * (sizes.inner * _mlp_values(how) - sizes.inner * how.computed)
    logits = samples * work.reasoning * sizes.vocabulary if texts else 0
    return {
        "contexts": float(contexts),
        "activations": float(kept),
        "a layer again": float(max(again, keys)),
        "a layer's own": float(at_once),
        "logits": 4.0 * FP32 * logits,  # log-probabilities, probabilities, gradients of both ends of the softmax
        "narrow copies of weights": _narrow_copies(how, trained),
    }


def layer_bytes(tokens: int, slots: int, sizes: Sizes, how: Arithmetic, repeated: bool = False) -> int:
    """Bytes that autograd keeps of one layer without checkpointing.

    Args:
        tokens: that go through the layer.
        slots: keys that are looked at, summed over the rows.
        repeated: the keys are repeated for every query head.
    """
    per_token = FP32 * (2 * sizes.hidden + sizes.query + sizes.key)  # inputs of the norms
    if not how.adapters:
        per_token += how.stored * (2 * sizes.hidden + sizes.query + sizes.key)  # for the gradient of their gains
    per_token += _inputs(sizes.hidden, 3, how) + _inputs(sizes.query, 1, how)
    per_token += _inputs(sizes.hidden, 2, how) + _inputs(sizes.inner, 1, how)
    per_token += how.computed * (2 * sizes.query + 3 * sizes.inner)  # queries, attention's result; gate, silu, up
    if how.computed != FP32:
        per_token += 4 * how.computed * sizes.query // sizes.heads  # rotary cosines and sines, copied
    return tokens * per_token + slots * 2 * how.computed * (sizes.query if repeated else sizes.key)


def _mlp_values(how: Arithmetic) -> int:
    """Bytes per value of an MLP's inner width that are held at once: gate, up and product; adapters hold more."""
    if not how.adapters:
        return 3 * how.computed
    # Beside the product, its wide copy for the adapter; in mixed precision the adapter takes it as it is.
    copy = FP32 if how.computed != FP32 and not how.autocast else 0
    return max(4 * how.computed, how.computed + copy)


def _narrow_copies(how: Arithmetic, trained: int) -> float:
    """Bytes of the trained weights in the format of the products, kept as long as mixed precision lasts."""
    return trained / FP32 * how.computed if how.autocast else 0.0


def _inputs(width: int, products: int, how: Arithmetic) -> int:
    """Bytes kept of a value that several matrix products read."""
    if how.autocast:
        # A wide value is narrowed for each product; a narrow one is shared.
        return width * how.computed * (products if how.stored == FP32 else 1)
    # A narrow value is widened for each adapter; a wide one is shared.
    return width * FP32 * (1 if how.stored == FP32 else products)


def flops(work: Workload, sizes: Sizes, how: Arithmetic, decoding: float = 0.0) -> dict[str, float]:
    """Floating point operations of the phases of an update, on one rank; a product and its sum are two.

    `recomputation` is what checkpointing adds to the backward pass. Frozen matrices need no gradient of their own.

    Args:
        decoding: of the autoencoder, for one picture.
    """
    samples = work.samples
    read_once = work.prefix + work.picture + work.prompt

    def forward(tokens: float, pairs: float) -> tuple[float, float]:
        return 2.0 * sizes.layers * tokens * sizes.matrix_weights, 4.0 * sizes.layers * sizes.query * pairs

    def denoising(steps: int, guided: int) -> tuple[float, float]:
        pairs = steps * (work.read + work.latents) + sum(guided * (r + work.latents) for r in work.branch_read)
        return forward((steps + work.branches * guided) * work.latents, work.latents * pairs)

    head = 2.0 * work.reasoning * sizes.hidden * sizes.vocabulary
    reasoning = forward(work.reasoning, work.reasoning * (read_once + work.reasoning / 2))
    reading = forward(read_once, read_once**2 / 2)
    matrices, attention = (a + b for a, b in zip(denoising(work.trained, work.trained_guided), reasoning, strict=True))
    replay = samples * (matrices + attention + head) + samples / work.micro_batch * sum(reading)
    backward = (1.0 if how.adapters else 2.0) * (matrices + head) + 2.0 * attention
    return {
        "rollout_text": work.prompts * sum(reading) + samples * (sum(reasoning) + head),
        "rollout_image": samples * (sum(denoising(work.evaluations, work.guided)) + decoding),
        "replay": replay,
        "backward": samples * backward,
        "recomputation": replay if how.checkpointing else 0.0,
    }


def seconds(
    work: Workload, sizes: Sizes, how: Arithmetic, operations: Mapping[str, float], speed: float, bandwidth: float
) -> dict[str, float]:
    """Seconds of the phases at a number of operations per second.

    Writing text token by token is bound by the weights that every token reads: its seconds are at least those of
    reading them from memory.

    Args:
        speed: matrix operations per second that are reached.
        bandwidth: bytes per second that the device's memory gives.
    """
    taken = {name: count / speed for name, count in operations.items()}
    read = sizes.layers * sizes.matrix_weights * how.stored + sizes.hidden * sizes.vocabulary * FP32
    forwards = -(-work.samples // work.rows) * work.reasoning
    taken["rollout_text"] = max(taken["rollout_text"], forwards * read / bandwidth)
    taken["backward"] += taken.pop("recomputation")
    return taken


def largest(work: Workload, fits: Callable[[Workload], bool], cut: bool = False) -> Workload | None:
    """The workload with the largest micro-batch, then the most prompts per forward, that fits; None if none does.

    Args:
        cut: allows micro-batches that are cut over their trained steps: of those with the largest micro-batch the one
            with the most steps per backward.
    """
    best: Workload | None = None
    for steps in (None, *(range(work.trained - 1, 0, -1) if cut else ())):
        least = dataclasses.replace(work, micro_batch=1, prompts_per_forward=1, steps_per_backward=steps)
        if not fits(least):
            continue
        size = _last(range(1, work.group + 1), lambda n, least=least: fits(dataclasses.replace(least, micro_batch=n)))  # type: ignore[misc]
        if best is None or size > best.micro_batch:
            best = dataclasses.replace(least, micro_batch=size)
    if best is None:
        return None
    chosen = best
    more = _last(range(1, work.prompts + 1), lambda n: fits(dataclasses.replace(chosen, prompts_per_forward=n)))
    return dataclasses.replace(chosen, prompts_per_forward=more)


def _last(numbers: range, holds: Callable[[int], bool]) -> int:
    """The last number for which it holds, given that it holds for the first and, once not, no more."""
    low, high = 0, len(numbers)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(numbers[middle]) else (low, middle)
    return numbers[low]

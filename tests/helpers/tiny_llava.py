"""A tiny LLaVA with random weights, written twice: for transformers, and as GGUF for llama.cpp.

A SigLIP tower of one layer that is read and one that is not (LLaVA reads the one before the last), and a Qwen2 of two
layers. The vocabulary is that of bytes and the words yes and no, which rank among the first tokens whatever is asked.
Pictures have 64 x 64 pixels: neither program resizes them.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, Qwen2Config, Qwen2Tokenizer, SiglipVisionConfig

SIZE, PATCH, WIDTH, HEADS, CONTEXT = 64, 8, 64, 4, 2048
SPECIAL = ("<|endoftext|>", "<|im_end|>", "<image>")
MERGES = ("Y e", "Ye s", "N o", "y e", "ye s", "n o", "Ġ Yes", "Ġ No", "Ġ yes", "Ġ no")
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
)
"""What llama-cpp-python's chat format llava-1-5 begins with; it has no line ends between the parts."""
CHAT_TEMPLATE = (
    SYSTEM + "USER: {% for part in messages[0].content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in messages[0].content if part.type == 'text' %}{{ part.text }}{% endfor %}ASSISTANT: "
)


def write_tiny_llava(folder: Path, seed: int = 0) -> None:
    """Writes `folder/transformers`, `folder/model.gguf` and `folder/mmproj.gguf`."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
    model = make_model(words, seed)
    save_for_transformers(folder / "transformers", model, words)
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    write_language_model(folder / "model.gguf", weights, words)
    write_vision_tower(folder / "mmproj.gguf", weights)


def make_model(words: list[str], seed: int) -> LlavaForConditionalGeneration:
    size = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**size, image_size=SIZE, patch_size=PATCH, vision_use_head=False),
        text_config=Qwen2Config(
            **size,
            num_key_value_heads=2,
            vocab_size=len(words),
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=words.index("<|im_end|>"),
        ),
        image_token_index=words.index("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        projector_hidden_act="gelu_pytorch_tanh",
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).float().eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
        for layer in model.model.language_model.layers:
            torch.nn.init.normal_(layer.self_attn.v_proj.bias, std=2.0)
        # What these biases leave in every state: along it, yes and no are probable whatever is asked.
        ids = torch.arange(len(words) - len(SPECIAL))[None]
        with torch.no_grad():
            always = model.model(input_ids=ids).last_hidden_state[0].mean(0)
        head = model.lm_head.weight.data
        head *= 0.1
        for word in ("Yes", "No", "yes", "no", "ĠYes", "ĠNo", "Ġyes", "Ġno"):
            head[words.index(word)] = 4.0 * always / always.square().sum() + 0.15 * torch.randn(WIDTH)
    return model


def save_for_transformers(folder: Path, model: LlavaForConditionalGeneration, words: list[str]) -> None:
    model.save_pretrained(folder)
    Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)},
        merges=[tuple(merge.split()) for merge in MERGES],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    ).save_pretrained(folder)
    pictures = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": SIZE, "width": SIZE},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    reading = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH,
        "vision_feature_select_strategy": "full",
        "num_additional_image_tokens": 0,
        "image_token": "<image>",
    }
    (folder / "processor_config.json").write_text(json.dumps(reading))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))


def write_language_model(file: Path, weights: dict[str, Tensor], words: list[str]) -> None:
    writer = gguf.GGUFWriter(str(file), "qwen2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges(list(MERGES))
    writer.add_eos_token_id(words.index("<|im_end|>"))
    writer.add_pad_token_id(words.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    names = {
        "model.language_model.embed_tokens.weight": "token_embd.weight",
        "model.language_model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(2):
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                names[f"model.language_model.layers.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    _write(writer, {ours: weights[theirs] for theirs, ours in names.items() if theirs in weights})


def write_vision_tower(file: Path, weights: dict[str, Tensor]) -> None:
    writer = gguf.GGUFWriter(str(file), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for name, number in (
        ("image_size", SIZE),
        ("patch_size", PATCH),
        ("embedding_length", WIDTH),
        ("feed_forward_length", 2 * WIDTH),
        ("projection_dim", WIDTH),
        ("block_count", 2),
        ("attention.head_count", HEADS),
    ):
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    tower = "model.vision_tower."
    if not any(name.startswith(f"{tower}embeddings") for name in weights):
        tower += "vision_model."
    names = {
        f"{tower}embeddings.patch_embedding.weight": "v.patch_embd.weight",
        f"{tower}embeddings.patch_embedding.bias": "v.patch_embd.bias",
        f"{tower}embeddings.position_embedding.weight": "v.position_embd.weight",
    }
    parts = {
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
    }
    for kind in ("weight", "bias"):
        for layer in range(2):
            for theirs, ours in parts.items():
                names[f"{tower}encoder.layers.{layer}.{theirs}.{kind}"] = f"v.blk.{layer}.{ours}.{kind}"
        for place, index in (("linear_1", 0), ("linear_2", 2)):
            names[f"model.multi_modal_projector.{place}.{kind}"] = f"mm.{index}.{kind}"
    _write(writer, {ours: weights[theirs] for theirs, ours in names.items()})


def _write(writer: gguf.GGUFWriter, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

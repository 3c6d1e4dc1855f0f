"""Qwen3-VL: a Qwen3 below `text_config`, a vision tower beside it, and what its processors read.

Source: config.json, preprocessor_config.json, video_preprocessor_config.json and the tensors' names of
Qwen/Qwen3-VL-4B-Instruct. What a processor makes of a picture is published; the tower's sizes are tiny.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from local.checkpoints.shape import SMALLEST_VOCABULARY, Shape, Tensor

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
DEPTH, HIDDEN, HEADS, INTERMEDIATE, POSITIONS = 2, 32, 2, 64, 16
CHANNELS, FRAMES, PATCH, MERGE = 3, 2, 16, 2
DEEPSTACK = (0,)  # layers whose output the first layers of the decoder get, too

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] in ('image', 'image_url') %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% endif %}{% endfor %}{% endif %}{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def with_vision_tokens(shape: Shape) -> Shape:
    """The shape with room in the vocabulary for the tokens that stand for pictures."""
    return replace(shape, vocab=max(shape.vocab, SMALLEST_VOCABULARY + len(VISION_TOKENS)))


def config(shape: Shape, llama: dict[str, Any]) -> dict[str, Any]:
    """`config.json` made of a Llama's of the same sizes."""
    side = shape.head_dim * 5 // 32  # of the rotary dimensions, for height and for width; the rest is time
    dropped = ("architectures", "mlp_bias", "pretraining_tp", "torch_dtype", "transformers_version")
    text = {name: value for name, value in llama.items() if name not in dropped} | {
        "dtype": llama["torch_dtype"],
        "model_type": "qwen3_vl_text",
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [shape.head_dim // 2 - 2 * side, side, side],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "vocab_size": with_vision_tokens(shape).vocab,
    }
    first = SMALLEST_VOCABULARY
    ids = {token: first + number for number, token in enumerate(VISION_TOKENS)}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": ids["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": text,
        "tie_word_embeddings": False,
        "transformers_version": llama["transformers_version"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "deepstack_visual_indexes": list(DEEPSTACK),
            "depth": DEPTH,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": HIDDEN,
            "in_channels": CHANNELS,
            "initializer_range": 0.02,
            "intermediate_size": INTERMEDIATE,
            "model_type": "qwen3_vl",
            "num_heads": HEADS,
            "num_position_embeddings": POSITIONS,
            "out_hidden_size": shape.hidden,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
        },
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
    }


def tensors(shape: Shape) -> Iterator[Tensor]:
    """The tower, then the decoder below `model.language_model`."""
    yield from _tower(shape.hidden)
    text = with_vision_tokens(shape)
    for name, size in text.decoder(text.dense, norms=True):
        yield name.replace("model.", "model.language_model.", 1), size


def processors() -> dict[str, dict[str, Any]]:
    """Files beside config.json. `size` is in pixels: of the smallest and the largest picture."""
    shared = {
        "patch_size": PATCH,
        "temporal_patch_size": FRAMES,
        "merge_size": MERGE,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    return {
        "preprocessor_config.json": {
            "size": {"longest_edge": 16777216, "shortest_edge": 65536},
            **shared,
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            "size": {"longest_edge": 25165824, "shortest_edge": 4096},
            **shared,
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }


def _tower(out: int) -> Iterator[Tensor]:
    visual, merged = "model.visual", HIDDEN * MERGE * MERGE
    yield f"{visual}.patch_embed.proj.weight", (HIDDEN, CHANNELS, FRAMES, PATCH, PATCH)
    yield f"{visual}.patch_embed.proj.bias", (HIDDEN,)
    yield f"{visual}.pos_embed.weight", (POSITIONS, HIDDEN)
    for number in range(DEPTH):
        block = f"{visual}.blocks.{number}"
        yield from _norm(f"{block}.norm1", HIDDEN)
        yield from _linear(f"{block}.attn.qkv", HIDDEN, 3 * HIDDEN)
        yield from _linear(f"{block}.attn.proj", HIDDEN, HIDDEN)
        yield from _norm(f"{block}.norm2", HIDDEN)
        yield from _linear(f"{block}.mlp.linear_fc1", HIDDEN, INTERMEDIATE)
        yield from _linear(f"{block}.mlp.linear_fc2", INTERMEDIATE, HIDDEN)
    mergers = [("merger", HIDDEN), *((f"deepstack_merger_list.{n}", merged) for n in range(len(DEEPSTACK)))]
    for name, normed in mergers:
        yield from _norm(f"{visual}.{name}.norm", normed)
        yield from _linear(f"{visual}.{name}.linear_fc1", merged, merged)
        yield from _linear(f"{visual}.{name}.linear_fc2", merged, out)


def _norm(name: str, size: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _linear(name: str, taken: int, given: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (given, taken)
    yield f"{name}.bias", (given,)

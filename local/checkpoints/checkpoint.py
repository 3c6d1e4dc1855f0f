"""Write the whole checkpoint: what `huggingface_hub` would download of such a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local.checkpoints.families import FAMILIES
from local.checkpoints.shape import BYTE_TOKENS, Shape
from local.checkpoints.tokenizer import special_tokens_map, tokenizer_config, tokenizer_json
from local.checkpoints.weights import write_weights

README = """---
license: mit
library_name: transformers
pipeline_tag: {task}
tags:
- {architecture}
- safetensors
---

# A tiny {title}

A {title} of {layers} layers and hidden size {hidden} with random weights from seed {seed}. It says nothing
sensible; it exists so that pipelines have a checkpoint of the real format to work on.
"""

LICENSE = """MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this model and its files
(the "Model"), to deal in the Model without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Model.

THE MODEL IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED.
"""


def write_checkpoint(folder: Path, *, seed: int, shape: Shape | None = None) -> Path:
    """Write a checkpoint of `shape` into `folder` and return it.

    The same seed and shape give the same bytes; another seed changes the weights and the README only.
    Raises FileExistsError when `folder` holds files already: a checkpoint mixed with another is nobody's.
    """
    shape = shape or Shape()
    family = FAMILIES[shape.architecture]
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: give a new folder, or remove what is in it")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", shape.config())
    for name, content in family.files.items():
        _write_json(folder / name, content)
    _write_json(
        folder / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": BYTE_TOKENS,
            "eos_token_id": BYTE_TOKENS + 1,
            "pad_token_id": BYTE_TOKENS + 2,
            "transformers_version": "4.57.1",
        },
    )
    _write_json(folder / "tokenizer.json", tokenizer_json(family.tokens))
    _write_json(
        folder / "tokenizer_config.json",
        tokenizer_config(shape.max_positions, family.tokens, family.template),
    )
    _write_json(folder / "special_tokens_map.json", special_tokens_map())
    (folder / "README.md").write_text(
        README.format(
            architecture=shape.architecture,
            task="image-text-to-text" if "preprocessor_config.json" in family.files else "text-generation",
            title=shape.architecture.capitalize(),
            layers=shape.layers,
            hidden=shape.hidden,
            seed=seed,
        )
    )
    (folder / "LICENSE").write_text(LICENSE)
    write_weights(folder, shape, seed)
    return folder


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

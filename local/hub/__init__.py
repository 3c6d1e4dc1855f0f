"""The Hugging Face Hub's protocol over a folder, for `huggingface_hub` as client (`HF_ENDPOINT`).

`python -m local.hub --root DIR --listen HOST:PORT` serves, `python -m local.hub publish` adds a revision.
Models only, read only, plain LFS downloads (no Xet: its headers are never sent, so clients fall back).
"""

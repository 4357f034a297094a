"""BAGEL-7B without its files: enough to count and to measure what it takes before it is downloaded."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NoReturn

HUB_ID = "ByteDance-Seed/BAGEL-7B-MoT"
"""Where the checkpoint of `BAGEL_7B` lives."""
SPECIAL = {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|vision_end|>": 151653}
"""As in Qwen2's vocabulary. Any four ids would do here; a loaded checkpoint's come from its tokenizer."""
WORDS = 151643


class StandInTokenizer:
    """A token for each word and punctuation mark, about as many as the real tokenizer makes of English.

    The ids mean nothing, which is all that random weights need.
    """

    unk_token_id = None
    all_special_ids = tuple(SPECIAL.values())

    def __call__(self, text: str, **options: bool) -> dict[str, list[int]]:
        return {"input_ids": [zlib.crc32(word.encode()) % WORDS for word in re.findall(r"\w+|[^\w\s]", text)]}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(f"[{i}]" for i in ids if not skip_special_tokens or i not in SPECIAL.values())

    def convert_tokens_to_ids(self, token: str) -> int:
        return SPECIAL[token]

    def save_pretrained(self, directory: object) -> NoReturn:
        raise ValueError(f"random weights without {HUB_ID}'s own tokenizer are there to be measured, not to be saved")

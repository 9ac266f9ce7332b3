"""Converts a Hugging Face folder for OpenVINO GenAI, with its tokenizer.

    python bench/peers/convert_openvino.py SOURCE DIR bfloat16|int8

Run by OpenVINO's own python; int8 is OpenVINO's own weight-only compression.
"""

from __future__ import annotations

import sys
from pathlib import Path

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM
from transformers import AutoTokenizer


def main() -> None:
    """Export the model, then the tokenizer and its inverse."""
    source, folder, precision = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    model = OVModelForCausalLM.from_pretrained(
        source, export=True, load_in_8bit=precision == "int8"
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    forward, inverse = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(forward, folder / "openvino_tokenizer.xml")
    openvino.save_model(inverse, folder / "openvino_detokenizer.xml")


if __name__ == "__main__":
    main()

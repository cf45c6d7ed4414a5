"""Runs the parity tests with pytest, after saying plainly what is missing where something is."""

import importlib.util
import pathlib
import sys

NEEDED = ["pytest", "numpy", "torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "h5py", "torch_pruning", "gguf", "xllamacpp", "pyarrow", "fastwarc"]

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"parity tests need {', '.join(missing)} in {sys.prefix}: `make test` installs them")

import pytest  # noqa: E402

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(pathlib.Path(__file__).parent), *sys.argv[1:]]))

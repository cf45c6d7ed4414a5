"""One run of the C++ helper for all parity tests: it trains tokenizers, exports random models and writes what it computed."""

import json
import os
import pathlib
import subprocess

import pytest

import invented_text

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("COPPICE_BUILD", REPOSITORY / "build" / "release"))


def parity_export(*arguments):
    subprocess.run([BUILD / "tests" / "parity_export", *arguments], check=True)


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """The folder that `parity_export produce` filled."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "training.txt").write_text("\n".join(invented_text.training_lines()) + "\n", encoding="utf-8")
    (folder / "strings.json").write_text(json.dumps(invented_text.test_strings()), encoding="utf-8")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in invented_text.task_items()), encoding="utf-8")
    parity_export("produce", folder)
    return folder


@pytest.fixture(scope="session")
def strings():
    return invented_text.test_strings()

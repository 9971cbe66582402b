"""Download a hub model into a folder of plain files, to be served like a trained one.

    python -m train.download openai/gpt-oss-20b .cache/models

Only what serving reads: safetensors, JSON, templates, tokenizer files; no pickles, no code. An
interrupted download goes on where it stopped.
"""

import argparse
import os
import sys
from pathlib import Path

from train import handed
from train.errors import InputError, TrainError, reason

FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
NEVER = ["original/*", "metal/*", "/*", "../*", "*/../*"]
"""Second copies of the weights that some repositories carry, and names outside of the folder."""


def download(model: str, parent: Path, revision: str | None = None) -> Path:
    """Folder of `model` (owner/name) below `parent`; InputError where the hub does not give it."""
    from huggingface_hub import snapshot_download

    folder = parent / model.replace("/", "--")
    try:
        snapshot_download(
            model,
            revision=revision,
            local_dir=folder,
            allow_patterns=FILES,
            ignore_patterns=NEVER,
        )
    except Exception as error:  # network, rights and naming errors of the hub share no base class
        raise InputError(
            f"{model} could not be downloaded ({reason(error)}); check its name and the "
            "network, and set HF_TOKEN if it is gated."
        ) from None
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m train.download", description=__doc__)
    parser.add_argument("model", help="hub id, owner/name")
    parser.add_argument("parent", type=Path, help="folder to download below")
    parser.add_argument("--revision", help="commit id, to get the same files again")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        handed.take(os.environ)
        print(download(arguments.model, arguments.parent, arguments.revision))  # noqa: T201 - result
    except TrainError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the sentence for the user
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

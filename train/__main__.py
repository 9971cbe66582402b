"""`python -m train RECIPE [section.key=value …]`: fine-tune, merge, check.

Progress goes to stderr; the folder of the finished run is the only line on stdout.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from train.errors import TrainError
from train.recipe import load

EPILOG = """\
outputs:      OUTPUTS/<recipe>/<run id>/ with recipe.yaml, data/, adapter/, merged/, metrics.json
environment:  RECIPE_<SECTION>__<KEY>=value overrides the recipe, the command line overrides both
exit codes:   0 done, 1 a bug (with traceback), 2 wrong input, 4 the result failed its check
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn a user's mistake into one sentence and its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Fine-tune the model of a recipe on its rows, and merge the result.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", type=Path, help="YAML file, such as recipes/tiny-ja.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="e.g. training.max_steps=50"
    )
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), help="where runs go (default: outputs)"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="made base models (default: .cache)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # deprecations between the pinned libraries are ours to follow, not the user's to read
    warnings.simplefilter("ignore", FutureWarning)
    if not sys.stderr.isatty():  # in a log file a progress bar is one endless line
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        recipe = load(arguments.recipe, arguments.overrides)
        from train.run import run

        folder = run(recipe, outputs=arguments.outputs, cache=arguments.cache)
    except TrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m train RECIPE [section.key=value …]`: fine-tune, merge, check, report.

Progress goes to stderr; the folder of the finished run is the only line on stdout. Given again
after an interruption, the same command goes on with the run that is unfinished. With `--rows` the
rows are only written for a service (train/export.py), and stdout has what was written as JSON.
"""

import argparse
import errno
import json
import logging
import os
import sys
import warnings
from pathlib import Path

from train import distributed, handed, hub_token, interruption, launch
from train.errors import Interrupted, MachineError, TrainError
from train.recipe import load

EPILOG = """\
outputs:      OUTPUTS/<recipe>/<run id>/ with recipe.yaml, data/, adapter/, merged/, report.html,
              metrics.json
environment:  RECIPE_<SECTION>__<KEY>=value overrides the recipe, the command line overrides both;
              RANK, WORLD_SIZE, MASTER_ADDR … as Azure ML and torchrun set them;
              HOMEPORT_HUB_TOKEN_SECRET names a key vault's secret with the hub token of a job
exit codes:   0 done, 1 a bug (with traceback), 2 wrong input, 3 this machine cannot (disk, memory),
              4 the result failed its check, 5 stopped by a signal; the same command goes on
"""

QUIETER = {
    "httpx": logging.WARNING,
    "accelerate": logging.WARNING,
    "bitsandbytes": logging.ERROR,  # says at import which kernels it lacks
}


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
    parser.add_argument(
        "--check", action="store_true", help="check all that is cheap, estimate memory, and end"
    )
    parser.add_argument("--gpu", help="with --check: estimate for this GPU, such as H100")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="copy the finished model to FOLDER/merged too, such as a job's output; a run of this "
        "recipe that is finished is then not made again",
    )
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FOLDER",
        help="write the recipe's rows to FOLDER for a fine-tuning service, and end",
    )
    parser.add_argument(
        "--rows-as",
        choices=["chat", "text", "azure_openai"],
        default="chat",
        help="with --rows: what the service takes (default: chat)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start anew, even if a run is unfinished"
    )
    arguments = parser.parse_intermixed_args(argv)  # overrides may follow a flag
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "false")  # datasets counts loads by request
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # deprecations between the pinned libraries are ours to follow, not the user's to read
    warnings.simplefilter("ignore", FutureWarning)
    if not sys.stderr.isatty():  # in a log file a progress bar is one endless line
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not distributed.is_main():  # what all processes would say is said once
        logging.disable(logging.INFO)
    try:
        with interruption.caught() as stop:
            recipe = load(arguments.recipe, arguments.overrides)
            handed.take(os.environ)
            hub_token.fetch(os.environ)
            if arguments.check:
                from train.check import check

                check(recipe, arguments.cache, gpu=arguments.gpu, outputs=arguments.outputs)
                return 0
            if arguments.rows:
                from train.export import export

                made = export(recipe, arguments.rows, arguments.rows_as, arguments.cache)
                print(json.dumps(made, ensure_ascii=False))
                return 0
            if count := launch.needed():
                return launch.launch(sys.argv[1:] if argv is None else argv, count)
            from train.run import run

            folder = run(
                recipe,
                outputs=arguments.outputs,
                cache=arguments.cache,
                stop=stop,
                fresh=arguments.fresh,
                model=arguments.model,
            )
    except (TrainError, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"error: the disk is full ({error.filename or arguments.outputs}): free some space and "
            f"run the same command; {interruption.AGAIN}.",
            file=sys.stderr,
        )
        return MachineError.exit_code
    if folder:
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

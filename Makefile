# Every verb that a user has. The logic is in scripts/, one verb per file; `make` prints this list.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# Any Python from 3.11 makes the virtual environment; everything else runs from that.
PYTHON ?= python3
ifeq ($(value HOMEPORT_VENV),)
HOMEPORT_VENV := .venv
endif
RUN := "$$HOMEPORT_VENV/bin/python" -m
# Processes of a test run; each may hold a model or two.
WORKERS := -n auto --maxprocesses=4 --dist loadfile

# Handed to the verbs as environment, so that a prompt or a path needs no second quoting.
export RECIPE MODEL PORT BIND KEY DEBUG_PORT TRACK_PORT PROMPT SET RUNTIME FRESH GPU HOMEPORT_VENV
export NAME DATA FIX YES JOB ENDPOINT COMPUTE ALL FILES TARGET FINISH DETACH PUSH SPECS JSON FAULTS KILLS MINUTES CLIENTS COUNT SEED PACKAGES
# To the letter: in what stands on make's command line, `$5` of a prompt or a path is no variable of make's.
$(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),\
    $(eval override $(name) := $$(value $(name)))))
# Japanese goes in and out under any locale.
export PYTHONUTF8 := 1

##@ Local
.PHONY: doctor new-recipe local-check local-train local-serve watch local-debug local-stop local-logs local-key ask track
doctor: setup ## Find what keeps this machine or account from working, and how to mend it  [RECIPE=…] [FIX=1]
	@$(RUN) scripts.doctor
new-recipe: setup ## Write a recipe for your own rows, checked  NAME=mine DATA=rows.jsonl [MODEL=tiny]
	@$(RUN) scripts.new_recipe
local-check: setup ## Check a recipe in seconds, and estimate memory  [RECIPE=…] [GPU=H100]
	@$(RUN) scripts.local_check
local-train: setup ## Fine-tune, or go on  [RECIPE=recipes/tiny-ja.yaml] [SET="training.max_steps=50"] [FRESH=1]
	@$(RUN) scripts.local_train
local-serve: setup ## Serve, training first if need be  [RECIPE=… | MODEL=folder or hub id] [PORT=5001] [KEY=1] [BIND=0.0.0.0]
	@$(RUN) scripts.local_serve
watch: setup ## Serve, and take edits of serve/ at once, with the weights where they are  [as local-serve]
	@$(RUN) scripts.local_serve --watch
local-debug: setup ## As watch, and a debugger can attach to score.py  [DEBUG_PORT=5678] [as local-serve]
	@$(RUN) scripts.local_serve --debug
local-stop: setup ## Stop the servers of this checkout
	@$(RUN) scripts.local_stop
local-logs: setup ## Show the server's log  [PORT=5001]
	@$(RUN) scripts.local_logs
local-key: setup ## Print the local server's key, for curl
	@$(RUN) scripts.local_key
ask: setup $(if $(filter cloud,$(TARGET)),cloud-setup) ## Ask the server one question  PROMPT='オーストラリアの首都はどこですか？' [PORT=5001 | TARGET=cloud]
	@$(RUN) scripts.ask
track: setup ## Show what training has tracked, in MLflow's pages, until Ctrl-C  [TRACK_PORT=5050]
	@$(RUN) scripts.track

##@ Cloud
.PHONY: advise cloud-plan cloud-push cloud-stage cloud-train cloud-logs cloud-cancel cloud-download
.PHONY: cloud-deploy cloud-rollback cloud-key cloud-status cloud-down cloud-smoke
advise: cloud-setup ## Which ways to fine-tune are open to a recipe today, and what each costs  [RECIPE=…]
	@$(RUN) scripts.advise
cloud-plan: cloud-setup ## What would run on Azure, for how long, and what that can cost  [RECIPE=…] [SPECS=folder]
	@$(RUN) scripts.cloud_plan
cloud-push: cloud-setup ## Push both images to the workspace's registry, unless it has them  [PUSH=build builds there]
	@$(RUN) scripts.cloud_push
cloud-stage: cloud-setup ## Upload a recipe's base model once, so that no paid GPU waits for a download  [RECIPE=…]
	@$(RUN) scripts.cloud_stage
cloud-train: cloud-setup ## Fine-tune on Azure, by the recipe's route, or go on with that very job; registers the model  [RECIPE=…] [YES=1]
	@$(RUN) scripts.cloud_train
cloud-logs: cloud-setup ## Follow the job's log  [JOB=name]
	@$(RUN) scripts.cloud_logs
cloud-cancel: cloud-setup ## Cancel the job  [JOB=name]
	@$(RUN) scripts.cloud_cancel
cloud-download: cloud-setup ## Fetch the job's results into outputs/, verified  [JOB=name]
	@$(RUN) scripts.cloud_download
cloud-deploy: cloud-setup ## Serve the newest registered model, blue/green  [RECIPE=…] [YES=1] [FINISH=1 drops the old one]
	@$(RUN) scripts.cloud_deploy
cloud-rollback: cloud-setup ## Move the traffic back to the deployment before
	@$(RUN) scripts.cloud_rollback
cloud-key: cloud-setup ## Print the endpoint's key, for curl
	@$(RUN) scripts.cloud_key
cloud-status: cloud-setup ## Jobs, endpoints, what bills since when, and whether it is the image that passed here
	@$(RUN) scripts.cloud_status
cloud-down: cloud-setup ## List what bills, ask, and delete it  [YES=1] [ENDPOINT=… | COMPUTE=…] [FILES=1 also rows in Azure OpenAI]
	@$(RUN) scripts.cloud_down
cloud-smoke: cloud-setup ## The whole path once on a real subscription, at the cheapest, and record its traffic
	@$(RUN) scripts.cloud_smoke

##@ Rehearsal
.PHONY: rehearse rehearsal-up rehearsal-down
rehearse: cloud-setup ## The whole cloud path, for real, against a local Azure, for free  [RECIPE=…] [FAULTS=1|all] [KILLS=50]
	@$(RUN) scripts.rehearse
rehearsal-up: cloud-setup ## Start the local Azure and leave it, to type the cloud verbs against it
	@$(RUN) scripts.rehearse --up
rehearsal-down: cloud-setup ## Stop the local Azure, and forget all that is in it
	@$(RUN) scripts.rehearse --down

##@ Quality
.PHONY: test check lock upgrade sbom audit
test: check ## Everything: the checks, then both images built, trained in, served and asked
	@$(RUN) pytest -rs $(WORKERS) -m "slow and not e2e"
	@$(RUN) pytest -rs -n 2 --dist loadgroup -m e2e
check: runtime cloud-setup ## Lint, types and unit tests: two minutes once all is installed
	@$(RUN) ruff check . && $(RUN) ruff format --check --quiet .
	@$(RUN) mypy
	@$(RUN) pytest -q $(WORKERS) -m "not e2e and not slow"
lock: setup ## Compile the locks anew from images/*.in and host.in
	@UV="$$HOMEPORT_VENV/bin/uv" images/lock
upgrade: setup ## Move the locks to newer versions, if traps, parity and rehearsal still pass  [PACKAGES="torch idna"]
	@$(RUN) scripts.upgrade
sbom: setup ## Say what both images hold: packages, versions, licences, in outputs/sbom/ (CycloneDX)
	@$(RUN) scripts.sbom
audit: setup ## Look for known vulnerabilities in all that is locked, and what mends them
	@$(RUN) scripts.audit

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

##@ Trials
.PHONY: soak
soak: runtime ## Serve under load, cancellations, kill -9 and SIGTERM; writes outputs/trials/  [MINUTES=10] [CLIENTS=64] [MODEL=folder]
	@$(RUN) trials.soak
.PHONY: fuzz
fuzz: runtime ## Ask the server 10,000 wrong things: no crash, no 5xx, a sentence each  [COUNT=10000] [SEED=7] [MODEL=folder]
	@$(RUN) trials.fuzz
.PHONY: secrets
secrets: runtime cloud-setup ## Plant a mark in every secret, do everything, and search all that is left  [PARTS="local cloud docker"]
	@$(RUN) trials.secrets $(PARTS)

##@ House
.PHONY: help setup runtime cloud-setup clean
help: ## Print this list
	@"$(PYTHON)" -m scripts.help $(MAKEFILE_LIST)
setup: ## Make the virtual environment that the verbs run in (every verb does this first)
	@"$(PYTHON)" -m scripts.setup
runtime: ## Also install what training and serving need without Docker
	@"$(PYTHON)" -m scripts.setup --runtime
cloud-setup: ## Also install the Azure SDK (every cloud verb does this first)
	@"$(PYTHON)" -m scripts.setup --cloud
clean: setup ## Remove what can be made again: servers, images, environment, caches; outputs/ stays
	@$(RUN) scripts.clean

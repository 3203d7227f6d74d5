# What a person types.  GNU make; each step that fails ends with a sentence of its own.
MAKEFLAGS += --no-print-directory --silent
.DEFAULT_GOAL := help
.PHONY: help install controller payload up down demo test test-k8s test-cluster test-ui screenshots check bench-weights bench-quality bench-release bench-probe bench-webhook faults lock clean

# The first Python of these that is new enough makes the environments; PYTHON=... is asked first and alone.
PYTHON ?=
BIN := .venv/bin

define environment
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        exec $$python tasks/local/environments.py $(1); \
	    fi; \
	done; \
	echo "No Python 3.11 or newer answers to: $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)." \
	     "Install one (on Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3." >&2; \
	exit 9
endef

help:            ## what can be typed
	sed -n 's/^\([a-z0-9-]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

install: controller payload ## both environments: .venv and serve/.venv

controller:      ## the environment that flows, tasks and tests run in (.venv)
	$(call environment,controller)

payload:         ## the environment that Ray Serve and vLLM run in (serve/.venv)
	$(call environment,payload)

up: install      ## start the embedded stack
	$(BIN)/slipway up

down: controller ## stop it; data stays under .slipway
	$(BIN)/slipway down

demo: install    ## watch three releases of one service; KEEP=1 leaves the stack up
	$(BIN)/slipway demo $(if $(filter 1,$(KEEP)),--keep)

test: install    ## every test, the slow ones too, two files at a time: most of them wait
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-k8s: install ## only the tests of the KubeRay target, on a real API server; the first time builds it
	$(BIN)/python -m tests.kube.binaries
	SLIPWAY_TEST_KUBE=1 $(BIN)/python -m pytest tests/kube tests/k8s tests/fakes tests/tasks tests/faults/kuberay -k "kube or k8s or cluster"
	SLIPWAY_TEST_KUBE=1 $(BIN)/python -m pytest tests/faults/releases -k kuberay

test-cluster: install ## releases on a whole cluster of this machine (Linux, root); RAY_OPERATOR=/path plays KubeRay's own, too
	$(BIN)/python -m tests.cluster.machine
	SLIPWAY_TEST_CLUSTER=1 $(BIN)/python -m pytest tests/cluster
	$(if $(RAY_OPERATOR),RAY_OPERATOR=$(RAY_OPERATOR) $(BIN)/python -m tests.cluster $(BIN)/python -m pytest tests/e2e/test_kuberay.py)

test-ui: install ## a person's story in the Prefect UI, in a browser (Debian's chromium); ten minutes
	$(BIN)/python -m tests.ui.browser
	SLIPWAY_TEST_UI=1 $(BIN)/python -m pytest tests/ui -s

screenshots: test-ui ## take the documentation's pictures anew, from that story
	$(BIN)/python -m tests.ui.album

check: controller ## lint, format, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-weights: install ## measure the weights' road against other tools; SIZE=small takes minutes, JSON=1 prints JSON
	$(call environment,bench)
	$(BIN)/python -m tests.bench.weights $(if $(SIZE),--size $(SIZE)) $(if $(ONLY),--only $(ONLY)) $(if $(filter 1,$(JSON)),--json)

bench-quality: install ## judge planted defects and the same model by the real checks; SIZE=small takes minutes, JSON=1 prints JSON
	$(BIN)/python -m tests.bench.quality $(if $(SIZE),--size $(SIZE)) $(if $(RUNS),--runs $(RUNS)) $(if $(filter 1,$(JSON)),--json)

bench-release: install ## measure releases and what clients meet on the real stack; SIZE=small takes minutes, on fakes; JSON=1
	$(BIN)/python -m tests.bench.release $(if $(SIZE),--size $(SIZE)) $(if $(ONLY),--only $(ONLY)) $(if $(filter 1,$(JSON)),--json)

bench-probe: install ## measure the probe itself; JSON=1 prints JSON
	$(BIN)/python -m tests.bench.probe $(if $(filter 1,$(JSON)),--json)

bench-webhook: controller ## measure the webhook receiver in crowds and floods; JSON=1 prints JSON
	$(BIN)/python -m tests.bench.webhook $(if $(filter 1,$(JSON)),--json)

faults: install  ## only the tests of faults: kills, lost answers, wrong bytes, two runs at once
	$(BIN)/python -m pytest tests/faults

COMPILE := .tools/uv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url $(if $(UPGRADE),--upgrade)

lock: controller ## resolve the locks again; UPGRADE=1 takes newer versions of what is not pinned
	$(COMPILE) --universal --group dev pyproject.toml --output-file requirements.lock
	$(COMPILE) --universal --override serve/requirements-cpu.overrides serve/requirements-cpu.in --output-file serve/requirements-cpu.lock
	$(COMPILE) --python-platform x86_64-manylinux_2_28 serve/requirements-gpu.in --output-file serve/requirements-gpu.lock
	$(COMPILE) --universal tests/bench/requirements.in --output-file tests/bench/requirements.lock

clean:           ## stop the stack and remove what make and the stack made, but for the downloads
	if [ -x $(BIN)/slipway ]; then $(BIN)/slipway down --wipe; fi
	rm -rf .venv serve/.venv .tools .slipway .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

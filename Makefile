# One verb per target; `make help` lists them. What CI runs is `make test`.
#
# PORT, WORKERS, STATE_DIR and PORTFOLIO, given in the environment or on make's command line, reach
# every command below as they are: make passes both on, and credit_risk/settings.py holds the
# defaults, the only place that does.

PERSONAL_LOANS ?=
CREDIT_CARDS ?=
LOCK_FLAGS ?=
SOAK_SECONDS ?= 300
DEMO_SECONDS ?= 110
KILLS ?= 20
BACKEND ?= docker
TORCH_FLAGS ?= --torch-backend cpu
IMAGE_FLAGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(LOCK_FLAGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install serve demo test test-long test-spark install-drift test-drift install-network test-network install-tracking install-registry test-registry lint types loadtest soak torture bench-peers bench-scorers dashboards image secrets packages retrain lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv from the lock, fetching uv if needed

$(INSTALLED): requirements/dev.txt requirements/uv.txt pyproject.toml scripts/bootstrap
	@scripts/bootstrap
	@touch $@

serve: $(INSTALLED) ## serve: PORT=3000 WORKERS=one per core STATE_DIR=./var PORTFOLIO=personal-loans
	@exec $(BIN)/credit-risk serve

demo: $(INSTALLED) ## two minutes that show it: drift, a review, a replay, a proof; DEMO_SECONDS=110
	@$(BIN)/python -m loadtests.demo --seconds $(DEMO_SECONDS)

# Coverage is the core's, which decides, explains and records, by its own tests; `tests/conftest.py`
# has the order of the files.
test: lint types ## lint, type-check and run the whole suite
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov

test-long: $(INSTALLED) ## kill servers under load more often than `make test`: KILLS=20
	KILLS=$(KILLS) $(BIN)/pytest tests/e2e/test_idempotency.py tests/e2e/test_torture.py

# Beside the environment and not in it: pyspark has no wheel, and 450 MB are not for everybody.
test-spark: $(INSTALLED) ## test scoring on Spark; needs Java 17, fetches pyspark
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/spark --no-deps \
		--require-hashes -r requirements/spark.txt
	PYTHONPATH=$(CURDIR)/.tools/spark $(BIN)/pytest tests/test_bulk_spark.py

# Beside the environment and not in it, too: its licence allows no production use without paying.
install-drift: $(INSTALLED) ## fetch alibi-detect, for multivariate drift; mind its licence
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/drift --no-deps \
		--require-hashes -r requirements/drift.txt

test-drift: install-drift ## test multivariate drift, and ours against alibi-detect's
	PYTHONPATH=$(CURDIR)/.tools/drift $(BIN)/pytest tests/monitoring/test_multivariate.py

# Beside the environment and not in it: 700 MB that only training a network needs.
install-network: $(INSTALLED) ## fetch PyTorch for neural networks; TORCH_FLAGS say which build
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/network --no-deps \
		--require-hashes -r requirements/network.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/network --no-deps \
		$(TORCH_FLAGS) $$(sed -n 's/^network = \["\(torch==[^"]*\)"\]$$/\1/p' pyproject.toml)

test-network: install-network ## test training networks, and our reading of ONNX against its makers'
	PYTHONPATH=$(CURDIR)/.tools/network $(BIN)/pytest tests/test_onnx_format.py \
		tests/training/test_network.py tests/training/test_pipeline.py \
		tests/training/test_compilation.py tests/training/test_train.py -k "network or onnx or version"

# Beside the environment and not in it: MLflow's client, which only runs that are told to it need.
install-tracking: $(INSTALLED) ## fetch MLflow's client, for training with MLFLOW_TRACKING_URI
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/tracking --no-deps \
		--require-hashes -r requirements/tracking.txt

# An environment of its own: MLflow's server wants other versions than the rest.
install-registry: $(INSTALLED) ## fetch MLflow's server and SeaweedFS, the real registry of the tests
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .tools/registry
	$(BIN)/uv pip sync --quiet --python .tools/registry/bin/python --only-binary :all: \
		--require-hashes requirements/registry.txt

test-registry: install-registry install-tracking ## test the real registry: needs PostgreSQL
	$(BIN)/pytest tests/training/test_tracking.py tests/e2e/test_registry.py

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED) ## mypy, strict
	$(BIN)/mypy

loadtest: $(INSTALLED) ## load a server of its own, hold it to loadtests/objectives.yaml: WORKERS=2
	$(BIN)/python -m loadtests

soak: $(INSTALLED) ## five minutes of mixed traffic: memory and p99 stay flat; SOAK_SECONDS=300
	$(BIN)/python -m loadtests --soak $(SOAK_SECONDS)

torture: $(INSTALLED) ## kill servers and databases under load, lose nothing; needs PostgreSQL: KILLS=20
	$(BIN)/python -m loadtests.torture --kills $(KILLS)

bench-peers: $(INSTALLED) ## this server beside others: needs wrk, and the machine to itself
	$(BIN)/python -m benchmarks

bench-scorers: $(INSTALLED) ## one model's trees in our kernels, XGBoost and ONNX Runtime
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/scorers --no-deps \
		--require-hashes -r requirements/scorers.txt
	PYTHONPATH=$(CURDIR)/.tools/scorers $(BIN)/python -m benchmarks.scorers

dashboards: $(INSTALLED) ## write grafana/dashboards from their code
	$(BIN)/python -m grafana

# The bento lies in .tools. BentoML reads its Dockerfile's template again from a temporary folder, and
# refuses to where that is not below the folder it runs in.
image: VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image: export BENTOML_HOME = $(CURDIR)/.tools/bentoml
image: export BENTOML_DO_NOT_TRACK = True
image: $(INSTALLED) ## the server's image, credit-risk-server:VERSION: BACKEND=docker or podman
	$(BIN)/bentoml build
	cd / && $(CURDIR)/$(BIN)/bentoml containerize credit-risk-server:latest \
		--backend $(BACKEND) --image-tag credit-risk-server:$(VERSION) $(IMAGE_FLAGS)

secrets: ## what docker-compose.yml needs in compose/secrets, where it is missing
	compose/make-secrets

packages: $(INSTALLED) ## retrain the shipped packages: PERSONAL_LOANS=file.csv CREDIT_CARDS=file.csv
	$(if $(PERSONAL_LOANS)$(CREDIT_CARDS),,$(error name the data: PERSONAL_LOANS=FILE, CREDIT_CARDS=FILE or both))
	$(if $(PERSONAL_LOANS),$(BIN)/credit-risk train --ship --portfolio personal-loans --data $(PERSONAL_LOANS))
	$(if $(CREDIT_CARDS),$(BIN)/credit-risk train --ship --portfolio credit-cards --data $(CREDIT_CARDS))

# By the shell and not by make, which would run what a name has in it. A clean checkout has no client
# of MLflow's yet.
retrain: $(INSTALLED) $(if $(value MLFLOW_TRACKING_URI),install-tracking) ## a candidate of newer rows: DATA=file.csv, else of records; PORTFOLIO, REPORT=folder
	@if [ -n "$$DATA" ]; then set -- --data "$$DATA"; else set -- --from-records; fi; \
		if [ -n "$$REPORT" ]; then set -- "$$@" --report "$$REPORT"; fi; \
		export PYTHONPATH="$(CURDIR)/.tools/tracking$${PYTHONPATH:+:$$PYTHONPATH}"; \
		exec $(BIN)/credit-risk retrain "$$@"

# The development lock first, serving within it: an image never holds what no test has seen.
lock: $(INSTALLED) ## renew requirements/*.txt; LOCK_FLAGS=--upgrade for newer versions
	$(COMPILE) pyproject.toml --extra train --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/serve.txt
	$(COMPILE) --group spark -c requirements/dev.txt -o requirements/spark.txt
	$(COMPILE) --group scorers -c requirements/dev.txt -o requirements/scorers.txt
	$(COMPILE) --group network -c requirements/dev.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements/dev.txt) \
		-o requirements/network.txt
	$(COMPILE) --group drift -c requirements/dev.txt --override requirements/drift-overrides.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements/dev.txt) \
		-o requirements/drift.txt
	$(COMPILE) pyproject.toml --extra tracking -c requirements/dev.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements/dev.txt) \
		-o requirements/tracking.txt
	$(COMPILE) --group registry -o requirements/registry.txt
	$(COMPILE) --group bootstrap -c requirements/dev.txt -o requirements/uv.txt
	set -e; for peer in $(patsubst %/requirements.in,%,$(wildcard benchmarks/peers/*/requirements.in)); do \
		grep -E '^(bentoml|joblib|numpy|pandas|scikit-learn|scipy|xgboost-cpu)==' requirements/dev.txt \
			| sed 's/ .*//' | $(COMPILE) --no-annotate $$peer/requirements.in -c - -o $$peer/requirements.txt; done

clean: ## remove everything made here but the records in ./var
	rm -rf .venv .tools .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

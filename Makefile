# Commands for everyone: `make demo` shows it working, `make test` proves it, `make bench` measures it. All of
# them set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv/tools/bin
PROTOS := producers/protos
SCRIPTS := .ci/run deployments/compose/make-queues.sh deployments/compose/seed.sh
LOCK := $(TOOLS)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-header --no-annotate
DOORS := --extra gateway --extra kafka --extra rabbitmq
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-build-isolation

BRIEF := -m "not long" --hypothesis-profile=brief

.PHONY: demo test bench chaos soak growth check audit docs site setup lock proto audit-dependencies clean

demo: setup
	@$(BIN)/python -m processor demo

# Three test processes, since much of a test is waiting; `pytest` by itself runs one test after the other. Beside them runs
# `make check`, whose output comes last. EVERYTHING=1 adds the tests marked `long` and more random
# examples, as CI does. Bytecode is written even where the environment forbids it: the tests start hundreds of processes.
test: setup
	@check=$$(mktemp) && trap 'rm -f "$$check"' EXIT; \
	  $(MAKE) --no-print-directory check >"$$check" 2>&1 & checking=$$!; \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadgroup $(if $(EVERYTHING),,$(BRIEF)); tested=$$?; \
	  wait $$checking; checked=$$?; \
	  echo "make check:"; cat "$$check"; \
	  test $$tested -eq 0 -a $$checked -eq 0

# Within half an hour; `.venv/bin/python -m tests.bench --help` shows its parts.
bench: .venv/.load
	@$(BIN)/python -m tests.bench bench

# Every fault that we could think of, on real servers, and the oracle after each; `make test` has a short version.
chaos: setup
	@$(BIN)/python -m tests.chaos chaos

# A million messages and a thousand kills.
soak: setup
	@$(BIN)/python -m tests.chaos soak

check: setup audit
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory site

# Writes the made pages of docs/reference anew, then builds the site into site/.
docs: setup
	@$(BIN)/python -m tests.reference
	@$(MAKE) --no-print-directory site

# Some seconds, offline. The tests check every link: tests/shape/test_links.py.
site: setup
	@$(BIN)/python -m zensical build --strict

# Static, and offline: what can do harm in Python (ruff's S, which `check` has too), the Dockerfile and shell scripts.
audit: setup
	@$(BIN)/ruff check --select S .
	@$(BIN)/hadolint --failure-threshold style deployments/Dockerfile
	@$(BIN)/shellcheck $(SCRIPTS)

# Long, and needs much disk, which it asks for first: what a message and a question cost as the table grows.
growth: setup
	@$(BIN)/python -m tests.bench.growth

setup: .venv/.ready

# A half-made .venv is made again: the stamp is written last. What is installed is what requirements/ names, and
# no other bytes than those. What builds packages comes first: nothing is fetched behind the list's back so.
.venv/.ready: pyproject.toml requirements/build.txt requirements/development.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || \
	  { echo "python3 -m venv failed: on Debian and Ubuntu, 'apt-get install python3-venv' first"; exit 1; }
	@echo "Installing into .venv (about a minute, once) ..."
	@$(INSTALL) --require-hashes -r requirements/build.txt
	@$(INSTALL) --require-hashes -r requirements/development.txt
	@$(INSTALL) --no-deps -e .
	@$(BIN)/python -m processor.devstack.launchers
	@touch $@

# What only the benchmark needs, so that the tests don't wait for it.
.venv/.load: .venv/.ready requirements/load.txt
	@echo "Installing what the benchmark races against (a minute, once) ..."
	@$(INSTALL) --require-hashes -r requirements/load.txt
	@touch $@

# Writes requirements/ anew from pyproject.toml, for every platform. What is there keeps its version while pyproject.toml
# allows it; `make lock UPGRADE=--upgrade` takes the newest.
lock: .venv/.tools
	@$(LOCK) $(UPGRADE) pyproject.toml $(DOORS) --extra devstack --extra docs --extra test --extra load \
	  --output-file requirements/load.txt
	@$(LOCK) --constraint requirements/load.txt pyproject.toml $(DOORS) --extra devstack --extra docs --extra test \
	  --output-file requirements/development.txt
	@$(LOCK) --constraint requirements/load.txt pyproject.toml $(DOORS) --output-file requirements/doors.txt
	@$(LOCK) --constraint requirements/load.txt pyproject.toml --output-file requirements/runtime.txt
	@$(LOCK) $(UPGRADE) --constraint requirements/load.txt requirements/build.in --output-file requirements/build.txt

# Makes the gRPC code anew from the .proto, whose digest it notes on top: a test holds the two together. The code refuses a grpcio
# or protobuf older than what made it, so this is the oldest grpcio that pyproject.toml allows, not the newest.
proto: .venv/.tools
	@$(TOOLS)/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.75.0'
	@$(TOOLS)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)/*.proto
	@for proto in $(PROTOS)/*.proto; do for made in $${proto%.proto}_pb2.py $${proto%.proto}_pb2.pyi $${proto%.proto}_pb2_grpc.py; do \
	  $(TOOLS)/python -c 'import hashlib, pathlib, sys; made, proto = map(pathlib.Path, sys.argv[1:]); \
	    digest = hashlib.sha256(proto.read_bytes()).hexdigest(); \
	    made.write_text(f"# Made by `make proto` of {proto.name}, SHA-256 {digest}\n{made.read_text()}")' \
	    $$made $$proto || exit 1; done; done

# Needs the internet: PyPI's own list of known holes, which mirrors of its packages seldom have. Strict, because a package that
# was not found there would otherwise count as one without a hole.
audit-dependencies: .venv/.tools
	@$(TOOLS)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/load.txt -r requirements/build.txt

# These two stay out of .venv itself, which holds nothing but what requirements/ names. They don't need it either: `make lock`
# works while what is locked does not fit pyproject.toml.
.venv/.tools:
	@$(PYTHON) -m venv --clear .venv/tools
	@$(TOOLS)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14' 'pip-audit>=2.10,<3'
	@touch $@

clean:
	rm -rf .venv .processor site .cache

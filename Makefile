# `make demo` and `make test` set everything up by themselves; see `make help`.

PYTHON ?= python3
TORCH ?=
BIN := .venv/bin

PYTEST := $(BIN)/python -m pytest
# Tests of graphs of processes, which mostly wait; the others run beside them, with what they leave of the cores.
REAL_TIME := test/nodes test/launch
BESIDE := nice -n 19 $(PYTEST) -n 2 --dist loadfile

export TORCH
# One thread: small networks train faster, and results do not depend on the number of cores.
export OMP_NUM_THREADS ?= 1

# `clean` and `env` must not overlap, and output of checks that run side by side is hard to read. Only the two halves of
# `test` do, one of them into a file.
ifeq ($(filter run-%,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

.DEFAULT_GOAL := help
.PHONY: help env demo test run-real-time run-others mutation lint typecheck bench clean

help:  ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env:  ## set up .venv: ROS 2, Python packages, messages (PYTHON=python3.12, TORCH=torch==2.9.1)
	@$(PYTHON) tools/env.py

demo: env  ## learn to insert a peg, through the real ROS 2 graph, and say where the evidence is
	@out=runs/demo; n=1; while [ -e "$$out" ]; do n=$$((n + 1)); out=runs/demo-$$n; done; \
	$(BIN)/dagger-ros run --contract config/contracts/peg.yaml --rule hg --rounds 6 --seed 0 --out "$$out"

lint: env  ## ruff and the layering of the modules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

typecheck: env  ## mypy --strict
	@$(BIN)/mypy

test: lint typecheck  ## lint, typecheck and all tests; every line and branch of the supervisor
	@mkdir -p build
	@$(MAKE) --no-print-directory -j2 run-real-time run-others; status=$$?; cat build/others.log; exit $$status

run-real-time:
	@$(PYTEST) $(REAL_TIME)

run-others:
	@{ $(BESIDE) test/supervisor \
		--cov=dagger_ros.supervisor --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100 \
	&& $(BESIDE) --ignore=test/supervisor $(REAL_TIME:%=--ignore=%); } > build/others.log 2>&1

mutation: env  ## change the supervisor in every small way: at least 95 % must be noticed (15 minutes)
	@$(BIN)/python tools/mutation.py

# Each measurement, shortened; what `--help` says of one is for its own defaults. Not here: diagnose.py and peers/, which
# take long, and figures of which stand in docs/.
define BENCHMARKS
tick.py --ticks 5000 --memory-ticks 20000
inference.py --calls 5000
torch_policy.py --calls 200
decision.py --ticks 5000
loop_latency.py --seconds 6
jitter.py --seconds 6
images.py --seconds 1 --repeats 1
fixed_rate.py --seconds 5
takeover.py --takeovers 50
lockstep.py --episodes 5
frames.py --frames 5000
training.py --steps 300
recorder.py --kills 3
recording_load.py --seconds 5
chaos.py --kills 3
soak_supervisor.py --ticks 20000
endef
export BENCHMARKS

bench: env  ## every measurement of benchmarks/, each for some seconds; docs/performance.md says how to read them
	@echo "$$BENCHMARKS" | while read -r line; do \
		echo; echo "benchmarks/$$line"; $(BIN)/python benchmarks/$$line < /dev/null || exit; \
	done

clean:  ## remove what was installed and built; runs stay
	rm -rf .venv build install log mutants .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

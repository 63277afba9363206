# Two commands do everything on a fresh machine:
#   make train                      weight-normalized DQN on the real Breakout, 15 to 25 minutes on two cores
#   make train GAME=seaquest ARGS="--parameterization normal --steps 500000"
#   make compare                    weight norm against normal layers on MinAtar, with a report
#   make test                       the tests but for the long ones (make test-slow), under eight minutes on two cores
#   make same REF=COMMIT            does a refactor compute, bit for bit, what that commit did: scripts/same.py

PYTHON ?= python3
# What pip is given to install torch: one tested version. On Linux that is PyPI's build with CUDA, some GB, unless pip
# is set to find a local wheel. The small build for CPUs:
#   make install TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
# The shell reads it: a range is torch~=2.9 or "'torch>=2.9'".
TORCH ?= torch==2.13.0
GAME ?= breakout
ARGS ?=
BIN := .venv/bin

.PHONY: install train compare test test-slow same lint types docs wheel format clean

install: .venv/.installed

.venv/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable ".[dev]"
	@touch $@

train: install
	$(BIN)/wn-rl train $(GAME) $(ARGS)

# Weight norm against normal layers on three MinAtar games, three seeds each: 27 runs, an estimated twenty minutes
# on two free cores (--dry-run in ARGS says more).
compare: install
	$(BIN)/wn-rl compare --suite minatar --games breakout seaquest space_invaders \
	    --arms weight_norm:3e-4 normal:1e-4,3e-4 --steps 80000 --learning.epsilon-steps 40000 \
	    --evaluation.period 10000 --out runs/compare $(ARGS)

# What the tests need in addition: Triton, whose interpreter runs the CUDA kernel on a CPU.
.venv/.installed-for-tests: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable ".[dev,interpreter]"
	@touch $@

test: .venv/.installed-for-tests
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: .venv/.installed-for-tests
	$(BIN)/python -m pytest -m slow $(ARGS)

# REF defaults to HEAD; ARGS="--only atari" for some of the runs.
same: install
	$(BIN)/python scripts/same.py $(REF) $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# The documentation as a site, in build/docs.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Builds the wheel and tries it in an environment of its own, away from this folder: Atari, MinAtar, a resume and scores.
wheel: install
	rm -rf dist build .venv-wheel
	$(BIN)/python -m build --wheel --quiet
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd dist && for words in \
	    "train breakout --preset laptop --steps 200 --learning.replay-start 100 --run-dir smoke/atari" \
	    "train breakout --suite minatar --steps 2000 --keep-replay --learning.replay-start 500 --run-dir smoke/minatar" \
	    "resume smoke/minatar --steps 3000" "evaluate smoke/minatar --network latest --episodes 3"; \
	    do ../.venv-wheel/bin/wn-rl $$words || exit 1; done
	rm -rf .venv-wheel

clean:
	rm -rf .venv .venv-wheel dist build wn_rl.egg-info .pytest_cache .mypy_cache .ruff_cache

# make demo and make test set up everything they need, into .venv only.
VENV := .venv
UV := $(VENV)/bin/uv
# Wheels on this machine, if pip knows of any, give the CPU build of torch; elsewhere uv finds it.
export UV_FIND_LINKS ?= $(or $(PIP_FIND_LINKS),$(shell python3 -m pip config get global.find-links 2>/dev/null))
TORCH := $(if $(UV_FIND_LINKS),,--torch-backend cpu)
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: env demo test test-slow gpu-check lint patches docs clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements/cpu-overrides.txt
	@test -x $(UV) || { python3 -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet uv; }
	$(UV) pip install --python $(VENV) $(TORCH) --overrides requirements/cpu-overrides.txt -e ".[dev]"
	@touch $@

demo: env
	$(VENV)/bin/protenix-eba demo

test: env
	$(VENV)/bin/python -m pytest -n 2 -m "not slow"

# Whole runs: training, the demo, processes that are killed.
test-slow: env
	$(VENV)/bin/python -m pytest -n 2 -m slow

# Figures of a GPU, in 8 minutes; a second run goes on. By any Python with torch for CUDA and the
# few wheels that the script's --help names: no .venv, whose torch has no CUDA.
PYTHON ?= python3
gpu-check:
	$(PYTHON) scripts/gpu_check.py

lint: env
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

# The patch series for upstream, checked on copies of the installed Protenix.
patches: env
	$(VENV)/bin/python scripts/check_patches.py

# The documentation as a site, in build/site.
docs: env
	$(UV) pip install --python $(VENV) "mkdocs-material>=9.5" "latex2mathml>=3.77" \
		"mkdocstrings[python]>=1.0"
	$(VENV)/bin/mkdocs build

clean:
	rm -rf $(VENV) runs build dist *.egg-info

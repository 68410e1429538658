PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo quick test comfyui format clean

demo: $(VENV)/ready
	$(RUN) -m ddpm_core demo

# While working: under two minutes. Without ComfyUI, and without what is marked slow.
quick: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest --ignore=tests/comfyui -m "not slow"

test: comfyui
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

# Where none is found: the tested ComfyUI in .comfyui. Without a network it says so, and all goes on.
comfyui: $(VENV)/ready
	$(RUN) -m tests.comfyui.rig.install

format: $(VENV)/ready
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) .comfyui out

$(VENV)/ready: requirements-dev.txt requirements-ray.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-ray.txt
	touch $@

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo quick test format clean

demo: $(VENV)/ready
	$(RUN) -m ddpm_core demo

# While working: under two minutes. Without ComfyUI, and without what is marked slow.
quick: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest --ignore=tests/comfyui -m "not slow"

test: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

format: $(VENV)/ready
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) out

$(VENV)/ready: requirements-dev.txt requirements-ray.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-ray.txt
	touch $@

# Everything runs in .venv, which `make` builds when it is missing and brings up to date when
# pyproject.toml or constraints.txt change. An environment that happens to be active lends its
# Python and is never written to: in a conda environment of kdlab's own, call `kdlab lab` and
# `pytest` yourself. Another Python: make PYTHON=python3.12 ...

PYTHON ?= python3
PROFILE ?= cpu
STUDY ?= first_light

BIN := .venv/bin
READY := .venv/ready

.DELETE_ON_ERROR:
.PHONY: lab test test-slow test-kill browser course study lint doctor clean

lab: $(READY)  # open the course
	$(BIN)/kdlab lab

test: $(READY)  # the quick suite, the linters, every notebook in the smoke profile, a browser
	KDLAB_HEADLESS=1 $(BIN)/pytest -m "not notebooks and not slow and not browser"
	$(MAKE) --no-print-directory lint
	KDLAB_HEADLESS=1 $(BIN)/pytest -m "notebooks and not slow"
	$(MAKE) --no-print-directory browser
	$(BIN)/pytest -m browser -rs

test-slow: $(READY)  # the dear tests
	KDLAB_HEADLESS=1 $(BIN)/pytest -m slow

test-kill: $(READY)  # training killed at 20 random moments
	KDLAB_KILLS=20 $(BIN)/pytest tests/train/test_kill.py

browser:  # Chromium for the last tests, installed where that is allowed; pictures in build/browser
	@[ -z "$$KDLAB_CHROMIUM$$(which chromium chromium-browser google-chrome 2>/dev/null)" ] || exit 0; \
	as="sudo -n"; [ "$$(id -u)" != 0 ] || as=; \
	if which apt-get >/dev/null && $$as true 2>/dev/null; then \
		$$as apt-get update && $$as apt-get install -y --no-install-recommends chromium && exit 0; \
	fi; \
	echo "NO BROWSER: install Chromium, or name one in KDLAB_CHROMIUM; until then the course is" \
		"not tested in a browser" >&2; [ -z "$$CI" ]

course: $(READY)  # run every notebook headless: make course PROFILE=smoke
	$(BIN)/kdlab notebooks run --profile $(PROFILE)

study: $(READY)  # run what is missing of a long experiment: make study STUDY=first_light
	$(BIN)/kdlab study $(STUDY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/kdlab notebooks lint

doctor: $(READY)  # what is installed here, and how to mend it
	$(BIN)/kdlab doctor

clean:  # remove the environment and what tools leave; the cache of rendered faces stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis kdlab.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("kdlab needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv

# `make` lists the targets. Each does all of its own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
# Test processes beside each other; most of a call is waiting. The calls come first, they take longest.
JOBS ?= 6
# Trees of other Debians (lab/tree.sh), for what this one does not have.
TRIXIE ?= /var/lib/tandem-trixie
SID ?= /var/lib/tandem-sid

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install Debian packages and the virtual environment (the other targets do it by themselves)
	@lab/install.sh

demo: setup ## a caller talks to the agent and is put through; ARGS=--keep stays up for a softphone
	@$(PYTHON) -m lab.demo $(ARGS)

# A call is real time: on a machine that others keep busy a scenario may come too late. What fails is run once more by itself,
# and what then fails has failed.
test: setup lint ## every test; ARGS is passed on to pytest
	@$(PYTHON) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS) || { [ $$? = 1 ] && \
	  echo "tandem: failed among others; once more alone:" && \
	  $(PYTHON) -m pytest -q --last-failed --last-failed-no-failures none --maxfail 1 $(ARGS); }

test-trixie: setup ## the edge's tests on the Kamailio of Debian 13, as root; ARGS is passed on to pytest
	@lab/tree.sh trixie $(TRIXIE) kamailio,kamailio-extra-modules,kamailio-tls-modules
	@TANDEM_NO_SKIPS=1 TANDEM_KAMAILIO="chroot $(TRIXIE) kamailio" unshare -m sh -c \
	  'mount --bind /tmp $(TRIXIE)/tmp && exec "$$@"' sh \
	  $(PYTHON) -m pytest -q -n $(JOBS) --dist loadfile tests/edge $(ARGS)

test-asterisk: setup ## a real PBX at the edge: Asterisk 22 of Debian sid, as root; ARGS is passed on to pytest
	@lab/tree.sh sid $(SID) asterisk
	@TANDEM_NO_SKIPS=1 TANDEM_ASTERISK_TREE=$(SID) $(PYTHON) -m pytest -q tests/asterisk $(ARGS)

lint: setup ## ruff and mypy
	@$(PYTHON) -m ruff check -q .
	@$(PYTHON) -m ruff format -q --check .
	@$(PYTHON) -m mypy

format: setup ## let ruff format the code
	@$(PYTHON) -m ruff check -q --fix . ; $(PYTHON) -m ruff format -q .

bench: ## calls per core beside the usual patterns, added delay; ARGS is passed on
	@lab/install.sh bench
	@$(PYTHON) -m bench $(ARGS)

bench-edge: ## the edge beside a bare relay: CPU, fail-over, emergencies under a flood; ARGS is passed on
	@lab/install.sh
	@$(PYTHON) -m bench.edge $(ARGS)

bench-control: ## esl_app beside a bare greenswitch server: calls a second, added delay, memory; ARGS is passed on
	@lab/install.sh
	@$(PYTHON) -m bench.control $(ARGS)

walk: setup ## half an hour of calls that do random things, then what is left of them; ARGS as --minutes=5 --seed=1 --switch=lab
	@$(PYTHON) -m tests.walk $(ARGS)

mutate: setup ## lines of Kamailio's configuration that no scenario needs; ARGS as --minutes=30 --file=trunks.cfg
	@$(PYTHON) -m tests.edge.mutate $(ARGS)

LOCK := -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
  --custom-compile-command "make lock" pyproject.toml

lock: setup ## write requirements.lock (everything) and production.lock (what the images need) anew from pyproject.toml
	@$(PYTHON) $(LOCK) --all-extras -o requirements.lock
	@$(PYTHON) $(LOCK) -c requirements.lock -o production.lock

clean: ## remove what demonstrations, benches and tests left behind (neither run/, which has the records, nor .venv)
	@rm -rf out bench/out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test test-trixie test-asterisk lint format bench bench-control bench-edge lock clean mutate walk

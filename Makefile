# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
READY := $(VENV)/.ready-$(shell cat requirements.txt constraints.txt | sha256sum | cut -c1-12)
WORLD := python3 tests/world/world.py
SCENARIO ?= default
DIFY_VERSION ?= 1.12.1
OTEL ?=
FLEET ?= 20
FURTHER := $(addprefix --dify=,1.9.2 1.10.1 1.11.4 1.12.0 1.13.3 1.14.1 1.14.2)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
export PYTHONPATH := $(CURDIR)/collections
export MOLECULE_COMMAND_BORDERS := false

.PHONY: help venv lock lint format releases unit monitoring pythons images gates docs-lint build sanity engine world world-down \
	molecule node nodes scenarios scenarios-long console traces traces-long models models-long upgrade upgrade-long fleet-nodes fleet fleet-long demo-matrix test test-long bench demo demo-down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## .venv with the pinned tools

$(READY):
	tools/bootstrap python
	[ -x $(VENV)/bin/python ] || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	rm -f $(VENV)/.ready-* && touch $@

lock: $(READY) ## write constraints.txt anew from .venv
	mkdir -p build
	{ head -n 1 constraints.txt; pip freeze --exclude setuptools --exclude pip | sort -f; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

lint: $(READY) docs-lint ## ruff, mypy, yamllint, ansible-lint (production), changelog and docs
	ruff check .
	ruff format --check .
	mypy --scripts-are-modules plugins tests molecule conftest.py tools/ask tools/stages
	yamllint --strict .
	ansible-lint --strict
	antsibull-changelog lint

format: $(READY) ## let ruff format and sort the Python files
	ruff check --fix .
	ruff format .

docs-lint: $(READY)
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self --skip-rstcheck .

# Half of the time they wait for a process, so there are more of them than processors. On a busy machine such a process
# may miss its moment: what fails is run once more, a few tests at most; the log shows them, `make test` their number.
unit: $(READY) releases ## unit tests, gates and replay tests; no container
	tools/bootstrap tests
	pytest -n $$((2 * $$(nproc))) --reruns 1 --max-suite-reruns 5 --rerun-show-tracebacks -m "not world" --ignore-glob='tests/unit/test_monitoring_*'

monitoring: $(READY) ## the monitoring plugins without OpenTelemetry and with its newest release (OTEL=all: with each)
	tools/monitoring $(OTEL)

pythons: $(READY) ## `monitoring` with each other Python from 3.10 to 3.13 that this machine has
	PYTHONS=auto tools/monitoring

images: engine releases ## the world's images, started the way every release's compose file starts them
	pytest -n 3 --dist loadfile -m world tests/world

releases: # the world fetches what it needs itself; these tests look at every known release
	@tools/fetch-releases

gates: $(READY)
	pytest tests/gates

build: $(READY) ## build the collection, install the build elsewhere, syntax-check its playbooks
	tools/build-check

sanity: build ## ansible-test sanity over the installed build
	tools/sanity

engine: $(READY) # the collection's own docker role puts an engine here where none answers
	@docker info >/dev/null 2>&1 || ansible-playbook tests/world/control.yml

world: engine ## build the world's upstream (cached) and start it
	$(WORLD) up --dify $(DIFY_VERSION)

world-down: ## stop the world and remove its containers, volumes and networks
	$(WORLD) down

molecule: engine ## one Molecule scenario: make molecule SCENARIO=default (KEEP=1 keeps its node)
	mkdir -p build/logs
	molecule destroy --scenario-name $(SCENARIO)
	molecule test --scenario-name $(SCENARIO) $(if $(KEEP),--destroy=never)

node: engine # the node of Molecule's default scenario; one that runs already is left as it is
	$(WORLD) up --dify 1.12.1 --node dify1=trixie:18180

nodes: engine # those of the scenario ollama; where they are there already, they are left as they are
	docker container inspect llmops-ollama1 llmops-ollama2 >/dev/null 2>&1 || molecule converge --scenario-name ollama

scenarios: node ## bad input and broken states, on the node of Molecule's default scenario
	pytest tests/scenarios/dify -m "not long"

scenarios-long: node ## a changed setting, runs that are killed, a daemon that restarts or stays away, on the same node
	pytest tests/scenarios/dify -m long
	pytest tests/scenarios/console -m long

console: node ## owner, plugins, models and apps, and what goes wrong with them, on the same node
	pytest tests/scenarios/console -m "not long"

traces: node ## every model call seen, in each backend, on the same node; dashboard and alerts
	pytest tests/monitoring
	pytest tests/scenarios/traces -m "not long"

traces-long: node ## whatever becomes of the backend, and without a collector, too
	pytest tests/scenarios/traces -m long

models: nodes ## upgrades of Ollama and broken models, on the nodes of Molecule's scenario ollama
	pytest tests/scenarios/ollama -m "not long"

models-long: nodes ## Ollama killed half-way, in a container, and taken over from its own install script
	pytest tests/scenarios/ollama -m long

upgraded: engine # a node at 0.15.3, made anew: what an upgrade leaves behind cannot be taken back
	molecule destroy --scenario-name upgrade
	molecule converge --scenario-name upgrade

upgrade: upgraded ## 0.15.3 to 1.16.0 with a workspace in it, failing upgrades, a killed run
	pytest tests/scenarios/upgrade -m "not long"

upgrade-long: upgraded ## the same over seven releases and in use: all that can fail, killed in each step, backup, restore, adoption
	$(WORLD) up $(FURTHER)
	pytest tests/scenarios/upgrade --ignore=tests/scenarios/upgrade/test_service.py -m "not short"
	$(MAKE) upgraded
	pytest tests/scenarios/upgrade/test_service.py

fleet-nodes: engine # those of Molecule's scenario fleet; where they are there already, they are left as they are
	docker container inspect llmops-fhub1 >/dev/null 2>&1 || molecule converge --scenario-name fleet

fleet: fleet-nodes ## on the nodes of Molecule's scenario fleet: refusals, a node that dies
	pytest tests/scenarios/fleet -m "not long"

fleet-long: fleet-nodes ## rollouts in use, a new gateway, killed half-way, --check and --limit, bytes for 1, 2 and 4 nodes, a site without a way out
	pytest tests/scenarios/fleet -m long

demo-matrix: $(READY) # make demo of a release of each era
	pytest tests/demo

test: $(READY) ## everything that CI runs: one stage at a time (LANES=2: two), lint and sanity beside them
	tools/stages test

test-long: $(READY) ## test, longer scenarios, other Pythons, the bench, and the demo of six releases
	tools/stages test-long

bench: node ## a no-op run beside geerlingguy.docker, sha256sum, a watched call, an upgrade in use, a fleet (FLEET=20)
	python tests/bench/bench.py
	python tests/bench/digest.py
	python tests/bench/hook.py
	LLMOPS_NODE=bench1 python tests/bench/upgrade.py
	FLEET=$(FLEET) python tests/bench/fleet.py

demo: $(READY) ## a running Dify on http://127.0.0.1:8080, each of its model calls on http://127.0.0.1:6006
	tools/demo up

demo-down: ## remove the demo: containers, volumes, networks, state (cached images stay)
	tools/demo down

clean: ## demo-down, and remove build outputs, .venv, cached images and files
	tools/demo purge
	rm -rf build $(VENV) .ansible .mypy_cache .ruff_cache .pytest_cache

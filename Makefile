# From a fresh clone: "make sim" shows the whole chain once, "make test" runs every test.
# Both look for the tools they need, set up .venv (the first time), and go.

PYTHON ?= python3
JOBS ?= 2
PYTHONS ?= $(PYTHON)
PRESET ?= BALANCED_16
BOARDS ?= ulx3s-85f orangecrab-25f colorlight-5a75b tang-nano-20k
# Options for the one pip command that installs torch, for instance to name an index of CPU builds.
TORCH_PIP_FLAGS ?=

VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
# Quiet but for errors: what pip warns of is the machine's own configuration.
PIP := $(RUN) -m pip -qq --disable-pip-version-check
TORCH := torch==2.13.0

# Options of the commands, given as make's variables: NET=lenet5 WAVES=1 PES=4 SAMPLES=32 SEED=2 DATA=mnist ENGINE=amaranth
DEMO_OPTIONS = $(if $(NET),--net $(NET)) $(if $(PES),--pes $(PES)) $(if $(SAMPLES),--samples $(SAMPLES)) $(if $(SEED),--seed $(SEED)) \
	$(if $(DATA),--data $(DATA)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(MNIST_DIR),--mnist-dir '$(MNIST_DIR)') \
	$(if $(filter-out 0,$(WAVES)),--waves)
DOCTOR_OPTIONS = $(if $(ENGINE),--engine $(ENGINE)) $(if $(DATA),--data $(DATA)) \
	$(if $(MNIST_DIR),--mnist-dir '$(MNIST_DIR)') $(if $(wildcard $(READY)),--quiet)

.DEFAULT_GOAL := help
.PHONY: help doctor setup sim test regression nightly formal mutation fuzz lint types format verilog bench fmax fmax-array fpga docs site docs-links wheels ci constraints clean distclean

help:
	@echo 'make sim         train, compress, compile, simulate the Verilog, compare everything, print one summary'
	@echo '                   PES=16 SAMPLES=32 SEED=1 DATA=digits|mnist MNIST_DIR=folder ENGINE=rtl|amaranth WAVES=1'
	@echo '                   NET=lenet5|resnet8|dscnn|lstm: a whole network instead of LeNet-300-100'
	@echo 'make test        every test (SEED=1 JOBS=2 ARGS="-k name")'
	@echo 'make regression  2,000 random networks on 40 arrays, Verilog against graph and models; 300 programs on the core (SEED=n)'
	@echo 'make nightly     amaranth, rtl, bus, batches, arrays, scale, networks, streams, ends with their next seeds, into the ledger docs/results/regressions.jsonl (ARGS="--cluster ADDRESS")'
	@echo 'make fuzz        100,000 files and sessions at the ports that lie; the same command goes on after a kill (SEED=n)'
	@echo 'make formal      properties of the hardware, proved for all inputs (ARGS="axi-lite-protocol Expander")'
	@echo 'make mutation    thousands of faults of one bit in the hardware, and what sees each (ARGS="--blocks scan")'
	@echo 'make doctor      which tools are there, which are missing, how to get them'
	@echo 'make setup       create .venv with the pinned packages (the others do it when needed)'
	@echo 'make lint types  ruff, mypy --strict;  make format rewrites the files'
	@echo 'make verilog     the array as Verilog, with register map and C header, in build/verilog (PRESET=BALANCED_16)'
	@echo 'make bench       how fast the kit itself is on this machine'
	@echo 'make fmax        clock, size and slowest path of one PE on an ECP5-85 (three seeds), in build/fmax.json'
	@echo 'make fmax-array  the same of a whole array of 32 PEs behind a serial line (hours), in build/fmax-array.json'
	@echo 'make fpga        a bitstream for each board that holds an array, and their netlists verified (BOARDS="ulx3s-85f")'
	@echo 'make docs        write the generated parts of docs/ again, and the site in build/site (make site: that alone)'
	@echo 'make docs-links  ask every address on the web that the documents name'
	@echo 'make wheels      build sdist and wheel, and try the wheel in new environments (PYTHONS="python3.11 python3.12")'
	@echo 'make ci          what the continuous integration runs'
	@echo 'make constraints pin every package again, in constraints.txt'
	@echo 'make clean       remove what was built;  make distclean removes .venv as well'

# Runs with the system's Python as long as there is no environment that works. -I keeps eie/ off the module path.
doctor:
	@if $(RUN) -c '' 2> /dev/null; then python=$(RUN); else python='$(PYTHON)'; fi; \
	command -v $$python > /dev/null || { echo "No $$python on this machine: install Python 3.11 or newer with venv," \
		"or name another with make PYTHON=..." >&2; exit 3; }; \
	$$python -I eie/doctor.py --system $(DOCTOR_OPTIONS)

setup: $(READY)

# Everything but torch is checked against its hash. pip checks all packages of one command or none, and torch
# has other files elsewhere: so it takes a command of its own, and comes last, when all it needs is there. Bytecode is
# half of the work, which pip does on one core; as with pip, files of other Pythons that do not compile are left out.
$(READY): pyproject.toml constraints.txt | doctor
	@$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo 'Setting up $(VENV), one to three minutes: packages'
	@$(PIP) install --no-compile --no-deps --require-hashes -r constraints.txt
	@echo 'Setting up $(VENV): $(TORCH)'
	@$(PIP) install --no-compile $(TORCH_PIP_FLAGS) $(TORCH)
	@echo 'Setting up $(VENV): the kit itself'
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(RUN) -m compileall -qq -j 0 $(VENV)/lib || true
	@$(RUN) -m pip --disable-pip-version-check check
	@touch $@

sim: $(READY)
	@$(RUN) -m eie.commands.demo $(DEMO_OPTIONS)

test: $(READY)
	@$(RUN) -m pytest -n $(JOBS) --dist worksteal $(if $(SEED),--seed $(SEED)) $(ARGS)

regression: $(READY)
	@$(RUN) -m eie verify networks --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) $(ARGS)
	@$(RUN) -m pytest -q -n $(JOBS) tests/sim/test_cycles.py -k many_programs --programs 100 $(if $(SEED),--seed $(SEED))

nightly: $(READY)
	@$(RUN) -m eie verify nightly --jobs $(JOBS) -o build/nightly $(ARGS)
	@$(RUN) -m eie verify ledger

fuzz: $(READY)
	@$(RUN) -m eie fuzz --cases 100000 --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) -o build/fuzz-$(or $(SEED),1) $(ARGS)
	@EIE_FUZZ=1 $(RUN) -m pytest -q tests/sim/test_every_cycle.py $(if $(SEED),--seed $(SEED))

formal: $(READY)
	@mkdir -p build
	@$(RUN) -m eie verify formal --jobs $(JOBS) --json build/formal.json $(ARGS)

mutation: $(READY)
	@mkdir -p build
	@$(RUN) -m eie verify mutation --jobs $(JOBS) --json build/mutation.json $(ARGS)

lint: $(READY)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

types: $(READY)
	@$(RUN) -m mypy

format: $(READY)
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

verilog: $(READY)
	@$(RUN) -m eie verilog --preset $(PRESET) -o build/verilog

bench: $(READY)
	@$(RUN) -m eie bench speed $(ARGS)

fmax: $(READY)
	@mkdir -p build
	@$(RUN) -m eie.commands.fmax --require 130 --json build/fmax.json $(ARGS)

fmax-array: $(READY)
	@mkdir -p build
	@$(RUN) -m eie.commands.fmax --array --seeds 1 --require 80 -o build/fmax-array --json build/fmax-array.json $(ARGS)

fpga: $(READY)
	@for board in $(BOARDS); do $(RUN) -m eie fpga $$board -o build/fpga/$$board $(ARGS) || exit; done
	@$(RUN) -m eie verify port
	@$(RUN) -m eie verify netlist

docs: $(READY)
	@$(RUN) -m eie verilog --preset $(PRESET) -o build/docs > /dev/null
	@cp build/docs/registers.md build/docs/eie.h docs/
	@echo 'docs/registers.md and docs/eie.h written for $(PRESET)'
	@$(RUN) -m sim.waveform docs
	@$(RUN) -m sim.formal.table
	@$(RUN) -m sim.coverage.document
	@$(RUN) -m tests.features
	@$(MAKE) --no-print-directory site

# Warnings are errors: a link or an anchor that leads nowhere is one.
site: $(READY)
	@$(RUN) -m sphinx -q -W --keep-going -b html docs build/site
	@echo 'build/site/index.html written'

# Asks every address on the web that the pages name, so it needs a network.
docs-links: $(READY)
	@$(RUN) -m sphinx -q -b linkcheck docs build/links

# In a new environment of each Python named, one after the other: the wheel, and the first commands of the README.
wheels: $(READY)
	@rm -rf build/dist && $(RUN) -m build --no-isolation --outdir build/dist .
	@for python in $(PYTHONS); do bash .ci/try-wheel $$python build/dist/*.whl || exit; done

ci:
	@bash .ci/run

# The resolver comes from an environment of its own, so that the kit does not need it. One version of each
# package for every system and Python; which packages are there does not depend on the machine that runs this.
constraints:
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check uv
	@build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
		--all-extras --no-emit-package torch --generate-hashes --no-annotate --upgrade \
		--custom-compile-command 'make constraints' pyproject.toml --output-file constraints.txt

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

distclean: clean
	rm -rf $(VENV)

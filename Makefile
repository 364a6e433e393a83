# Thin names for the commands of CONTRIBUTING.md. What has to be installed, scripts/setup knows.

SHELL := /bin/bash
# /usr/sbin: Debian puts mosquitto there, outside an ordinary user's PATH. target/tools: programs that scripts/setup built.
export PATH := $(CURDIR)/target/tools/bin:$(PATH):/usr/sbin

.PHONY: help test sim sim-soak demo bench growth soak red check fuzz fmt advisories clean setup

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install what building and testing need and this machine lacks
	@scripts/setup

# A judge of the decoder from outside, and its vectors. Where there is none, firmware-adapters/tests/data is what decides.
VECTORS ?= ../shared

# The tests of hil-tests run the programs, which this builds too: each has tests of its own that run it.
test: setup ## every test of the workspace, doc tests included
	cargo test --workspace --locked
	$(SIM) test -p ehe-sim --features sim --locked
	@$(MAKE) --no-print-directory sim
	@if [ -e $(VECTORS)/accept/vectors.py ]; then FAMILIES=senml,openmhealth,fhir_observation,vendor_json python3 $(VECTORS)/accept/vectors.py $(TARGET)/debug/ehe-gateway decode -- $(VECTORS)/vectors; fi

# Our own crates are compiled once more, with --cfg ehe_sim and a little faster; the results lie beside those of other builds and
# replace none.
SIM := CARGO_PROFILE_DEV_OPT_LEVEL=1 RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/rustc-sim cargo

sim: setup ## simulate nodes: make sim SEED=7 repeats one run with all that happens, SEEDS=0..300 runs many
	@$(SIM) run -q -p ehe-sim --features sim --locked -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),0..300))

# What `make soak` runs of it.
sim-soak:
	@$(MAKE) --no-print-directory sim SEEDS=0..5000

# Run where it was built: `cargo run` for one package would build the dependencies again, with that package's features alone.
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

demo: setup ## the whole system on this machine; options: make demo ARGS="--once --out DIR"
	@cargo build --workspace --bins --locked
	@$(TARGET)/debug/ehe-demo $(ARGS)

# Built as it is shipped: figures of a debug build say nothing. The libraries' benches print rows too; `--bench '*'` takes those and
# leaves the unit tests alone. Peers are measured beside ours where they can be installed: without them the table says so.
bench: setup ## measure: a table of target and measured value; options: make bench ARGS="--only node"
	@scripts/setup peers || true
	@cargo build --release --workspace --bins --example outage --locked
	@cargo bench --workspace --bench '*' --locked -- $(ARGS) > $(TARGET)/bench.jsonl
	@$(TARGET)/release/ehe-demo --bench --library $(TARGET)/bench.jsonl --out $(TARGET)/bench $(ARGS)

# Apart from bench: it takes some 20 minutes and up to 9 GiB of disk, which it gives back. growth.md beside the table has the narrow tables.
growth: setup ## measure what more shards and more rooms cost: 1, 16, 64 shards on three nodes, up to a million rooms on one
	@cargo build --release --workspace --bins --locked
	@$(TARGET)/release/ehe-demo --bench --only growth --out $(TARGET)/growth

soak: setup ## faults against real nodes for an hour or more, then the simulation's long run; options: make soak ARGS="--kills 200 --others 20 --seed 1 --hours 6"
	@cargo build --workspace --bins --locked
	@$(TARGET)/debug/ehe-soak --out $(TARGET)/soak $(ARGS)
	@$(MAKE) --no-print-directory sim-soak

# A node that is broken on purpose, in a target directory of its own: nothing that is shipped is built with this flag.
red: setup ## show that the fault suite's checker sees nodes that are broken on purpose
	@cargo build --workspace --bins --locked
	@RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/scripts/rustc-red cargo build --workspace --locked --bin ehe-node --target-dir $(TARGET)/red
	@$(TARGET)/debug/ehe-soak --out $(TARGET)/soak --red $(TARGET)/red/debug/ehe-node

# Private items are documented too: in a workspace of programs most of the documentation is for those who work on them.
check: ## the read-only gate: format, lints, documentation, licences, banned crates
	@scripts/setup deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	cargo deny --locked check bans licenses sources

# Each target for a minute; longer or some only: make fuzz ARGS="600 body run". Needs a nightly toolchain.
fuzz: ## throw hostile bytes at every decoder (needs a nightly toolchain)
	@scripts/setup fuzz
	@scripts/fuzz $(ARGS)

# Apart from check: it fetches a database that not every build machine can reach.
advisories: ## known vulnerabilities and yanked versions among the dependencies
	@scripts/setup deny
	cargo deny --locked check advisories

fmt: ## format the Rust code
	cargo fmt --all

clean: ## remove everything that was built
	cargo clean

# Convoy. `make run` does all the set-up, builds, serves and shows a prediction; `make test` runs every check.
#
#   make run           set up, build in release, start the three services, send the sample photo, stay until Ctrl-C
#   ONCE=1 make run    the same, and end after the table
#   make test          formatting, lints, documentation and all tests
#   make test-memory   500 callers who trickle 60 MiB each: resident memory stays under --max-inflight-bytes (gigabytes)
#   make images        build the CPU and the CUDA image (needs Docker); prints their sizes
#   make compose-test  the images with compose.yaml: healthy, a photo, each container killed in turn (after make images)
#   make load          load tests with ghz and k6 against the release build; plots in target/load/index.html
#   make setup         only the set-up: wasm target, ONNX Runtime, models (each step is skipped when done)
#   make build         set up and build target/release/convoy
#   make clean         remove what was built; what was fetched stays in .convoy/

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The steps of `test` and `build` need each other's results, whatever -j says; Cargo itself uses all cores.
.NOTPARALLEL:
.PHONY: help setup setup-tests build run test test-memory test-deploy images compose-test load fmt lint doc unit clean

GUEST := preprocess-wasm/guest/Cargo.toml
# The guest's pure code is also built natively, for its unit tests and for what fuzzing checks of it.
GUEST_TARGET := target/guest-native
FUZZ := fuzz/Cargo.toml

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

setup:
	@scripts/setup-wasm-target.sh
	@scripts/setup-onnxruntime.sh
	@scripts/check-models.sh

# What the tests need beyond what serving needs: other languages' clients.
setup-tests: setup
	@scripts/setup-python-tools.sh
	@scripts/perf-analyzer.sh --setup || echo "perf-analyzer: its tests will be skipped."

build: setup
	cargo build --release --locked -p convoy

run: build
	@scripts/run.sh

test: setup-tests fmt lint test-deploy doc unit

fmt:
	cargo fmt --all --check
	cargo fmt --manifest-path $(GUEST) --check
	cargo fmt --manifest-path $(FUZZ) --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings
	CARGO_TARGET_DIR=$(GUEST_TARGET) cargo clippy --manifest-path $(GUEST) --all-targets --locked -- -D warnings
	CARGO_TARGET_DIR=$(GUEST_TARGET) cargo clippy --manifest-path $(FUZZ) --all-targets --locked --no-default-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

unit:
	CARGO_TARGET_DIR=$(GUEST_TARGET) cargo test --manifest-path $(GUEST) --locked
	CARGO_TARGET_DIR=$(GUEST_TARGET) cargo test --manifest-path $(FUZZ) --locked --no-default-features
	cargo test --workspace --locked

test-memory: setup
	cargo test -p model-serving --locked --test faces -- --ignored --nocapture five_hundred

# Prometheus' own tool checks and tests the rules, where it is installed (Debian: package prometheus).
# Compose checks its files wherever it is, without an engine.
test-deploy:
	@python3 tests/python/metric_names.py
	@if docker compose version >/dev/null 2>&1; then python3 tests/python/compose_difference.py; \
	else echo "compose.yaml, compose.gpu.yaml: not checked, there is no Docker Compose here."; fi
	@if command -v promtool >/dev/null; then \
	  promtool check config deploy/prometheus/prometheus.yml && promtool test rules deploy/prometheus/alerts_test.yml; \
	else echo "deploy/prometheus: not checked, there is no promtool here."; fi

load: build
	@scripts/load.sh

images:
	@scripts/images.sh

compose-test: setup-tests
	@scripts/compose-test.sh

clean:
	cargo clean

# The two commands of a newcomer are `make demo` and `make test`; both set up, build and run, and repeat for nothing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
FUZZ_SECONDS ?= 600
FUZZ_PARSERS ?= $(patsubst fuzz/%_fuzz.cpp,%,$(wildcard fuzz/*_fuzz.cpp))

.PHONY: help demo build parquet test test-cuda test-sanitize fuzz bench bench-train-step corpus format clean

RELEASE := build/release
# Runs of minutes, timings and the build of the preset cuda are asked for by name: ctest --test-dir build/release -L slow
ON_REQUEST := ^(slow|bench|cuda)$$
# A sanitized library cannot be loaded into an ordinary Python, and nothing new is seen in timings and documents.
NOT_SANITIZED := -LE '^(slow|bench|docs)$$' -E '^parity\.python$$'

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build corpus ## everything from nothing: set up, build, gather text, run the whole method, print verdict and report
	$(RELEASE)/coppice run recipes/demo.toml

build: ## set up what the build needs and leave build/release/coppice
	@scripts/setup build
	@test -f $(RELEASE)/build.ninja || cmake --preset release
	@cmake --build --preset release --target coppice

parquet: ## fetch Arrow's libraries and build coppice-parquet, which reads .parquet sources (after make build)
	@scripts/setup parquet
	@cmake --preset release
	@cmake --build --preset release --target coppice-parquet

corpus: build ## real documents of five domains from Debian packages into data/corpus, multiple-choice items of the held-out ones into data/tasks
	@scripts/corpus
	@$(RELEASE)/coppice data tasks recipes/demo.toml --output data/tasks

test: ## set up, build everything, run all tests
	@scripts/setup build
	@scripts/setup test
	@test -f $(RELEASE)/build.ninja || cmake --preset release
	@cmake --build --preset release --target all benchmarks
	@ctest --test-dir $(RELEASE) --parallel 2 --output-on-failure --no-tests=error -LE '$(ON_REQUEST)'

test-cuda: ## build the preset cuda and start it, where nvcc and LibTorch's full wheel are; no device is needed (after make test)
	@ctest --test-dir $(RELEASE) --output-on-failure --no-tests=error -L '^cuda$$'

test-sanitize: ## the tests once more under address and undefined-behaviour sanitizers (a second build; no Python parity)
	@scripts/setup build
	@test -f build/sanitize/build.ninja || cmake --preset sanitize
	@cmake --build --preset sanitize
	@ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:$${ASAN_OPTIONS:-} UBSAN_OPTIONS=print_stacktrace=1 \
	  ctest --test-dir build/sanitize --output-on-failure --no-tests=error $(NOT_SANITIZED)

fuzz: ## libFuzzer under both sanitizers, ten minutes (FUZZ_SECONDS) a parser of what comes from outside (needs clang 16)
	@command -v clang++-16 >/dev/null || { echo "make fuzz needs clang 16 (Debian: apt-get install clang-16 libclang-rt-16-dev)" >&2; exit 1; }
	@scripts/setup build
	@test -f build/fuzz/build.ninja || cmake --preset fuzz
	@cmake --build --preset fuzz
	@for parser in $(FUZZ_PARSERS); do fuzz/run build/fuzz $$parser $(FUZZ_SECONDS) || exit 1; done

bench: ## build all benchmarks and list them: what each measures and its command
	@scripts/setup build
	@test -f $(RELEASE)/build.ninja || cmake --preset release
	@cmake --build --preset release --target benchmarks
	@awk -F ' *[|] *' '/^## What/{exit} /^## /{print ""; print substr($$0, 4)} /^[|] `/{gsub(/`/, ""); printf "  %-50s %s\n", $$2, $$3}' tests/bench/README.md

bench-train-step: ## tokens/s of a training step beside eager PyTorch: one JSON line a case
	@scripts/setup test
	@test -f $(RELEASE)/build.ninja || cmake --preset release
	@scripts/bench-train-step

format: ## clang-format over the whole tree
	@command -v clang-format >/dev/null || { echo "make format needs clang-format (Debian: apt-get install clang-format)" >&2; exit 1; }
	@git ls-files -z -- '*.h' '*.cpp' '*.cu' | xargs -0 clang-format -i

clean: ## remove what was built (LibTorch in .venv, data and runs stay)
	rm -rf build

# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Each does all its own set-up, in .venv and build/, and reuses it the second time.

PYTHON ?= python3
VENV ?= .venv
DGS_CUDA ?= auto
export DGS_CUDA

bin := $(abspath $(VENV))/bin
# ninja and cmake come from the environment too.
export PATH := $(bin):$(PATH)
stamp := $(VENV)/.stamp
BACKEND := setup.py pyproject.toml requirements.txt $(wildcard build_backend/dgs_build/*.py)
SOURCES := $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.cu csrc/*/*.h csrc/*/*.cuh)

# make demo MODE=dgc WORKERS=4: each of these that is set becomes the option of that name.
DEMO := MODE WORKERS DENSITY DENSITY_DOWN CODEC EPOCHS LR MOMENTUM BATCH_SIZE SEED OUT
demo_flags = $(foreach name,$(DEMO),$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-) $($(name))))

.DEFAULT_GOAL := help
.PHONY: help setup build demo bench test test-cpp test-long fuzz stress docs lint clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  variables: PYTHON=python3.12 (3.11 to 3.14), DGS_CUDA=auto|1|0, MODE=... WORKERS=... for the demo"

$(stamp)-python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 14); ok or sys.exit( \
	  f"dgs needs Python 3.11 to 3.14, and $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch goes first and alone: the build of dgs then uses it instead of downloading a second one.
$(stamp)-torch: $(stamp)-python
	@echo "== installing torch (about 2.5 GB on Linux) into $(VENV)"
	$(bin)/python -m pip install 'torch>=2.10' numpy 'setuptools>=77' ninja
	@touch $@

# Renewed when DGS_CUDA is not what it was.
$(stamp)-cuda-$(DGS_CUDA): | $(stamp)-python
	@rm -f $(stamp)-cuda-* && touch $@

$(stamp)-installed: $(stamp)-torch $(BACKEND) | $(stamp)-cuda-$(DGS_CUDA)
	@echo "== compiling and installing dgs, in place, with what demo and tests import"
	$(bin)/python -m pip install --no-build-isolation -e '.[demo,examples,test]'
	@touch $@

setup: $(stamp)-installed ## .venv with everything in it

# The record of the build is its stamp. ninja compiles only what has changed.
dgs_ext/build_info.json: $(SOURCES) $(stamp)-cuda-$(DGS_CUDA) | $(stamp)-installed
	@echo "== compiling what has changed"
	$(bin)/python setup.py -q build_ext --inplace

build: dgs_ext/build_info.json ## compile what has changed

demo: build ## train on digits across processes, for every method; MODE, WORKERS, ... choose
	$(bin)/python example/demo.py $(demo_flags)

bench: build ## the kernels against the memory floor and plain torch, a quarter of an hour; BENCH="--smoke" etc.
	$(bin)/python benchmarks/kernels.py $(BENCH)

# $(call ctest,folder,options)
define ctest
	cmake -S . -B $(1) -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo $(2)
	cmake --build $(1)
	ctest --test-dir $(1) --output-on-failure
endef

test-cpp: $(stamp)-installed
	@echo "== C++ tests (ctest)"
	$(call ctest,build/ctest)

test: build test-cpp ## ctest and pytest; says what was skipped and why
	@echo "== Python tests (pytest)"
	$(bin)/pytest $(PYTEST)

test-long: build test-cpp ## the same with sanitizers and the tests that take minutes each
	@echo "== C++ tests under the address and undefined-behaviour sanitizers"
	$(call ctest,build/ctest-sanitized,-DDGS_SANITIZE=ON)
	$(bin)/pytest -m '' --timeout 1800 $(PYTEST)

# Each under the address and undefined-behaviour sanitizers. FUZZ_CXX: a clang with libFuzzer (Debian: clang-19 libclang-rt-19-dev).
FUZZ_CXX ?= $(firstword $(shell command -v clang++-19 clang++))
FUZZ_FRAMES ?= 10000000
FUZZ_SECONDS ?= 300

fuzz: $(stamp)-installed ## 10^7 altered frames through the decoder, then libFuzzer where there is a clang
	cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDGS_SANITIZE=ON
	cmake --build build/fuzz --target fuzz_mutations
	build/fuzz/fuzz_mutations $(FUZZ_FRAMES)
ifeq ($(FUZZ_CXX),)
	@echo "== libFuzzer left out: no clang++ here; name one with FUZZ_CXX=..."
else
	cmake -S . -B build/libfuzzer -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=$(FUZZ_CXX) -DDGS_FUZZER=ON
	cmake --build build/libfuzzer --target fuzz_decode
	mkdir -p build/libfuzzer/corpus
	build/libfuzzer/fuzz_decode -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -max_len=65536 \
	  -artifact_prefix=build/libfuzzer/ build/libfuzzer/corpus tests/wire/golden
endif

$(stamp)-docs: $(stamp)-installed
	$(bin)/python -m pip install -e '.[docs]' --no-build-isolation
	@touch $@

docs: build $(stamp)-docs ## the documentation site, in build/docs; a warning is an error
	$(bin)/python -m sphinx -b html -q -W --keep-going docs build/docs
	@echo "== build/docs/index.html"

stress: build ## 10^4 exchanges of 32 workers that come, die and come back; DGS_STRESS_SEED, _EXCHANGES
	cmake -S . -B build/ctest -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build build/ctest --target test_session_tsan
	build/ctest/test_session_tsan
	$(bin)/pytest -m slow --timeout 1800 tests/server/test_stress.py $(PYTEST)

$(stamp)-lint: $(stamp)-installed
	$(bin)/python -m pip install -e '.[lint]' --no-build-isolation
	@touch $@

lint: $(stamp)-lint ## ruff, mypy --strict, clang-format
	$(bin)/ruff check .
	$(bin)/mypy
	git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs $(bin)/clang-format --dry-run --Werror

clean: ## remove what was built; .venv stays
	rm -rf build dist dgs.egg-info python/dgs.egg-info
	rm -f dgs_ext/*.so dgs_ext/build_info.json

distclean: clean ## remove .venv and caches as well
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

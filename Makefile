# The two commands a newcomer needs: `make demo` and `make test`. Each sets up what it needs (scripts/setup.sh).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= $(HOME)/.local
DEMO_SLIDE := slides/CMU-1-Small-Region.svs
BINARY = $${CARGO_TARGET_DIR:-target}/release/wsi-nuclei
# Recipes that call cargo first read where libtorch, OpenSlide and libclang are.
ENV := . .deps/env;

.PHONY: help setup build demo test check cluster-test soak fuzz bench bench-kernels bench-long budget outputs install wheel portable-wheel python-test chroot-test \
    docs-test book deny release train-default parity clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## libtorch, OpenSlide and libclang into .deps/
	@scripts/setup.sh

build: setup ## the release binary
	@$(ENV) cargo build --release --locked

demo: build ## sets up, builds, finds the nuclei of a real slide: out/demo
	@scripts/fetch_demo_slide.sh
	@"$(BINARY)" run $(DEMO_SLIDE) -o out/demo
	@echo "demo: look at $$PWD/out/demo/CMU-1-Small-Region/overlay.jpg; the numbers are in nuclei.csv and summary.json beside it"

test: setup ## format, lints and all tests
	@cargo fmt --version >/dev/null && cargo clippy --version >/dev/null || { echo "make test: cure: rustup component add rustfmt clippy" >&2; exit 1; }
	@test -d "$${WSI_NUCLEI_SHARED:-../shared}" || echo "make test: no $${WSI_NUCLEI_SHARED:-../shared}: tests on real slides and labelled images say 'skipped'"
	@scripts/setup_slurm.sh --only-as-root
	cargo fmt --check
	$(ENV) cargo clippy --locked --all-targets -- -D warnings
	cargo check --locked --lib --no-default-features
	$(ENV) RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	@# The examples in the documentation are linked without the rpath that programs get.
	@$(ENV) export LD_LIBRARY_PATH="$$LIBTORCH/lib:$$WSI_NUCLEI_OPENSLIDE_LIB"; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	    echo "cargo test --locked"; cargo test --locked -- --nocapture --quiet 2>&1 | tee "$$log"; \
	    echo "make test: skipped:"; grep -o 'skipped: .*' "$$log" | sort -u || echo "nothing"

check: test ## the same as test

cluster-test: build ## a cohort on a real Slurm with kills, requeues and time limits (three minutes; installs Slurm)
	@scripts/setup_slurm.sh
	@$(ENV) scripts/cluster_test.sh "$(BINARY)" out/cluster-test

soak: setup ## many runs killed, damaged, shared and tiled differently (a quarter of an hour): docs/reliability.md
	$(ENV) WSI_NUCLEI_SOAK=1 cargo test --locked --test binary -- --nocapture killed:: invariance::

FUZZ_SECONDS ?= 600
FUZZ_SEED := $(or $(FUZZ_SEED),$(shell date +%s))
fuzz: setup ## damaged files for every reader, FUZZ_SECONDS each; each call draws other files
	@echo "fuzz: again with the same files: make fuzz FUZZ_SEED=$(FUZZ_SEED)"
	$(ENV) WSI_NUCLEI_FUZZ_SECONDS=$(FUZZ_SECONDS) WSI_NUCLEI_FUZZ_SEED=$(FUZZ_SEED) cargo test --locked --test binary -- --nocapture hostile

BENCH ?= pipeline
bench: build ## what each stage costs, against fake devices; BENCH=million: a million nuclei through every writer
	@scripts/fetch_demo_slide.sh
	$(ENV) cargo bench --locked --bench $(BENCH)

bench-long: build ## what a mm² costs on slides of 1, 10 and 100 mm², and a million nuclei through every writer
	@scripts/fetch_demo_slide.sh
	$(ENV) WSI_NUCLEI_BENCH_MM2=$(or $(MM2),100) cargo bench --locked --bench pipeline
	$(ENV) cargo bench --locked --bench million

bench-kernels: build ## the hottest kernels by themselves, against benches/kernels.baseline (KEEP=1: writes it anew)
	@$(ENV) WSI_NUCLEI_KEEP_BASELINE=$(KEEP) cargo bench --locked --bench kernels

BUDGET_PX ?= 100000
budget: setup ## peak memory and scratch on a slide of BUDGET_PX x BUDGET_PX, against --memory and plan (a quarter of an hour)
	$(ENV) WSI_NUCLEI_BUDGET_PX=$(BUDGET_PX) cargo test --locked --test binary -- --ignored --nocapture a_huge_slide

install: build ## binary and libraries into PREFIX (~/.local)
	@scripts/install.sh "$(BINARY)" "$(PREFIX)"

wheel: build ## dist/wsi_nuclei-….whl: pip installs it, no compiler needed (docs/install.md)
	@scripts/wheel.sh "$(BINARY)"

portable-wheel: setup ## the same wheel for older systems (glibc 2.31: RHEL 9, Ubuntu 20.04), built in a Debian 11 (root, debootstrap)
	@scripts/wheel.sh "$$(scripts/build_for_older_glibc.sh | tail -1)"

WHEEL = $$(ls -t dist/wsi_nuclei-*.whl | head -1)
python-test: wheel ## the Python package as installed, against pandas, GeoPandas, zarr, AnnData, SpatialData (needs pip)
	@scripts/fetch_demo_slide.sh
	@scripts/python_test.sh "$(WHEEL)" $(DEMO_SLIDE)

docs-test: python-test ## runs the blocks of README.md and docs/ that are marked runnable
	@scripts/docs_test.py target/python-test/bin/python $(DEMO_SLIDE)

chroot-test: wheel ## the wheel, Containerfile and Apptainer definition in bare Debians (root, debootstrap; WHEELS=FOLDER: offline)
	@scripts/fetch_demo_slide.sh
	@for what in bare container apptainer; do scripts/try_in_chroot.py $$what "$(WHEEL)" $(DEMO_SLIDE); done

book: ## docs/ as a searchable book: target/book (needs mdbook)
	@command -v mdbook >/dev/null || { echo "make book: cure: cargo install --locked mdbook" >&2; exit 1; }
	mdbook build docs

DENY ?= all
deny: ## licences, sources and known advisories of the crates (needs cargo-deny; offline: DENY="licenses bans sources")
	@command -v cargo-deny >/dev/null || { echo "make deny: cure: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked --config packaging/deny.toml check $(DENY)

release: build ## dist/: wheel, source archive, licences, SBOM, SHA-256 sums (needs cargo-about, cargo-cyclonedx)
	@$(ENV) scripts/release.sh "$(BINARY)"

DATA ?= $${WSI_NUCLEI_SHARED:-../shared}/data
train-default: build ## trains the default model from an ImageNet encoder (hours; DATA=FOLDER of the data sets)
	@$(ENV) scripts/train_default.sh "$(BINARY)" "$(DATA)" out/train-default

parity: build ## compares with hover_net and scikit-image, into docs/accuracy.md (DATA=FOLDER; 20 minutes)
	@$(ENV) scripts/parity.sh "$(BINARY)" "$(DATA)" out/parity

outputs: build ## opens a run's files with pyarrow, pandas, DuckDB, zarr and ome-zarr, `view` and reports in Chromium (needs pip, npm)
	@scripts/fetch_demo_slide.sh
	@$(ENV) scripts/outputs.sh "$(BINARY)" $(DEMO_SLIDE) out/outputs
	@$(ENV) tests/outputs/labels.sh "$(BINARY)" out/outputs
	@$(ENV) tests/outputs/view.sh "$(BINARY)" $(DEMO_SLIDE) out/outputs
	@$(ENV) tests/outputs/report.sh "$(BINARY)" $(DEMO_SLIDE) out/outputs

clean: ## removes what cargo built and the demo made; keeps .deps/ and slides/
	cargo clean
	rm -rf out

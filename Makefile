# `make demo` and `make test` need Rust and a package manager, nothing else. `make help` lists the rest.
#
# DATABASE_URL   tests use this server; PostgreSQL is not looked for and not installed
# TEST_THREADS   tests that run at once; default: one for each core
# TIMES          1: tests say how long they took, as .ci/run wants to know
# ARGS           further arguments, for example: make demo ARGS='--producers 4 --json'

CARGO ?= cargo
# All features of the library.
FEATURES = config-file,embedded-server,failpoints,loader,resolver,tls
TEST_ARGS = $(if $(TEST_THREADS),--test-threads=$(TEST_THREADS))

.DEFAULT_GOAL := help
.PHONY: help demo test postgres bench bench-orms lint fmt doc ci

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: postgres ## load the sample into a server of its own, unit by unit and in bulk, and show the result
	@CARGO='$(CARGO)' sh .ci/demo $(ARGS)

# With TIMES: what libtest can do on a nightly compiler alone, unless it is told otherwise when it runs.
REPORT_TIME = $(if $(TIMES),--config 'target."cfg(all())".runner = "env RUSTC_BOOTSTRAP=1"')
TIME_ARGS = $(if $(TIMES),-Zunstable-options --report-time)

# Without --all-targets: that would run the benches, which are linted.
test: $(if $(DATABASE_URL),,postgres) ## run all tests: unit, property, integration, stress, documentation
	$(CARGO) build --locked --features $(FEATURES) --examples
	$(CARGO) test --locked --features $(FEATURES) --tests $(REPORT_TIME) -- $(TEST_ARGS) $(TIME_ARGS) $(ARGS)
	$(CARGO) test --locked --features $(FEATURES) --doc -- $(TEST_ARGS) $(ARGS)

postgres: ## install PostgreSQL through the system's package manager, if there is none
	@sh .ci/install-postgres

# All benches and not the library, whose test harness knows none of their arguments.
bench: postgres ## run all benches: half an hour; with ARGS=--quick: two minutes
	$(CARGO) bench --locked --bench '*' -- $(ARGS)

bench-orms: postgres ## the same with sqlx, sea-orm and diesel-async among the contestants
	$(CARGO) bench --locked --features orms --bench throughput -- $(ARGS)

lint: ## check the format, lint, and build the documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets --features $(FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --features $(FEATURES)

fmt: ## format the code
	$(CARGO) fmt --all

doc: ## build and open the documentation
	$(CARGO) doc --locked --no-deps --features $(FEATURES) --open

ci: ## everything that must pass before a change goes in
	.ci/run

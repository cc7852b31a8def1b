# On a bare Debian or Ubuntu machine with Rust, each target installs what it needs, and says so.
TARGET_FOLDER := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
export SQLX_OFFLINE := true
export RUSTDOCFLAGS := -D warnings

.PHONY: demo test test-traces test-long-calls check bench up down smoke recovery

demo: ## seven stories of orders through the whole system, on this machine (EXIT=1: end when done)
	scripts/tools/install demo
	scripts/tools/demo $(if $(EXIT),--exit)

# One build of everything, so that binaries and tests share their dependencies. Six tests at once on two processors:
# most of them wait most of the time.
test: ## everything, against a real Kafka, schema registry and Postgres
	scripts/tools/install
	cargo build --locked --workspace --all-targets
	RUST_TEST_THREADS=6 MEANWHILE_BIN=$(TARGET_FOLDER)/debug/meanwhile scripts/tools/with-test-stack \
		cargo test --workspace --no-fail-fast $(TESTS)

test-traces: ## the shape of traces, against a real Jaeger (the first time it is compiled: ten minutes)
	scripts/tools/install traces
	cargo build --locked --workspace --all-targets
	MEANWHILE_BIN=$(TARGET_FOLDER)/debug/meanwhile scripts/tools/with-test-stack cargo test --workspace --test traces -- --ignored

test-long-calls: ## calls of minutes, by the thousand, through every fault; figures for docs/performance.md (half an hour)
	scripts/tools/install
	cargo build --release --locked --package meanwhile --package e2e --bin meanwhile --test long_calls
	MEANWHILE_BIN=$(TARGET_FOLDER)/release/meanwhile scripts/tools/with-test-stack cargo test --release --package meanwhile \
		--package e2e --test long_calls -- --ignored --nocapture --test-threads=1

check: ## format, lints, the rules of the repository, contracts, generated files, asyncapi.yaml, alerts, docs
	scripts/tools/install
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --quiet --workspace --test repository --test contract
	scripts/tools/prepare-queries --check
	scripts/check/dependencies
	scripts/check/golden
	scripts/check/asyncapi
	scripts/check/alerts
	scripts/check/contracts
	scripts/check/openapi
	cargo doc --workspace --no-deps --quiet

bench: ## the figures of docs/performance.md
	scripts/tools/install
	scripts/tools/bench

up: ## the whole stack of docker-compose.yml (PROFILE=core: without Jaeger, Prometheus, Grafana)
	scripts/stack/up $(PROFILE)

down: ## stops it; the jobs stay
	scripts/stack/down

smoke: ## checks the running stack as its users see it
	scripts/stack/smoke

recovery: ## stops each dependency for a minute and kills each role, under load, in the running stack
	scripts/stack/recovery

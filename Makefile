SHELL := bash
.DEFAULT_GOAL := help
export RIG
rig := tests/rig/rig

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: quickstart
quickstart: ## PostgreSQL, Kafka and a relay, without Kubernetes, end to end in a minute: KEEP=1 to look around
	@quickstart/run

.PHONY: quickstart-stop
quickstart-stop: ## Stops what `make quickstart KEEP=1` left
	@quickstart/run stop

.PHONY: demo
demo: ## Two services of an essay platform, end to end, in a minute: DEMO_SECONDS=60 KEEP=1 to look around
	@demo/run

.PHONY: demo-stop
demo-stop: ## Removes what `make demo KEEP=1` left, and stops it
	@demo/run stop

.PHONY: test
test: ## All tests, against real servers: installs, builds and starts what they need
	@tests/all

.PHONY: test-quick
test-quick: ## What needs no server: format, lints, unit tests, the model, pages, generated files. Minutes
	@tests/all check quick

.PHONY: check
check: ## Format, lints, dependencies, shell scripts, links of the documentation
	@tests/check

.PHONY: e2e
e2e: ## Only the end-to-end test
	@tests/all e2e

.PHONY: chaos
chaos: ## Breaks servers, network and relays while services write, and judges: CHAOS_SECONDS=300 CHAOS_SEED=7
	@tests/chaos/run

.PHONY: chaos-controls
chaos-controls: ## Shows that chaos finds bugs that are planted in relay and database, one run for each
	@tests/chaos/run controls

.PHONY: differential
differential: ## A polling worker, SKIP LOCKED and OutboxRelay under the same faults: DIFFERENTIAL_SECONDS=300 DIFFERENTIAL_SEED=7
	@tests/differential/run

.PHONY: bench
bench: ## The relay beside Debezium, a polling worker and the limits of the machine: BENCH_ARGS="--runs 3 --rows 100000"
	@tests/bench/run

.PHONY: bench-micro
bench-micro: ## What the relay's own code costs for a row, in CPU time and without servers: MICRO_ARGS="headers --save-baseline before"
	cargo bench --locked --bench micro -- $(MICRO_ARGS)

.PHONY: bench-adopt
bench-adopt: ## What the triggers of an adopted table cost a service: ROUNDS=3 TRANSACTIONS=20000
	@tests/bench/adopt

.PHONY: bench-operator
bench-operator: ## What the operator costs with 500 OutboxRelays: time to come to rest, requests, memory: OBJECTS=100
	@tests/bench/operator

.PHONY: bench-scale
bench-scale: ## Several relays of one outbox, hand-over, and many idle outboxes on one PostgreSQL: SCALE_ARGS='drain --cap 0.1'
	@tests/bench/scale/run

.PHONY: figures
figures: ## Sizes, circles of imports, words: figures of the code, to compare two versions of it
	@cargo test --quiet --locked --test it architecture::figures::figures -- --nocapture --ignored

.PHONY: fmt
fmt: ## Formats the Rust files
	cargo fmt

.PHONY: generate
generate: ## Writes the files that are generated from the code: CRD, reference page, the chart's README and dashboards
	cargo run --quiet --bin outbox-operator -- crd >target/crd.yaml
	cp target/crd.yaml crds/outboxrelays.outboxrelay.dev.yaml
	cp target/crd.yaml charts/outbox-operator/files/outboxrelays.outboxrelay.dev.yaml
	UPDATE_GENERATED=1 cargo test --quiet --test it generated

.PHONY: docs
docs: ## Builds the documentation as a site that works from disk; needs Python 3 alone
	@site/build

.PHONY: rig-up
rig-up: ## Starts PostgreSQL 15 to 18, PgBouncer, Kafka 4.3 and 3.8, and Kubernetes, for `cargo test`
	$(rig) up postgres:15,16,17,18 pgbouncer kafka kafka-3.8 kubernetes

.PHONY: rig-down
rig-down: ## Stops them; their data stays
	$(rig) down

.PHONY: release
release: ## Makes dist/: image, chart, manifests, programs, sums, signed with MINISIGN_KEY; no container engine needed
	@release/build

.PHONY: publish
publish: ## Pushes image and chart of dist/: REGISTRY=host:port/path
	@release/publish $(REGISTRY)

.PHONY: test-long
test-long: ## What is too long for make test: the Dockerfile's image, end to end with it, make release and make publish
	@tests/all image release

.PHONY: image
image: ## Packs target/release as localhost/outbox-relay:dev into the rig's cluster; no container engine needed
	cargo build --release --bins
	tests/rig/kubernetes/pack-image dev target/release

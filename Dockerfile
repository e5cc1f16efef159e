# Both programs in one image: the relay is what runs by default, the chart names the operator.
#   docker build -t outbox-relay:0.1.0 .
# CI has no container engine and does not build this; tests pack the same two programs by tests/rig/kubernetes/pack-image.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config zlib1g-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bins

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/outbox-relay /src/target/release/outbox-operator /usr/local/bin/
# What a large row took goes back to the system: without these, glibc keeps some of it (50 MiB more
# at the peak for rows of 16 MB).
ENV MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576
# Numeric, so that runAsNonRoot can be checked.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/outbox-relay"]

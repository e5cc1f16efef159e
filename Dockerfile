# Both programs in one image: the relay is what runs by default, the chart names the operator.
#   docker build -t outbox-relay:0.1.0 .
# tests/image/run builds it for amd64 without a container engine, on base images that it makes. It was
# never built for arm64, nor by Docker. Nothing in it is particular to one of them.
# BUILD_IMAGE has Rust and a C compiler on Debian 12 or newer. BASE_IMAGE has the C library of the same
# or a newer release, and needs nothing else: no shell, no package manager.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:latest

FROM ${BUILD_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl-dev zlib1g-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG PROFILE=release
# OpenSSL and zlib are linked in, so that the programs need only the C library. A file that changed while an earlier build
# ran looks older than what that build made: so this crate is always compiled.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    export OPENSSL_STATIC=1 LIBZ_SYS_STATIC=1 OPENSSL_INCLUDE_DIR=/usr/include \
        OPENSSL_LIB_DIR=/usr/lib/$(gcc -print-multiarch) \
    && touch src/lib.rs src/bin/*.rs \
    && cargo build --locked --profile "$PROFILE" --bins \
    && mkdir -p /out \
    && cp "target/$PROFILE/outbox-relay" "target/$PROFILE/outbox-operator" /out/ \
    && strip --strip-debug /out/*

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outbox-relay" \
      org.opencontainers.image.description="Relay and operator of OutboxRelay: from a PostgreSQL outbox table to Kafka" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://outboxrelay.dev" \
      org.opencontainers.image.documentation="https://outboxrelay.dev"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/outbox-relay /out/outbox-operator /usr/local/bin/
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# What a large row took goes back to the system: without these, glibc keeps some of it (50 MiB more
# at the peak for rows of 16 MB).
ENV MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576
# Numeric, so that runAsNonRoot can be checked.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/outbox-relay"]

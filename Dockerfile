# syntax=docker/dockerfile:1
# Images without a model, from one build.
#   docker build --target cpu -t understudy:cpu .
#   docker build --target gpu -t understudy:gpu .
# The last stage runs nothing while it is built, so RUN_BASE may be any base with glibc at least
# as new as BUILD_BASE's and libgcc_s: Debian, or an image without a shell.
ARG BUILD_BASE=rust:1.95-bookworm
ARG RUN_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY . .
# Compiled dependencies stay in a cache of the builder, so the binary is copied out of it.
RUN --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin understudy \
    && install -D target/release/understudy /out/understudy \
    && mkdir /out/models

# One binary for both: what a GPU needs it loads when it starts.
FROM ${RUN_BASE} AS base
LABEL org.opencontainers.image.title="Understudy" \
      org.opencontainers.image.description="Serves fine-tuned open models behind the OpenAI API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/understudy /usr/local/bin/understudy
# The only place that is written to: the hub's cache and our own.
COPY --from=build --chown=10001:10001 /out/models /models
ENV HOME=/models HF_HOME=/models/huggingface XDG_CACHE_HOME=/models
USER 10001:10001
WORKDIR /models
VOLUME ["/models"]
EXPOSE 8000
# Requests that run have --shutdown-timeout (30 s) to finish; give `docker stop -t` more than that.
STOPSIGNAL SIGTERM
# Unhealthy until the model is loaded. Asks port 8000: a container on another port needs its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["understudy", "healthcheck"]
ENTRYPOINT ["understudy"]
CMD ["serve", "--host", "0.0.0.0"]

# What the NVIDIA runtime puts into the container: the devices and the driver's libraries. No CUDA
# toolkit is needed.
FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The default target.
FROM base AS cpu

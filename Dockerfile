# CPU image: one static-enough binary on a small base, not root, models in a volume.
#   docker build -t understudy .
#   docker run -p 8000:8000 -v understudy-models:/models understudy serve hf:org/name --host 0.0.0.0
ARG BUILD_BASE=rust:1.95-bookworm
ARG RUN_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin understudy

FROM ${RUN_BASE}
COPY --from=build /src/target/release/understudy /usr/local/bin/understudy
# The hub's cache and our own both live in the volume.
ENV HF_HOME=/models/huggingface XDG_CACHE_HOME=/models
RUN useradd --system --uid 10001 --create-home understudy \
    && mkdir -p /models && chown understudy /models
USER understudy
VOLUME /models
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["understudy"]
CMD ["serve", "--host", "0.0.0.0"]

# One image for every stage: `nanosft` is the entrypoint, the stage is its first argument.
#
#   docker build --target cpu  -t nanosft:cpu  .     generate, mix, audit, chat, and training without a GPU
#   docker build --target cuda -t nanosft:cuda .     training on NVIDIA GPUs (the driver comes from the host)
#
# Everything Python installs is pinned and checked against hashes (requirements/), but for torch in the cpu target:
# its CPU builds lie on an index of their own, given by --build-arg TORCH_INDEX=URL or by a pip.conf that is mounted
# while building (--secret id=pip_conf,src=pip.conf) and never becomes a layer. Without either, the default index's
# build is installed, which carries CUDA and is several GB larger. --build-arg BASE=debian@sha256:… pins the base too.
ARG BASE=debian:bookworm-slim

# --- tools that build, in no image that runs ---------------------------------------------------------------------
FROM ${BASE} AS build
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# Debian packages carry no versions: a stable release replaces them for security fixes only, and the old ones vanish.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The wheel of nanosft itself; a change of the code rebuilds this stage and one small layer of the image.
FROM build AS wheel
COPY requirements/build.lock requirements/build.lock
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf,required=false \
    python3 -m venv --without-pip /opt/build \
 && python3 -m pip --python /opt/build/bin/python install --require-hashes --no-deps -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY k8s k8s
COPY knowledge knowledge
COPY nanosft nanosft
RUN python3 -m pip --python /opt/build/bin/python wheel --no-build-isolation --no-deps --no-index \
        --wheel-dir /dist . \
 && python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --no-deps --no-index /dist/*.whl

# torch has a directory and a layer of its own: it is half of the image and changes the least.
FROM build AS cpu-torch
ARG TORCH_INDEX=
# Headers, static libraries and torch's own tests serve compilers alone, and this target has none.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf,required=false \
    python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --no-deps --target /opt/torch \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0 \
 && rm -rf /opt/torch/torch/include /opt/torch/torch/share /opt/torch/torch/test \
 && find /opt/torch -name '*.a' -delete

FROM build AS cuda-torch
COPY requirements/torch-cuda.lock requirements/torch-cuda.lock
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf,required=false \
    python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --require-hashes --no-deps --target /opt/torch \
        -r requirements/torch-cuda.lock

# Everything else that is locked.
FROM build AS dependencies
COPY requirements/runtime.lock requirements/runtime.lock
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf,required=false \
    python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --require-hashes --no-deps -r requirements/runtime.lock \
 && echo /opt/torch >/opt/venv/lib/python3.11/site-packages/torch.pth

# --- what every image that runs has --------------------------------------------------------------------------------
FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nanosft" \
      org.opencontainers.image.description="Synthetic conversations, an exact mixture, supervised finetuning of nanochat models." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# tini is process 1: it forwards SIGTERM to Python, and reaps the children of a rank that was killed.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 tini \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir --mode=1777 /scratch
# The root file system may be read-only and the user any number: all that is written goes to /scratch.
# USER and LOGNAME spare torch a look into /etc/passwd, where a random user is not.
ENV PATH=/opt/venv/bin:/opt/torch/bin:$PATH \
    HOME=/scratch \
    TMPDIR=/scratch \
    USER=nanosft \
    LOGNAME=nanosft \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
ENTRYPOINT ["/usr/bin/tini", "--", "nanosft"]
CMD ["--help"]

# --- the images ----------------------------------------------------------------------------------------------------
FROM runtime AS cuda
# Triton and Inductor compile when they run: a C compiler and Python's headers, caches in scratch.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc g++ libc6-dev python3-dev \
 && rm -rf /var/lib/apt/lists/*
ENV TRITON_CACHE_DIR=/scratch/triton \
    TORCHINDUCTOR_CACHE_DIR=/scratch/inductor \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-torch /opt/torch /opt/torch
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /opt/venv/bin/nanosft /opt/venv/bin/nanosft
COPY --from=wheel /opt/venv/lib/python3.11/site-packages /opt/venv/lib/python3.11/site-packages
USER 65532:65532

# Last, so that a build without --target makes the small one.
FROM runtime AS cpu
COPY --from=cpu-torch /opt/torch /opt/torch
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /opt/venv/bin/nanosft /opt/venv/bin/nanosft
COPY --from=wheel /opt/venv/lib/python3.11/site-packages /opt/venv/lib/python3.11/site-packages
USER 65532:65532

# Two images on one base, which is pinned by the digest that whoever builds has reviewed:
#   docker build --build-arg BASE_DIGEST=sha256:... --build-arg CLOUDHSM_PKCS11_SHA256=... .
#   docker build --build-arg BASE_DIGEST=sha256:... --target dev .
# The checksum of the CloudHSM package stands beside its download link in the AWS CloudHSM User Guide.
ARG BASE_DIGEST

# AWS packages CloudHSM's PKCS#11 library for this Ubuntu release; there is none for Debian or Alpine.
FROM ubuntu:24.04@${BASE_DIGEST} AS base
# Packages of the distribution are not pinned (DL3008): every build takes its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/signer --shell /usr/sbin/nologin signer
ENV UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1

# Exactly what uv.lock names, with its hashes, without development dependencies.
FROM base AS build
ARG UV_VERSION=0.13.9
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY signer signer
ENV UV_PROJECT_ENVIRONMENT=/opt/signer UV_COMPILE_BYTECODE=1
RUN /opt/uv/bin/uv sync --locked --no-dev --no-editable --python /usr/bin/python3

FROM base AS cloudhsm
ARG TARGETARCH
ARG CLOUDHSM_PKCS11_VERSION=5.17.1
ARG CLOUDHSM_PKCS11_SHA256
ADD https://s3.amazonaws.com/cloudhsmv2-software/CloudHsmClient/Noble/cloudhsm-pkcs11_${CLOUDHSM_PKCS11_VERSION}-1_u24.04_${TARGETARCH}.deb /cloudhsm-pkcs11.deb
RUN echo "${CLOUDHSM_PKCS11_SHA256:?is missing: give it as --build-arg}  /cloudhsm-pkcs11.deb" > /cloudhsm-pkcs11.sha256 \
 && sha256sum --check --strict /cloudhsm-pkcs11.sha256

# For people: SoftHSM, tests and linters.
FROM base AS dev
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      gcc libc6-dev libp11-kit-dev libsofthsm2 make openssl python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /var/lib/signer/src
RUN chown 10001:10001 .
USER 10001
COPY --chown=10001:10001 . .
RUN make setup
CMD ["make", "demo"]

# For production, and last: what is built if no target is named.
FROM base AS runtime
# hadolint ignore=DL3008
RUN --mount=type=bind,from=cloudhsm,source=/cloudhsm-pkcs11.deb,target=/tmp/cloudhsm-pkcs11.deb \
    apt-get update \
 && apt-get install -y --no-install-recommends /tmp/cloudhsm-pkcs11.deb \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/signer /opt/signer
ENV PATH=/opt/signer/bin:$PATH
WORKDIR /var/lib/signer
USER 10001
ENTRYPOINT ["signer"]
CMD ["serve"]

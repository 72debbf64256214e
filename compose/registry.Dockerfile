# MLflow's server with what it needs for PostgreSQL and S3, and SeaweedFS: the versions that
# `make test-registry` tries, by hash. The context is the folder `requirements`.
FROM python:3.11.16-slim-bookworm AS build

RUN python -m venv --without-pip /opt/registry
COPY registry.txt /tmp/registry.txt
RUN pip --python /opt/registry/bin/python --no-cache-dir install \
        --no-deps --only-binary :all: --require-hashes --requirement /tmp/registry.txt


FROM python:3.11.16-slim-bookworm

RUN install -d -o 10001 -g 10001 -m 700 /data
COPY --from=build /opt/registry /opt/registry
ENV PATH=/opt/registry/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /data
VOLUME /data

# syntax=docker/dockerfile:1
# Two stages: the wheel is built and installed in the first; the second holds neither compiler, source nor pip's cache.
# It runs as a user without rights on a root file system that may be read-only: see docs/install.md.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY policies ./policies
COPY systemd ./systemd
COPY gateway ./gateway
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --disable-pip-version-check --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/gateway
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/gateway/bin/python -m pip install --disable-pip-version-check --find-links /wheels "secure-email-gateway[postgres,s3]"

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="Secure email gateway" \
      org.opencontainers.image.description="An SMTP relay that enforces protection per recipient, and proves it" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10025 gateway \
    && useradd --system --uid 10025 --gid gateway --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
    && install -d -o gateway -g gateway -m 0700 /var/lib/gateway \
    && install -d -o root -g gateway -m 0750 /etc/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_CONFIG=/etc/gateway/gateway.yaml
# By number, so that Kubernetes can see that it is not root.
USER 10025:10025
# The store. On a file system that does not honour fsync (some network volumes) the promise behind our 250 does not hold.
VOLUME /var/lib/gateway
# Let listeners of gateway.yaml use ports above 1024, and publish them as 25 and 443: no capability needed.
EXPOSE 2525 8080 9725
STOPSIGNAL SIGTERM
# Whether mail is taken. GATEWAY_HEALTH: where metrics.listen is another address.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, sys, urllib.request as u; sys.exit(u.urlopen(os.environ.get('GATEWAY_HEALTH', 'http://127.0.0.1:9725') + '/readyz', timeout=4).status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["run"]

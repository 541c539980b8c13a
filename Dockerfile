# syntax=docker/dockerfile:1
# Two stages: the wheel and its dependencies are put together in the first; the second holds no compiler and no pip cache.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/gateway
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check ".[postgres,s3]"

FROM python:3.13-slim
RUN groupadd --system --gid 10025 gateway \
    && useradd --system --uid 10025 --gid gateway --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
    && install -d -o gateway -g gateway -m 0700 /var/lib/gateway \
    && install -d -o root -g gateway -m 0750 /etc/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_CONFIG=/etc/gateway/gateway.yaml
USER gateway
# The store. On a file system that does not honour fsync (some network volumes) the promise behind our 250 does not hold.
VOLUME /var/lib/gateway
# Inside a container let a listener of gateway.yaml use a port above 1024 and publish it as 25: no capability needed.
EXPOSE 2525 9725
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, sys, urllib.request as u; sys.exit(u.urlopen(os.environ.get('GATEWAY_HEALTH', 'http://127.0.0.1:9725') + '/healthz', timeout=4).status != 200)"]
ENTRYPOINT ["gateway"]
CMD ["run"]

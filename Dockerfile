# `emb serve` without torch: docs/deploy.md says how it is run.
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/emb \
    && /opt/emb/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt ".[serve,search]"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/emb /opt/emb
ENV PATH=/opt/emb/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Of nobody on the host, and without a home: nothing is written.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["emb", "serve"]
# To all addresses of the container, and only with a key. Whoever gives arguments of their own gives these again.
CMD ["/model", "--host", "0.0.0.0", "--port", "8080", "--api-key-file", "/run/secrets/emb_api_key"]

# The service in a container, built from the wheel of this checkout (docs/deploying.md, "Containers").
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY images images
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home trygo && mkdir /data && chown trygo /data
WORKDIR /app
COPY requirements.txt requirements-scaling.txt ./
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir --requirement requirements-scaling.txt /wheels/*.whl
COPY manage.py ./
COPY trygo_backend trygo_backend
ENV PYTHONUNBUFFERED=1 DATABASE_URL=sqlite:////data/db.sqlite3 STORAGE_ROOT=/data/media PORT=8000
VOLUME /data
USER trygo
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD python -c "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=3); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"
CMD ["python", "-m", "trygo_backend.server"]

# One image for every role: `callboard dispatcher`, `callboard agent ...` and the rest.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/callboard
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY agent_runtime agent_runtime
COPY bus bus
COPY callboard callboard
COPY dispatcher dispatcher
COPY metrics metrics
RUN /opt/callboard/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
# The safe path: a file of the working directory, such as a user's own metrics.py, never hides a package.
ENV PATH=/opt/callboard/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 callboard
COPY --from=build /opt/callboard /opt/callboard
USER callboard
WORKDIR /home/callboard
ENTRYPOINT ["callboard"]
CMD ["--help"]

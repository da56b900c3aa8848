# One image for every role: `callboard dispatcher`, `callboard agent ...` and the rest.
# With --build-arg COMPILE=1 the scheduler's core is compiled: two minutes more, and a quarter less for the dispatcher to do.
FROM python:3.13-slim AS build
ARG COMPILE=0
RUN if [ "$COMPILE" = 1 ]; then apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; fi
WORKDIR /src
RUN python -m venv /opt/callboard
COPY pyproject.toml hatch_build.py constraints.txt LICENSE README.md ./
COPY agent_runtime agent_runtime
COPY bus bus
COPY callboard callboard
COPY dispatcher dispatcher
COPY metrics metrics
RUN CALLBOARD_COMPILE=$COMPILE /opt/callboard/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
# The safe path: a file of the working directory, such as a user's own metrics.py, never hides a package.
ENV PATH=/opt/callboard/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 callboard
COPY --from=build /opt/callboard /opt/callboard
USER callboard
WORKDIR /home/callboard
ENTRYPOINT ["callboard"]
CMD ["--help"]

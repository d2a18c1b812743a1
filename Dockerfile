# An image of fsagent: one process, one volume, no root.
#
#   docker build -t fsagent .
#   docker run -d --name my-agent --restart unless-stopped -v my-agent:/workspace fsagent
#   docker exec my-agent fsagent ask "My name is Alice."
#
# HTTP and MCP: write "api: {listen: 0.0.0.0:8765}" into fsagent.yaml, and publish it with
# -p 127.0.0.1:8765:8765. Programs on the same machine can also speak MCP with: docker exec -i my-agent fsagent mcp
#
# It also runs with --read-only --cap-drop all --security-opt no-new-privileges --network none, and as any --user who
# may write the volume. Needs 64-bit: on 32-bit ARM some dependencies have no wheels.
ARG PY=3.12

FROM python:${PY}-slim AS build
WORKDIR /src
COPY .ci/build.txt .ci/image.txt .ci/
# Two environments: one that builds and is thrown away; one that is the product, and holds no pip.
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --no-cache-dir --only-binary :all: --require-hashes -r .ci/build.txt \
 && python3 -m venv --without-pip /opt/fsagent \
 && /build/bin/pip --python /opt/fsagent install --quiet --no-cache-dir --no-compile --only-binary :all: \
      --require-hashes -r .ci/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY sample-workspace sample-workspace
COPY fsagent fsagent
# Bytecode is made once, here: at run time the file system may be read-only, and every health check would compile
# everything anew. unchecked-hash: it stays valid whatever a builder does to the files' times.
RUN /build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/fsagent install --quiet --no-cache-dir --no-compile --no-deps --no-index /wheel/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/fsagent/lib

FROM python:${PY}-slim
# The official base image holds no bytecode of the standard library either; compiled are the parts a daemon can meet.
RUN python3 -m compileall -q \
      -x '/(site-packages|dist-packages|config-.*|ensurepip|idlelib|lib2to3|pydoc_data|test|tests|tkinter|turtledemo)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && groupadd --gid 10001 fsagent \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /workspace --shell /usr/sbin/nologin fsagent \
 && install -d -o 10001 -g 0 -m 0775 /workspace
COPY --from=build /opt/fsagent /opt/fsagent
ENV PATH=/opt/fsagent/bin:$PATH \
    FSAGENT_WORKSPACE=/workspace \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
VOLUME /workspace
EXPOSE 8765
WORKDIR /workspace
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=10s --start-period=15s --retries=3 CMD ["fsagent", "health"]
# The daemon is process 1: it handles SIGTERM itself, and reaps what it started.
ENTRYPOINT ["fsagent"]
CMD ["run", "--init"]

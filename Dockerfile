# The kit without training, with what simulates its Verilog: docker build -t eie . && docker run --rm -v "$PWD:/work" eie info net.eie
FROM debian:trixie-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ libpython3.13 make perl python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE constraints.txt /kit/
COPY hw /kit/hw
COPY compiler /kit/compiler
COPY sim /kit/sim
COPY eie /kit/eie
COPY recipes /kit/recipes
RUN sed -n 's/^\([a-z0-9].*==[^\\]*\).*/\1/p' /kit/constraints.txt > /kit/pins.txt \
    && python3 -m venv /opt/eie \
    && /opt/eie/bin/python -m pip install --no-cache-dir -c /kit/pins.txt /kit
ENV PATH=/opt/eie/bin:$PATH
WORKDIR /work
ENTRYPOINT ["eie"]
CMD ["--help"]

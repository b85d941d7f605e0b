# The image of a node: the program on a plain Debian, as a user without rights.
#
#   docker build -t drumline .
ARG BUILD_IMAGE=rust:1-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS runtime
# docker-compose.yml and mongo/secrets.sh name this user too.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp drumline
USER 10001:10001
# A command's clock is kept as long as its container (docs/commands.md).
ENV HOME=/tmp
EXPOSE 7401
ENTRYPOINT ["drumline"]

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM runtime
COPY --from=build /src/target/release/drumline /usr/local/bin/drumline

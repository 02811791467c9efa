# Only for the scene clock-skew: the image under test, and a library that gives single containers clocks of their own.
# Containers share the clock of their machine, and time namespaces have none for the time of day.
ARG BASE_IMAGE=debian:bookworm-slim
ARG IMAGE=provost:test

FROM ${BASE_IMAGE} AS system
# A base image that has the library needs no network here.
RUN set -e; if ! ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null; then \
      apt-get update -qq && apt-get install -y -qq --no-install-recommends libfaketime >/dev/null; \
    fi; \
    cp /usr/lib/*/faketime/libfaketime.so.1 /libfaketime.so.1

FROM ${IMAGE}
COPY --from=system /libfaketime.so.1 /opt/clock/libfaketime.so.1
COPY tests/compose/clock.sh /opt/clock/clock.sh
# Bash reads it before the scripts of deploy/compose, so it holds for what they start.
ENV BASH_ENV=/opt/clock/clock.sh

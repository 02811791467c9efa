# The node for NVIDIA devices, service `gpu-2` of docker-compose.yml: NVIDIA's libraries (cuBLAS, cuRAND, NVRTC of CUDA 13) and the
# binary of `make cuda`, which lies at out/image/provost-cuda (docs/gpu-cuda.md). In a file of its own, so that no build of the
# other image takes the base image of this one, which is some gigabytes.
#
# The base image's C library must not be older than the one that the binary was linked with.
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04
FROM ${CUDA_IMAGE}
RUN set -e; groupadd --gid 10001 provost; \
    useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin provost; \
    for dir in /var/lib/provost /srv/provost/join-gpu; do \
      mkdir -p "$dir" && chmod 700 "$dir" && chown 10001:10001 "$dir"; done
COPY --chown=0:0 LICENSE /opt/provost/LICENSE
COPY --chown=0:0 out/image/provost-cuda /opt/provost/provost
ENV PATH=/opt/provost:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/tmp
USER 10001:10001
WORKDIR /var/lib/provost
EXPOSE 8422 8423
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["provost", "health"]
ENTRYPOINT ["provost"]
CMD ["--help"]

# The image of txlb: the program and the certificates that it trusts, nothing else.
# docs/install.md says how to run it.
#
#   docker build --build-arg VERSION=$(git describe --tags) -t txlb .

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
ARG TARGETARCH
RUN make image IMAGE=/image VERSION="${VERSION#v}" ARCH="${TARGETARCH:-$(go env GOARCH)}" SOURCE_DATE_EPOCH=0

FROM scratch
COPY --from=build /image/root/ /
# A user without a name and without privileges owns the folders that are written to: that of
# the socket of `txlb ctl`, and that of what txlb makes and keeps. As volumes, they are
# writable when the rest is not (--read-only).
COPY --from=build --chown=65532:65532 /image/state/ /
ENV STATE_DIRECTORY=/var/lib/txlb
USER 65532:65532
VOLUME ["/run/txlb", "/var/lib/txlb"]
STOPSIGNAL SIGTERM
# Healthy while the running txlb answers on its socket: <socket path="/run/txlb/admin.sock"/>.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/bin/txlb", "ctl", "status"]
ENTRYPOINT ["/usr/bin/txlb"]
CMD ["run", "-c", "/etc/txlb/config.xml"]

# syntax=docker/dockerfile:1
FROM docker.io/library/golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# docker build --build-arg VERSION=v1.2.3: the files of an image have no history to tell it.
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/sallyport-proxy/sallyport/cmd/sallyport/command.release=${VERSION}" -o /out/sallyport ./cmd/sallyport

FROM scratch
ARG VERSION=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Sallyport" \
      org.opencontainers.image.description="Identity-aware proxy: signs people in, and tells apps who they are" \
      org.opencontainers.image.source="https://github.com/sallyport-proxy/sallyport" \
      org.opencontainers.image.documentation="https://github.com/sallyport-proxy/sallyport/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sallyport /sallyport
USER 65532:65532
# The default of listen.http. The admin listener is on loopback unless listen.admin says otherwise.
EXPOSE 4180
# It reads the configuration, at /etc/sallyport/config.yaml, and asks where that listens whether the process
# lives: what is not healthy may be replaced, and a database that is away is no reason for that.
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/sallyport", "healthcheck", "--live"]
ENTRYPOINT ["/sallyport"]
CMD ["serve"]

# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# docker build --build-arg VERSION=v1.2.3: the files of an image have no history to tell it.
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-X main.release=${VERSION}" -o /out/sallyport ./cmd/sallyport

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sallyport /sallyport
USER 65532:65532
# The default of listen.http. The admin listener is on loopback unless listen.admin says otherwise.
EXPOSE 4180
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/sallyport", "healthcheck"]
ENTRYPOINT ["/sallyport"]
CMD ["serve"]

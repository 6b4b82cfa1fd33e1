# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/sallyport ./cmd/sallyport

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sallyport /sallyport
USER 65532:65532
EXPOSE 4180 4181
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s CMD ["/sallyport", "healthcheck"]
ENTRYPOINT ["/sallyport"]
CMD ["serve"]

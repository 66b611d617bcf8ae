# sdr-sync as a static binary that runs as an ordinary user. There is no Postgres in it: set SDR_SYNC_POSTGRES_URL.
ARG GO_VERSION=1.26.8

FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/sdr-sync ./cmd/sdr-sync

# Alpine rather than an empty image for its wget, with which a health check can ask the stand-in vendor, and for its certificate
# authorities. Time zones are in the binary.
FROM alpine:3
RUN apk add --no-cache ca-certificates \
 && adduser -D -H -u 10001 sdr-sync \
 && install -d -o sdr-sync -g sdr-sync -m 0750 /data
COPY --from=build /out/sdr-sync /usr/local/bin/sdr-sync
# The lake is a folder of the volume, not the volume itself: its files are staged beside it and renamed into place.
ENV SDR_SYNC_PARQUET_DIR=/data/lake SDR_SYNC_LANDING_DIR=/data/landing
VOLUME /data
WORKDIR /data
USER sdr-sync
ENTRYPOINT ["sdr-sync"]
CMD ["--help"]

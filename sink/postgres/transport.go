package postgres

import (
	"crypto/tls"
	"net/netip"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// UnverifiedHost names a host, on another machine, that may be spoken to without TLS or without a look at who answers: what sslmode below
// verify-ca allows, and pgx's default, prefer. It is empty if there is none.
func (db *DB) UnverifiedHost() string { return unverifiedHost(&db.pool.Config().ConnConfig.Config) }

func unverifiedHost(cfg *pgconn.Config) string {
	hosts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	for _, h := range hosts {
		if !isLocal(h.Host) && !verifies(h.TLSConfig) {
			return h.Host
		}
	}
	return ""
}

// verifies tells whether the server's certificate is looked at. verify-ca turns off Go's own look and brings one without the name.
func verifies(cfg *tls.Config) bool {
	return cfg != nil && (!cfg.InsecureSkipVerify || cfg.VerifyPeerCertificate != nil)
}

// isLocal tells whether host is a folder of a Unix socket or this machine's loopback.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || err == nil && addr.Unmap().IsLoopback()
}

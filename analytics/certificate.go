package analytics

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// A Certificate is what the service shows to those who ask: a pair of PEM files, which Reload reads again.
type Certificate struct {
	certificate, key string // paths
	current          atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads the files.
func LoadCertificate(certificate, key string) (*Certificate, error) {
	c := &Certificate{certificate: certificate, key: key}
	return c, c.Reload()
}

// Reload reads the files again. Connections that are made from then on have what is in them; those that there are stay. On an error all
// stays as it was.
func (c *Certificate) Reload() error {
	pair, err := tls.LoadX509KeyPair(c.certificate, c.key)
	if err != nil {
		return fmt.Errorf("analytics.tls: %s and %s: %w", c.certificate, c.key, err)
	}
	c.current.Store(&pair)
	return nil
}

func (c *Certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil }}
}

package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"causeway/config"
)

// A certificate is what this node shows at the cluster's connections. A reload may replace it: connections that are made from then on have
// the new one, and those that there are stay.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

// tls is mutual: both ends of a connection are certified by the cluster's authorities, which are read once.
func (c *certificate) tls(f config.ClusterTLS) (*tls.Config, error) {
	own, err := loadCertificate(f)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cluster.tls.ca: %s has no certificate in PEM", f.CA)
	}
	c.current.Store(own)
	return &tls.Config{RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.current.Load(), nil }}, nil
}

func loadCertificate(f config.ClusterTLS) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls: %s and %s: %w", f.Certificate, f.Key, err)
	}
	return &pair, nil
}

// endsSoon is how long before its end a certificate is warned of, at the start and at each reload.
const endsSoon = 14 * 24 * time.Hour

// warnOfEnd says when the node's certificate is soon over: then nobody lets it in any more.
func (n *Node) warnOfEnd(now time.Time) {
	if end := n.certificate.current.Load().Leaf.NotAfter; now.Add(endsSoon).After(end) {
		n.log.Warn("the certificate for the cluster ends soon, and then this node is not let in any more: put another one in its place, and `causeway reload`", "ends", end.UTC().Format(time.RFC3339))
	}
}

// CheckCluster says what is wrong with the files that c names for its cluster. It changes nothing.
func CheckCluster(c *config.Config) error {
	if c.Cluster == nil {
		return nil
	}
	_, roster := loadRoster(c)
	_, files := new(certificate).tls(c.Cluster.TLS)
	return errors.Join(roster, files)
}

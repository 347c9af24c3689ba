package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"causeway/config"
	"causeway/control/cluster/seal"
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
	switch end := n.certificate.current.Load().Leaf.NotAfter; {
	case now.After(end):
		n.log.Error("the certificate for the cluster has ended, and this node is not let in: put another one in its place, and `causeway reload`", "ended", end.UTC().Format(time.RFC3339))
	case now.Add(endsSoon).After(end):
		n.log.Warn("the certificate for the cluster ends soon, and then this node is not let in any more: put another one in its place, and `causeway reload`", "ends", end.UTC().Format(time.RFC3339))
	}
}

// CheckCluster says what is wrong with the files that c names for its cluster. It changes nothing.
func CheckCluster(c *config.Config) error {
	if c.Cluster == nil {
		return nil
	}
	admitted, roster := loadRoster(c)
	connections, files := new(certificate).tls(c.Cluster.TLS)
	if files == nil {
		files = checkCertificate(c, connections, time.Now())
	}
	if roster == nil {
		roster = checkAdmitted(c, admitted)
	}
	return errors.Join(roster, files)
}

// checkCertificate says why others would not let this node in by its certificate, or not come to it.
func checkCertificate(c *config.Config, connections *tls.Config, now time.Time) error {
	shown, err := connections.GetCertificate(nil)
	if err != nil {
		return err
	}
	o := x509.VerifyOptions{Roots: connections.RootCAs, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, der := range shown.Certificate[1:] {
		if more, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(more)
		}
	}
	file := c.Cluster.TLS.Certificate
	if _, err := shown.Leaf.Verify(o); err != nil {
		return fmt.Errorf("cluster.tls.certificate: %s is not one by which other nodes let this one in, if their ca is %s: %w", file, c.Cluster.TLS.CA, err)
	}
	if !c.Cluster.Hub.IsValid() {
		return nil
	}
	o.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if _, err := shown.Leaf.Verify(o); err != nil {
		return fmt.Errorf("cluster.tls.certificate: %s is not one of a server, which this node is for others: %w", file, err)
	}
	if len(shown.Leaf.IPAddresses)+len(shown.Leaf.DNSNames) == 0 {
		return fmt.Errorf("cluster.tls.certificate: %s has no subjectAltName: write the address or name by which other nodes call this one into it", file)
	}
	return nil
}

// checkAdmitted says that the roster does not admit this node, as far as it has an identity already.
func checkAdmitted(c *config.Config, admitted seal.Roster) error {
	b, err := os.ReadFile(filepath.Join(StateDir(c), identityFile))
	if err != nil {
		return nil // it is made at the first start, which says what its line is
	}
	defer clear(b)
	i, err := seal.ParseIdentity(b)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(StateDir(c), identityFile), err)
	}
	if own := i.Public(); !admitted.Admits(c.Node.Name, own) {
		return notAdmitted(c, own)
	}
	return nil
}

func notAdmitted(c *config.Config, own seal.Public) error {
	return fmt.Errorf("cluster.roster: %s does not admit this node; the line for it, on every node, is\n%s %s", c.Cluster.Roster, c.Node.Name, own.Fingerprint())
}

package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"causeway/config"
)

// A signer certifies nodes of a cluster.
type signer struct {
	dir  string
	x509 *x509.Certificate
	key  *ecdsa.PrivateKey
}

// write makes NAME.pem and NAME.key, good until then.
func (s *signer) write(t *testing.T, name string, serial int64, until time.Time) config.ClusterTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: until, IPAddresses: []net.IP{{127, 0, 0, 1}}, BasicConstraintsValid: true, IsCA: s.x509 == nil}
	if s.x509 == nil {
		s.x509, s.key = x, key
	}
	der, err := x509.CreateCertificate(rand.Reader, x, s.x509, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f := config.ClusterTLS{Certificate: filepath.Join(s.dir, name+".pem"), Key: filepath.Join(s.dir, name+".key"), CA: filepath.Join(s.dir, "ca.pem")}
	for path, block := range map[string]*pem.Block{f.Certificate: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// shown are the numbers of the certificates that a hub and a node show each other.
func shown(t *testing.T, hub, node *tls.Config) (ofHub, ofNode int64) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", hub)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	came := make(chan int64, 1)
	go func() {
		defer close(came)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if c := c.(*tls.Conn); c.Handshake() == nil {
			came <- c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), <-came
}

// A certificate that a reload has read is shown from then on, at both ends of a connection, and one whose end is near is warned of.
func TestCertificateIsRenewed(t *testing.T) {
	s := &signer{dir: t.TempDir()}
	s.write(t, "ca", 1, time.Now().Add(time.Hour))
	var hub, node certificate
	long := time.Now().Add(365 * 24 * time.Hour)
	ofHub, err := hub.tls(s.write(t, "hub", 2, long))
	if err != nil {
		t.Fatal(err)
	}
	files := s.write(t, "node", 3, time.Now().Add(24*time.Hour))
	ofNode, err := node.tls(files)
	if err != nil {
		t.Fatal(err)
	}
	if h, n := shown(t, ofHub, ofNode); h != 2 || n != 3 {
		t.Errorf("%d and %d are shown", h, n)
	}
	warned := func() string {
		var b bytes.Buffer
		x := &Node{log: slog.New(slog.NewTextHandler(&b, nil))}
		x.certificate.current.Store(node.current.Load())
		x.warnOfEnd(time.Now())
		return b.String()
	}
	if !strings.Contains(warned(), "ends soon") {
		t.Error("a day before its end there is no warning")
	}
	s.write(t, "node", 4, long)
	next, err := loadCertificate(files)
	if err != nil {
		t.Fatal(err)
	}
	node.current.Store(next)
	if h, n := shown(t, ofHub, ofNode); h != 2 || n != 4 {
		t.Errorf("%d and %d are shown after that of the node was renewed", h, n)
	}
	if h, n := shown(t, ofNode, ofHub); h != 4 || n != 2 {
		t.Errorf("%d and %d are shown where the node listens", h, n)
	}
	if w := warned(); w != "" {
		t.Errorf("a year before its end: %s", w)
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCertificate(files); err == nil || !strings.Contains(err.Error(), files.Key) {
		t.Errorf("without its key: %v", err)
	}
}

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
	"net/netip"
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
func (s *signer) write(t *testing.T, name string, serial int64, until time.Time, change ...func(*x509.Certificate)) config.ClusterTLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: until, IPAddresses: []net.IP{{127, 0, 0, 1}}, BasicConstraintsValid: true, IsCA: s.x509 == nil}
	for _, f := range change {
		f(x)
	}
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

// `causeway check` finds what would keep a node out of its cluster.
func TestCheckCluster(t *testing.T) {
	s, stranger := &signer{dir: t.TempDir()}, &signer{dir: t.TempDir()}
	hour := time.Now().Add(time.Hour)
	s.write(t, "ca", 1, hour)
	stranger.write(t, "ca", 1, hour)
	state := t.TempDir()
	line, err := Fingerprint(state)
	if err != nil {
		t.Fatal(err)
	}
	roster := filepath.Join(s.dir, "roster")
	file := func(tls config.ClusterTLS, hub bool, admitted string) *config.Config {
		tls.CA = filepath.Join(s.dir, "ca.pem")
		if err := os.WriteFile(roster, []byte(admitted), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &config.Config{Node: config.Node{Name: "edge-1", StateDir: state}, Cluster: &config.Cluster{TLS: tls, Roster: roster}}
		if hub {
			c.Cluster.Hub = netip.MustParseAddrPort("127.0.0.1:4222")
		}
		return c
	}
	usage := func(list ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(x *x509.Certificate) { x.ExtKeyUsage = list }
	}
	own := "edge-1 " + line + "\n"
	for what, x := range map[string]struct {
		by       *signer
		until    time.Time
		change   func(*x509.Certificate)
		hub      bool
		admitted string
		want     string
	}{
		"all is good":            {by: s, until: hour, hub: true, admitted: own},
		"a node's":               {by: s, until: hour, change: usage(x509.ExtKeyUsageClientAuth), admitted: own},
		"ended":                  {by: s, until: time.Now().Add(-time.Minute), admitted: own, want: "expired"},
		"another authority's":    {by: stranger, until: hour, admitted: own, want: "unknown authority"},
		"a server's":             {by: s, until: hour, change: usage(x509.ExtKeyUsageServerAuth), admitted: own, want: "let this one in"},
		"a node's, of a hub":     {by: s, until: hour, change: usage(x509.ExtKeyUsageClientAuth), hub: true, admitted: own, want: "not one of a server"},
		"a hub's without a name": {by: s, until: hour, change: func(x *x509.Certificate) { x.IPAddresses = nil }, hub: true, admitted: own, want: "subjectAltName"},
		"not admitted":           {by: s, until: hour, admitted: strings.Replace(own, "edge-1", "edge-2", 1), want: "does not admit this node; the line for it, on every node, is\nedge-1 " + line},
	} {
		change := func(*x509.Certificate) {}
		if x.change != nil {
			change = x.change
		}
		err := CheckCluster(file(x.by.write(t, "node", 2, x.until, change), x.hub, x.admitted))
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", what, err, x.want)
		}
	}
	fresh := file(s.write(t, "node", 2, hour), false, "")
	fresh.Node.StateDir = t.TempDir()
	if err := CheckCluster(fresh); err != nil {
		t.Errorf("a node that was not started yet: %v", err)
	}
	if list, err := os.ReadDir(fresh.Node.StateDir); err != nil || len(list) > 0 {
		t.Errorf("a check has left %v", list)
	}
}

package ike

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/scripts/hosts"
)

var updateTranscripts = flag.Bool("update-transcripts", false, "write testdata/transcripts anew from what strongSwan says now")

// TestRootTranscripts has a daemon with fixed randomness and strongSwan negotiate everything from both sides, compares their keys, and
// then has the daemon do all of it again without strongSwan, as TestTranscripts does with what is in testdata. With -update-transcripts
// it writes that anew, which is needed when a message of ours changes, or how Go draws random numbers.
func TestRootTranscripts(t *testing.T) {
	for i, x := range []struct{ name, ike, esp string }{
		{"gcm", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384"},
		{"cbc", "aes128-sha256-modp2048", "aes128-sha256-x25519"},
		{"chacha", "chacha20poly1305-prfsha512-x25519", "chacha20poly1305"},
	} {
		t.Run(x.name, func(t *testing.T) {
			tr := &transcript{IKE: x.ike, ESP: x.esp, Seed: uint64(i + 1)}
			tr.record(t)
			if t.Failed() {
				return
			}
			t.Run("again", tr.replay)
			if *updateTranscripts && !t.Failed() {
				if err := tr.write(filepath.Join("testdata/transcripts", x.name+".json")); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// record fills the transcript.
func (x *transcript) record(t *testing.T) {
	n := hosts.New(t)
	node, peer := n.Host("node"), n.Host("peer")
	n.Link(node, "eth0", peer, "eth0", hosts.LinkOptions{})
	node.Addr("eth0", leftAddr.String()+"/32")
	peer.Addr("eth0", rightAddr.String()+"/32")
	peer.Addr("lo", "10.1.0.1/24")
	node.Route(rightAddr.String()+"/32", "dev", "eth0")
	peer.Route(leftAddr.String()+"/32", "dev", "eth0")
	l := &line{x: x, sockets: map[netip.AddrPort]*net.UDPConn{}}
	w := newWitness(t, x, l)
	l.serve(t, node, w)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan bool)
	go func() { _ = w.Run(ctx); close(done) }()

	tunnel := tunnelOf(t, false, x.IKE, x.ESP)
	swan := peer.Swan("swan", hosts.SwanOptions{Settings: "delete_rekeyed_delay = 0\nretransmit_timeout = 30\nkeep_alive = 0\n" + hosts.SwanSecrets, Conf: fmt.Sprintf(`
connections {
  c {
    version = 2
    mobike = no
    local_addrs = %s
    remote_addrs = %s
    proposals = %s
    local {
      auth = psk
      id = right.example
    }
    remote {
      auth = psk
      id = left.example
    }
    children {
      c {
        local_ts = 10.1.0.0/24
        remote_ts = 10.2.0.0/24
        esp_proposals = %s
      }
    }
  }
}
secrets {
  ike {
    secret = "%s"
  }
}
`, rightAddr, leftAddr, x.IKE, x.ESP, tunnel.PSK)})

	do := func(what string) {
		t.Helper()
		l.quiet()
		l.add(transcriptStep{Do: what})
		if err := orders[what](ctx, w.Daemon); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, w.log)
		}
	}
	charon := func(words ...string) {
		t.Helper()
		l.quiet()
		swan.MustCtl(words...)
	}
	do("initiate")
	do("rekey")
	do("rekey-ike")
	charon("--rekey", "--child", "c")
	charon("--rekey", "--ike", "c")
	do("terminate")
	charon("--initiate", "--child", "c")
	do("rekey")
	do("rekey-ike")
	charon("--rekey", "--child", "c")
	charon("--rekey", "--ike", "c")
	charon("--terminate", "--child", "c")
	charon("--terminate", "--ike", "c")
	l.quiet()
	x.Secrets = swan.Secrets()
	maps.DeleteFunc(x.Secrets, func(name string, _ []string) bool {
		return !slices.Contains(ikeKeyNames, name) && !strings.HasSuffix(name, " key")
	})
	w.sameKeys(t, x)
	cancel()
	<-done
	l.close(t)
}

// A line is the witness's sockets, with an ear on them.
type line struct {
	x       *transcript
	sockets map[netip.AddrPort]*net.UDPConn
	wg      sync.WaitGroup

	mu   sync.Mutex
	last time.Time // that something was said
}

func (l *line) serve(t *testing.T, node *hosts.Host, w *witness) {
	for _, port := range []uint16{Port, NATPort} {
		at := netip.AddrPortFrom(leftAddr, port)
		var c *net.UDPConn
		var err error
		node.Do(func() { c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)) })
		if err != nil {
			t.Fatal(err)
		}
		l.sockets[at] = c
		l.wg.Go(func() {
			b := make([]byte, 64<<10)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				} else if err != nil {
					continue
				}
				l.add(transcriptStep{Received: hex.EncodeToString(b[:n]), Local: at, Remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())})
				w.Receive(at, from, b[:n])
				time.Sleep(20 * time.Millisecond) // it is done before the next comes
				w.look()
			}
		})
	}
}

func (l *line) Send(local, remote netip.AddrPort, b []byte) error {
	l.add(transcriptStep{Sent: hex.EncodeToString(b), Local: local, Remote: remote})
	_, err := l.sockets[local].WriteToUDPAddrPort(b, remote)
	return err
}

func (l *line) add(s transcriptStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Now()
	l.x.Steps = append(l.x.Steps, s)
}

// quiet waits until nothing has been said for a while.
func (l *line) quiet() {
	for {
		l.mu.Lock()
		rest := 400*time.Millisecond - time.Since(l.last)
		l.mu.Unlock()
		if rest <= 0 {
			return
		}
		time.Sleep(rest)
	}
}

func (l *line) close(t *testing.T) {
	for _, c := range l.sockets {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	l.wg.Wait()
}

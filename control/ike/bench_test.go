package ike

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"causeway/control/ike/sa"
)

// A cable hands datagrams over at once.
type cable struct{ to *Daemon }

func (c *cable) Send(local, remote netip.AddrPort, b []byte) error {
	c.to.Receive(remote, local, b)
	return nil
}

// A busyPlane is a dataplane on which every pair has had a packet, as under traffic.
type busyPlane struct{ *plane }

func (busyPlane) Usage(string, uint32) (sa.Usage, bool) { return sa.Usage{PacketsIn: 1}, true }

// benchmarkBed is two daemons that nothing slows; both have n tunnels.
func benchmarkBed(b *testing.B, n int, ikeWords, espWords string) (left *Daemon, name func(i int) string) {
	var ends [2]*Daemon
	var cables [2]cable
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{}, len(ends))
	for i := range ends {
		ends[i] = New(Options{Log: slog.New(slog.DiscardHandler), Dataplane: busyPlane{newPlane("", 0x1000)}, Transport: &cables[i],
			HalfOpen: 1 << 20, PerSource: 1 << 20, CookiesFrom: 1 << 20})
	}
	cables[0].to, cables[1].to = ends[1], ends[0]
	name = func(i int) string { return fmt.Sprintf("t%d", i) }
	for i, d := range ends {
		var list []*Tunnel
		for k := range n {
			t := tunnelOf(b, i == 0, ikeWords, espWords)
			t.Name = name(k)
			id := fqdn(name(k) + ".example")
			if i == 0 {
				t.LocalID = id
			} else {
				t.RemoteID = id
			}
			list = append(list, t)
		}
		d.SetTunnels(list)
		go func() { _ = d.Run(ctx); done <- struct{}{} }()
	}
	b.Cleanup(func() {
		stop()
		for range ends {
			<-done
		}
	})
	return ends[0], name
}

func inTime(b *testing.B, f func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		b.Fatal(err)
	}
}

// Both ends' work for a handshake, and for the end of what it made.
func BenchmarkHandshake(b *testing.B) {
	for _, words := range []string{"aes256gcm16-prfsha384-ecp384", usualIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256-sha256-modp2048"} {
		b.Run(words, func(b *testing.B) {
			left, name := benchmarkBed(b, 1, words, usualESP)
			b.ReportAllocs()
			for b.Loop() {
				inTime(b, func(ctx context.Context) error { return left.Initiate(ctx, name(0)) })
				inTime(b, func(ctx context.Context) error { return left.Terminate(ctx, name(0)) })
			}
		})
	}
}

// Both ends' work for a rekeying, of one tunnel after the other.
func BenchmarkRekey(b *testing.B) {
	const tunnels = 1000
	for _, what := range []string{"child", "ike"} {
		b.Run(what, func(b *testing.B) {
			left, name := benchmarkBed(b, tunnels, usualIKE, usualESP)
			for i := range tunnels {
				inTime(b, func(ctx context.Context) error { return left.Initiate(ctx, name(i)) })
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				inTime(b, func(ctx context.Context) error { return left.Rekey(ctx, name(i%tunnels), what == "ike") })
				i++
			}
		})
	}
}

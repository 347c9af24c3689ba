package ike

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestEstablish(t *testing.T) {
	for _, tc := range []struct{ name, ike, esp string }{
		{"usual", usualIKE, usualESP},
		{"cbc", "aes128-sha256-prfsha256-modp2048", "aes128-sha256"},
		{"chacha", "chacha20poly1305-prfsha512-ecp521", "chacha20poly1305-ecp256"},
		{"hybrid", "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes256gcm16-ecp384-ke1_mlkem768"},
		{"hybrid 1024", "aes256gcm16-prfsha384-x25519-ke1_mlkem1024", "aes128gcm16-x25519-ke1_mlkem1024"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onBed(t, Options{}, func(b *bed) {
				t := b.t
				b.left.SetTunnels([]*Tunnel{tunnelOf(t, true, tc.ike, tc.esp)})
				b.right.SetTunnels([]*Tunnel{tunnelOf(t, false, tc.ike, tc.esp)})
				b.up()
				b.counts(1, 1)
				for _, d := range []*Daemon{b.left, b.right} {
					for _, ike := range []bool{false, true, false} {
						before := b.planes[0].used("cust-a").SPIIn
						if err := d.Rekey(t.Context(), "cust-a", ike); err != nil {
							t.Fatalf("rekey (ike %v): %v\n%s", ike, err, b.log)
						}
						time.Sleep(10 * time.Second)
						b.agree()
						b.counts(1, 1)
						if !ike && b.planes[0].used("cust-a").SPIIn == before {
							t.Fatal("the pair was not replaced")
						}
					}
				}
				if err := b.right.Terminate(t.Context(), "cust-a"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				b.counts(0, 0)
			})
		})
	}
}

func TestLossyWire(t *testing.T) {
	onBed(t, Options{DatagramBytes: 700}, func(b *bed) {
		t := b.t
		b.left.SetTunnels([]*Tunnel{tunnelOf(t, true, "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", usualESP)})
		b.right.SetTunnels([]*Tunnel{tunnelOf(t, false, "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", usualESP)})
		b.wire.set(func(w *wire) { w.loss = 0.2 }) // each way: of twelve tries one gets through
		for i := 0; ; i++ {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			err := b.left.Initiate(ctx, "cust-a")
			cancel()
			if err == nil {
				break
			}
			if i == 3 {
				t.Fatalf("%v\n%s", err, b.log)
			}
		}
		for range 5 {
			if err := b.left.Rekey(t.Context(), "cust-a", true); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			if err := b.right.Rekey(t.Context(), "cust-a", false); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
		}
		b.wire.set(func(w *wire) { w.loss = 0 })
		time.Sleep(time.Minute)
		b.agree()
		b.counts(1, 1)
	})
}

func TestBothRekeyAtOnce(t *testing.T) {
	for _, ike := range [][2]bool{{false, false}, {true, true}, {false, true}, {true, false}} {
		onBed(t, Options{}, func(b *bed) {
			t := b.t
			b.usual()
			b.up()
			for range 20 {
				done := make(chan error, 2)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				go func() { done <- b.left.Rekey(ctx, "cust-a", ike[0]) }()
				go func() { done <- b.right.Rekey(ctx, "cust-a", ike[1]) }()
				for range 2 {
					if err := <-done; err != nil {
						t.Log(err)
					}
				}
				time.Sleep(45 * time.Second)
				b.agree()
				b.counts(1, 1)
			}
		})
	}
}

// TestBothRekeyOnLossyWire has either side hear nothing of the other's request for a while, so that one deletes what the other still
// replaces (RFC 7296, section 2.25.2). Pairs must move to the new IKE SA with it, and not be lost or made anew.
func TestBothRekeyOnLossyWire(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		t := b.t
		b.usual()
		b.up()
		before := b.planes[0].used("cust-a").SPIIn
		for range 40 {
			b.wire.set(func(w *wire) { w.loss = 0.3 })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			done := make(chan error, 2)
			go func() { done <- b.left.Rekey(ctx, "cust-a", true) }()
			go func() { done <- b.right.Rekey(ctx, "cust-a", true) }()
			for range 2 {
				if err := <-done; err != nil {
					t.Log(err)
				}
			}
			b.wire.set(func(w *wire) { w.loss = 0 })
			time.Sleep(45 * time.Second)
			b.agree()
			b.counts(1, 1)
			if now := b.planes[0].used("cust-a").SPIIn; now != before {
				t.Fatalf("the pair %#x was replaced by %#x, though only IKE SAs were to be", before, now)
			}
		}
	})
}

// TestInitiateTwice has the operator, and the daemon itself, begin a tunnel that is being begun.
func TestInitiateTwice(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		l := tunnelOf(b.t, true, usualIKE, usualESP)
		l.Initiate = true
		b.right.SetTunnels([]*Tunnel{tunnelOf(b.t, false, usualIKE, usualESP)})
		b.left.SetTunnels([]*Tunnel{l})
		done := make(chan error)
		for range 3 {
			go func() { done <- b.left.Initiate(b.t.Context(), "cust-a") }()
		}
		for range 3 {
			if err := <-done; err != nil {
				b.t.Error(err)
			}
		}
		time.Sleep(time.Second)
		b.agree()
		b.counts(1, 1)
	})
}

func TestPeerDies(t *testing.T) {
	onBed(t, Options{}, func(b *bed) {
		b.usual()
		b.up()
		b.wire.set(func(w *wire) { w.closed = true })
		time.Sleep(2 * time.Minute)
		b.counts(0, 0)
	})
}

func TestWrongKeyAndUnknownIdentityLookTheSame(t *testing.T) {
	var answers []string
	for _, spoil := range []func(*Tunnel){
		func(t *Tunnel) { t.PSK = []byte("another shared key, the wrong one") },
		func(t *Tunnel) { t.LocalID = fqdn("nobody.example") },
	} {
		onBed(t, Options{}, func(b *bed) {
			t := b.t
			l := tunnelOf(t, true, usualIKE, usualESP)
			spoil(l)
			b.left.SetTunnels([]*Tunnel{l})
			b.right.SetTunnels([]*Tunnel{tunnelOf(t, false, usualIKE, usualESP)})
			err := b.left.Initiate(t.Context(), "cust-a")
			if err == nil {
				t.Fatal("established")
			}
			answers = append(answers, err.Error())
			time.Sleep(time.Minute)
			b.counts(0, 0)
		})
	}
	if answers[0] != answers[1] || !strings.Contains(answers[0], "AUTHENTICATION_FAILED") {
		t.Errorf("answers %q", answers)
	}
}

// TestStorm does at random what operators, timers and networks do, for an hour each, and then looks whether one IKE SA with one pair is
// left that both ends know.
func TestStorm(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { onBed(t, Options{}, func(b *bed) { b.storm(rand.New(rand.NewPCG(seed, 0))) }) })
	}
}

func (b *bed) storm(rng *rand.Rand) {
	t := b.t
	left, right := tunnelOf(t, true, usualIKE, usualESP), tunnelOf(t, false, usualIKE, usualESP)
	left.Initiate = true
	for _, x := range []*Tunnel{left, right} {
		x.IKELife, x.ChildLife = 4*time.Minute, time.Minute
	}
	reload := func() {
		l, r := *left, *right
		b.left.SetTunnels([]*Tunnel{&l})
		b.right.SetTunnels([]*Tunnel{&r})
	}
	reload()
	time.Sleep(10 * time.Second)
	b.agree()
	for end := time.Now().Add(time.Hour); time.Now().Before(end); {
		d := []*Daemon{b.left, b.right}[rng.IntN(2)]
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		switch rng.IntN(12) {
		case 0, 1, 2:
			go d.Rekey(ctx, "cust-a", false)
		case 3, 4:
			go d.Rekey(ctx, "cust-a", true)
		case 5:
			go d.Terminate(ctx, "cust-a")
		case 6:
			go b.left.Initiate(ctx, "cust-a")
		case 7:
			reload()
		case 8:
			b.wire.set(func(w *wire) { w.loss = rng.Float64() / 2 })
		case 9:
			b.wire.set(func(w *wire) { w.loss, w.closed = 0, rng.IntN(3) == 0 })
		}
		time.Sleep(time.Duration(rng.ExpFloat64() * float64(2*time.Second)))
		time.AfterFunc(10*time.Second, cancel)
	}
	b.wire.set(func(w *wire) { w.loss, w.closed = 0, false })
	time.Sleep(5 * time.Minute)
	for i := 0; len(b.planes[0].pairs()) != 1 || len(b.planes[1].pairs()) != 1; i++ { // between two rekeyings
		if i == 100 {
			b.counts(1, 1)
		}
		time.Sleep(time.Second)
	}
	b.agree()
	b.counts(1, 1)
}

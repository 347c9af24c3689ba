package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/control/api"
	"causeway/scripts/hosts"
)

// Tunnels come and go while packets flow through one that stays: not one of its packets is lost.
func TestRootReloadLosesNothing(t *testing.T) {
	for _, queues := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d_queues", queues), func(t *testing.T) { reloadLosesNothing(t, queues) })
	}
}

func reloadLosesNothing(t *testing.T, queues int) {
	b := newBed(t, 2, queues)
	b.echo()
	b.configure(custA)
	d := b.run()
	a := b.peer("198.51.100.2", 42, "203.0.113.9")
	a.works(0)
	other := b.peer("198.51.100.3", 0, "203.0.113.200")
	lost := make(chan int)
	go func() { lost <- a.exchange(1000, 3000, time.Millisecond, time.Second) }()

	const rounds = 5
	for round := range uint32(rounds) {
		b.configure(custA, custB)
		if out := b.reload(); !strings.Contains(out, "1 tunnel added, 0 removed") {
			t.Errorf("adding: %s", out)
		}
		other.works(100 * round)
		b.configure(strings.Replace(custA, "[203.0.113.0/25]", "[203.0.113.0/25, 198.18.5.0/24]", 1)) // and one that stays changes
		if out := b.reload(); !strings.Contains(out, "0 tunnels added, 1 removed, 1 changed") {
			t.Errorf("removing: %s", out)
		}
		if other.exchange(100*round+50, 3, time.Millisecond, 50*time.Millisecond) != 3 {
			t.Error("a tunnel that was removed still carries packets")
		}
		b.configure(custA)
		d.Signal(unix.SIGHUP) // the other way to ask for it
		waitLogs(t, d, `msg="configuration reloaded"`, int(3*round+3))
	}
	if n := <-lost; n > 0 {
		t.Errorf("%d of 3000 packets of the tunnel that stayed were lost; dropped: %+v", n, dropped(b))
	}
	if u := b.tunnel("cust-a"); u.RXPackets < 3000 {
		t.Errorf("the counters of the tunnel that stayed were reset: %+v", u)
	}
	b.balanced()
	if err := d.Stop(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// waitLogs waits until the process has printed the text n times.
func waitLogs(t *testing.T, p *hosts.Process, text string, n int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); strings.Count(p.Log(), text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is there %d times, want %d", text, strings.Count(p.Log(), text), n)
		}
	}
}

// reload asks the daemon to read its file and returns the answer.
func (b *bed) reload() string {
	b.t.Helper()
	return b.node.MustRun(b.causeway, "reload", "--socket", b.socket())
}

// dropped lists the reasons that something was dropped for.
func dropped(b *bed) map[string]uint64 {
	out := map[string]uint64{}
	for _, d := range show[[]api.Drop](b, "drops") {
		if d.Packets > 0 {
			out[d.Reason] = d.Packets
		}
	}
	return out
}

// A file with mistakes and one that needs a restart are refused with reasons, and everything stays as it was.
func TestRootReloadOfABadFileChangesNothing(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	d := b.run()
	a := b.peer("198.51.100.2", 42, "203.0.113.9")
	a.works(0)
	for i, c := range []struct{ name, file, want string }{
		{"mistakes", "interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\ntunnels: [{name: cust-a, mtu: 99999}]\n", b.file() + ":3:11: tunnels[0]: customer_endpoint is missing"},
		{"not yaml", "{", b.file() + ":1:"},
		{"restart", "interfaces: [{name: eth0}]\nendpoints: [192.0.2.1]\ncontrol: {socket: " + b.socket() + "}\n", "interfaces: sockets and their part of the packet memory are made at the start"},
	} {
		if err := os.WriteFile(b.file(), []byte(c.file), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := b.node.Run(b.causeway, "reload", "--socket", b.socket())
		if exitStatus(err) != exitFailed || !strings.Contains(out, c.want) {
			t.Errorf("%s: status %d, %s; want %d and %q", c.name, exitStatus(err), out, exitFailed, c.want)
		}
		d.Signal(unix.SIGHUP)
		waitLogs(t, d, "configuration not taken over", 2*i+2)
		if lost := a.exchange(uint32(100+100*i), 50, time.Millisecond, time.Second); lost > 0 {
			t.Errorf("%s: %d of 50 packets lost afterwards", c.name, lost)
		}
	}
	if err := os.Remove(b.file()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.node.Run(b.causeway, "reload", "--socket", b.socket()); exitStatus(err) != exitFailed {
		t.Errorf("no file: %v", err)
	}
	a.works(900)
}

// An endpoint that is added by a reload is answered and steered; one that is removed is not.
func TestRootReloadChangesEndpoints(t *testing.T) {
	b := newBed(t, 2, 1)
	b.echo()
	b.configure(custA)
	b.run()
	b.inet.Route("192.0.2.7/32", "via", "192.0.2.11")
	text, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	change := func(endpoints string) {
		changed := strings.Replace(string(text), "endpoints: [192.0.2.1]", "endpoints: ["+endpoints+"]", 1)
		if err := os.WriteFile(b.file(), []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		b.reload()
	}
	change("192.0.2.1, 192.0.2.7")
	b.inet.MustRun("ping", "-c1", "-W2", "192.0.2.7")
	b.inet.MustRun("ping", "-c1", "-W2", endpoint)
	change("192.0.2.1")
	if out, err := b.inet.Run("ping", "-c1", "-W1", "192.0.2.7"); err == nil {
		t.Errorf("an endpoint that was removed answers:\n%s", out)
	}
	b.peer("198.51.100.2", 42, "203.0.113.9").works(0)
}

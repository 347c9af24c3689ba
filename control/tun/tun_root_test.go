package tun

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/pipeline"
	"causeway/scripts/hosts"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func open(t *testing.T, h *hosts.Host) *Device {
	t.Helper()
	var d *Device
	h.Do(func() {
		var err error
		if d, err = Open(DefaultName, 1500, slog.Default()); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { d.Close() })
	return d
}

// words returns what follows a word in the output of ip, one a line, sorted.
func words(out, after string) (list []string) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		for i := range f {
			if f[i] == after && i+1 < len(f) {
				list = append(list, f[i+1])
			}
		}
	}
	slices.Sort(list)
	return list
}

func TestRootAddressesAndRoutesFollowTheConfiguration(t *testing.T) {
	h := hosts.New(t).Host("node")
	d := open(t, h)
	for _, c := range []struct{ addresses4, addresses6, routes4, routes6 []string }{
		{[]string{"192.0.2.1"}, []string{"2001:db8::1"}, []string{"203.0.113.0/24"}, []string{"2001:db8:5::/48"}},
		{[]string{"192.0.2.1", "192.0.2.2"}, nil, []string{"203.0.113.0/24", "198.18.0.0/24"}, nil},
		{[]string{"192.0.2.2"}, []string{"2001:db8::2"}, nil, []string{"2001:db8:6::/48"}},
		{},
	} {
		if err := d.SetAddresses(addrs(append(slices.Clone(c.addresses4), c.addresses6...)...)); err != nil {
			t.Fatal(err)
		}
		if err := d.SetRoutes(prefixes(append(slices.Clone(c.routes4), c.routes6...)...)); err != nil {
			t.Fatal(err)
		}
		want := func(what string, got, want []string) {
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		var got4, got6 []string
		for _, a := range words(h.MustRun("ip", "-4", "addr", "show", "dev", DefaultName), "inet") {
			got4 = append(got4, strings.TrimSuffix(a, "/32"))
		}
		for _, a := range words(h.MustRun("ip", "-6", "addr", "show", "dev", DefaultName), "inet6") {
			got6 = append(got6, strings.TrimSuffix(a, "/128"))
		}
		want("IPv4 addresses", got4, c.addresses4)
		want("IPv6 addresses (and no link-local one)", got6, c.addresses6)
		var routes []string
		for _, family := range []string{"-4", "-6"} {
			for line := range strings.Lines(h.MustRun("ip", family, "route", "show", "dev", DefaultName)) {
				if strings.Contains(line, "metric 4261412864") {
					routes = append(routes, strings.Fields(line)[0])
				}
			}
		}
		slices.Sort(routes)
		want("routes", routes, append(slices.Clone(c.routes4), c.routes6...))
	}
}

// Routes that somebody else has set for a customer's prefix stay, and are preferred.
func TestRootRoutesOfOthersArePreferred(t *testing.T) {
	h := hosts.New(t).Host("node")
	d := open(t, h)
	h.Route("blackhole", "203.0.113.0/24")
	if err := d.SetRoutes(prefixes("203.0.113.0/24")); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Run("ip", "route", "get", "203.0.113.9"); err == nil {
		t.Errorf("the blackhole lost: %s", out)
	}
	if err := d.SetRoutes(nil); err != nil {
		t.Fatal(err)
	}
	if out := h.MustRun("ip", "route", "show"); !strings.Contains(out, "blackhole 203.0.113.0/24") {
		t.Errorf("the blackhole is gone: %s", out)
	}
}

// What the kernel routes into the device gets to the workers' queue, and the device is gone when it is closed.
func TestRootKernelsPacketsAreInjected(t *testing.T) {
	h := hosts.New(t).Host("node")
	d := open(t, h)
	q, err := pipeline.NewPuntQueue(1, 64)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx, q) }()
	if err := d.SetAddresses(addrs("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if err := d.SetRoutes(prefixes("203.0.113.0/24")); err != nil {
		t.Fatal(err)
	}
	_, _ = h.Run("ping", "-c3", "-i0.01", "-W0.1", "203.0.113.9") // nobody answers: there is no worker
	if s := d.Stats(); s.Read != 3 {
		t.Errorf("%+v, want 3 packets read: those of ping and no others", s)
	}
	begin := time.Now()
	stop()
	select {
	case <-done:
	case <-time.After(time.Second):
		t.Fatal("Run does not end")
	}
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("Run took %v to end", took)
	}
	d.Close()
	q.Close()
	if out, err := h.Run("ip", "link", "show", DefaultName); err == nil {
		t.Errorf("the device is left: %s", out)
	}
}

func TestRootSecondDeviceIsRefused(t *testing.T) {
	h := hosts.New(t).Host("node")
	open(t, h)
	h.Do(func() {
		_, err := Open(DefaultName, 1500, slog.Default())
		if err == nil || !strings.Contains(err.Error(), "another daemon in this network namespace?") {
			t.Errorf("error %v", err)
		}
	})
}

// With the kernel's strict filter everywhere else, packets of any source come in through the device.
func TestRootReversePathFilterIsLoose(t *testing.T) {
	h := hosts.New(t).Host("node")
	open(t, h)
	h.Do(func() {
		text, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + DefaultName + "/rp_filter")
		if err != nil || strings.TrimSpace(string(text)) != "2" {
			t.Errorf("rp_filter %q, %v", text, err)
		}
	})
}

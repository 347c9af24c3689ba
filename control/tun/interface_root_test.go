package tun

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/scripts/hosts"
)

func openInterface(t *testing.T, h *hosts.Host, o InterfaceOptions) *Interface {
	t.Helper()
	o.Log = slog.Default()
	var i *Interface
	h.Do(func() {
		var err error
		if i, err = OpenInterface(o); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { i.Close() })
	return i
}

// The device is as the tunnel is, carries packets both ways, says when somebody has taken it away, and goes when it is closed.
func TestRootInterface(t *testing.T) {
	h := hosts.New(t).Host("node")
	i := openInterface(t, h, InterfaceOptions{Name: "cust-a", Addresses: prefixes("10.213.0.10/31", "fd00:213::a/127"), MTU: 1400})
	if got := h.MustRun("ip", "-o", "addr", "show", "dev", "cust-a"); !strings.Contains(got, "10.213.0.10/31") || !strings.Contains(got, "fd00:213::a/127") || !strings.Contains(got, "fe80::a/64") {
		t.Error(got)
	}
	if got := h.MustRun("ip", "link", "show", "cust-a"); !strings.Contains(got, "mtu 1400") || !strings.Contains(got, "UP") {
		t.Error(got)
	}
	if err := i.SetMTU(1300); err != nil || !strings.Contains(h.MustRun("ip", "link", "show", "cust-a"), "mtu 1300") {
		t.Errorf("another mtu: %v", err)
	}
	h.Do(func() {
		if _, err := OpenInterface(InterfaceOptions{Name: "cust-a", Addresses: prefixes("10.213.0.12/31"), MTU: 1400}); err == nil || !strings.Contains(err.Error(), "there is an interface of that name already") {
			t.Errorf("one of the same name: %v", err)
		}
	})

	sent := make(chan []byte, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		i.Run(func(packet []byte) bool {
			sent <- bytes.Clone(packet)
			return packet[0]>>4 == 4
		})
	}()
	h.Run("ping", "-c", "1", "-W", "0.2", "10.213.0.11")
	h.Run("ping", "-c", "1", "-W", "0.2", "fd00:213::b")
	h.Run("ping", "-c", "1", "-W", "0.2", "-I", "cust-a", "224.0.0.5")
	h.Run("ping", "-c", "1", "-W", "0.2", "-I", "cust-a", "ff02::5")
	var request []byte
	for _, want := range []byte{4, 6} {
		select {
		case p := <-sent:
			if p[0]>>4 != want {
				t.Errorf("IPv%d: the kernel has sent %x", want, p)
			}
			if want == 4 {
				request = p
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("IPv%d: the kernel has sent nothing", want)
		}
	}
	select {
	case p := <-sent:
		t.Errorf("and %x", p)
	case <-time.After(100 * time.Millisecond):
	}
	// What comes from there the kernel takes: it answers a ping of its own address.
	back := slices.Clone(request)
	copy(back[12:16], request[16:20])
	copy(back[16:20], request[12:16])
	i.Write(back)
	select {
	case p := <-sent:
		if p[20] != 0 || !bytes.Equal(p[12:16], request[12:16]) { // an echo reply, from our address
			t.Errorf("the kernel answers %x", p)
		}
	case <-time.After(5 * time.Second):
		t.Error("the kernel does not answer")
	}
	i.Write([]byte{0x15})
	if s := i.Stats(); s != (InterfaceStats{ToKernel: 1, FromKernel: 2, Refused: 1, Unsent: 1}) {
		t.Errorf("%+v", s)
	}

	list := []*Interface{i}
	if repaired, err := RepairInterfaces(list); len(repaired) > 0 || err != nil {
		t.Errorf("a sound device: %v, %v", repaired, err)
	}
	h.MustRun("ip", "link", "set", "cust-a", "down")
	if repaired, err := RepairInterfaces(list); len(repaired) > 0 || err != nil || i.Up() {
		t.Errorf("one that is down: %v, %v", repaired, err)
	}
	h.MustRun("ip", "link", "set", "cust-a", "up")
	if repaired, err := RepairInterfaces(list); len(repaired) != 1 || err != nil || !i.Up() {
		t.Errorf("one that was down: %v, %v", repaired, err)
	}
	if got := h.MustRun("ip", "-o", "addr", "show", "dev", "cust-a"); !strings.Contains(got, "fd00:213::a/127") || !strings.Contains(got, "fe80::a/64") {
		t.Errorf("its addresses are not put back: %s", got)
	}
	h.MustRun("ip", "link", "del", "dev", "cust-a")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the device is gone, and nobody notices")
	}
	if !i.Gone() {
		t.Error("it is not said to be gone")
	}
	i.Close()
	other := openInterface(t, h, InterfaceOptions{Name: "cust-a", Addresses: prefixes("10.213.0.10/31"), MTU: 1000})
	other.Close()
	if _, err := h.Run("ip", "link", "show", "cust-a"); err == nil {
		t.Error("it was closed, and is there")
	}
}

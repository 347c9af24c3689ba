package pmtu

import (
	"context"
	"testing"
	"time"

	"causeway/scripts/hosts"
)

// Errors as scapy writes them, over a wire and through the kernel: those about GRE packets arrive, for both families,
// and what is not about a size does not even wake us.
func TestRootErrorsComeThroughTheKernel(t *testing.T) {
	n := hosts.New(t)
	node, router := n.Host("node"), n.Host("router")
	n.Link(node, "eth0", router, "eth0", hosts.LinkOptions{})
	node.Addr("eth0", "192.0.2.1/24", "2001:db8::1/64")
	router.Addr("eth0", "192.0.2.254/24", "2001:db8::fe/64")

	b := newBed()
	var l *Listener
	node.Do(func() {
		var err error
		if l, err = Listen(0); err != nil {
			t.Fatal(err)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, b.Learner) }()

	router.MustRun("ping", "-c1", "-W2", "192.0.2.1")
	router.MustRun("ping", "-c1", "-W2", "2001:db8::1")
	router.Scapy(`
four = raw(IP(src="192.0.2.1", dst="198.51.100.2", len=1500, flags="DF")/GRE(proto=0x800)/("x"*100))
send(IP(dst="192.0.2.1")/ICMP(type=3, code=4, nexthopmtu=1400)/four[:28])
send(IP(dst="192.0.2.1")/ICMP(type=3, code=1)/four[:28])
send(IP(dst="192.0.2.1")/ICMP(type=3, code=4, nexthopmtu=1400)/raw(IP(src="192.0.2.1", dst="198.51.100.2", len=1500)/TCP()))
six = raw(IPv6(src="2001:db8::1", dst="2001:db8:9::2", plen=1460, nh=60)/IPv6ExtHdrDestOpt(nh=47)/GRE(proto=0x86dd)/("x"*100))
send(IPv6(dst="2001:db8::1")/ICMPv6PacketTooBig(mtu=1400)/Raw(six[:80]))
send(IPv6(dst="2001:db8::1")/ICMPv6DestUnreach()/Raw(six[:80]))
`)
	for end := time.Now().Add(2 * time.Second); b.Counts()[Lowered] < 2 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	check(t, "after both errors", b, map[int]int{1: 1376, 6: 1356})
	for v, count := range b.Counts() {
		if want := map[Verdict]uint64{Lowered: 2}[v]; count != want {
			t.Errorf("%s: %d, want %d", v, count, want)
		}
	}
}

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// needs is the next step for whoever lacks the privilege.
const needs = "run as root or with CAP_BPF and CAP_NET_ADMIN (systemd: AmbientCapabilities=)"

// Filter is what the steering programs of all ports of the node have in common:
// the endpoints and the customer prefixes, in maps of the kernel. It belongs to
// whoever called NewFilter; programs that were made from it keep the maps alive
// after Close. Safe for concurrent use.
type Filter struct {
	spec *ebpf.CollectionSpec
	maps map[string]*ebpf.Map

	mu         sync.Mutex
	endpoints4 set[netip.Addr]
	endpoints6 set[netip.Addr]
	prefixes4  set[netip.Prefix]
	prefixes6  set[netip.Prefix]
}

// NewFilter creates the maps, empty: every frame goes to the kernel until
// SetEndpoints and SetPrefixes say otherwise. Needs CAP_BPF and CAP_NET_ADMIN.
func NewFilter() (*Filter, error) {
	// Before Linux 5.11 maps count against this limit (8 MiB by default).
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("bpf: lift the limit on locked memory: %w", explain(err))
	}
	spec, err := loadSteer()
	if err != nil {
		return nil, fmt.Errorf("bpf: read the embedded program: %w", err)
	}
	f := &Filter{spec: spec, maps: make(map[string]*ebpf.Map)}
	for _, name := range []string{steerMapEndpoints4, steerMapEndpoints6, steerMapPrefixes4, steerMapPrefixes6} {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("bpf: create map %s: %w", name, explain(err))
		}
		f.maps[name] = m
	}
	f.endpoints4 = newSet("IPv4 endpoints", f.maps[steerMapEndpoints4], addrKey)
	f.endpoints6 = newSet("IPv6 endpoints", f.maps[steerMapEndpoints6], addrKey)
	f.prefixes4 = newSet("IPv4 prefixes", f.maps[steerMapPrefixes4], prefixKey)
	f.prefixes6 = newSet("IPv6 prefixes", f.maps[steerMapPrefixes6], prefixKey)
	return f, nil
}

// SetEndpoints replaces the addresses whose tunnel packets and fragments go to
// the workers: the endpoints, and the node address where nodes tunnel to each
// other. Order and repetition do not matter.
//
// What stays in the set is not touched, and new addresses are added before old
// ones are deleted. After an error about the arguments nothing has changed;
// after an error of the kernel the old set is still complete, or the new set is
// and some of the old remains: call again.
func (f *Filter) SetEndpoints(addrs []netip.Addr) error {
	want4, want6 := make(map[netip.Addr]struct{}), make(map[netip.Addr]struct{})
	for _, a := range addrs {
		a = a.Unmap()
		if err := checkEndpoint(a); err != nil {
			return err
		}
		if a.Is4() {
			want4[a] = struct{}{}
		} else {
			want6[a] = struct{}{}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return replace(&f.endpoints4, want4, &f.endpoints6, want6)
}

// SetPrefixes replaces the customer prefixes, whose packets go to the workers
// whatever they carry. They may nest; bits beyond the length are ignored. The
// promises about order and errors are those of SetEndpoints.
//
// An endpoint inside a prefix stays an endpoint. Any other address of the host
// itself inside a prefix (its own BGP or ssh address, a directed broadcast) is
// taken from the kernel with the rest of the prefix, and it is the worker that
// must give such packets back. Multicast, link-local and loopback destinations
// stay with the kernel even if a prefix covers them.
func (f *Filter) SetPrefixes(prefixes []netip.Prefix) error {
	want4, want6 := make(map[netip.Prefix]struct{}), make(map[netip.Prefix]struct{})
	for _, p := range prefixes {
		if err := checkPrefix(p); err != nil {
			return err
		}
		if p = p.Masked(); p.Addr().Is4() {
			want4[p] = struct{}{}
		} else {
			want6[p] = struct{}{}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return replace(&f.prefixes4, want4, &f.prefixes6, want6)
}

// Close gives up the maps. Programs that were made from the Filter go on with
// what was set last.
func (f *Filter) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, m := range f.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// checkEndpoint refuses addresses that no packet from outside can be sent to.
func checkEndpoint(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("bpf: endpoint: empty address")
	case a.Zone() != "":
		return fmt.Errorf("bpf: endpoint %s: an address with a zone is link-local; use a global address", a)
	case reserved(netip.PrefixFrom(a, a.BitLen())):
		return fmt.Errorf("bpf: endpoint %s: reserved, loopback, link-local and multicast addresses stay with the kernel; use a unicast address", a)
	}
	return nil
}

// checkPrefix refuses prefixes that could never match, and those that would take
// everything.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("bpf: customer prefix: empty or invalid prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("bpf: customer prefix %s: write an IPv4 prefix as IPv4", p)
	case p.Bits() == 0:
		return fmt.Errorf("bpf: customer prefix %s: would take the host's own traffic from the kernel; allowed are lengths from 1", p)
	case reserved(p):
		return fmt.Errorf("bpf: customer prefix %s: reserved, loopback, link-local and multicast destinations stay with the kernel; use a unicast prefix", p)
	}
	return nil
}

// reservedPrefixes is what reserved4 and reserved6 of the C program refuse.
var reservedPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, class E, limited broadcast
	netip.MustParsePrefix("::/127"),      // unspecified and loopback
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// reserved reports whether all of p lies in destinations that stay with the kernel.
func reserved(p netip.Prefix) bool {
	for _, r := range reservedPrefixes {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// explain adds the next step to the kernel's refusal.
func explain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; %s", err, needs)
	}
	return err
}

// addrKey is the key of an address: its bytes as on the wire.
func addrKey(a netip.Addr) []byte { return a.AsSlice() }

// prefixKey is the kernel's struct bpf_lpm_trie_key: the length in bits as a
// 32-bit number of the machine, then the address as on the wire.
func prefixKey(p netip.Prefix) []byte {
	key := binary.NativeEndian.AppendUint32(nil, uint32(p.Bits()))
	return append(key, p.Addr().AsSlice()...)
}

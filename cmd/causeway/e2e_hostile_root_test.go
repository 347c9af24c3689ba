package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"causeway/control/api"
)

// hostileScript makes every frame. A case is a reason, the number of frames that are dropped for it, and a function that
// makes them; its argument is a number of its own, for identifications. Nothing here is left to scapy's good will: headers
// are packed by hand.
const hostileScript = `
import json, struct, sys
A4, A6 = inet_aton, lambda a: inet_pton(socket.AF_INET6, a)
C4, C6, K4 = "198.51.100.11", "2001:db8:c::12", "198.51.100.13"
B4, B6 = "198.18.1.10", "2001:db8:18:2::10"

def ip4(data, src=C4, dst=E4, proto=47, opts=b"", ver=4, ihl=None, total=None, frag=0, ident=0, ttl=64, tos=0, bad=0):
    ihl = 5 + len(opts) // 4 if ihl is None else ihl
    total = 20 + len(opts) + len(data) if total is None else total
    h = struct.pack("!BBHHHBBH4s4s", ver << 4 | ihl, tos, total, ident, frag, ttl, proto, 0, A4(src), A4(dst)) + opts
    c = checksum((h + data)[:max(ihl * 4, 20)]) ^ bad
    return h[:10] + struct.pack("!H", c) + h[12:] + data
def ip6(data, src=C6, dst=E6, nh=47, ver=6, plen=None, hlim=64, tc=0):
    return struct.pack("!IHBB16s16s", ver << 28 | tc << 20, len(data) if plen is None else plen, nh, hlim, A6(src), A6(dst)) + data
def gre(data=b"", flags=0, proto=0x800): return struct.pack("!HH", flags, proto) + data
def ext(nh, body=b"\x01\x04\0\0\0\0", n=0): return bytes([nh, n]) + body
def frag6(nh, off, more, ident): return struct.pack("!BBHI", nh, 0, off | more, ident)
def udp(n=8): return struct.pack("!HHHH", 9, 9, 8 + n, 0) + b"x" * n
def tcp(offset=5, opts=b"", flags=2): return struct.pack("!HHIIBBHHH", 9, 9, 1, 0, offset << 4, flags, 100, 0, 0) + opts

in4 = lambda data=None, **k: ip4(udp() if data is None else data, **{**dict(src=B4, dst=N4, proto=17), **k})
in6 = lambda data=None, **k: ip6(udp() if data is None else data, **{**dict(src=B6, dst=N6, nh=17), **k})
g4 = lambda inner, **k: ip4(gre(inner), **k)              # tunnel plain4, IPv4 inside
g6 = lambda inner, **k: ip6(gre(inner, proto=0x86dd), **k) # tunnel plain6, IPv6 inside
RR = b"\x07\x07\x04\0\0\0\0\0"

# What stands wrong in an IPv4 header, as arguments of ip4.
faults4 = [
    ("ipv4_header_length_below_20_bytes", dict(ihl=4)),
    ("ipv4_total_length_below_the_header_length", dict(total=19)),
    ("ipv4_total_length_beyond_the_packet", dict(total=1000)),
    ("ipv4_header_checksum_wrong", dict(bad=0x1234)),
    ("ipv4_reserved_flag_set", dict(frag=0x8000)),
    ("ipv4_fragment_ends_beyond_65535_bytes", dict(frag=0x1fff)),
    ("ipv4_option_without_a_length", dict(opts=b"\1\1\1\7")),
    ("ipv4_option_length_wrong", dict(opts=b"\x07\x01\x04\0")),
    ("ipv4_option_length_wrong", dict(opts=b"\x94\x20\0\0")),
    ("ipv4_option_pointer_wrong", dict(opts=b"\x07\x07\x03\0\0\0\0\0")),
    ("ipv4_option_pointer_wrong", dict(opts=b"\x44\x08\x04\0\0\0\0\0")),
    ("ipv4_option_appears_twice", dict(opts=RR[:7] + RR + b"\0")),
    ("ipv4_source_route_option", dict(opts=b"\x83\x07\x04\1\2\3\4\0")),
    ("ipv4_source_route_option", dict(opts=b"\x89\x07\x04\1\2\3\4\0")),
]
# What stands wrong behind an IPv6 header: arguments of ip6 and its data.
faults6 = [
    ("ipv6_payload_length_beyond_the_packet", dict(plen=500), None),
    ("ipv6_payload_length_zero_with_a_header_announced", dict(plen=0), None),
    ("ipv6_jumbogram", dict(plen=0, nh=0), lambda up, nh, i: ext(nh, b"\xc2\x04\0\0\0\x28") + up),
    ("ipv6_extension_header_cut_short", dict(nh=60), lambda up, nh, i: ext(nh, n=20) + up),
    ("ipv6_hop_by_hop_options_not_first", dict(nh=60), lambda up, nh, i: ext(0) + ext(nh) + up),
    ("ipv6_fragment_without_data", dict(nh=44), lambda up, nh, i: frag6(nh, 8, 1, i)),
    ("ipv6_fragment_length_not_a_multiple_of_8", dict(nh=44), lambda up, nh, i: frag6(nh, 8, 1, i) + b"x" * 13),
    ("ipv6_fragment_ends_beyond_65535_bytes", dict(nh=44), lambda up, nh, i: frag6(nh, 0xfff8, 0, i) + b"x" * 16),
    ("ipv6_fragment_header_twice", dict(nh=44), lambda up, nh, i: frag6(44, 0, 1, i) + frag6(nh, 0, 1, i) + b"x" * 16),
    ("ipv6_first_fragment_without_the_whole_header_chain", dict(nh=44), lambda up, nh, i: frag6(60, 0, 1, i) + ext(nh, n=1)),
]
cases = []
def case(reason, make, drops=1): cases.append((reason, drops, make))
def one(reason, frame): case(reason, lambda i: [frame])

for reason, k in faults4:
    one(reason, g4(in4(), **k))
    one("inner_" + reason, g4(in4(**k)))
one("ipv4_header_length_beyond_the_packet", ip4(gre(), ihl=15))
one("inner_ipv4_header_length_beyond_the_packet", g4(in4(ihl=15)))
for wrap, name in ((lambda p: p, ""), (lambda p: g4(p), "inner_")):
    k = dict(src=B4, dst=N4) if name else {}
    one(name + "ipv4_fragment_without_data", wrap(ip4(b"", frag=0x2000, **k)))
    one(name + "ipv4_fragment_length_not_a_multiple_of_8", wrap(ip4(b"x" * 13, frag=0x2000, **k)))
one("inner_ipv4_header_cut_short", g4(in4()[:19]))
one("inner_ipv4_header_cut_short", g4(b""))
one("inner_ipv4_version_is_not_4", g4(in6()))

for reason, k, data in faults6:
    for inner in (False, True):
        up, nh = (udp(), 17) if inner else (gre(in6(), proto=0x86dd), 47)
        def make(i, k=k, data=data, inner=inner, up=up, nh=nh):
            d = up if data is None else data(up, nh, i)
            return [g6(in6(d, **k))] if inner else [ip6(d, **k)]
        case(("inner_" if inner else "") + reason, make)
nine = b"".join(ext(60) for _ in range(8)) + ext(17) + udp()
one("inner_ipv6_extension_headers_more_than_8", g6(in6(nine, nh=60)))
one("ipv6_extension_headers_more_than_8", ip6(nine, src=N6, dst=B6, nh=60)) # in a customer prefix
one("inner_ipv6_header_cut_short", g6(in6()[:39]))
one("inner_ipv6_version_is_not_6", ip6(gre(in4(udp(40)), proto=0x86dd)))
# Options concern the destination of the header alone, which is us only outside.
opt = lambda body: ip6(ext(47, body, (len(body) + 2) // 8 - 1) + gre(in6(), proto=0x86dd), nh=60)
one("ipv6_option_without_a_length", opt(b"\0\0\0\0\0\x01"))
one("ipv6_option_length_beyond_its_header", opt(b"\x01\x20\0\0\0\0"))
one("ipv6_option_unknown_and_not_to_be_skipped", opt(b"\x5e\x04\0\0\0\0"))
one("ipv6_jumbogram", opt(b"\xc2\x04\0\0\0\1"))
one("ipv6_routing_header_of_type_0", ip6(ext(47, b"\0\1\0\0\0\0" + A6(N6), 2) + gre(in6(), proto=0x86dd), nh=43))
one("ipv6_routing_header_with_segments_left", ip6(ext(47, b"\4\1\0\0\0\0" + A6(N6), 2) + gre(in6(), proto=0x86dd), nh=43))

# RFC 2784 2.3, RFC 2890 2
for n in range(4): one("gre_header_cut_short", ip4(gre(in4())[:n]))
for v in range(1, 8): one("gre_version_is_not_0", ip4(gre(in4(), v)))
one("gre_routing_bit_set", ip4(gre(in4(), 0x4000)))
one("gre_strict_source_route_bit_set", ip4(gre(in4(), 0x0800)))
one("gre_recursion_control_bit_5_set", ip6(gre(in6(), 0x0400, 0x86dd)))
for n in range(4):
    one("gre_checksum_field_cut_short", ip4(gre(b"\0" * n, 0x8000)))
    one("gre_key_cut_short", ip4(gre(b"\0" * n, 0x2000)))
    one("gre_key_cut_short", ip6(gre(b"\0" * (4 + n), 0xa000)))
    one("gre_sequence_number_cut_short", ip4(gre(b"\0" * n, 0x1000)))
    one("gre_sequence_number_cut_short", ip4(gre(b"\0" * (8 + n), 0xb000)))
one("gre_checksum", ip4(gre(b"\x12\x34\0\0" + in4(), 0x8000)))
for p in (0, 0x0806, 0x6558, 0x880b, 0x88be): one("gre_protocol", ip4(gre(in4(), proto=p)))
one("gre_key", ip4(gre(b"\0\0\0\x2a" + in4(), 0x2000)))                # a key for a tunnel without
one("gre_key", ip4(gre(in4()), src=K4))                                # none for one with
one("gre_key", ip4(gre(b"\0\0\0\x2b" + in4(), 0x2000), src=K4))        # another
one("tunnel_unknown", ip4(gre(in4()), src="198.51.100.29"))
one("tunnel_unknown", ip6(gre(in6(), proto=0x86dd), src="2001:db8:c::29"))
one("tunnel_unknown", ip4(gre(in4()), src="127.0.0.1"))
one("esp_no_sa", ip4(b"\0\0\x10\1" + b"x" * 36, proto=50))
one("esp_no_sa", ip6(b"\0\0\x10\1" + b"x" * 36, nh=50))
one("esp_no_sa", ip4(struct.pack("!HHHH", 4500, 4500, 48, 0) + b"\0\0\x10\1" + b"x" * 36, proto=17))
one("ecn_conflict", g4(in4(), tos=3))

# RFC 1812 5.3.7
for a in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"):
    one("ip_martian", ip4(udp(), src=a, dst=B4, proto=17))
    one("inner_destination", g4(in4(dst=a)))
for a in ("::", "::1", "ff02::1", "fe80::1"):
    one("ip_martian", ip6(udp(), src=a, dst=B6, nh=17))
    one("inner_destination", g6(in6(dst=a)))
one("inner_source", g4(in4(src="198.18.2.10")))
one("inner_source", g4(in4(src="127.0.0.1")))
one("inner_source", g6(in6(src="2001:db8:18:1::10")))
one("inner_source", g4(in4(src="10.213.1.1"))) # the interface's subnet has no way to the Internet
one("tunnel_address_protocol", g4(in4(src="10.213.1.1", dst="10.213.1.0")))
one("ttl_exceeded", g4(in4(ttl=1)))
one("ttl_exceeded", g6(in6(hlim=1)))
one("ttl_exceeded", ip4(udp(), src=N4, dst=B4, proto=17, ttl=0))

syn = lambda *a: g4(in4(tcp(*a), proto=6))
one("inner_tcp_data_offset_below_20_bytes", syn(4))
one("inner_tcp_data_offset_beyond_the_packet", syn(8, b"\1\1\1\1"))
one("inner_tcp_option_without_a_length", syn(6, b"\1\1\1\2"))
one("inner_tcp_option_length_wrong", syn(6, b"\2\1\1\1"))
one("inner_tcp_option_length_wrong", syn(6, b"\3\x28\1\1"))
one("inner_tcp_maximum_segment_size_option_not_4_bytes_long", syn(6, b"\2\3\5\1"))
one("vlan_id_4095_is_reserved", (0x81000fff, g4(in4())))

# Fragments of datagrams that never become whole.
def f4(i, off, n, more): return ip4(b"x" * n, ident=i, frag=(0x2000 if more else 0) | off // 8)
def f6(i, off, n, more): return ip6(frag6(47, off, more, i) + b"x" * n, nh=44)
for f in (f4, f6):
    case("fragment_overlap", lambda i, f=f: [f(i, 0, 32, 1), f(i, 24, 32, 1)], 2)
    case("fragment_end", lambda i, f=f: [f(i, 32, 8, 0), f(i, 48, 8, 1)], 2)
    case("fragment_too_many", lambda i, f=f: [f(i, 16 * n, 8, 1) for n in range(17)], 17)
    case("fragment_too_big", lambda i, f=f: [f(i, 8000, 8, 0)])
    # the same fragment again; the last one then makes a datagram with nothing good in it
    case("fragment_overlap", lambda i, f=f: [f(i, 8, 8, 1), f(i, 0, 16, 1)], 2)

# The kernel's, by class of the steering program.
kernel = []
def passed(cls, frame): kernel.append((cls, frame))
passed("malformed", b"")
passed("malformed", ip4(gre())[:19])
passed("malformed", ip4(gre(in4()), ver=5))
passed("malformed", ip4(udp(), ihl=4, proto=17))
passed("malformed", (0x86dd, ip6(gre())[:39]))
passed("malformed", ip6(b"".join(ext(60) for _ in range(9)) + gre(), nh=60))
passed("malformed", ip6(b"\x2f\0", nh=60))
passed("endpoint_other", ip4(tcp(), proto=6))
passed("endpoint_other", ip4(b"x" * 20, proto=253))
passed("ike", ip4(udp()[:2] + b"\x01\xf4" + udp()[4:], proto=17))
# What RFC 2784 2.3 says to ignore, and RFC 2890's fields where they are not expected: good packets.
good = [ip4(gre(in4(), f)) for f in (0x0008, 0x0080, 0x0200, 0x0100, 0x03f8)]
good += [ip4(gre(struct.pack("!HH", checksum(gre(b"\0\0\0\0" + in4(), 0x8000)), 0) + in4(), 0x8000)), ip4(gre(b"\0\0\0\7" + in4(), 0x1000))]
good += [ip6(ext(47, b"\x04\x01\x04\0\0\0") + gre(in6(), proto=0x86dd), nh=60), ip4(gre(in4()), opts=RR), g4(in4() + b"trailing")]

def framed(f):
    kind = 0x86dd if type(f) is bytes and f and f[0] >> 4 == 6 else 0x800
    if type(f) is tuple:
        kind, f = f
    if kind > 0xffff:
        return struct.pack("!IH", kind, 0x800) + f
    return struct.pack("!H", kind) + f
s = conf.L2socket(iface="n1")
head = bytes.fromhex((DST + SRC).replace(":", ""))
want, classes, sent, ident = {}, {}, 0, 1
def out(f):
    global sent
    s.outs.send(head + framed(f)); sent += 1
# Every case is sent another number of times, so that two that count for each other are found.
for times, (reason, drops, make) in enumerate(cases, 1):
    for _ in range(times):
        ident += 1
        for f in make(ident): out(f)
    want[reason] = want.get(reason, 0) + times * drops
    time.sleep(.002 + .0002 * times * max(drops, 1)) # a worker that is kept waiting must not lose any at its ring
for times, (cls, f) in enumerate(kernel, 1):
    for _ in range(times): out(f)
    classes[cls] = classes.get(cls, 0) + times
for f in good: out(f)
print(json.dumps(dict(want=want, classes=classes, sent=sent, good=len(good), cases=len(cases))))
`

// testHostile puts malformed frames onto the node's link, where no router is before it. Each is dropped for its own reason,
// and the counters come to exactly what tshark saw.
func (b *bed) testHostile(t *testing.T) {
	const forged = "02:00:00:00:66:66"
	drops, frames, steered := b.drops(t), b.balance(t), b.steered(t)
	wire := b.rt.Capture("n1", "ether src "+forged)
	passed := b.rt.Capture("n0", "udp port 9")
	variables := fmt.Sprintf("E4, E6, N4, N6, SRC, DST = %q, %q, %q, %q, %q, %q\n", endpoint4, endpoint6, inet4, inet6, forged, b.node.MAC("eth1"))
	var sent struct {
		Want, Classes     map[string]int
		Sent, Good, Cases int
	}
	if out := b.rt.Scapy(variables + hostileScript); json.Unmarshal([]byte(out), &sent) != nil {
		t.Fatalf("the script printed %s", out)
	}
	seen := len(b.net.Tshark(wire.Stop(), "", "frame.number"))
	if seen != sent.Sent {
		t.Fatalf("%d frames were sent, tshark saw %d", sent.Sent, seen)
	}
	after := b.balance(t)
	got := b.newDrops(t, drops)
	for _, reason := range sortedKeys(got, sent.Want) {
		if got[reason] != sent.Want[reason] {
			t.Errorf("%s: %d packets dropped, want %d", reason, got[reason], sent.Want[reason])
		}
	}
	if good := len(b.net.Tshark(passed.Stop(), "ip.dst == "+inet4+" || ipv6.dst == "+inet6, "frame.number")); good != sent.Good {
		t.Errorf("%d of %d good packets passed", good, sent.Good)
	}
	// Every frame on n1 is the worker's or the kernel's, and every frame of the worker's is in its account. What arrives on
	// the other port meanwhile are the Internet host's answers to good packets.
	classes := b.steered(t)
	toWorker, toKernel, elsewhere := 0, 0, 0
	for at, n := range classes {
		n -= steered[at]
		port, class, _ := strings.Cut(at, " ")
		switch class {
		case "gre", "esp", "esp_in_udp", "fragment", "prefix":
			if port != "eth1" {
				elsewhere += n
				continue
			}
			toWorker += n
		case "malformed", "endpoint_other", "ike":
			if port != "eth1" {
				continue
			}
			toKernel += n
			if n != sent.Classes[class] {
				t.Errorf("the steering program counts %d frames of class %s, want %d", n, class, sent.Classes[class])
			}
		case "no_socket":
			if n != 0 {
				t.Errorf("%d frames found no socket on %s", n, port)
			}
		}
	}
	if toWorker+toKernel != seen {
		t.Errorf("%d frames to the worker and %d to the kernel, tshark saw %d", toWorker, toKernel, seen)
	}
	if received := int(after.Received - frames.Received); received != toWorker+elsewhere {
		t.Errorf("the worker received %d frames of %d", received, toWorker+elsewhere)
	}
	dropped := 0
	for _, n := range got {
		dropped += n
	}
	if n := int(after.Dropped - frames.Dropped); n != dropped || after.Held != 0 {
		t.Errorf("%d frames dropped, the reasons' sum is %d; %d held", n, dropped, after.Held)
	}
	t.Logf("%d cases, %d reasons, %d frames", sent.Cases, len(sent.Want), sent.Sent)
}

// steered counts what arrived by port and class of the steering program.
func (b *bed) steered(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{}
	for _, p := range show[[]api.Port](t, b, "ports") {
		for class, n := range p.Steered {
			m[p.Name+" "+class] = int(n)
		}
	}
	return m
}

// sortedKeys are the keys of both maps, in order.
func sortedKeys(a, b map[string]int) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

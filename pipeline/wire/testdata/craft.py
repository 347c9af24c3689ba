"""Crafts with scapy the packets that TestScapy compares with, as a JSON object of
name -> hexadecimal digits. Needs Debian's python3-scapy."""
import json
import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import (GRE, ICMP, IP, TCP, UDP, ICMPv6DestUnreach, ICMPv6EchoReply,
                       ICMPv6EchoRequest, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6,
                       IPv6ExtHdrFragment, Raw, fragment, fragment6, raw)

packets = {}


def put(name, packet):
    packets[name] = raw(packet).hex()


def load(n):
    return Raw(bytes((i * 13 + 5) & 0xff for i in range(n)))


inner4 = IP(src="10.1.2.3", dst="203.0.113.9", ttl=64, id=77, tos=0x28) / UDP(sport=1234, dport=53) / load(33)
inner6 = IPv6(src="fd00::3", dst="2001:db8:5::9", hlim=64, tc=0x28, fl=0x12345) / UDP(sport=1234, dport=53) / load(33)
big4 = IP(src="10.1.2.3", dst="203.0.113.9", ttl=64, id=78, flags="DF") / UDP(sport=1234, dport=53) / load(1472)
big6 = IPv6(src="fd00::3", dst="2001:db8:5::9", hlim=64) / UDP(sport=1234, dport=53) / load(1452)
put("inner4", inner4)
put("inner6", inner6)
put("big4", big4)
put("big6", big6)
lower = inner4.copy()
lower.ttl = 63
put("inner4-ttl63", lower)

# GRE: every combination of fields, both families inside and outside.
for name, inner, proto in (("inner4", inner4, 0x0800), ("inner6", inner6, 0x86dd)):
    for fields in range(8):
        csum, key, seq = fields >> 2 & 1, fields >> 1 & 1, fields & 1
        gre = GRE(proto=proto, chksum_present=csum, key_present=key, seqnum_present=seq)
        if key:
            gre.key = 0x0a0b0c0d
        if seq:
            gre.seqence_number = 0x00010002  # scapy's spelling
        label = name + "-csum" * csum + "-key" * key + "-seq" * seq
        put("gre4-" + label, IP(src="192.0.2.1", dst="198.51.100.2", ttl=64, id=0, flags="DF", tos=0x28) / gre / inner)
        put("gre6-" + label, IPv6(src="2001:db8::1", dst="2001:db8:1::2", hlim=64, tc=0x28, fl=0x54321) / gre / inner)

# ICMP errors: at most 576 bytes for IPv4 (RFC 1812), 1280 for IPv6 (RFC 4443).
back4 = IP(src="203.0.113.1", dst="10.1.2.3", ttl=64, id=0, flags="DF", tos=0xc0)
for name, icmp in (("frag-needed", ICMP(type=3, code=4, nexthopmtu=1400)), ("ttl", ICMP(type=11, code=0)),
                   ("host", ICMP(type=3, code=1)), ("admin", ICMP(type=3, code=13))):
    for about, packet in (("inner4", inner4), ("big4", big4)):
        put("error4-%s-%s" % (name, about), back4 / icmp / Raw(raw(packet)[:576 - 28]))
back6 = IPv6(src="2001:db8:ff::1", dst="fd00::3", hlim=64)
for name, icmp in (("too-big", ICMPv6PacketTooBig(mtu=1456)), ("ttl", ICMPv6TimeExceeded(code=0)),
                   ("noroute", ICMPv6DestUnreach(code=0))):
    for about, packet in (("inner6", inner6), ("big6", big6)):
        put("error6-%s-%s" % (name, about), back6 / icmp / Raw(raw(packet)[:1280 - 48]))

# Echo and its reply. An echo of zeros has a reply that is zero altogether.
for suffix, ident, seq, data in (("", 0x1234, 7, load(56)), ("-zero", 0, 0, Raw(bytes(8)))):
    put("echo4" + suffix, IP(src="10.1.2.3", dst="10.213.0.10", ttl=17, id=99) / ICMP(type=8, id=ident, seq=seq) / data)
    put("echo4%s-reply" % suffix, IP(src="10.213.0.10", dst="10.1.2.3", ttl=64, id=99) / ICMP(type=0, id=ident, seq=seq) / data)
put("echo6", IPv6(src="fd00::3", dst="fd00:213::a", hlim=17) / ICMPv6EchoRequest(id=1, seq=2, data=b"echo"))
put("echo6-reply", IPv6(src="fd00:213::a", dst="fd00::3", hlim=64) / ICMPv6EchoReply(id=1, seq=2, data=b"echo"))

# MSS clamp.
for suffix, mss in (("", 1460), ("-clamped", 1406)):
    options = [("MSS", mss), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    tcp = TCP(sport=40000, dport=443, flags="S", seq=1, options=options)
    put("syn4" + suffix, IP(src="10.1.2.3", dst="203.0.113.9", id=1) / tcp)
    put("syn6" + suffix, IPv6(src="fd00::3", dst="2001:db8:5::9") / tcp)
    odd = TCP(sport=40000, dport=443, flags="SA", seq=1, options=[("NOP", None), ("MSS", mss), ("NOP", None)])
    put("syn4-odd" + suffix, IP(src="10.1.2.3", dst="203.0.113.9", id=1) / odd)

# Fragments. scapy's fragment6 wants the fragment header in place.
cut4 = IP(src="10.1.2.3", dst="203.0.113.9", id=0x1234) / UDP(sport=1, dport=2) / load(1500)
put("cut4", cut4)
for i, piece in enumerate(fragment(cut4, fragsize=544)):
    put("cut4-%d" % i, piece)
outer6 = IPv6(src="2001:db8::1", dst="2001:db8:1::2", hlim=64)
gre6 = GRE(proto=0x86dd) / Raw(raw(big6))
put("cut6", outer6 / gre6)
for i, piece in enumerate(fragment6(outer6 / IPv6ExtHdrFragment(id=0xdeadbeef) / gre6, 1280)):
    put("cut6-%d" % i, piece)

json.dump(packets, sys.stdout)

#!/usr/bin/python3
"""Crafts with scapy the messages that TestScapy compares with, as a JSON object: names of scapy's tables, and messages by name
as hexadecimal digits. Needs Debian's python3-scapy.

    craft.py >scapy.json
"""
import json
import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
import scapy
from scapy.all import raw
from scapy.contrib import ikev2 as ike

SPII, SPIR = b"\x01\x02\x03\x04\x05\x06\x07\x08", b"\x11\x12\x13\x14\x15\x16\x17\x18"
INITIATOR, VERSION, RESPONSE = 8, 16, 32
ENCR, PRF, INTEG, DH, ESN = 1, 2, 3, 4, 5
messages = {}


def load(n):
    return bytes((i * 13 + 5) & 0xff for i in range(n))


def put(name, exchange, flags, number, payloads, spir=SPIR):
    packet = ike.IKEv2(init_SPI=SPII, resp_SPI=spir, exch_type=exchange, flags=flags, id=number)
    for p, following in zip(payloads, payloads[1:] + [None]):
        if p.next_payload is None:  # scapy fills it in for the header alone
            p.next_payload = kind(following) if following else 0
        packet = packet / p
    packet.next_payload = kind(payloads[0]) if payloads else 0
    messages[name] = raw(packet).hex()


def kind(payload):
    """The number of a payload, by the name of its class."""
    name = type(payload).__name__.removeprefix("IKEv2_payload_").removesuffix("_STR")
    return ike.IKEv2_payload_type.index(name) if name != "IKEv2_payload" else 200


def transforms(*list):
    """(type, id) or (type, id, bits of the key), the last one marked as such."""
    first = None
    for i, t in enumerate(list):
        more = 0 if i == len(list) - 1 else 3
        if len(t) == 3:
            x = ike.IKEv2_payload_Transform(next_payload=more, transform_type=t[0], transform_id=t[1], length=12, key_length=t[2])
        else:
            x = ike.IKEv2_payload_Transform(next_payload=more, transform_type=t[0], transform_id=t[1])
        first = x if first is None else first / x
    return first


def proposals(*list):
    """(number, protocol, SPI, transforms)."""
    first = None
    for i, (number, protocol, spi, algorithms) in enumerate(list):
        x = ike.IKEv2_payload_Proposal(next_payload=0 if i == len(list) - 1 else 2, proposal=number, proto=protocol, SPI=spi, SPIsize=len(spi),
                                       trans_nb=len(algorithms), trans=transforms(*algorithms))
        first = x if first is None else first / x
    return ike.IKEv2_payload_SA(prop=first)


def notify(kind, data=b"", protocol=0, spi=b""):
    return ike.IKEv2_payload_Notify(type=kind, proto=protocol, SPI=spi, load=data, length=8 + len(spi) + len(data))


def v4(protocol, ports, start, end):
    return ike.IPv4TrafficSelector(IP_protocol_ID=protocol, start_port=ports[0], end_port=ports[1],
                                   starting_address_v4=start, ending_address_v4=end)


def v6(protocol, ports, start, end):
    return ike.IPv6TrafficSelector(IP_protocol_ID=protocol, start_port=ports[0], end_port=ports[1], length=40,
                                   starting_address_v6=start, ending_address_v6=end)


def identity(kind, data, responder=False):
    payload = ike.IKEv2_payload_IDr if responder else ike.IKEv2_payload_IDi
    size = {1: 4, 5: 16}.get(kind, len(data))
    return payload(IDtype=kind, ID=data, length=8 + size)


def delete(protocol, spis):
    size = 0 if protocol == 1 else 4
    return ike.IKEv2_payload_Delete(vendorID=bytes([protocol, size, 0, len(spis)]) + b"".join(s.to_bytes(4, "big") for s in spis))


any4 = v4(0, (0, 65535), "0.0.0.0", "255.255.255.255")
any6 = v6(0, (0, 65535), "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

ike_sa = proposals(
    (1, 1, b"", [(ENCR, 20, 256), (ENCR, 28), (ENCR, 20, 128), (PRF, 6), (PRF, 5), (DH, 20), (DH, 31)]),
    (2, 1, b"", [(ENCR, 12, 256), (INTEG, 12), (PRF, 5), (DH, 14)]),
    (3, 1, b"", [(ENCR, 12, 128), (INTEG, 12), (PRF, 5), (DH, 19)]))
init = [ike_sa, ike.IKEv2_payload_KE(group=31, load=load(32)), ike.IKEv2_payload_Nonce(load=load(32)),
        notify(16388, load(20)), notify(16389, load(20)), notify(16430), notify(16431, bytes.fromhex("0002000300040005")),
        ike.IKEv2_payload_VendorID(vendorID=b"a vendor")]
put("IKE_SA_INIT request", 34, INITIATOR, 0, init, bytes(8))
put("IKE_SA_INIT request with a cookie", 34, INITIATOR, 0, [notify(16390, load(17))] + init, bytes(8))
put("IKE_SA_INIT response", 34, RESPONSE, 0, [
    proposals((2, 1, b"", [(ENCR, 12, 256), (INTEG, 12), (PRF, 5), (DH, 14)])),
    ike.IKEv2_payload_KE(group=14, load=load(256)), ike.IKEv2_payload_Nonce(load=load(256))])
put("INVALID_KE_PAYLOAD", 34, RESPONSE, 0, [notify(17, b"\x00\x14")], bytes(8))
put("INVALID_MAJOR_VERSION", 34, RESPONSE | VERSION, 0, [notify(5)])

# tshark takes most certificates apart, so these are URLs (encoding 12).
put("IKE_AUTH request", 35, INITIATOR, 1, [
    identity(2, b"edge.example.net"), ike.IKEv2_payload_CERT_STR(cert_type=12, cert_data=load(20) + b"http://example.net/edge"),
    ike.IKEv2_payload_CERT_STR(cert_type=12, cert_data=load(20) + b"http://example.net/authority"), ike.IKEv2_payload_CERTREQ(cert_type=4, cert_data=load(40)),
    identity(3, b"user@example.net", True), ike.IKEv2_payload_AUTH(auth_type=14, load=load(80)),
    proposals((1, 3, b"\xc0\x00\x00\x01", [(ENCR, 20, 256), (ESN, 1), (ESN, 0)]),
              (2, 3, b"\xc0\x00\x00\x01", [(ENCR, 12, 128), (INTEG, 12), (ESN, 0)])),
    ike.IKEv2_payload_TSi(traffic_selector=[any4, any6]),
    ike.IKEv2_payload_TSr(traffic_selector=[v4(6, (80, 443), "10.1.0.0", "10.1.255.255"), v4(17, (53, 53), "10.2.0.1", "10.2.0.1"),
                                            v6(58, (0x8000, 0x80ff), "2001:db8::", "2001:db8::ffff"),
                                            v4(132, (65535, 0), "10.3.0.0", "10.3.0.255")]),
    notify(16384), notify(16394)])
put("IKE_AUTH response", 35, RESPONSE, 1, [
    identity(1, "192.0.2.1", True), ike.IKEv2_payload_AUTH(auth_type=2, load=load(32)),
    proposals((1, 3, b"\xc0\x00\x00\x02", [(ENCR, 20, 256), (ESN, 0)])),
    ike.IKEv2_payload_TSi(traffic_selector=[any4]), ike.IKEv2_payload_TSr(traffic_selector=[any4]), notify(16386)])
put("AUTHENTICATION_FAILED", 35, RESPONSE, 1, [notify(24)])
put("identities", 35, INITIATOR, 1, [identity(5, "2001:db8::1"), identity(11, load(9), True)])

put("rekey of a child", 36, 0, 7, [
    notify(16393, protocol=3, spi=b"\xc0\x00\x00\x03"), proposals((1, 3, b"\xc0\x00\x00\x04", [(ENCR, 28), (DH, 31), (ESN, 0)])),
    ike.IKEv2_payload_KE(group=31, load=load(32)), ike.IKEv2_payload_Nonce(load=load(16)),
    ike.IKEv2_payload_TSi(traffic_selector=[any4, any6]), ike.IKEv2_payload_TSr(traffic_selector=[any4, any6])])
put("rekey of an IKE SA", 36, INITIATOR, 8, [
    proposals((1, 1, load(8), [(ENCR, 20, 256), (PRF, 6), (DH, 20)])), ike.IKEv2_payload_KE(group=20, load=load(96)),
    ike.IKEv2_payload_Nonce(load=load(48))])
put("CHILD_SA_NOT_FOUND", 36, RESPONSE, 7, [notify(44, protocol=3, spi=b"\xc0\x00\x00\x03")])
put("an additional key exchange", 36, INITIATOR, 9, [
    proposals((1, 3, b"\xc0\x00\x00\x05", [(ENCR, 20, 256), (DH, 20), (ESN, 0), (6, 36), (6, 0), (12, 37)])), ike.IKEv2_payload_Nonce(load=load(32))])
put("deletions", 37, INITIATOR, 10, [delete(3, [0xc0000001, 0xc0000002]), delete(2, [0x1000])])
put("deletion of the IKE SA", 37, INITIATOR | RESPONSE, 11, [delete(1, [])])
put("nothing", 37, 0, 0xffffffff, [])

put("SK", 35, INITIATOR, 1, [ike.IKEv2_payload_Encrypted(next_payload=35, load=load(64))])
put("SK with nothing", 37, RESPONSE, 2, [ike.IKEv2_payload_Encrypted(next_payload=0, load=load(33))])
put("SKF, the first", 35, INITIATOR, 1, [ike.IKEv2_payload_Encrypted_Fragment(next_payload=35, frag_number=1, frag_total=2, load=load(100))])
put("SKF, the second", 35, INITIATOR, 1, [ike.IKEv2_payload_Encrypted_Fragment(next_payload=0, frag_number=2, frag_total=2, load=load(60))])

put("an unknown payload", 37, 0, 3, [ike.IKEv2_payload(next_payload=41, load=load(12)), notify(16384)])
# The critical bit is the highest one; scapy has its name at the lowest.
put("an unknown critical payload", 37, 0, 3, [ike.IKEv2_payload(next_payload=41, flags=0x80, load=load(12)), notify(16384)])
names = {"notify": ike.IKEv2NotifyMessageTypes, "authentication": ike.IKEv2AuthenticationTypes,
         "exchange": {i: n for i, n in enumerate(ike.IKEv2_exchange_type) if n}}
json.dump({"by": f"craft.py with scapy {scapy.__version__ if hasattr(scapy, '__version__') else scapy.VERSION}", "names": names, "messages": messages},
          sys.stdout, indent=1)
print()

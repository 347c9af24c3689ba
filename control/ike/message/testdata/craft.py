"""IKEv2 messages as scapy writes them. Prints a JSON object: name -> message in hexadecimal."""
import json

from scapy.contrib.ikev2 import (
    IKEv2, IKEv2_payload_AUTH, IKEv2_payload_CERT_STR, IKEv2_payload_CERTREQ, IKEv2_payload_Delete,
    IKEv2_payload_Encrypted, IKEv2_payload_Encrypted_Fragment, IKEv2_payload_IDi, IKEv2_payload_IDr,
    IKEv2_payload_KE, IKEv2_payload_Nonce, IKEv2_payload_Notify, IKEv2_payload_Proposal, IKEv2_payload_SA,
    IKEv2_payload_Transform, IKEv2_payload_TSi, IKEv2_payload_TSr, IKEv2_payload_VendorID,
    IPv4TrafficSelector, IPv6TrafficSelector)

# Lengths are given where this version of scapy computes them wrongly.
SPI_I, SPI_R = bytes.fromhex("0102030405060708"), bytes.fromhex("1112131415161718")


def transforms(*list_of):
    """A chain of transforms: (type, id) or (type, id, key length)."""
    chain = None
    for i, t in enumerate(list_of):
        last = i == len(list_of) - 1
        one = IKEv2_payload_Transform(next_payload=0 if last else 3, transform_type=t[0], transform_id=t[1])
        if len(t) > 2:
            one.length, one.key_length = 12, t[2]
        chain = one if chain is None else chain / one
    return chain


TYPES = {"SA": 33, "KE": 34, "IDi": 35, "IDr": 36, "CERT_STR": 37, "CERTREQ": 38, "AUTH": 39, "Nonce": 40, "Notify": 41,
         "Delete": 42, "VendorID": 43, "TSi": 44, "TSr": 45, "Encrypted": 46, "Encrypted_Fragment": 53}


def message(exchange, flags, ident, *payloads):
    kinds = [TYPES[type(p).__name__.removeprefix("IKEv2_payload_")] for p in payloads]
    whole = IKEv2(init_SPI=SPI_I, resp_SPI=SPI_R, exch_type=exchange, flags=flags, id=ident, next_payload=kinds[0])
    for p, after in zip(payloads, kinds[1:] + [None]):
        if after is not None:
            p.next_payload = after
        whole = whole / p
    return bytes(whole).hex()


sa = IKEv2_payload_SA(prop=(
    IKEv2_payload_Proposal(next_payload=2, proposal=1, proto="IKEv2", trans_nb=4,
                           trans=transforms((1, 20, 256), (1, 28), (2, 6), (4, 20))) /
    IKEv2_payload_Proposal(next_payload=0, proposal=2, proto="IKEv2", trans_nb=4,
                           trans=transforms((1, 12, 128), (2, 5), (3, 12), (4, 14)))))
child = IKEv2_payload_SA(prop=IKEv2_payload_Proposal(
    proposal=1, proto="ESP", SPIsize=4, SPI=bytes.fromhex("c0000001"), trans_nb=2, trans=transforms((1, 20, 128), (5, 0))))
v4 = IPv4TrafficSelector(length=16, IP_protocol_ID=6, start_port=80, end_port=443,
                         starting_address_v4="192.0.2.0", ending_address_v4="192.0.2.255")
v6 = IPv6TrafficSelector(length=40, starting_address_v6="2001:db8::", ending_address_v6="2001:db8::ffff")

print(json.dumps({
    "init": message(34, "Initiator", 0,
                    IKEv2_payload_Notify(type=16390, load=b"biscuit"), sa,
                    IKEv2_payload_KE(group=20, load=b"\x09" * 96), IKEv2_payload_Nonce(load=b"\xa5" * 32),
                    IKEv2_payload_Notify(type=16388, load=b"\x01" * 20), IKEv2_payload_VendorID(vendorID=b"scapy")),
    "auth": message(35, "Response", 1,
                    IKEv2_payload_IDi(length=24, IDtype="FQDN", ID=b"edge.example.net"),
                    IKEv2_payload_CERT_STR(cert_type=4, cert_data=b"leaf"),
                    IKEv2_payload_CERTREQ(cert_type=4, cert_data=b"\x07" * 20),
                    IKEv2_payload_IDr(length=12, IDtype="IPv4_addr", ID="192.0.2.1"),
                    IKEv2_payload_AUTH(auth_type=2, load=b"proof"), child,
                    IKEv2_payload_TSi(number_of_TSs=2, traffic_selector=[v4, v6]),
                    IKEv2_payload_TSr(number_of_TSs=1, traffic_selector=[v6])),
    # scapy's own payload for deletions is that of a vendor ID: its body is given
    "delete": message(37, "Initiator+Response", 2,
                      IKEv2_payload_Delete(vendorID=bytes.fromhex("03040002c0000003c0000004")),
                      IKEv2_payload_Delete(vendorID=bytes.fromhex("01000000"))),
    "sealed": message(35, "Initiator", 1, IKEv2_payload_Encrypted(next_payload=35, load=b"\x5a" * 40)),
    "fragment": message(35, "Initiator", 1, IKEv2_payload_Encrypted_Fragment(
        next_payload=0, frag_number=2, frag_total=3, load=b"\x5a" * 40)),
}))

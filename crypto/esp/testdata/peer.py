"""The other end of an association, by scapy: seals and opens ESP packets.

Reads a JSON list of jobs from standard input and prints the list of answers. A job has
  op      seal or open
  suite   as package esp names it
  key     hexadecimal, in the order of `ip xfrm`
  spi, seq, high, esn    numbers; high is the upper half of a 64-bit sequence number
  iv      hexadecimal (seal)
  data    hexadecimal: an IPv4 packet to seal, or an ESP packet to open
The answer is the ESP packet, or the IPv4 packet, in hexadecimal, or "error: ...".
"""
import hashlib
import hmac
import json
import sys

from scapy.layers.inet import IP
from scapy.layers.ipsec import ESP, SecurityAssociation

SUITES = {  # encryption, its key's bytes with the salt, authentication
    "aes128gcm16": ("AES-GCM", 20, None),
    "aes256gcm16": ("AES-GCM", 36, None),
    "chacha20poly1305": ("CHACHA20-POLY1305", 36, None),
    "aes128-sha256": ("AES-CBC", 16, "SHA2-256-128"),
    "aes256-sha256": ("AES-CBC", 32, "SHA2-256-128"),
    "aes128-sha1": ("AES-CBC", 16, "HMAC-SHA1-96"),
    "aes256-sha1": ("AES-CBC", 32, "HMAC-SHA1-96"),
    "null-sha256": ("NULL", 0, "SHA2-256-128"),
    "null-sha1": ("NULL", 0, "HMAC-SHA1-96"),
}
OUTER = dict(src="192.0.2.1", dst="198.51.100.2")


def association(job):
    crypt, size, auth = SUITES[job["suite"]]
    key = bytes.fromhex(job["key"])
    return SecurityAssociation(
        ESP, spi=job["spi"], seq_num=job["seq"], crypt_algo=crypt, crypt_key=key[:size] or None,
        auth_algo=auth, auth_key=key[size:] or None, tunnel_header=IP(**OUTER),
        esn_en=job["esn"], esn=job["high"])


def tags(job, covered):
    """The check values of an HMAC without the upper half of the sequence number and with it (RFC 4303, 2.2.1).

    scapy 2.5.0 leaves it out of ESP, so it is put in here, by Python's own hmac.
    """
    _, size, auth = SUITES[job["suite"]]
    digest, n = {"SHA2-256-128": (hashlib.sha256, 16), "HMAC-SHA1-96": (hashlib.sha1, 12)}[auth]
    key = bytes.fromhex(job["key"])[size:]
    high = job["high"].to_bytes(4, "big")
    return [hmac.new(key, b, digest).digest()[:n] for b in (covered, covered + high)]


def exchange(job, packet, put):
    """Puts one of the two check values in the place of the other, which must be right."""
    if not job["esn"] or SUITES[job["suite"]][2] is None:
        return packet
    n = len(tags(job, b"")[0])
    both = tags(job, packet[:-n])
    if packet[-n:] != both[1 - put]:
        raise ValueError("wrong check value")
    return packet[:-n] + both[put]


def answer(job):
    sa, data = association(job), bytes.fromhex(job["data"])
    if job["op"] == "seal":
        out = sa.encrypt(IP(data), seq_num=job["seq"], iv=bytes.fromhex(job["iv"]) or None, esn_en=job["esn"], esn=job["high"])
        return exchange(job, bytes(out[ESP]), 1).hex()
    packet = IP(bytes(IP(**OUTER, proto=50) / exchange(job, data, 0)))
    return bytes(sa.decrypt(packet, esn_en=job["esn"], esn=job["high"])).hex()


answers = []
for job in json.load(sys.stdin):
    try:
        answers.append(answer(job))
    except Exception as e:  # what scapy raises differs by algorithm
        answers.append("error: %s: %s" % (type(e).__name__, e))
json.dump(answers, sys.stdout)

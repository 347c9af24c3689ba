#!/usr/bin/python3
"""Records what two strongSwan daemons say to each other, as strongswan.json: TestStrongSwan reads it.

    strongswan.py DIR SWAN.SH >strongswan.json

As root. DIR is an empty directory to work in; SWAN.SH is scripts/peers/swan.sh. Needs Debian's strongswan-charon,
libcharon-extra-plugins, strongswan-swanctl, strongswan-pki and tcpdump. Everything happens in two network namespaces whose
names begin with cwmsg and the number of this process.
"""
import json
import os
import re
import struct
import subprocess
import sys
import time

work, swan = os.path.abspath(sys.argv[1]), sys.argv[2]
PREFIX = f"cwmsg{os.getpid()}"
SIDES = {"a": "192.0.2.1", "b": "192.0.2.2"}



def psk(me, it):
    return (f"local {{ auth = psk; id = {me}.example.net }}; remote {{ auth = psk; id = {it}.example.net }}")


def cert(me, it):
    return (f'local {{ auth = pubkey; certs = {me}.pem }}; '
            f'remote {{ auth = pubkey; id = "C=CH, O=Example, CN={it}.example.net"; cacerts = ca.pem }}')


# Of each case: the lines of a's connection and of b's about proofs, proposals of both, those of the children, selectors of
# both, more of charon { }.
CASES = {
    # IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA of both kinds, INFORMATIONAL with deletions.
    "psk": dict(auth=(psk("a", "b"), psk("b", "a")), ike=("aes256gcm16-prfsha384-ecp384",) * 2, esp="aes128gcm16-ecp256",
                ts=("0.0.0.0/0,::/0",) * 2, charon=""),
    # INVALID_KE_PAYLOAD, CBC, several proposals, fragments with certificates, selectors with protocols and ports.
    "cert": dict(auth=(cert("a", "b"), cert("b", "a")), esp="aes256-sha256",
                 ike=("aes128-sha256-curve25519-modp2048,chacha20poly1305-prfsha512-ecp256", "aes128-sha256-modp2048"),
                 ts=("10.1.0.0/16[tcp/80-443],10.2.0.0/24", "10.3.0.0/16[tcp],10.4.0.0/24"), charon="fragment_size = 576"),
    # COOKIE, since there is a half-open SA. The responder does not know the identity: AUTHENTICATION_FAILED.
    "cookie": dict(auth=(psk("x", "b"), psk("b", "a")), ike=("chacha20poly1305-prfsha256-curve25519", "default"),
                   esp="chacha20poly1305", ts=("dynamic",) * 2, charon="cookie_threshold = 1"),
}


def lines(text):
    """A brace, and a semicolon, as the lines that swanctl.conf wants."""
    return text.replace("{", "{\n").replace(";", "\n").replace("}", "\n}")


def sh(*words, **more):
    return subprocess.run(words, check=True, text=True, capture_output=True, **more).stdout


def inside(side, *words):
    return ("ip", "netns", "exec", PREFIX + side) + words


def pki(*words):
    return subprocess.run(("pki",) + words, check=True, capture_output=True).stdout


def make_pki():
    os.makedirs(f"{work}/pki")
    put = lambda name, data: open(f"{work}/pki/{name}", "wb").write(data)
    put("ca.key", pki("--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
    put("ca.pem", pki("--self", "--ca", "--in", f"{work}/pki/ca.key", "--type", "ecdsa", "--dn", "C=CH, O=Example, CN=ca", "--outform", "pem"))
    for side, kind, size in (("a", "ecdsa", "384"), ("b", "rsa", "2048")):
        put(f"{side}.key", pki("--gen", "--type", kind, "--size", size, "--outform", "pem"))
        put(f"{side}.pem", pki("--issue", "--in", f"{work}/pki/{side}.key", "--type", "priv", "--cacert", f"{work}/pki/ca.pem",
                               "--cakey", f"{work}/pki/ca.key", "--dn", f"C=CH, O=Example, CN={side}.example.net",
                               "--san", f"{side}.example.net", "--outform", "pem"))


def configure(case, side, other):
    d = f"{work}/{case}-{side}"
    for sub in ("x509", "x509ca", "private"):
        os.makedirs(f"{d}/{sub}")
    for name, sub in ((f"{side}.pem", "x509"), ("ca.pem", "x509ca"), (f"{side}.key", "private")):
        data = open(f"{work}/pki/{name}", "rb").read()
        open(f"{d}/{sub}/{name}", "wb").write(data)
    c, mine = CASES[case], "ab".index(side)
    open(f"{d}/swanctl.conf", "w").write(f"""
connections {{
  net {{
    version = 2
    local_addrs = {SIDES[side]}
    remote_addrs = {SIDES[other]}
    proposals = {c['ike'][mine]}
    mobike = no
    {lines(c['auth'][mine])}
    children {{
      net {{
        esp_proposals = {c['esp']}
        local_ts = {c['ts'][mine]}
        remote_ts = {c['ts'][1 - mine]}
      }}
    }}
  }}
}}
secrets {{
  ike {{
    secret = "a secret of testdata"
  }}
}}
""")
    open(f"{d}/charon.conf", "w").write(f"""
filelog {{
  f {{
    enc = 4
  }}
}}
{c['charon']}
""")
    return d


def record(case):
    dirs = {side: configure(case, side, "ab".replace(side, "")) for side in SIDES}
    pcap = f"{work}/{case}.pcap"
    tcpdump = subprocess.Popen(inside("a", "tcpdump", "-i", "v", "-U", "-w", pcap, "udp"), stderr=subprocess.DEVNULL)
    time.sleep(1)
    try:
        for side, d in dirs.items():
            sh(swan, "configure", d, "libipsec", f"unix://{d}/vici")
            sh(*inside(side, swan, "run", d), stdin=subprocess.DEVNULL)
            sh(swan, "load", d)
        ctl = lambda side, *words: subprocess.run((swan, "ctl", dirs[side]) + words, capture_output=True, timeout=60)
        if case == "cookie":
            half_open(STRANGER)
        ctl("a", "--initiate", "--child", "net")
        if case != "cookie":
            for side, verb, what in (("b", "--rekey", "--child"), ("a", "--rekey", "--ike"), ("b", "--terminate", "--child"), ("a", "--terminate", "--ike")):
                time.sleep(2)
                ctl(side, verb, what, "net")
        time.sleep(1)
    finally:
        for d in dirs.values():
            sh(swan, "kill", d)
        tcpdump.terminate()
        tcpdump.wait()
    sent = datagrams(pcap)
    for side, d in dirs.items():
        tell(open(d + "/log").read(), [m for m in sent if m["from"] == side])
    return [dict(case=case, **m) for m in sent]


STRANGER = 40500


def half_open(port):
    """Sends the first message of the case before from another port, and forgets about it."""
    first = bytes.fromhex(messages[0]["message"])
    sh(*inside("a", sys.executable, "-c", f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{SIDES['a']}", {port}))
s.sendto(bytes.fromhex("{first.hex()}"), ("{SIDES['b']}", 500))
"""))
    time.sleep(1)


def datagrams(pcap):
    """IKE messages of a capture of Ethernet, IPv4 and UDP, without what the stranger says."""
    data, at, out = open(pcap, "rb").read(), 24, []
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        frame = data[at + 16:at + 16 + size]
        at += 16 + size
        ip = frame[14:]
        udp = ip[(ip[0] & 15) * 4:]
        source, target, length = struct.unpack_from(">HHH", udp)
        body = udp[8:length]
        if source == STRANGER or source == 4500 and body[:4] != bytes(4):
            continue
        side = {a: s for s, a in SIDES.items()}[".".join(map(str, ip[12:16]))]
        out.append({"from": side, "message": body[4 if source == 4500 else 0:].hex()})
    return out


def dumps(log, title):
    """Hexadecimal dumps of a log under a title, with their places in the log."""
    for m in re.finditer(rf"\[ENC\] {title} => \d+ bytes @.*\n((?:.*\[ENC\] +\d+: .*\n)*)", log):
        rows = re.findall(r"\[ENC\] +\d+: ((?:[0-9A-F]{2} )+)", m[1])
        yield m.start(), bytes.fromhex("".join(rows))


def tell(log, sent):
    """Adds what its sender's log says of each message: charon's list of its payloads, and the payloads before encryption."""
    says = re.findall(r"\[ENC\] generating ([A-Z_]+ (?:request|response) \d+ \[.*\])", log)
    whole = None
    it = iter(sent)
    for line in says:
        if "EF(" not in line and is_split(log, line):
            whole = line
            continue
        m = next(it)
        m["says"] = line
        if "EF(1/" in line:
            m["whole"] = whole
    assert next(it, None) is None, "fewer messages in the log than in the capture"
    plain, icv = list(dumps(log, "plain")), list(dumps(log, "ICV"))
    for place, cipher in dumps(log, "encrypted"):
        tail = cipher + next(i for p, i in icv if p > place)
        for m in sent:
            if m["message"].endswith(tail.hex()):
                m["plain"] = [text for p, text in plain if p < place][-1].hex()


def is_split(log, line):
    """Whether what follows the announcement of a message is that it is split."""
    rest = log[log.index(line) + len(line):]
    m = re.search(r"\[ENC\] (splitting IKE message|generating [A-Z_]+ (?:request|response))|\[NET\] sending packet", rest)
    return m is not None and m[1] == "splitting IKE message"


messages = []


def main():
    make_pki()
    try:
        for side in SIDES:
            sh("ip", "netns", "add", PREFIX + side)
        sh("ip", "-n", PREFIX + "a", "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", PREFIX + "b")
        for side, address in SIDES.items():
            sh("ip", "-n", PREFIX + side, "address", "add", address + "/24", "dev", "v")
            sh("ip", "-n", PREFIX + side, "link", "set", "v", "up")
            sh("ip", "-n", PREFIX + side, "link", "set", "lo", "up")
        for case in CASES:
            messages.extend(record(case))
    finally:
        for side in SIDES:
            subprocess.run(("ip", "netns", "del", PREFIX + side))
    version = re.search(r"\(strongSwan ([^,]+)", open(f"{work}/psk-a/log").read())[1]
    json.dump({"by": f"strongswan.py with strongSwan {version}", "messages": messages}, sys.stdout, indent=1)
    print()


main()

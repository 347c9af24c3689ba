package config

// tunnelMistakes are those of tunnels and routes, and of values anywhere.
var tunnelMistakes = []struct{ name, text, want string }{
	{"tunnel without a name", swap(`name: a
    account`, `account`),
		`c.yaml:4:5: tunnels[0]: name is missing: write a name of its own`},
	{"tunnel without endpoints", swap(`    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.2
`, ``),
		`c.yaml:4:5: tunnels[0]: customer_endpoint is missing: write the outer address of the customer's router
c.yaml:4:5: tunnels[0]: endpoint is missing: write one of the addresses under endpoints`},
	{"tunnel name with a slash", swap(`name: a
`, `name: a/b
`),
		`c.yaml:4:11: tunnels[0].name: "a/b" is not a name: 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit`},
	{"tunnel name is an address", swap(`name: a
`, `name: 10.0.0.1
`),
		`c.yaml:4:11: tunnels[0].name: "10.0.0.1" reads as an address, and a route's nexthop could not tell: choose another name`},
	{"tunnel name too long", swap(`name: a
`, `name: nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
`),
		`c.yaml:4:11: tunnels[0].name: "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" is not a name: 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit`},
	{"tunnel type unknown", swap(`account: acme`, `type: vxlan`),
		`c.yaml:5:11: tunnels[0].type: must be gre or ipsec, got "vxlan"`},
	{"ipsec field", field(`replay_window: 1024`),
		`c.yaml:9:5: tunnels[0].replay_window: is for tunnels of type ipsec: write type: ipsec, or remove the field`},
	{"gre field", ipsec("key: 5\n    lab: true", sa),
		`c.yaml:10:5: tunnels[0].key: belongs to GRE: an IPsec tunnel has none; remove the field`},
	{"counter mode with a static key", ipsec(``, sa),
		`c.yaml:9:64: tunnels[0].manual_sas[0].encryption: "aes128gcm16" with a static key is for labs and tests (RFC 4106 2): write lab: true in the tunnel if that is meant`},
	{"null cipher", ipsec(`lab: true`, swapIn(sa, `aes128gcm16`, `null-sha1`)),
		`c.yaml:9:64: tunnels[0].manual_sas[0].encryption: "null-sha1" leaves packets readable: write allow_null_cipher: true in the tunnel if that is meant
c.yaml:9:64: tunnels[0].manual_sas[0].encryption: "null-sha1" uses SHA-1, for old routers alone: write allow_weak: true in the tunnel if that is meant`},
	{"unknown cipher", ipsec(`lab: true`, swapIn(sa, `aes128gcm16`, `des`)),
		`c.yaml:9:64: tunnels[0].manual_sas[0].encryption: must be aes128gcm16, aes256gcm16, chacha20poly1305, aes128-sha256, aes256-sha256, aes128-sha1, aes256-sha1, null-sha256 or null-sha1, got "des"`},
	{"key of a wrong length", ipsec(`lab: true`, swapIn(sa, `aes128gcm16`, `aes256gcm16`)),
		`c.yaml:9:85: tunnels[0].manual_sas[0].key_in: has 20 bytes: this encryption needs 36, in the order of ip xfrm
c.yaml:9:138: tunnels[0].manual_sas[0].key_out: has 20 bytes: this encryption needs 36, in the order of ip xfrm`},
	{"key that is none", ipsec(`lab: true`, swapIn(sa, `"000102`, `"00010g`)),
		`c.yaml:9:85: tunnels[0].manual_sas[0].key_in: is not in hexadecimal digits, two for each byte: behind 5 digits there is something else`},
	{"key in two lines", ipsec(`lab: true`, swapIn(sa, `"000102`, `"00010 2`)),
		`c.yaml:9:85: tunnels[0].manual_sas[0].key_in: is not in hexadecimal digits, two for each byte: behind 5 digits there is a space or a new line; write one line without spaces, as xxd -p -c 64 does`},
	{"key with half a byte", ipsec(`lab: true`, swapIn(sa, `"000102`, `"00010`)),
		`c.yaml:9:85: tunnels[0].manual_sas[0].key_in: is not in hexadecimal digits, two for each byte: there are 39, an odd number`},
	{"path for a key", ipsec(`lab: true`, swapIn(sa, `"000102`, `"/00102`)),
		`c.yaml:9:85: tunnels[0].manual_sas[0].key_in: is not in hexadecimal digits, two for each byte: a path is written {file: PATH}`},
	{"key file that is not there", ipsec(`lab: true`, swapIn(sa, `"000102030405060708090a0b0c0d0e0f10111213"`, `{file: /nonexistent}`)),
		`c.yaml:9:92: tunnels[0].manual_sas[0].key_in.file: "/nonexistent": no such file or directory`},
	{"key file with an odd name", ipsec(`lab: true`, swapIn(sa, `"000102030405060708090a0b0c0d0e0f10111213"`, `{file: "/x\ny"}`)),
		`c.yaml:9:92: tunnels[0].manual_sas[0].key_in.file: "/x\ny": no such file or directory`},
	{"key file that is none", ipsec(`lab: true`, swapIn(sa, `"000102030405060708090a0b0c0d0e0f10111213"`, `{file: /dev/zero}`)),
		`c.yaml:9:92: tunnels[0].manual_sas[0].key_in.file: "/dev/zero": not a file with a key`},
	{"one key for both directions", ipsec(`lab: true`, swapIn(sa, `101112131415161718191a1b1c1d1e1f20212223`, `000102030405060708090a0b0c0d0e0f10111213`)),
		`c.yaml:9:18: tunnels[0].manual_sas[0]: key_in and key_out are the same: with one key for both directions two packets could have one IV; use two keys`},
	{"reserved spi", ipsec(`lab: true`, swapIn(sa, `0x1001`, `255`)),
		`c.yaml:9:27: tunnels[0].manual_sas[0].spi_in: must be a whole number from 256 to 4294967295, got 255`},
	{"two pairs of associations", ipsec(`lab: true`, swapIn(sa, `}]`, `}, {}]`)),
		`c.yaml:9:17: tunnels[0].manual_sas: has 2 elements: write one pair of associations`},
	{"replay window too large", ipsec("lab: true\n    replay_window: 65537", sa),
		`c.yaml:11:20: tunnels[0].replay_window: must be a whole number from 0 to 65536, got 65537`},
	{"selector that is none", ipsec("lab: true\n    selectors: {local: [everything]}", sa),
		`c.yaml:11:25: tunnels[0].selectors.local[0]: "everything" has no prefix length: write one such as 203.0.113.0/24`},
	{"selectors without any", ipsec("lab: true\n    selectors: {remote: []}", sa),
		`c.yaml:11:25: tunnels[0].selectors.remote: is empty: remove the field if anything is meant`},
	{"esn without a window", ipsec("lab: true\n    replay_window: 0", swapIn(sa, `encryption`, `esn: true, encryption`)),
		`c.yaml:9:18: tunnels[0].manual_sas[0]: esn: true needs a replay_window: the upper half of a number, which is not sent, is found with it (RFC 4303 A2); write one from 1 on, or remove esn`},
	{"mtu of ipsec too large", ipsec("lab: true\n    mtu: 1700", sa),
		`c.yaml:11:10: tunnels[0].mtu: 1700 is too large: with 57 bytes of outer headers a frame holds an mtu of at most 1633; jumbo frames are not supported yet`},
	{"replay protection of GRE", field("replay_protection: true"),
		`c.yaml:9:5: tunnels[0].replay_protection: is for tunnels of type ipsec: write type: ipsec, or remove the field`},
	{"odd field twice", field("\"a\\nb\": 1\n    \"a\\nb\": 2"),
		`c.yaml:9:5: tunnels[0]: unknown field "a\nb": allowed are name, account, type, endpoint, customer_endpoint, interface_address, interface_address6, mtu, pmtu, ttl, mss_clamp, df, health_check, bfd, kernel_interface, sampling, prefixes, key, checksum and sequence
c.yaml:10:5: tunnels[0]."a\nb": given twice, first on line 9: remove one`},
	{"field misspelt", field(`checksums: true`),
		`c.yaml:9:5: tunnels[0]: unknown field "checksums": did you mean "checksum"?`},
	{"field of the product's API", field(`customer_gre_endpoint: 198.51.100.2`),
		`c.yaml:9:5: tunnels[0].customer_gre_endpoint: unknown field: here it is customer_endpoint`},
	{"keepalive", field(`keepalive: 10`),
		`c.yaml:9:5: tunnels[0].keepalive: keepalives are answered always, there is nothing to configure: remove the field`},
	{"field twice", field(`account: acme`),
		`c.yaml:9:5: tunnels[0].account: given twice, first on line 5: remove one`},
	{"tunnel endpoint not listed", swap(`endpoint: 192.0.2.1
`, `endpoint: 192.0.2.2
`),
		`c.yaml:6:15: tunnels[0].endpoint: 192.0.2.2 is not one of the endpoints (192.0.2.1, 2001:db8::1): add it there, or use one of them`},
	{"customer endpoint of the other family", swap(`198.51.100.2`, `2001:db8:ffff::2`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: 2001:db8:ffff::2 is IPv6, but endpoint 192.0.2.1 is IPv4: the two ends of a tunnel are of one family`},
	{"customer endpoint is an endpoint", swap(`198.51.100.2`, `192.0.2.1`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: 192.0.2.1 is an endpoint of our own: write the address of the customer's router`},
	{"customer endpoint loopback", swap(`198.51.100.2`, `127.0.0.1`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: 127.0.0.1 is loopback (127.0.0.0/8): it must be a unicast address that routers reach`},
	{"customer endpoint broadcast", swap(`198.51.100.2`, `255.255.255.255`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: 255.255.255.255 is reserved or broadcast (240.0.0.0/4): it must be a unicast address that routers reach`},
	{"customer endpoint mistyped", swap(`198.51.100.2`, `198.51.100.256`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: "198.51.100.256" is not an IP address: write one such as 192.0.2.1 or 2001:db8::1`},
	{"interface address missing", swap(`    interface_address: 10.213.0.10/31
`, ``),
		`c.yaml:4:5: tunnels[0]: interface_address is missing: write our address inside the tunnel, such as 10.213.0.10/31`},
	{"interface address without length", swap(`10.213.0.10/31`, `10.213.0.10`),
		`c.yaml:8:24: tunnels[0].interface_address: "10.213.0.10" has no prefix length: write one such as 10.213.0.10/31`},
	{"interface address a /24", swap(`10.213.0.10/31`, `10.213.0.10/24`),
		`c.yaml:8:24: tunnels[0].interface_address: 10.213.0.10/24 has the length /24: it must be /31, or /30`},
	{"interface address public", swap(`10.213.0.10/31`, `198.51.100.8/31`),
		`c.yaml:8:24: tunnels[0].interface_address: 198.51.100.8/31 is not private: it must be in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 169.254.240.0/20`},
	{"interface address is the network", swap(`10.213.0.10/31`, `10.213.0.8/30`),
		`c.yaml:8:24: tunnels[0].interface_address: 10.213.0.8 is the network or broadcast address of its /30: use 10.213.0.9 or 10.213.0.10`},
	{"interface address in IPv6", swap(`10.213.0.10/31`, `fd00::1/127`),
		`c.yaml:8:24: tunnels[0].interface_address: fd00::1/127 is not IPv4: an IPv6 address goes into interface_address6`},
	{"interface address6 a /64", field(`interface_address6: fd00:213::a/64`),
		`c.yaml:9:25: tunnels[0].interface_address6: fd00:213::a/64 has the length /64: it must be /127`},
	{"interface address6 link-local", field(`interface_address6: fe80::a/127`),
		`c.yaml:9:25: tunnels[0].interface_address6: fe80::a/127 is link-local (fe80::/10): use a unicast address, such as one of fd00::/8`},
	{"interface address6 in IPv4", field(`interface_address6: 10.0.0.1/31`),
		`c.yaml:9:25: tunnels[0].interface_address6: 10.0.0.1/31 is not IPv6: an IPv4 address goes into interface_address`},
	{"mtu too large", field(`mtu: 9000`),
		`c.yaml:9:10: tunnels[0].mtu: 9000 is too large: with 24 bytes of outer headers a frame holds an mtu of at most 1702; jumbo frames are not supported yet`},
	{"mtu one too large with a key", field(`key: 1
    mtu: 1699`),
		`c.yaml:10:10: tunnels[0].mtu: 1699 is too large: with 28 bytes of outer headers a frame holds an mtu of at most 1698; jumbo frames are not supported yet`},
	{"mtu too small", field(`mtu: 575`),
		`c.yaml:9:10: tunnels[0].mtu: 575 is too small: it must be at least 576 bytes (at least 1280 for IPv6 without fragments)`},
	{"mtu is text", field(`mtu: "1476"`),
		`c.yaml:9:10: tunnels[0].mtu: must be a whole number from 576 to 1702, got "1476": remove the quotes`},
	{"mtu with a unit", field(`mtu: 1476 bytes`),
		`c.yaml:9:10: tunnels[0].mtu: must be a whole number from 576 to 1702, got "1476 bytes"`},
	{"mtu huge", field(`mtu: 99999999999999999999`),
		`c.yaml:9:10: tunnels[0].mtu: must be a whole number from 576 to 1702, got "99999999999999999999"`},
	{"mtu with a zero before", field(`mtu: 01476`),
		`c.yaml:9:10: tunnels[0].mtu: 01476 begins with a zero, which some read as octal: write it without`},
	{"pmtu true", field(`pmtu: true`),
		`c.yaml:9:11: tunnels[0].pmtu: must be on or off, got true`},
	{"ttl zero", field(`ttl: 0`),
		`c.yaml:9:10: tunnels[0].ttl: must be a whole number from 1 to 255, got 0`},
	{"ttl too large", field(`ttl: 256`),
		`c.yaml:9:10: tunnels[0].ttl: must be a whole number from 1 to 255, got 256`},
	{"key too large", field(`key: 4294967296`),
		`c.yaml:9:10: tunnels[0].key: must be a whole number from 0 to 4294967295, got 4294967296`},
	{"key a fraction", field(`key: 1.5`),
		`c.yaml:9:10: tunnels[0].key: must be a whole number from 0 to 4294967295, got 1.5`},
	{"checksum a number", field(`checksum: 1`),
		`c.yaml:9:15: tunnels[0].checksum: must be true or false, got 1`},
	{"sequence on", field(`sequence: on`),
		`c.yaml:9:15: tunnels[0].sequence: must be true or false, got "on"`},
	{"mss_clamp a word", field(`mss_clamp: on`),
		`c.yaml:9:16: tunnels[0].mss_clamp: must be auto, off or a number of bytes, got "on"`},
	{"mss_clamp too large", field(`mss_clamp: 1460`),
		`c.yaml:9:16: tunnels[0].mss_clamp: 1460 does not fit: an mtu of 1476 leaves 1436 bytes of TCP in IPv4; write auto or at most that`},
	{"mss_clamp too small", field(`mss_clamp: 40`),
		`c.yaml:9:16: tunnels[0].mss_clamp: 40 is too small: it must be at least 88 bytes`},
	{"df unknown", field(`df: honor`),
		`c.yaml:9:9: tunnels[0].df: must be honour or clear, got "honor"`},
	{"prefixes a prefix", field(`prefixes: 203.0.113.0/24`),
		`c.yaml:9:15: tunnels[0].prefixes: must be a list of prefixes, got "203.0.113.0/24"`},
	{"prefix with host bits", field(`prefixes: [203.0.113.7/24]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 203.0.113.7/24 has bits set beyond its length: write 203.0.113.0/24, or 203.0.113.7/32 for the one address`},
	{"prefix without length", field(`prefixes: [203.0.113.0]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: "203.0.113.0" has no prefix length: write one such as 203.0.113.0/24`},
	{"prefix no prefix", field(`prefixes: [203.0.113.0/33]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: "203.0.113.0/33" is not an address with a prefix length: write one such as 203.0.113.0/24`},
	{"prefix twice", field(`prefixes: [203.0.113.0/24, 203.0.113.0/24]`),
		`c.yaml:9:32: tunnels[0].prefixes[1]: 203.0.113.0/24 is listed twice, first as tunnels[0].prefixes[0]: remove one`},
	{"prefix is all", field(`prefixes: [0.0.0.0/0]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 0.0.0.0/0 would accept any source and attract all traffic: list the customer's prefixes; to send an account's other traffic here write a route`},
	{"prefix partly private", field(`prefixes: [8.0.0.0/6]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 8.0.0.0/6 is public and private, 10.0.0.0/8 lies in it: list the parts apart`},
	{"prefix multicast", field(`prefixes: [239.0.0.0/8]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 239.0.0.0/8 is multicast (224.0.0.0/4): such addresses are not forwarded`},
	{"prefix contains an endpoint", field(`prefixes: [192.0.2.0/24]`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 192.0.2.0/24 contains the endpoint 192.0.2.1 (endpoints[0] on line 2): the fleet's own addresses cannot lie behind a tunnel`},
	{"prefix contains the customer's endpoint", field(`prefixes: [198.51.100.0/24]`),
		`c.yaml:7:24: tunnels[0].customer_endpoint: 198.51.100.2 lies in 198.51.100.0/24 (tunnels[0].prefixes[0] on line 9), which leads into tunnel "a": packets to it would be encapsulated again; use an address outside`},
	{"prefix contains the node", field(`prefixes: [203.0.113.0/24]
node: {address: 203.0.113.9}`),
		`c.yaml:9:16: tunnels[0].prefixes[0]: 203.0.113.0/24 contains node.address 203.0.113.9: the fleet's own addresses cannot lie behind a tunnel`},
	{"tunnel name taken", second(`name: a
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31`),
		`c.yaml:10:11: tunnels[1].name: "a" is taken by tunnels[0].name on line 4: names of tunnels are unique`},
	{"tunnels overlap", second(`name: b
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.12/31`),
		`c.yaml:11:24: tunnels[1].customer_endpoint: 198.51.100.2 with endpoint 192.0.2.1 and no key is the same as tunnel "a" (tunnels[0] on line 4): give one of them another key or endpoint`},
	{"subnet shared by /30 and /31", second(`name: b
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.9/30`),
		`c.yaml:12:24: tunnels[1].interface_address: 10.213.0.9/30 shares its subnet with tunnels[0].interface_address on line 8: each tunnel of an account ("acme") needs one of its own`},
	{"tunnels with one key overlap", field(`key: 7`) + second(`name: b
    key: 7
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.12/31`)[len(base):],
		`c.yaml:13:24: tunnels[1].customer_endpoint: 198.51.100.2 with endpoint 192.0.2.1 and key 7 is the same as tunnel "a" (tunnels[0] on line 4): give one of them another key or endpoint`},
	{"prefix of two tunnels", field(`prefixes: [203.0.113.0/24]`) + second(`name: b
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
    prefixes: [203.0.113.0/24]`)[len(base):],
		`c.yaml:14:16: tunnels[1].prefixes[0]: 203.0.113.0/24 is also a prefix of tunnel "a" (tunnels[0].prefixes on line 9): write a route for it to each of the two, with priorities or weights`},
	{"prefix of two accounts", field(`prefixes: [203.0.113.0/24]`) + second(`name: b
    account: globex
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.10/31
    prefixes: [203.0.113.128/25]`)[len(base):],
		`c.yaml:15:16: tunnels[1].prefixes[0]: 203.0.113.128/25 overlaps 203.0.113.0/24 of account "acme" (tunnels[0].prefixes[0] on line 9): a public prefix belongs to one account; this is "globex"`},
	{"prefix of two peers", field(`prefixes: [10.1.0.0/16]`) + second(`name: b
    account: globex
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.10/31
    prefixes: [10.0.0.0/8]
accounts: [{name: acme, peers: [globex]}, {name: globex, peers: [acme]}]`)[len(base):],
		`c.yaml:15:16: tunnels[1].prefixes[0]: 10.0.0.0/8 overlaps 10.1.0.0/16 of account "acme" (tunnels[0].prefixes[0] on line 9), which is a peer of "globex": end the peering, or use other addresses`},
	{"interface address6 shared", field(`interface_address6: fd00::a/127`) + second(`name: b
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
    interface_address6: fd00::b/127`)[len(base):],
		`c.yaml:14:25: tunnels[1].interface_address6: fd00::b/127 shares its subnet with tunnels[0].interface_address6 on line 9: each tunnel of an account ("acme") needs one of its own`},
	{"route without prefix and next hop", top(`routes: [{priority: 1}]`),
		`c.yaml:9:10: routes[0]: nexthop is missing: write a tunnel's name, or the address of a router
c.yaml:9:10: routes[0]: prefix is missing: write a destination such as 203.0.113.0/24`},
	{"route to a tunnel misspelt", second(`name: cust-b
    account: acme
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
routes: [{prefix: 203.0.113.0/24, nexthop: cust_b}]`),
		`c.yaml:14:44: routes[0].nexthop: there is no tunnel "cust_b": did you mean "cust-b"?`},
	{"one spi twice", ipsec("lab: true", sa+`
  - name: b
    account: acme
    type: ipsec
    lab: true
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
    `+otherKeys(sa)),
		`c.yaml:18:27: tunnels[1].manual_sas[0].spi_in: 0x1001 is taken by tunnels[0].manual_sas[0].spi_in on line 9: packets to this node are told apart by it`},
	{"one spi twice toward a customer", ipsec("lab: true", sa+`
  - name: b
    account: acme
    type: ipsec
    lab: true
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.2
    interface_address: 10.213.0.12/31
    `+otherKeys(swapIn(sa, `0x1001`, `0x1002`))),
		`c.yaml:18:44: tunnels[1].manual_sas[0].spi_out: 0x2001 is taken by tunnels[0].manual_sas[0].spi_out on line 9, of the same customer_endpoint: it tells our packets apart by it`},
	{"one row of sequence numbers", ipsec("allow_null_cipher: true", cbc+`
  - name: b
    account: acme
    type: ipsec
    allow_null_cipher: true
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
    `+swapIn(cbc, `0x1001`, `0x1002`)),
		`c.yaml:18:162: tunnels[1].manual_sas[0].key_out: and spi_out are those of tunnels[0].manual_sas[0].key_out on line 9 too: both would count the same sequence numbers; make a new key`},
	{"a key for a field", ipsec("lab: true", swapIn(sa, `key_in: "`, `"key_in=`)),
		`c.yaml:9:18: tunnels[0].manual_sas[0]: key_in is missing: write a key in hexadecimal digits, or {file: PATH}
c.yaml:9:77: tunnels[0].manual_sas[0]: unknown field "key_in=00... (40 digits, not shown)": allowed are spi_in, spi_out, encryption, key_in, key_out, esn and udp_encap`},
	{"a key for an encryption", ipsec("lab: true", swapIn(sa, `aes128gcm16`, `"000102030405060708090a0b0c0d0e0f10111213"`)),
		`c.yaml:9:64: tunnels[0].manual_sas[0].encryption: must be aes128gcm16, aes256gcm16, chacha20poly1305, aes128-sha256, aes256-sha256, aes128-sha1, aes256-sha1, null-sha256 or null-sha1, got "00... (40 digits, not shown)"`},
	{"one key at two places", ipsec("lab: true", sa+`
  - name: b
    account: acme
    type: ipsec
    lab: true
    endpoint: 192.0.2.1
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.12/31
    `+swapIn(swapIn(swapIn(sa, `0x1001`, `0x1002`), `"000102`, `"555102`), `101112131415161718191a1b1c1d1e1f20212223`, `000102030405060708090a0b0c0d0e0f10111213`)),
		`c.yaml:18:138: tunnels[1].manual_sas[0].key_out: is the key of tunnels[0].manual_sas[0].key_in on line 9 too: two packets could have one IV; make a new key`},
	{"mtu in a list", field(`mtu: [1476]`),
		`c.yaml:9:10: tunnels[0].mtu: must be a whole number from 576 to 1702, got a list`},
	{"mss_clamp with a zero before", field(`mss_clamp: 01400`),
		`c.yaml:9:16: tunnels[0].mss_clamp: 01400 begins with a zero, which some read as octal: write it without`},
	{"route to no tunnel", top(`routes: [{prefix: 203.0.113.0/24, nexthop: cust-b}]`),
		`c.yaml:9:44: routes[0].nexthop: there is no tunnel "cust-b": write a tunnel's name or a router's address`},
	{"route to a host name", top(`routes: [{prefix: 203.0.113.0/24, nexthop: "gw:1"}]`),
		`c.yaml:9:44: routes[0].nexthop: "gw:1" is not an IP address: write one such as 192.0.2.1 or 2001:db8::1`},
	{"route into a tunnel with interface", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, interface: eth0}]`),
		`c.yaml:9:58: routes[0].interface: "eth0": a route into a tunnel has none; remove it`},
	{"route of another account", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, account: globex}]`),
		`c.yaml:9:56: routes[0].account: "globex" is not the account of tunnel "a", which belongs to "acme": remove the field, or choose another tunnel`},
	{"route without an interface", top(`routes: [{prefix: 0.0.0.0/0, nexthop: 192.0.2.254}]`),
		`c.yaml:9:39: routes[0].nexthop: 192.0.2.254 is not the customer's side of a tunnel: for a router on a link add interface`},
	{"route on another interface", top(`routes: [{prefix: 0.0.0.0/0, nexthop: 192.0.2.254, interface: eth1}]`),
		`c.yaml:9:63: routes[0].interface: "eth1" is not one of the interfaces: did you mean "eth0"?`},
	{"route to an endpoint", top(`routes: [{prefix: 0.0.0.0/0, nexthop: 192.0.2.1, interface: eth0}]`),
		`c.yaml:9:39: routes[0].nexthop: 192.0.2.1 is an address of our own: write the address of a router`},
	{"route to the other family", top(`routes: [{prefix: "::/0", nexthop: 192.0.2.254, interface: eth0}]`),
		`c.yaml:9:36: routes[0].nexthop: 192.0.2.254 is IPv4, but prefix ::/0 is IPv6: use a next hop of the same family, or a tunnel's name`},
	{"route to the far end in the other family", top(`routes: [{prefix: "::/0", nexthop: 10.213.0.11}]`),
		`c.yaml:9:36: routes[0].nexthop: 10.213.0.11 is IPv4, but prefix ::/0 is IPv6: use a next hop of the same family, or a tunnel's name`},
	{"route to multicast", top(`routes: [{prefix: 0.0.0.0/0, nexthop: 224.0.0.1, interface: eth0}]`),
		`c.yaml:9:39: routes[0].nexthop: 224.0.0.1 is multicast (224.0.0.0/4): it must be a router's unicast address`},
	{"route of an unknown account", top(`routes: [{prefix: 10.0.0.0/8, nexthop: 192.0.2.254, interface: eth0, account: acm}]`),
		`c.yaml:9:79: routes[0].account: there is no account "acm": did you mean "acme"?`},
	{"route twice", top(`routes:
  - {prefix: 203.0.113.0/24, nexthop: a}
  - {prefix: 203.0.113.0/24, nexthop: 10.213.0.11, weight: 2}`),
		`c.yaml:11:14: routes[1].prefix: 203.0.113.0/24 has this next hop already in routes[0] on line 10: remove one, or change the weight`},
	{"route weight zero", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, weight: 0}]`),
		`c.yaml:9:55: routes[0].weight: must be a whole number from 1 to 256, got 0`},
	{"route weight too large", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, weight: 257}]`),
		`c.yaml:9:55: routes[0].weight: must be a whole number from 1 to 256, got 257`},
	{"route priority negative", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, priority: -1}]`),
		`c.yaml:9:57: routes[0].priority: must be a whole number from 0 to 2147483647, got -1`},
	{"route description", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, description: x}]`),
		`c.yaml:9:47: routes[0]: unknown field "description": allowed are prefix, nexthop, interface, account, priority, weight and scope`},
	{"route to the far end of two tunnels", second(`name: b
    account: globex
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.10/31
routes: [{prefix: 10.0.0.0/8, nexthop: 10.213.0.11}]`),
		`c.yaml:14:40: routes[0].nexthop: 10.213.0.11 is the customer's side of several tunnels, "a" and "b" among them: write the tunnel's name`},
	{"route for another account's prefix", field(`prefixes: [203.0.113.0/24]`) + second(`name: b
    account: globex
    customer_endpoint: 198.51.100.3
    interface_address: 10.213.0.10/31
routes: [{prefix: 203.0.113.64/26, nexthop: b}]`)[len(base):],
		`c.yaml:15:19: routes[0].prefix: 203.0.113.64/26 overlaps 203.0.113.0/24 of account "acme" (tunnels[0].prefixes[0] on line 9): a public prefix belongs to one account; this is "globex"`},
	{"metrics without address", top(`metrics: {}`),
		`c.yaml:9:10: metrics: listen is missing: write an address and port such as 127.0.0.1:9150, or remove the section`},
	{"metrics without a port", top(`metrics: {listen: 127.0.0.1}`),
		`c.yaml:9:19: metrics.listen: "127.0.0.1" is not an address and a port: write one such as 127.0.0.1:9150 or [::1]:9150`},
	{"metrics on a host name", top(`metrics: {listen: "edge-1:9150"}`),
		`c.yaml:9:19: metrics.listen: "edge-1:9150" is not an address and a port: write one such as 127.0.0.1:9150 or [::1]:9150`},
	{"metrics port too large", top(`metrics: {listen: "127.0.0.1:70000"}`),
		`c.yaml:9:19: metrics.listen: "127.0.0.1:70000" is not an address and a port: write one such as 127.0.0.1:9150 or [::1]:9150`},
	{"socket relative", top(`control: {socket: causeway.sock}`),
		`c.yaml:9:19: control.socket: "causeway.sock" is not an absolute path: begin it with /`},
	{"socket path too long", top(`control: {socket: /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}`),
		`c.yaml:9:19: control.socket: "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..." has 108 bytes: a Unix socket's path has at most 107`},
	{"complex key", top(`? a
: b`),
		`c.yaml:9:1: a complex key (?): a field's name is a plain word`},
	{"workers is a list", top(`workers: [1, 2]`),
		`c.yaml:9:10: workers: must be a mapping with cpus or busy_poll, got a list`},
	{"metrics is a word", top(`metrics: on`),
		`c.yaml:9:10: metrics: must be a mapping with listen, got "on"`},
	{"control without a socket", top(`control: {}`),
		`c.yaml:9:10: control: socket is missing: write the path of a Unix socket such as /run/causeway.sock`},
	{"control is a path", top(`control: /run/causeway.sock`),
		`c.yaml:9:10: control: must be a mapping with socket, got "/run/causeway.sock"`},
	{"socket is a number", top(`control: {socket: 7}`),
		`c.yaml:9:19: control.socket: must be an absolute path, got 7`},
	{"listen is a list", top(`metrics: {listen: ["127.0.0.1:9150"]}`),
		`c.yaml:9:19: metrics.listen: must be an address and a port such as 127.0.0.1:9150, got a list`},
	{"node name is a block", top(`node:
  name: |
    edge 1`),
		"c.yaml:10:9: node.name: \"edge 1\\n\" is not a name: 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit"},
	{"weight larger than 64 bits", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, weight: 18446744073709551615}]`),
		`c.yaml:9:55: routes[0].weight: must be a whole number from 1 to 256, got 18446744073709551615`},
	{"weight infinite", top(`routes: [{prefix: 203.0.113.0/24, nexthop: a, weight: .inf}]`),
		`c.yaml:9:55: routes[0].weight: must be a whole number from 1 to 256, got .inf`},
	{"next hop is a number", top(`routes: [{prefix: 203.0.113.0/24, nexthop: 7}]`),
		`c.yaml:9:44: routes[0].nexthop: must be a tunnel's name or an IP address, got 7`},
	{"interface name is a mapping", swap(`name: eth0`, `name: {eth0: all}`),
		`c.yaml:1:21: interfaces[0].name: must be text, got a mapping`},
	{"customer endpoint is this node", swap(`tunnels:
  - name: a`, `node: {address: 198.51.100.2}
tunnels:
  - name: a`),
		`c.yaml:8:24: tunnels[0].customer_endpoint: 198.51.100.2 is this node's own address: write the address of the customer's router`},
	{"an endpoint, but there are none", swap(`[192.0.2.1, "2001:db8::1"]`, `[]`),
		`c.yaml:6:15: tunnels[0].endpoint: 192.0.2.1 is not one of the endpoints: add it there, or use one of them`},
	{"endpoint is a number", swap(`192.0.2.1, `, `7, `),
		`c.yaml:2:13: endpoints[0]: must be an IP address such as 192.0.2.1 or 2001:db8::1, got 7`},
	{"interface address in IPv6 form", swap(`10.213.0.10/31`, `"::ffff:10.213.0.10/127"`),
		`c.yaml:8:24: tunnels[0].interface_address: "::ffff:10.213.0.10/127" is IPv4 in IPv6 form: write it as IPv4`},
	{"interface address is true", swap(`10.213.0.10/31`, `true`),
		`c.yaml:8:24: tunnels[0].interface_address: must be an address with a prefix length such as 10.213.0.10/31, got true`},
	{"interface address6 is a list", field(`interface_address6: [fd00::a/127]`),
		`c.yaml:9:25: tunnels[0].interface_address6: must be an address with a prefix length such as fd00:213::a/127, got a list`},
	{"route of an account far from any", top(`routes: [{prefix: 10.0.0.0/8, nexthop: 192.0.2.254, interface: eth0, account: wholly-different}]`),
		`c.yaml:9:79: routes[0].account: there is no account "wholly-different": allowed are acme`},
	{"route of an account where there is none", `interfaces: [{name: eth0}]
routes: [{prefix: 10.0.0.0/8, nexthop: 192.0.2.254, interface: eth0, account: acme}]
`,
		`c.yaml:2:79: routes[0].account: there is no account "acme": there are none`},
	{"a very long word", top(`xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: 1`),
		`c.yaml:9:1: unknown field "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...": allowed are node, interfaces, workers, endpoints, accounts, tunnels, routes, steering, notify, metrics, control, cluster and analytics`},
	{"several at once, in order", `workers: {cpus: none}
endpoints: [192.0.2.1]
interfaces: [{name: eth0, mod: copy}]
tunnels:
  - {name: a, endpoint: 192.0.2.3, mtu: 100, ttl: 0}
node: {nam: x}
`,
		`c.yaml:1:17: workers.cpus: must be auto or a list of cores such as [0, 1], got "none"
c.yaml:3:27: interfaces[0]: unknown field "mod": did you mean "mode"?
c.yaml:5:5: tunnels[0]: customer_endpoint is missing: write the outer address of the customer's router
c.yaml:5:5: tunnels[0]: interface_address is missing: write our address inside the tunnel, such as 10.213.0.10/31
c.yaml:5:25: tunnels[0].endpoint: 192.0.2.3 is not one of the endpoints (192.0.2.1): add it there, or use one of them
c.yaml:5:41: tunnels[0].mtu: 100 is too small: it must be at least 576 bytes (at least 1280 for IPv6 without fragments)
c.yaml:5:51: tunnels[0].ttl: must be a whole number from 1 to 255, got 0
c.yaml:6:8: node: unknown field "nam": did you mean "name"?`},
}

package main

import (
	"bytes"
	"fmt"
	"net/netip"

	"causeway/config"
	"causeway/control/node"
	"causeway/pipeline"
)

// configuration is the file that an operator would write for a node with that many tunnels, tunnel i toward
// customer(i), with inside(i) behind it.
func configuration(tunnels int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "interfaces: [{name: eth0}]\nendpoints: [%s]\ntunnels:\n", endpoint)
	for i := range tunnels {
		// No packet of the benchmarks is for an interface address: any free /31 will do.
		ours := netip.AddrFrom4([4]byte{172, byte(16 + i>>15), byte(i >> 7), byte(i << 1)})
		fmt.Fprintf(&b, "  - {name: t%d, endpoint: %s, customer_endpoint: %s, interface_address: %s/31, prefixes: [%s]}\n",
			i, endpoint, customer(i), ours, inside(i))
	}
	return b.Bytes()
}

// specOf takes a configuration file the way of the daemon: its parser, its checks, and its own builder of tables.
func specOf(file []byte, links []pipeline.LinkSpec) (*pipeline.Spec, error) {
	c, err := config.Parse("bench.yaml", file)
	if err != nil {
		return nil, err
	}
	return node.SpecOf(c, links), nil
}

package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/goccy/go-yaml/ast"
)

// deviceNameLimit is the longest name of a network interface, in bytes (IFNAMSIZ less the zero at the end).
const deviceNameLimit = 15

// ownDevices are the names of devices that the daemon makes for itself, or that every host has.
var ownDevices = []string{"causeway", "causeway-any", "lo", "all", "default"} // two of them are the kernel's words for all of them

// kernelInterface decodes the name of a tunnel's device, after the tunnel's own name: true takes that one.
func (d *decoder) kernelInterface(f fields, t *Tunnel) {
	v, ok := f.get("kernel_interface")
	if !ok {
		return
	}
	switch node := v.node.(type) {
	case *ast.BoolNode:
		if !node.Value {
			return
		}
		if t.KernelInterface = t.Name; len(t.Name) > deviceNameLimit {
			v.fail("the tunnel's name has %d letters, and that of a device at most %d: write one, kernel_interface: NAME", len(t.Name), deviceNameLimit)
		}
	case *ast.StringNode:
		if s, ok := v.text(); ok && (!validName(s) || len(s) > deviceNameLimit) {
			v.fail("%s is no name of a device: 1 to %d letters, digits, '.', '_' and '-', the first a letter or digit", quote(s), deviceNameLimit)
		} else if ok {
			t.KernelInterface = s
		}
	default:
		v.fail("must be true, or the name of the device that the host shall have for the tunnel, got %s", v)
	}
	if t.KernelInterface != "" && t.InterfaceAddress6.IsValid() && t.MTU < ipv6MinMTU {
		v.fail("IPv6 needs a device of %d bytes at least, and the tunnel's mtu is %d: leave interface_address6 out, or kernel_interface", ipv6MinMTU, t.MTU)
	}
}

// sameDevices finds devices that cannot be on one host: two of a name, or in one subnet.
func (k *checker) sameDevices() {
	names := map[string]string{}
	for _, name := range ownDevices {
		names[name] = ""
	}
	for i, f := range k.c.Interfaces {
		names[f.Name] = k.there(fmt.Sprintf("interfaces[%d].name", i))
	}
	subnets := map[netip.Prefix]string{}
	for i, t := range k.c.Tunnels {
		if t.KernelInterface == "" {
			continue
		}
		path := tunnelPath(i, "kernel_interface")
		if where, taken := names[t.KernelInterface]; taken && where == "" {
			k.fail(path, "%s is taken by the host, or by the daemon itself: write another name", quote(t.KernelInterface))
		} else if taken {
			k.fail(path, "%s is the name of another interface (%s): write another name", quote(t.KernelInterface), where)
		}
		names[t.KernelInterface] = k.there(path)
		for _, p := range []netip.Prefix{t.InterfaceAddress, t.InterfaceAddress6} {
			if !p.IsValid() {
				continue
			}
			for _, h := range halves(p) {
				if where, taken := subnets[h]; taken {
					k.fail(path, "the host cannot tell the routers of two tunnels apart that have interface addresses in %s (%s): give one of them another", h, where)
				}
				subnets[h] = k.there(path)
			}
			if p.Contains(k.c.Node.Address) || slices.ContainsFunc(k.c.Endpoints, p.Contains) {
				k.fail(path, "the host cannot tell the router from itself: node.address or an endpoint lies in the subnet %s of the interface address", p.Masked())
			}
		}
	}
}

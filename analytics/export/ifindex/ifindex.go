// Package ifindex says under which interface numbers collectors of sFlow and IPFIX know tunnels, and what they are told of them.
package ifindex

import (
	"fmt"
	"net/netip"

	"causeway/analytics/flow"
)

// Max is the highest interface number: sFlow has 24 bits for it where it names a source of data (sFlow 5, sflow_data_source).
const Max = 1<<24 - 1

// An Interface is a tunnel as collectors see it. It does not change.
type Interface struct {
	Index    uint32 // 1 to Max; the same tunnel should have the same one after a restart
	Tunnel   *flow.Tunnel
	Local    netip.Addr // endpoint; the zero Addr: not told
	Remote   netip.Addr // customer endpoint, of the same family; the zero Addr: not known
	Protocol uint8      // of the outer IP header: 47 GRE, 50 ESP, 17 ESP in UDP
	Ports    [2]uint16  // local and remote, of ESP in UDP
	Overhead int        // bytes that the tunnel adds to a packet
	Key      uint32     // of GRE
	HasKey   bool
}

// A Table finds interfaces. It does not change, and any goroutine may use it. A nil Table is empty.
type Table struct {
	list []Interface
	byID map[string]*Interface
}

// NewTable makes a table of interfaces; it keeps the list. Indexes and tunnels' ids have to be unique.
func NewTable(list []Interface) (*Table, error) {
	t := &Table{list: list, byID: make(map[string]*Interface, len(list))}
	taken := make(map[uint32]string, len(list))
	for i := range list {
		x := &list[i]
		if x.Tunnel == nil {
			return nil, fmt.Errorf("export: interface %d: no tunnel", x.Index)
		}
		if x.Index == 0 || x.Index > Max {
			return nil, fmt.Errorf("export: tunnel %s: interface number %d: 1 to %d are allowed", x.Tunnel.Name, x.Index, Max)
		}
		if other, ok := taken[x.Index]; ok {
			return nil, fmt.Errorf("export: tunnel %s: interface number %d is that of tunnel %s: choose another", x.Tunnel.Name, x.Index, other)
		}
		if other := t.byID[x.Tunnel.ID]; other != nil {
			return nil, fmt.Errorf("export: tunnel %s: id %s is that of tunnel %s", x.Tunnel.Name, x.Tunnel.ID, other.Tunnel.Name)
		}
		taken[x.Index], t.byID[x.Tunnel.ID] = x.Tunnel.Name, x
	}
	return t, nil
}

// Of returns the interface of a tunnel, or nil for no tunnel and for one that is not in the table.
func (t *Table) Of(x *flow.Tunnel) *Interface {
	if t == nil || x == nil {
		return nil
	}
	return t.byID[x.ID]
}

// All returns the interfaces. The caller must not change them.
func (t *Table) All() []Interface {
	if t == nil {
		return nil
	}
	return t.list
}

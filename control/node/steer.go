package node

import (
	"errors"
	"net/netip"
	"sync"

	"causeway/control/tun"
	"causeway/xsk/bpf"
)

// steering says what the steering program gives to the workers, and with it what the TUN device holds: the kernel's
// view of endpoints and customer prefixes changes together with the workers'.
type steering struct {
	filter *bpf.Filter
	tun    *tun.Device

	mu        sync.Mutex
	on        bool
	endpoints []netip.Addr   // with the node's own address
	local     []netip.Addr   // that the kernel answers for
	prefixes  []netip.Prefix // of tunnels, in the Internet table
}

// start begins to give frames to the workers.
func (s *steering) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = true
	return errors.Join(s.applyEndpoints(), s.applyPrefixes())
}

// stop leaves all frames to the kernel from now on. Those that are on the rings are still the workers'.
func (s *steering) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = false
	return errors.Join(s.filter.SetEndpoints(nil), s.filter.SetPrefixes(nil))
}

func (s *steering) setEndpoints(steered, local []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints, s.local = steered, local
	if !s.on {
		return nil
	}
	return s.applyEndpoints()
}

func (s *steering) setPrefixes(p []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefixes = p
	if !s.on {
		return nil
	}
	return s.applyPrefixes()
}

// The workers take an endpoint's tunnels before the kernel announces by its answers that the endpoint lives here.
func (s *steering) applyEndpoints() error {
	return errors.Join(s.filter.SetEndpoints(s.endpoints), s.tun.SetAddresses(s.local))
}

func (s *steering) applyPrefixes() error {
	return errors.Join(s.filter.SetPrefixes(s.prefixes), s.tun.SetRoutes(s.prefixes))
}

package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/ike"
	"causeway/control/ike/auth"
	"causeway/control/ike/message"
	"causeway/control/ike/suite"
)

// ikeTunnels are those of c whose keys are negotiated. Every mistake in what they name is returned, with its place in the file, in an
// error of type config.Errors. A warning is of what works but not for long.
func ikeTunnels(c *config.Config) (list []*ike.Tunnel, warnings []config.Warning, err error) {
	var mistakes config.Errors
	for i, t := range c.Tunnels {
		if t.IPsec == nil || t.IPsec.IKE == nil {
			continue
		}
		x := ikeTunnel(t, func(field string, err error) {
			if err != nil {
				mistakes = append(mistakes, c.TunnelFault(i, "ike."+field, err))
			}
		})
		list = append(list, x)
		if x.Certificate == nil {
			continue
		}
		if err := x.Certificate.Valid(time.Now()); err != nil { // it is that tunnel's misfortune alone
			warnings = append(warnings, config.Warning(c.TunnelFault(i, "ike.certificate", fmt.Errorf("%w: the tunnel cannot be negotiated", err))))
		}
	}
	if len(mistakes) > 0 {
		return nil, nil, mistakes
	}
	return list, warnings, nil
}

// ikeTunnel is what IKE needs of a tunnel. Mistakes are given to fault; then it is not to be used.
func ikeTunnel(t config.Tunnel, fault func(field string, err error)) *ike.Tunnel {
	k := t.IPsec.IKE
	x := &ike.Tunnel{Name: t.Name, Endpoint: t.Endpoint, Customer: t.CustomerEndpoint, PSK: k.PSK, Local: t.IPsec.Local, Remote: t.IPsec.Remote,
		IKELife: k.Lifetime.IKE, ChildLife: k.Lifetime.Child, ChildPackets: k.Lifetime.Packets, ChildBytes: k.Lifetime.Bytes,
		DPD: k.DPD, Initiate: k.Initiate}
	var err error
	x.LocalID, err = auth.ParseID(k.LocalID)
	fault("local_id", err)
	x.RemoteID, err = auth.ParseID(k.RemoteID)
	fault("remote_id", err)
	// Without a remote_id of its own the peer is known by where it comes from, whatever it calls itself.
	x.AnyID = len(k.PSK) > 0 && t.CustomerEndpoint.IsValid() && k.RemoteID == t.CustomerEndpoint.String()
	if len(k.PSK) == 0 {
		if x.Certificate, err = auth.LoadCertificate(k.Certificate, k.Key); err == nil {
			fault("local_id", x.Certificate.Matches(x.LocalID))
			x.LocalID = x.Certificate.Named(x.LocalID)
		}
		if errors.As(err, &auth.KeyError{}) {
			fault("key", err)
		} else {
			fault("certificate", err)
		}
		x.Trust, err = auth.LoadTrust(k.CA)
		fault("ca", err)
	}
	x.Proposals, err = proposals(k.Proposals, suite.DefaultIKE(k.AllowWeak), func(words string) (message.Proposal, error) {
		return suite.ParseIKE(words, k.AllowWeak)
	})
	fault("proposals", err)
	x.ChildProposals, err = proposals(k.ChildProposals, suite.DefaultESP(k.AllowWeak, t.IPsec.AllowNull), func(words string) (message.Proposal, error) {
		return suite.ParseESP(words, k.AllowWeak, t.IPsec.AllowNull)
	})
	fault("child_proposals", err)
	return x
}

// proposals parses words, or takes what is usual if there are none.
func proposals(words []string, usual []message.Proposal, parse func(string) (message.Proposal, error)) ([]message.Proposal, error) {
	if words == nil {
		return usual, nil
	}
	var list []message.Proposal
	for _, w := range words {
		p, err := parse(w)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// CheckIKE says what is wrong with the certificates, keys and words that c names, as ikeTunnels does.
func CheckIKE(c *config.Config) ([]config.Warning, error) {
	_, warnings, err := ikeTunnels(c)
	return warnings, err
}

// startIKE begins to negotiate. The endpoints' addresses are there: answers come from them.
func (n *Node) startIKE(ctx context.Context, g *group) error {
	n.reloading.Lock() // a configuration of the fleet may be taken over
	defer n.reloading.Unlock()
	if err := n.sockets.Serve(n.ike, ikeEndpoints(n.Config())); err != nil {
		return explain(err)
	}
	tunnels, _, err := ikeTunnels(n.Config()) // which a reload may have changed
	if err != nil {
		return err
	}
	n.ike.SetTunnels(tunnels)
	g.start("ike", func() error { return n.ike.Run(ctx) })
	return nil
}

// negotiate is told another configuration.
func (n *Node) negotiate(c *config.Config, tunnels []*ike.Tunnel) error {
	n.ike.SetTunnels(tunnels)
	return n.sockets.SetEndpoints(ikeEndpoints(c))
}

// ikeEndpoints are the endpoints that something is negotiated at.
func ikeEndpoints(c *config.Config) (list []netip.Addr) {
	for _, t := range c.Tunnels {
		if t.IPsec != nil && t.IPsec.IKE != nil && !slices.Contains(list, t.Endpoint) {
			list = append(list, t.Endpoint)
		}
	}
	return list
}

// IKE shows what is negotiated, in the order of the file.
func (n *Node) IKE() []api.IKE {
	list := []api.IKE{}
	for _, t := range n.Config().Tunnels {
		if t.IPsec == nil || t.IPsec.IKE == nil {
			continue
		}
		views, failure, at := n.ike.Show(t.Name)
		x := api.IKE{Tunnel: t.Name, Failure: failure, SAs: []api.IKESA{}, Elsewhere: []api.IKEElsewhere{}}
		if failure != "" {
			x.FailureAge = time.Since(at).Seconds()
		}
		for _, v := range views {
			x.SAs = append(x.SAs, ikeSA(v))
		}
		for _, o := range n.ike.Elsewhere(t.Name) {
			x.Elsewhere = append(x.Elsewhere, api.IKEElsewhere{SPI: fmt.Sprintf("%016x", o.SPI), Node: o.Node, Gone: o.Where == ike.Vacant})
		}
		list = append(list, x)
	}
	return list
}

func ikeSA(v ike.View) api.IKESA {
	role := "responder"
	if v.Initiator {
		role = "initiator"
	}
	s := api.IKESA{SPIInitiator: fmt.Sprintf("%016x", v.SPIi), SPIResponder: fmt.Sprintf("%016x", v.SPIr), Role: role, State: v.Phase, Suite: v.Suite,
		Local: v.Local.String(), Remote: v.Remote.String(), LocalID: v.LocalID, RemoteID: v.RemoteID, NATLocal: v.NATHere, NATRemote: v.NATThere,
		Children: []api.IKEPair{}}
	if !v.Established.IsZero() {
		s.Age, s.RekeyIn = time.Since(v.Established).Seconds(), time.Until(v.Rekey).Seconds()
	}
	for _, c := range v.Children {
		s.Children = append(s.Children, api.IKEPair{SPIIn: c.SPIIn, SPIOut: c.SPIOut, Suite: c.Suite, Local: c.Local, Remote: c.Remote, State: c.Phase,
			Age: time.Since(c.Made).Seconds(), RekeyIn: time.Until(c.Rekey).Seconds()})
	}
	return s
}

// commandLimit is how long an operator's command waits for the peer.
const commandLimit = 45 * time.Second

// CommandIKE does what the operator wants, and returns when it is done or it cannot be.
func (n *Node) CommandIKE(ctx context.Context, command, tunnel string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	switch command {
	case api.IKEInitiate:
		return n.ike.Initiate(ctx, tunnel)
	case api.IKERekey, api.IKERekeySelf:
		return n.ike.Rekey(ctx, tunnel, command == api.IKERekeySelf)
	case api.IKETerminate:
		return n.ike.Terminate(ctx, tunnel)
	}
	return fmt.Errorf("%q is no command", command)
}

// ExportKeys writes the keys of a tunnel for a while to a new file in the state directory, for its owner alone.
func (n *Node) ExportKeys(tunnel string, span time.Duration) (api.KeyFile, error) {
	path := filepath.Join(n.state.path, fmt.Sprintf("ike-keys-%s-%s.txt", url.PathEscape(tunnel), time.Now().UTC().Format("20060102-150405")))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return api.KeyFile{}, fmt.Errorf("keys of tunnel %s: %w", tunnel, err)
	}
	if err := n.ike.LogKeys(tunnel, f, span); err != nil {
		return api.KeyFile{}, errors.Join(err, os.Remove(path))
	}
	return api.KeyFile{Path: path}, nil
}
